package guest_test

import (
	"context"
	"errors"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"hvnet/guest"
	"hvnet/host"
	"hvnet/internal/need"
	"hvnet/link/netstack"
	"hvnet/link/tap"
	"hvnet/nic"
	"hvnet/sandbox"
)

// counted counts frames.
type counted struct{ atomic.Int32 }

func (c *counted) WriteFrames(frames []nic.Frame) { c.Add(int32(len(frames))) }

func address(n byte) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, 8, n}), 24)
}

// A kernel interface is joined to a guest's NIC, left, and joined again.
func TestJoin(t *testing.T) {
	need.Root(t)
	runtime.LockOSThread() // for good: the namespace goes with the thread
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	h := host.New(host.Config{})
	defer h.Close(soon(t))

	// The other end is a station of its own on the same switch.
	far := start(t, h, guest.Config{})
	stack, err := netstack.NewHost(netstack.HostConfig{MAC: far.NIC.MAC(), MTU: far.NIC.MTU()})
	if err != nil {
		t.Fatal(err)
	}
	defer stack.Close()
	if err := errors.Join(stack.AddAddr(address(2)), far.NIC.Up(soon(t), stack)); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var pump sync.WaitGroup
	pump.Go(func() { far.NIC.Pump(ctx, stack.Source()) })
	defer pump.Wait()
	defer stop()

	g := start(t, h, guest.Config{})
	eth, err := tap.Open(tap.Config{Name: "eth0", Queues: 2, MAC: g.NIC.MAC()})
	if err != nil {
		t.Fatal(err)
	}
	defer eth.Close()
	if err := sandbox.Configure(sandbox.Interface{Name: "eth0", Up: true, Addrs: []netip.Prefix{address(1)}}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		var also counted
		leave, err := g.Join(soon(t), eth, &also)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stack.Ping(soon(t), address(1).Addr()); err != nil {
			t.Fatalf("ping the kernel: %v", err)
		}
		if also.Load() == 0 {
			t.Error("the second sink has got nothing")
		}
		if err := leave(soon(t)); err != nil {
			t.Errorf("leave: %v", err)
		}
		if g.NIC.Info().Up {
			t.Error("the NIC is up after leave")
		}
	}
}

// The host goes away under an interface: leave and Close say nothing of it.
func TestJoinedHostLeaves(t *testing.T) {
	need.Root(t)
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	h := host.New(host.Config{})
	g := start(t, h, guest.Config{})
	eth, err := tap.Open(tap.Config{Name: "eth0", Queues: 2, MAC: g.NIC.MAC()})
	if err != nil {
		t.Fatal(err)
	}
	defer eth.Close()
	leave, err := g.Join(soon(t), eth, nil)
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan error, 1)
	go func() { closed <- h.Close(soon(t)) }()
	await(t, g.Done(), "the guest to be told")
	if err := errors.Join(leave(soon(t)), g.Close(soon(t)), await(t, closed, "the host to close")); err != nil {
		t.Error(err)
	}
}
