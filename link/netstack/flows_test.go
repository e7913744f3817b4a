package netstack

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
)

// natPair returns the two ends of a TCP connection from a guest to the machine.
func natPair(t *testing.T, n *testNet, guest *Host) (*gonet.TCPConn, *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err := guest.DialTCP(soon(t), netip.AddrPortFrom(gateway4.Addr(), l.Addr().(*net.TCPAddr).AddrPort().Port()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close() })
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	return near, far.(*net.TCPConn)
}

// TestHalfClose ends one direction while the other goes on, both ways round.
func TestHalfClose(t *testing.T) {
	n := newTestNet(t, GatewayConfig{NAT: true})
	a := n.host(2)
	type end interface {
		net.Conn
		CloseWrite() error
	}
	near, far := natPair(t, n, a)
	near2, far2 := natPair(t, n, a)
	for _, ends := range [][2]end{{near, far}, {far2, near2}} {
		first, last := ends[0], ends[1]
		if _, err := first.Write([]byte("the question")); err != nil {
			t.Fatal(err)
		}
		first.CloseWrite()
		if b, err := io.ReadAll(last); string(b) != "the question" || err != nil {
			t.Errorf("read %q, %v", b, err)
		}
		if _, err := last.Write([]byte("the answer")); err != nil {
			t.Fatal(err)
		}
		last.Close()
		if b, err := io.ReadAll(first); string(b) != "the answer" || err != nil {
			t.Errorf("after half a close: read %q, %v", b, err)
		}
	}
}

// TestReset: what was cut off must not look like what was finished.
func TestReset(t *testing.T) {
	n := newTestNet(t, GatewayConfig{NAT: true})
	near, far := natPair(t, n, n.host(2))
	if _, err := near.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := far.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	far.SetLinger(0)
	far.Close()
	if b, err := io.ReadAll(near); err == nil {
		t.Errorf("the machine reset the connection, the guest read %q and an orderly end", b)
	}
}

// TestGuestGone: the guest resets while the machine takes nothing, so that no read
// or write of the gateway can notice.
func TestGuestGone(t *testing.T) {
	for name, leave := range map[string]func(*testNet, *Host){
		"the guest leaves":   func(_ *testNet, a *Host) { a.Close() },
		"the gateway closes": func(n *testNet, _ *Host) { n.gw.Close() },
	} {
		n := newTestNet(t, GatewayConfig{NAT: true})
		a := n.host(2)
		near, far := natPair(t, n, a)
		near.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		if _, err := near.Write(make([]byte, 64<<20)); !isTimeout(err) {
			t.Fatalf("the way is not full: %v", err)
		}
		leave(n, a)
		ended := make(chan struct{})
		go func() {
			n.gw.flows.wg.Wait()
			close(ended)
		}()
		select {
		case <-ended:
		case <-soon(t).Done():
			t.Errorf("%s: the flow stays", name)
		}
		if _, err := io.Copy(io.Discard, far); err == nil {
			t.Errorf("%s: the machine sees an orderly end", name)
		}
	}
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

func TestFlowLimit(t *testing.T) {
	n := newTestNet(t, GatewayConfig{})
	a := n.host(2)
	hold := func(by int) {
		n.gw.flows.mu.Lock()
		n.gw.flows.active += by
		n.gw.flows.mu.Unlock()
	}
	echo := netip.AddrPortFrom(gateway4.Addr(), portEcho)
	hold(maxFlows)
	if c, err := a.DialTCP(soon(t), echo); err == nil {
		c.Close()
		t.Error("connected over the limit")
	}
	if n.gw.flows.refused.Load() == 0 {
		t.Error("the refusal is not counted")
	}
	hold(-maxFlows)
	c, err := a.DialTCP(soon(t), echo)
	if err != nil {
		t.Fatal(err)
	}
	if got := n.gw.Flows(); got != 1 {
		t.Errorf("%d flows, want 1", got)
	}
	c.Close()
}
