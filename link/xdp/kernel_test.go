package xdp

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"hvnet/internal/packets"
)

// address gives an interface of the calling thread's namespace an address, and sets it up.
func address(name, cidr string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	a, err := netlink.ParseAddr(cidr)
	if err != nil {
		return err
	}
	return errors.Join(netlink.AddrAdd(l, a), netlink.LinkSetUp(l))
}

// elsewhere makes a network namespace that ends with the test, and returns what calls
// functions in it.
func elsewhere(t *testing.T) (call func(func(namespace *os.File) error) error) {
	t.Helper()
	calls, errs := make(chan func(*os.File) error), make(chan error)
	t.Cleanup(func() { close(calls) })
	go func() {
		runtime.LockOSThread() // for good: the namespace ends with the thread
		err := unix.Unshare(unix.CLONE_NEWNET)
		namespace, noFile := os.Open("/proc/thread-self/ns/net")
		err = errors.Join(err, noFile)
		for f := range calls {
			if err == nil {
				errs <- f(namespace)
			} else {
				errs <- err
			}
		}
		namespace.Close() // nil is no file, and does nothing
	}()
	return func(f func(*os.File) error) error {
		calls <- f
		return <-errs
	}
}

// TestTCP has kernels talk TCP through two links, each of which sends what the other
// receives: connections stand, bytes come as they were, both ways.
func TestTCP(t *testing.T) {
	enter(t)
	veth(t, "a0", "a1", 1500, 1)
	veth(t, "b0", "b1", 1500, 1)
	check(t, address("a0", "192.0.2.1/24"))
	b0 := iface(t, "b0")
	there := elsewhere(t)
	var fd int
	check(t, there(func(namespace *os.File) error { fd = int(namespace.Fd()); return nil }))
	check(t, netlink.LinkSetNsFd(b0, fd))
	var l net.Listener
	check(t, there(func(*os.File) (err error) {
		if err := address("b0", "192.0.2.2/24"); err != nil {
			return err
		}
		l, err = net.Listen("tcp", "192.0.2.2:7")
		return err
	}))
	defer l.Close()

	a, b := open(t, "a1"), open(t, "b1")
	running(t, "a1")
	running(t, "b1")
	ended := make(chan error, 2)
	go func() { ended <- a.Receive(b) }()
	go func() { ended <- b.Receive(a) }()

	go func() { // an echo
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		io.Copy(c, c)
	}()
	c, err := (&net.Dialer{Timeout: 30 * time.Second}).Dial("tcp", "192.0.2.2:7")
	check(t, err)
	defer c.Close()
	c.SetDeadline(time.Now().Add(60 * time.Second))
	sent := packets.Random(4 << 20)
	go func() {
		c.Write(sent)
		c.(*net.TCPConn).CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes came back, %v", len(got), len(sent), err)
	}
	a.Close()
	b.Close()
	for range 2 {
		if err := <-ended; err != net.ErrClosed {
			t.Errorf("Receive ended with %v", err)
		}
	}
}
