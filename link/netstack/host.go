package netstack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"hvnet/nic"
)

// HostConfig says what a Host is.
type HostConfig struct {
	// MAC is the address of the NIC.
	MAC nic.MAC
	// MTU of the NIC in bytes; 0 is 1500.
	MTU int
	// Addrs are the host's addresses with the length of their subnet's prefix.
	// More come by DHCP and, for IPv6, by router advertisements.
	Addrs []netip.Prefix
	// Gateways are the default routers, at most one for IPv4 and one for IPv6.
	Gateways []netip.Addr
	// AcceptRA makes the host take an IPv6 address and a default route from the
	// router advertisements of the link.
	AcceptRA bool
}

// A Host is the TCP/IP stack of a guest within the process: programs without a
// kernel interface use the network by it. It is a nic.Sink for the frames that the
// NIC received. What it sends leaves in one of two ways, of which the owner takes
// one: Start pushes it into a Sink, or a driver pulls it from Source.
type Host struct {
	cfg   HostConfig
	wire  *wire
	stack *stack.Stack
	ndp   *ndpEvents

	leasing atomic.Pointer[LeaseClient] // who is given DHCP replies

	mu     sync.Mutex
	closed bool
	tasks  sync.WaitGroup
}

// NewHost returns a host with the addresses of cfg.
func NewHost(cfg HostConfig) (*Host, error) {
	fail := func(err error) (*Host, error) { return nil, fmt.Errorf("make a host: %w", err) }
	mtu, err := checkLink(cfg.MAC, cfg.MTU)
	if err != nil {
		return fail(err)
	}
	cfg.MTU = mtu
	h := &Host{cfg: cfg, wire: newWire(cfg.MAC, mtu), ndp: newNDPEvents()}
	h.stack, err = newStack(h.wire, h.ndp.options(cfg.AcceptRA))
	if err != nil {
		return fail(err)
	}
	for _, p := range cfg.Addrs {
		if err := h.AddAddr(p); err != nil {
			h.Close()
			return fail(err)
		}
	}
	for _, a := range cfg.Gateways {
		h.SetGateway(a)
	}
	return h, nil
}

// AddAddr gives the host one more address, with the length of its subnet's prefix.
// An address that it has already is no error.
func (h *Host) AddAddr(p netip.Prefix) error {
	if !p.IsValid() || p.Addr().IsMulticast() || p.Addr().IsUnspecified() {
		return fmt.Errorf("add address %s: not the address of a host", p)
	}
	return addAddress(h.stack, p)
}

// SetGateway sends what is for other networks to a, in a's protocol.
func (h *Host) SetGateway(a netip.Addr) {
	all := netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	if a.Is4() {
		all = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	addRoute(h.stack, all, a)
}

// Addrs returns the host's addresses, the link-local one among them.
func (h *Host) Addrs() []netip.Prefix {
	var ps []netip.Prefix
	for _, a := range h.stack.AllAddresses()[nicID] {
		ps = append(ps, netip.PrefixFrom(fromAddress(a.AddressWithPrefix.Address), a.AddressWithPrefix.PrefixLen))
	}
	return ps
}

// WaitAddr waits until the host has an address in p: one that DHCP or a router
// advertisement brings. It returns the address.
func (h *Host) WaitAddr(ctx context.Context, p netip.Prefix) (netip.Addr, error) {
	for {
		changed := h.ndp.changes()
		h.ndp.settle(h.stack)
		for _, a := range h.Addrs() {
			if p.Contains(a.Addr()) {
				return a.Addr(), nil
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return netip.Addr{}, fmt.Errorf("wait for an address in %s: %w", p, ctx.Err())
		}
	}
}

// Start begins to push what the host sends into out, in batches.
func (h *Host) Start(out nic.Sink) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed {
		h.tasks.Go(func() { h.wire.out.pump(out) })
	}
}

// Source returns what the host sends for a driver that takes it when it has room.
func (h *Host) Source() nic.Source { return h.wire.out }

// WriteFrames takes frames that the NIC received. Nothing of them is kept.
func (h *Host) WriteFrames(frames []nic.Frame) {
	if c := h.leasing.Load(); c != nil {
		c.WriteFrames(frames)
	}
	h.wire.deliver(frames, nil)
	h.ndp.settle(h.stack)
}

// queueSink is a Sink that puts frames among those that a stack sends.
type queueSink struct{ q *queue }

func (s queueSink) WriteFrames(frames []nic.Frame) {
	for i := range frames {
		b := make([]byte, frames[i].Len())
		frames[i].CopyTo(b)
		s.q.putFrame(b)
	}
}

// errLeasing refuses a second DHCP exchange at the same time.
var errLeasing = errors.New("DHCP is under way already")

// DHCP obtains a lease and gives the host its address and default route.
func (h *Host) DHCP(ctx context.Context) (Lease, error) {
	c := NewLeaseClient(func() nic.MAC { return h.cfg.MAC }, queueSink{h.wire.out})
	if !h.leasing.CompareAndSwap(nil, c) {
		return Lease{}, fmt.Errorf("obtain a lease: %w", errLeasing)
	}
	defer h.leasing.Store(nil)
	l, err := c.Obtain(ctx)
	if err != nil {
		return Lease{}, fmt.Errorf("obtain a lease: %w", err)
	}
	if err := h.AddAddr(l.Addr); err != nil {
		return Lease{}, err
	}
	if l.Router.IsValid() {
		h.SetGateway(l.Router)
	}
	h.ndp.notify()
	return l, nil
}

// DialTCP connects to addr.
func (h *Host) DialTCP(ctx context.Context, addr netip.AddrPort) (*gonet.TCPConn, error) {
	c, err := gonet.DialContextTCP(ctx, h.stack, toFull(addr), protocolOf(addr.Addr()))
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	return c, nil
}

// ListenTCP accepts connections to addr. An unspecified address means all of the
// host's addresses of the same protocol.
func (h *Host) ListenTCP(addr netip.AddrPort) (*gonet.TCPListener, error) {
	l, err := gonet.ListenTCP(h.stack, toFull(addr), protocolOf(addr.Addr()))
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	return l, nil
}

// DialUDP returns a socket that exchanges datagrams with addr.
func (h *Host) DialUDP(addr netip.AddrPort) (*gonet.UDPConn, error) {
	remote := toFull(addr)
	c, err := gonet.DialUDP(h.stack, nil, &remote, protocolOf(addr.Addr()))
	if err != nil {
		return nil, fmt.Errorf("connect UDP to %s: %w", addr, err)
	}
	return c, nil
}

// ListenUDP returns a socket that receives what is sent to addr; see ListenTCP.
func (h *Host) ListenUDP(addr netip.AddrPort) (*gonet.UDPConn, error) {
	local := toFull(addr)
	c, err := gonet.DialUDP(h.stack, &local, nil, protocolOf(addr.Addr()))
	if err != nil {
		return nil, fmt.Errorf("listen on UDP %s: %w", addr, err)
	}
	return c, nil
}

// DialContext connects to a numeric address, as net.Dialer.DialContext does, for
// "tcp" and "udp". It fits http.Transport and net.Resolver.
func (h *Host) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	switch network {
	case "tcp", "tcp4", "tcp6":
		return h.DialTCP(ctx, ap)
	case "udp", "udp4", "udp6":
		return h.DialUDP(ap)
	}
	return nil, fmt.Errorf("dial %s: %w", address, net.UnknownNetworkError(network))
}

// Stats returns the host's counters.
func (h *Host) Stats() []nic.Stat { return h.wire.stats() }

// Close ends all connections and returns when nothing of the host runs any more.
func (h *Host) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil
	}
	h.closed = true
	h.wire.Attach(nil)
	h.stack.Destroy()
	h.wire.out.close()
	h.tasks.Wait()
	h.wire.out.discard()
	return nil
}
