package netstack

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// ndpEvents is told by the stack of a Host what router advertisements bring. The
// stack makes the addresses itself; the routes are left to us. They are noted down
// when the stack calls, which is under its locks, and set by settle.
type ndpEvents struct {
	unsettled atomic.Bool

	mu      sync.Mutex
	pending []func(*stack.Stack)
	changed chan struct{} // closed at the next change
}

func newNDPEvents() *ndpEvents { return &ndpEvents{changed: make(chan struct{})} }

// options returns the IPv6 options of a host.
func (e *ndpEvents) options(acceptRA bool) ipv6.Options {
	if !acceptRA {
		return ipv6.Options{}
	}
	return ipv6.Options{
		NDPDisp: e,
		NDPConfigs: ipv6.NDPConfigurations{
			MaxRtrSolicitations:     3,               // RFC 4861 section 10
			RtrSolicitationInterval: 4 * time.Second, // the same
			HandleRAs:               ipv6.HandlingRAsAlwaysEnabled,
			DiscoverDefaultRouters:  true,
			DiscoverOnLinkPrefixes:  true,
			AutoGenGlobalAddresses:  true,
		},
	}
}

// later notes a change of the routes down.
func (e *ndpEvents) later(change func(*stack.Stack)) {
	e.mu.Lock()
	e.pending = append(e.pending, change)
	e.mu.Unlock()
	e.unsettled.Store(true)
}

// settle makes the changes that were noted down.
func (e *ndpEvents) settle(s *stack.Stack) {
	if !e.unsettled.Load() {
		return
	}
	e.mu.Lock()
	changes := e.pending
	e.pending = nil
	for _, change := range changes {
		change(s)
	}
	e.unsettled.Store(false)
	e.mu.Unlock()
	e.notify()
}

// changes returns a channel that is closed at the next change.
func (e *ndpEvents) changes() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.changed
}

// notify wakes those who wait for a change.
func (e *ndpEvents) notify() {
	e.mu.Lock()
	close(e.changed)
	e.changed = make(chan struct{})
	e.mu.Unlock()
}

// OnOffLinkRouteUpdated implements ipv6.NDPDispatcher.
func (e *ndpEvents) OnOffLinkRouteUpdated(_ tcpip.NICID, dst tcpip.Subnet, router tcpip.Address, _ header.NDPRoutePreference) {
	e.later(func(s *stack.Stack) { addRoute(s, fromSubnet(dst), fromAddress(router)) })
}

// OnOffLinkRouteInvalidated implements ipv6.NDPDispatcher.
func (e *ndpEvents) OnOffLinkRouteInvalidated(_ tcpip.NICID, dst tcpip.Subnet, router tcpip.Address) {
	e.later(func(s *stack.Stack) {
		s.RemoveRoutes(func(r tcpip.Route) bool { return r.Destination == dst && r.Gateway == router })
	})
}

// OnOnLinkPrefixDiscovered implements ipv6.NDPDispatcher.
func (e *ndpEvents) OnOnLinkPrefixDiscovered(_ tcpip.NICID, p tcpip.Subnet) {
	e.later(func(s *stack.Stack) { addRoute(s, fromSubnet(p), netip.Addr{}) })
}

// OnOnLinkPrefixInvalidated implements ipv6.NDPDispatcher.
func (e *ndpEvents) OnOnLinkPrefixInvalidated(_ tcpip.NICID, p tcpip.Subnet) {
	e.later(func(s *stack.Stack) { removeRoute(s, fromSubnet(p)) })
}

// OnAutoGenAddress implements ipv6.NDPDispatcher.
func (e *ndpEvents) OnAutoGenAddress(tcpip.NICID, tcpip.AddressWithPrefix) stack.AddressDispatcher {
	e.later(func(*stack.Stack) {})
	return nil
}

// OnAutoGenAddressDeprecated implements ipv6.NDPDispatcher.
func (e *ndpEvents) OnAutoGenAddressDeprecated(tcpip.NICID, tcpip.AddressWithPrefix) {}

// OnAutoGenAddressInvalidated implements ipv6.NDPDispatcher.
func (e *ndpEvents) OnAutoGenAddressInvalidated(tcpip.NICID, tcpip.AddressWithPrefix) {}

// OnDuplicateAddressDetectionResult implements ipv6.NDPDispatcher.
func (e *ndpEvents) OnDuplicateAddressDetectionResult(tcpip.NICID, tcpip.Address, stack.DADResult) {}

// OnRecursiveDNSServerOption implements ipv6.NDPDispatcher.
func (e *ndpEvents) OnRecursiveDNSServerOption(tcpip.NICID, []tcpip.Address, time.Duration) {}

// OnDNSSearchListOption implements ipv6.NDPDispatcher.
func (e *ndpEvents) OnDNSSearchListOption(tcpip.NICID, []string, time.Duration) {}

// OnDHCPv6Configuration implements ipv6.NDPDispatcher.
func (e *ndpEvents) OnDHCPv6Configuration(tcpip.NICID, ipv6.DHCPv6ConfigurationFromNDPRA) {}
