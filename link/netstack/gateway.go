package netstack

import (
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"hvnet/nic"
)

// GatewayConfig says what a Gateway is.
type GatewayConfig struct {
	// MAC is the address of the gateway on the switch.
	MAC nic.MAC
	// IPv4 and IPv6 are the gateway's address with the length of the prefix that
	// it leases from and advertises. One of them may be the zero Prefix.
	IPv4, IPv6 netip.Prefix
	// MTU of the network in bytes, told to the guests; 0 is 1500.
	MTU int
	// NAT lets guests open TCP connections and send UDP to the network of the
	// machine, and to the machine itself by the gateway's address (its loopback
	// interface is what answers there).
	NAT bool
	// Upstream are the name servers that are asked, each "host:port", in order.
	// Empty: those of /etc/resolv.conf, read again when it changes.
	Upstream []string
	// Log receives what an operator wants to know of; nil: nothing.
	Log *slog.Logger
}

// A Gateway is the router of a virtual network, in user space and without
// privilege. It is a nic.Sink for the frames that the network sends to it.
//
// On its own addresses it serves echo (port 7, TCP and UDP), discard (9), the
// character generator (19, TCP) and DNS (53); with NAT every other port is the
// machine's loopback interface.
type Gateway struct {
	cfg    GatewayConfig
	log    *slog.Logger
	router router
	wire   *wire
	stack  *stack.Stack
	flows  *flows
	dns    *resolver
	leases *leaseTable // nil without IPv4
	advert []byte      // the router advertisement; nil without IPv6

	ignored atomic.Uint64

	mu      sync.Mutex
	started bool
	closed  bool
	tasks   sync.WaitGroup // pump and advertiser
}

// NewGateway returns a gateway that answers once Start was called.
func NewGateway(cfg GatewayConfig) (*Gateway, error) {
	fail := func(err error) (*Gateway, error) { return nil, fmt.Errorf("make a gateway: %w", err) }
	mtu, err := checkLink(cfg.MAC, cfg.MTU)
	if err != nil {
		return fail(err)
	}
	cfg.MTU = mtu
	if !cfg.IPv4.IsValid() && !cfg.IPv6.IsValid() {
		return fail(errNoAddress)
	}
	if p := cfg.IPv4; p.IsValid() && (!p.Addr().Is4() || p.Bits() < 8 || p.Bits() > 30) {
		return fail(fmt.Errorf("IPv4 prefix %s: want an IPv4 address with /8 to /30", p))
	}
	if p := cfg.IPv6; p.IsValid() && (!p.Addr().Is6() || p.Addr().Is4In6() || p.Bits() < 16) {
		return fail(fmt.Errorf("IPv6 prefix %s: want an IPv6 address with /16 or longer", p))
	}
	g := &Gateway{cfg: cfg, log: cfg.Log, wire: newWire(cfg.MAC, mtu)}
	if g.log == nil {
		g.log = slog.New(slog.DiscardHandler)
	}
	g.router = router{v4: cfg.IPv4, v6: cfg.IPv6, linkLocal: linkLocalAddr(g.wire.mac), nat: cfg.NAT}
	g.flows = newFlows()
	g.dns = newResolver(cfg.Upstream)
	if err := g.build(); err != nil {
		return fail(err)
	}
	return g, nil
}

// build makes the stack and what answers beside it.
func (g *Gateway) build() error {
	s, err := newStack(g.wire, ipv6.Options{})
	if err != nil {
		return err
	}
	g.stack = s
	for _, p := range []netip.Prefix{g.cfg.IPv4, g.cfg.IPv6} {
		if !p.IsValid() {
			continue
		}
		if err := addAddress(s, p); err != nil {
			s.Destroy()
			return err
		}
	}
	// Take packets for any address, and answer in their name: that is NAT. What
	// must not be taken never gets here, see router.
	s.SetPromiscuousMode(nicID, true)
	s.SetSpoofing(nicID, true)
	tcpForwarder := tcp.NewForwarder(s, 0, maxHandshakes, g.acceptTCP)
	s.SetTransportProtocolHandler(tcp.ProtocolNumber, tcpForwarder.HandlePacket)
	udpForwarder := udp.NewForwarder(s, g.acceptUDP)
	s.SetTransportProtocolHandler(udp.ProtocolNumber, udpForwarder.HandlePacket)
	if g.cfg.IPv4.IsValid() {
		g.leases = newLeaseTable(g.cfg.MAC, g.cfg.IPv4, g.cfg.MTU)
	}
	if g.cfg.IPv6.IsValid() {
		g.advert = routerAdvert(g.cfg.MAC, g.router.linkLocal, g.cfg.IPv6, g.cfg.MTU)
	}
	return nil
}

// Start begins to send to out: the frames of the gateway, in batches. It is called
// once.
func (g *Gateway) Start(out nic.Sink) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.started || g.closed {
		return
	}
	g.started = true
	g.tasks.Go(func() { g.wire.out.pump(out) })
	if g.advert != nil {
		g.tasks.Go(g.advertise)
	}
}

// advertise sends router advertisements at the default interval of RFC 4861
// section 6.2.1, so that guests which missed the answer to their solicitation and
// those whose router is about to expire hear of it.
func (g *Gateway) advertise() {
	g.wire.out.putFrame(g.advert)
	t := time.NewTicker(advertInterval)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			g.wire.out.putFrame(g.advert)
		case <-g.flows.ctx.Done():
			return
		}
	}
}

// WriteFrames takes frames from the network. Nothing of them is kept.
func (g *Gateway) WriteFrames(frames []nic.Frame) {
	g.wire.deliver(frames, g.admit)
}

// admit reports whether the stack is to have a frame, and answers those that the
// stack does not understand.
func (g *Gateway) admit(f *nic.Frame) bool {
	switch g.router.judge(f.Head) {
	case deliver:
		return true
	case solicit:
		g.wire.out.putFrame(g.advert)
	case lease:
		g.serveLease(f)
	default:
		g.ignored.Add(1)
	}
	return false
}

// serveLease answers a DHCP request.
func (g *Gateway) serveLease(f *nic.Frame) {
	b := make([]byte, f.Len())
	f.CopyTo(b)
	reply, err := g.leases.serve(b, time.Now())
	if err != nil {
		g.log.Debug("gateway: DHCP request ignored", "from", f.Src(), "err", err)
		return
	}
	g.wire.out.putFrame(reply)
}

// Flows returns how many connections and UDP flows there are now.
func (g *Gateway) Flows() int { return g.flows.len() }

// Stats returns the gateway's counters.
func (g *Gateway) Stats() []nic.Stat {
	return append(g.wire.stats(),
		nic.Stat{Name: "rx_ignored", Value: g.ignored.Load()},
		nic.Stat{Name: "flows_opened", Value: g.flows.opened.Load()},
		nic.Stat{Name: "flows_refused", Value: g.flows.refused.Load()},
		nic.Stat{Name: "dns_queries", Value: g.dns.queries.Load()},
		nic.Stat{Name: "dns_failed", Value: g.dns.failed.Load()},
	)
}

// Close ends all flows and returns when nothing of the gateway runs any more.
// Frames that come later are dropped.
func (g *Gateway) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil
	}
	g.closed = true
	g.wire.Attach(nil) // no new flows, and no packet inside the stack
	g.flows.close(g.stack)
	g.stack.Destroy()
	g.wire.out.close()
	g.tasks.Wait()
	g.wire.out.discard()
	return nil
}
