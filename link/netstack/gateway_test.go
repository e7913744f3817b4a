package netstack

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"hvnet/nic"
)

func TestEchoService(t *testing.T) {
	n := newTestNet(t, GatewayConfig{})
	a := n.host(2)
	for addr, size := range map[netip.Addr]int{gateway4.Addr(): 8 << 20, gateway6.Addr(): 1 << 20} {
		c, err := a.DialTCP(soon(t), netip.AddrPortFrom(addr, portEcho))
		if err != nil {
			t.Fatal(err)
		}
		echoThrough(t, c, size)
		c.Close()

		u, err := a.DialUDP(netip.AddrPortFrom(addr, portEcho))
		if err != nil {
			t.Fatal(err)
		}
		for _, size := range []int{1, 1400, 9000} { // the last in fragments
			askUDP(t, u, bytes.Repeat([]byte{byte(size)}, size))
		}
		u.Close()
	}
}

// askUDP sends a datagram and expects the same back.
func askUDP(t testing.TB, c net.Conn, m []byte) {
	t.Helper()
	b := make([]byte, maxDatagram)
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Write(m); err != nil {
		t.Fatal(err)
	}
	got, err := c.Read(b)
	if err != nil || !bytes.Equal(b[:got], m) {
		t.Fatalf("sent %d bytes by UDP, got %d back: %v", len(m), got, err)
	}
}

func TestDiscardAndSource(t *testing.T) {
	n := newTestNet(t, GatewayConfig{})
	a := n.host(2)
	c, err := a.DialTCP(soon(t), netip.AddrPortFrom(gateway4.Addr(), portDiscard))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	c.CloseWrite()
	if b, err := io.ReadAll(c); len(b) != 0 || err != nil {
		t.Errorf("discard sent %d bytes, %v", len(b), err)
	}
	c.Close()

	c, err = a.DialTCP(soon(t), netip.AddrPortFrom(gateway4.Addr(), portSource))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b := make([]byte, 2*74)
	if _, err := io.ReadFull(c, b); err != nil {
		t.Fatal(err)
	}
	const first = ` !"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\]^_` + "`abcdefg\r\n"
	const second = `!"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\]^_` + "`abcdefgh\r\n"
	if string(b) != first+second {
		t.Errorf("character generator:\n%q", b)
	}
}

// TestNAT reaches listeners of the machine: at its loopback address by the name of
// the gateway, over TCP and UDP, IPv4 and IPv6.
func TestNAT(t *testing.T) {
	n := newTestNet(t, GatewayConfig{NAT: true})
	a := n.host(2)
	for _, tt := range []struct {
		machine string
		gateway netip.Addr
		size    int
	}{
		{"127.0.0.1:0", gateway4.Addr(), 2 << 20},
		{"[::1]:0", gateway6.Addr(), 1 << 20},
	} {
		l, err := net.Listen("tcp", tt.machine)
		if err != nil {
			t.Fatal(err)
		}
		var served sync.WaitGroup
		served.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				served.Go(func() { io.Copy(c, c); c.Close() })
			}
		})
		port := l.Addr().(*net.TCPAddr).AddrPort().Port()
		c, err := a.DialTCP(soon(t), netip.AddrPortFrom(tt.gateway, port))
		if err != nil {
			t.Fatal(err)
		}
		echoThrough(t, c, tt.size)
		c.Close()
		l.Close()
		served.Wait()
		if c, err := a.DialTCP(soon(t), netip.AddrPortFrom(tt.gateway, port)); err == nil {
			c.Close()
			t.Error("connected to a port where nobody listens any more")
		}

		pc, err := net.ListenPacket("udp", tt.machine)
		if err != nil {
			t.Fatal(err)
		}
		served.Go(func() { echoPackets(pc) })
		u, err := a.DialUDP(netip.AddrPortFrom(tt.gateway, pc.LocalAddr().(*net.UDPAddr).AddrPort().Port()))
		if err != nil {
			t.Fatal(err)
		}
		askUDP(t, u, []byte("hello"))
		askUDP(t, u, bytes.Repeat([]byte{7}, 4000))
		u.Close()
		pc.Close()
		served.Wait()
	}
}

func echoPackets(c net.PacketConn) {
	b := make([]byte, maxDatagram)
	for {
		n, from, err := c.ReadFrom(b)
		if err != nil {
			return
		}
		c.WriteTo(b[:n], from)
	}
}

func TestWithoutNAT(t *testing.T) {
	n := newTestNet(t, GatewayConfig{})
	a := n.host(2)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).AddrPort().Port()
	if c, err := a.DialTCP(soon(t), netip.AddrPortFrom(gateway4.Addr(), port)); err == nil {
		c.Close()
		t.Error("reached the machine without NAT")
	}
}

func TestManyConnections(t *testing.T) {
	n := newTestNet(t, GatewayConfig{})
	hosts := []*Host{n.host(2), n.host(3), n.host(4)}
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			c, err := hosts[i%len(hosts)].DialTCP(soon(t), netip.AddrPortFrom(gateway4.Addr(), portEcho))
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			echoThrough(t, c, 64<<10)
		})
	}
	all.Wait()
}

// TestCloseWhileBusy closes the gateway and then a host in the middle of transfers;
// that nothing stays behind is checked at the end of all tests.
func TestCloseWhileBusy(t *testing.T) {
	n := newTestNet(t, GatewayConfig{NAT: true})
	a := n.host(2)
	var all sync.WaitGroup
	var flowing sync.WaitGroup
	for i := range 10 {
		flowing.Add(1)
		all.Go(func() {
			c, err := a.DialTCP(soon(t), netip.AddrPortFrom(gateway4.Addr(), portSource))
			if err != nil {
				t.Error(err)
				flowing.Done()
				return
			}
			defer c.Close()
			b := make([]byte, 100)
			if _, err := io.ReadFull(c, b); err != nil {
				t.Error(err)
			}
			flowing.Done()
			if i%2 == 0 {
				c.SetReadDeadline(time.Now().Add(time.Minute))
			}
			io.Copy(io.Discard, c)
		})
	}
	flowing.Wait()
	n.gw.Close()
	n.gw.Close()
	a.Close()
	all.Wait()
}

func TestGatewayConfig(t *testing.T) {
	good := GatewayConfig{MAC: gatewayMAC, IPv4: gateway4, IPv6: gateway6}
	for name, change := range map[string]func(*GatewayConfig){
		"no address":       func(c *GatewayConfig) { c.IPv4, c.IPv6 = netip.Prefix{}, netip.Prefix{} },
		"no MAC":           func(c *GatewayConfig) { c.MAC = nic.MAC{} },
		"group MAC":        func(c *GatewayConfig) { c.MAC = nic.Broadcast },
		"small MTU":        func(c *GatewayConfig) { c.MTU = 576 },
		"large MTU":        func(c *GatewayConfig) { c.MTU = 65536 },
		"IPv6 for IPv4":    func(c *GatewayConfig) { c.IPv4 = gateway6 },
		"IPv4 for IPv6":    func(c *GatewayConfig) { c.IPv6 = gateway4 },
		"no room in IPv4":  func(c *GatewayConfig) { c.IPv4 = netip.MustParsePrefix("198.18.0.1/31") },
		"everything is v4": func(c *GatewayConfig) { c.IPv4 = netip.MustParsePrefix("198.18.0.1/0") },
	} {
		cfg := good
		change(&cfg)
		if g, err := NewGateway(cfg); err == nil {
			g.Close()
			t.Errorf("%s: accepted", name)
		}
	}
	for _, only := range []GatewayConfig{
		{MAC: gatewayMAC, IPv4: gateway4, MTU: 1280},
		{MAC: gatewayMAC, IPv6: gateway6, MTU: 65535},
	} {
		g, err := NewGateway(only)
		if err != nil {
			t.Error(err)
			continue
		}
		g.Close()
	}
}

func ExampleGateway() {
	gw, err := NewGateway(GatewayConfig{
		MAC:  nic.MAC{0x00, 0x15, 0x5d, 0x00, 0x00, 0x01},
		IPv4: netip.MustParsePrefix("198.18.0.1/24"),
		NAT:  true,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer gw.Close()
	var h hub // any switch
	gw.Start(h.connect(gw))
	fmt.Println(gw.Flows(), "flows")
	// Output: 0 flows
}
