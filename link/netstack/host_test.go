package netstack

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"hvnet/nic"
)

func TestPing(t *testing.T) {
	n := newTestNet(t, GatewayConfig{})
	a, _ := n.host(2), n.host(3)
	for _, addr := range []netip.Addr{
		gateway4.Addr(), gateway6.Addr(), n.gw.router.linkLocal, host4(3), host6(3),
	} {
		rtt, err := a.Ping(soon(t), addr)
		if err != nil {
			t.Errorf("%v", err)
		}
		t.Logf("%s: %v", addr, rtt)
	}
}

// randomBytes is what echoThrough sends.
var randomBytes = sync.OnceValue(func() []byte {
	b := make([]byte, 8<<20)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
})

// echoThrough sends random bytes over c while it reads them back, and compares.
func echoThrough(t testing.TB, c net.Conn, size int) {
	t.Helper()
	data := randomBytes()[:size]
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(data)
		if err == nil {
			err = c.(interface{ CloseWrite() error }).CloseWrite()
		}
		sent <- err
	}()
	got := sha256.New()
	if n, err := io.Copy(got, c); err != nil || n != int64(size) {
		t.Errorf("read %d bytes of %d back: %v", n, size, err)
	}
	if err := <-sent; err != nil {
		t.Errorf("send: %v", err)
	}
	if want := sha256.Sum256(data); [32]byte(got.Sum(nil)) != want {
		t.Error("the bytes that came back are others")
	}
}

func TestHostToHostTCP(t *testing.T) {
	n := newTestNet(t, GatewayConfig{})
	a, b := n.host(2), n.host(3)
	for addr, size := range map[netip.Addr]int{host4(3): 2 << 20, host6(3): 1 << 20} {
		l, err := b.ListenTCP(netip.AddrPortFrom(addr, 5000))
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan struct{})
		go func() {
			defer close(served)
			c, err := l.Accept()
			if err != nil {
				t.Error(err)
				return
			}
			io.Copy(c, c)
			c.Close()
		}()
		c, err := a.DialTCP(soon(t), netip.AddrPortFrom(addr, 5000))
		if err != nil {
			t.Fatal(err)
		}
		echoThrough(t, c, size)
		c.Close()
		<-served
		l.Close()
	}
}

func TestDialRefused(t *testing.T) {
	n := newTestNet(t, GatewayConfig{})
	a, _ := n.host(2), n.host(3)
	if c, err := a.DialTCP(soon(t), netip.AddrPortFrom(host4(3), 1)); err == nil {
		c.Close()
		t.Fatal("connected to a port where nobody listens")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := a.DialTCP(ctx, netip.AddrPortFrom(host4(99), 1)); !errors.Is(err, context.Canceled) {
		t.Fatalf("dial with a cancelled context: %v", err)
	}
}

func ExampleHost() {
	gw, err := NewGateway(GatewayConfig{
		MAC:  nic.MAC{0x00, 0x15, 0x5d, 0x00, 0x00, 0x01},
		IPv4: netip.MustParsePrefix("198.18.0.1/24"),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer gw.Close()
	h, err := NewHost(HostConfig{MAC: nic.MAC{0x00, 0x15, 0x5d, 0x00, 0x00, 0x02}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer h.Close()
	h.Start(gw) // a wire between the two
	gw.Start(h)

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	lease, err := h.DHCP(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("router", lease.Router)
	c, err := h.DialContext(ctx, "tcp", "198.18.0.1:7")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	fmt.Fprintln(c, "hello")
	line, err := bufio.NewReader(c).ReadString('\n')
	fmt.Print(line, err)
	// Output:
	// router 198.18.0.1
	// hello
	// <nil>
}
