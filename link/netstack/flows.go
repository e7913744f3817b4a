package netstack

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// Bounds of what guests can make the gateway hold.
const (
	maxFlows      = 2048 // TCP connections and UDP flows together
	maxHandshakes = 512  // TCP connections that are not established yet
	dialTimeout   = 10 * time.Second
	udpIdle       = 60 * time.Second // RFC 4787 REQ-5 allows less than 2 minutes only for known ports
	maxDatagram   = 65535
)

// flows keeps count of what runs for the guests and ends it.
type flows struct {
	ctx    context.Context
	cancel context.CancelFunc

	mu     sync.Mutex
	active int
	closed bool
	wg     sync.WaitGroup

	opened, refused atomic.Uint64
}

func newFlows() *flows {
	f := &flows{}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	return f
}

// begin counts a new flow in. False: there are too many, or the gateway closes.
func (f *flows) begin() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || f.active >= maxFlows {
		f.refused.Add(1)
		return false
	}
	f.active++
	f.wg.Add(1)
	f.opened.Add(1)
	return true
}

// end counts a flow out.
func (f *flows) end() {
	f.mu.Lock()
	f.active--
	f.mu.Unlock()
	f.wg.Done()
}

func (f *flows) len() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.active
}

// close ends all flows and waits for them.
func (f *flows) close(s *stack.Stack) {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.cancel()
	gone := make(chan struct{})
	go func() {
		f.wg.Wait()
		close(gone)
	}()
	// A handshake ends only when its endpoint is aborted, and one may be about
	// to begin: abort until none is left.
	t := time.NewTicker(10 * time.Millisecond)
	defer t.Stop()
	for {
		for _, e := range s.RegisteredEndpoints() {
			e.Abort()
		}
		select {
		case <-gone:
			return
		case <-t.C:
		}
	}
}

// target is where NAT takes a flow for dst: the gateway itself stands for the
// machine, reached at its loopback address.
func (g *Gateway) target(dst netip.AddrPort) netip.AddrPort {
	if !g.router.own(dst.Addr()) {
		return dst
	}
	if dst.Addr().Is4() {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), dst.Port())
	}
	return netip.AddrPortFrom(netip.IPv6Loopback(), dst.Port())
}

// destination returns the address and port that a guest called.
func destination(id stack.TransportEndpointID) netip.AddrPort {
	return netip.AddrPortFrom(fromAddress(id.LocalAddress), id.LocalPort)
}

// acceptTCP runs one TCP connection, from the SYN to the end. NAT dials before it
// answers, so that a guest sees a refusal as a refusal.
func (g *Gateway) acceptTCP(r *tcp.ForwarderRequest) {
	if !g.flows.begin() {
		r.Complete(true)
		return
	}
	defer g.flows.end()
	dst := destination(r.ID())
	var serve func(net.Conn)
	if g.router.own(dst.Addr()) {
		serve = g.tcpService(dst.Port())
	}
	var far *net.TCPConn
	if serve == nil {
		if !g.cfg.NAT {
			r.Complete(true)
			return
		}
		d := net.Dialer{Timeout: dialTimeout}
		c, err := d.DialContext(g.flows.ctx, "tcp", g.target(dst).String())
		if err != nil {
			g.log.Debug("gateway: TCP connection refused to a guest", "to", dst, "err", err)
			r.Complete(true)
			return
		}
		far = c.(*net.TCPConn)
		serve = func(near net.Conn) { splice(near.(*guestConn), far) }
	}
	var wq waiter.Queue
	ep, err := r.CreateEndpoint(&wq)
	if err != nil {
		if far != nil {
			far.Close()
		}
		r.Complete(true)
		return
	}
	r.Complete(false)
	keepAlive(ep)
	near := &guestConn{TCPConn: gonet.NewTCPConn(&wq, ep), ep: ep, wq: &wq}
	stop := context.AfterFunc(g.flows.ctx, near.abort)
	serve(near)
	stop()
	near.Close()
}

// guestConn is the end of a TCP connection that faces the guest.
type guestConn struct {
	*gonet.TCPConn
	ep tcpip.Endpoint
	wq *waiter.Queue
}

// abort resets the connection and ends reads and writes of it.
func (c *guestConn) abort() { c.ep.Abort() }

// watch calls lost when the connection is reset from either side, even if nobody
// reads or writes. The returned function ends that.
func (c *guestConn) watch(lost func()) (stop func()) {
	entry, event := waiter.NewChannelEntry(waiter.EventHUp | waiter.EventErr)
	c.wq.EventRegister(&entry)
	done := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		for tcp.EndpointState(c.ep.State()) != tcp.StateError {
			select {
			case <-event:
			case <-done:
				return
			}
		}
		lost()
	})
	return func() {
		close(done)
		watching.Wait()
		c.wq.EventUnregister(&entry)
	}
}

// keepAlive makes the connection of a guest that is gone end after some minutes.
func keepAlive(ep tcpip.Endpoint) {
	ep.SocketOptions().SetKeepAlive(true)
	idle, interval := tcpip.KeepaliveIdleOption(time.Minute), tcpip.KeepaliveIntervalOption(30*time.Second)
	ep.SetSockOpt(&idle)
	ep.SetSockOpt(&interval)
	ep.SetSockOptInt(tcpip.KeepaliveCountOption, 4)
}

// splice copies both ways until both are done. The end of one direction is passed
// on as such; a reset is passed on as a reset, at once, though the other side may
// neither send nor take anything.
func splice(near *guestConn, far *net.TCPConn) {
	defer far.Close()
	cut := func() {
		far.SetLinger(0)
		far.Close()
	}
	defer near.watch(cut)()
	var outward sync.WaitGroup
	outward.Go(func() {
		if _, err := io.Copy(far, near.TCPConn); err != nil || far.CloseWrite() != nil {
			cut()
			near.abort()
		}
	})
	if _, err := io.Copy(near.TCPConn, far); err != nil || near.CloseWrite() != nil {
		cut()
		near.abort()
	}
	outward.Wait()
}

// acceptUDP begins a flow with the first datagram of a pair of addresses. False
// makes the stack answer "port unreachable".
func (g *Gateway) acceptUDP(r *udp.ForwarderRequest) bool {
	dst := destination(r.ID())
	var serve func(net.Conn)
	if g.router.own(dst.Addr()) {
		serve = g.udpService(dst.Port())
	}
	if serve == nil {
		if !g.cfg.NAT {
			return false
		}
		serve = func(near net.Conn) { g.carryUDP(near, g.target(dst)) }
	}
	if !g.flows.begin() {
		return true
	}
	var wq waiter.Queue
	ep, err := r.CreateEndpoint(&wq)
	if err != nil {
		g.flows.end()
		return true
	}
	go func() {
		defer g.flows.end()
		near := gonet.NewUDPConn(&wq, ep)
		defer near.Close()
		defer context.AfterFunc(g.flows.ctx, func() { near.Close() })()
		serve(near)
	}()
	return true
}

// carryUDP exchanges datagrams with dst until neither side has sent for udpIdle.
func (g *Gateway) carryUDP(near net.Conn, dst netip.AddrPort) {
	far, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(dst))
	if err != nil {
		g.log.Debug("gateway: UDP flow refused to a guest", "to", dst, "err", err)
		return
	}
	defer context.AfterFunc(g.flows.ctx, func() { far.Close() })()
	var busy atomic.Bool
	var outward sync.WaitGroup
	outward.Go(func() {
		carryDatagrams(far, near, &busy)
		far.Close()
	})
	carryDatagrams(near, far, &busy)
	near.Close()
	far.Close()
	outward.Wait()
}

// carryDatagrams copies datagrams until src fails or nothing marked busy for a
// whole period. The deadline is renewed per period, not per datagram.
func carryDatagrams(dst, src net.Conn, busy *atomic.Bool) {
	b := make([]byte, maxDatagram)
	src.SetReadDeadline(time.Now().Add(udpIdle))
	for {
		n, err := src.Read(b)
		if e, ok := err.(net.Error); ok && e.Timeout() && busy.Swap(false) {
			src.SetReadDeadline(time.Now().Add(udpIdle))
			continue
		}
		if err != nil {
			return
		}
		busy.Store(true)
		// A datagram that cannot be sent is lost, like any other.
		dst.Write(b[:n])
	}
}
