package xdp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"hvnet/internal/need"
	"hvnet/internal/packets"
	"hvnet/link/rtnl"
	"hvnet/nic"
)

// enter moves the test to a network namespace of its own, which ends with the thread.
func enter(t testing.TB) {
	t.Helper()
	need.Root(t)
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	// The kernel sends nothing by itself.
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func iface(t testing.TB, name string) netlink.Link {
	t.Helper()
	l, err := netlink.LinkByName(name)
	check(t, err)
	return l
}

func up(t testing.TB, name string) {
	t.Helper()
	check(t, netlink.LinkSetUp(iface(t, name)))
}

// veth makes two interfaces, up, each the other's wire, with a number of queues.
func veth(t testing.TB, a, b string, mtu, queues int) {
	t.Helper()
	vethQueues(t, a, b, mtu, queues, queues)
}

func vethQueues(t testing.TB, a, b string, mtu, rx, tx int) {
	t.Helper()
	check(t, netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: a, MTU: mtu, NumTxQueues: tx, NumRxQueues: rx},
		PeerName:  b, PeerNumTxQueues: uint32(tx), PeerNumRxQueues: uint32(rx),
	}))
	for _, name := range []string{a, b} {
		check(t, netlink.LinkSetMTU(iface(t, name), mtu))
		check(t, plain(name))
		up(t, name)
	}
	running(t, a)
	running(t, b)
}

// running waits until frames pass an interface: some time after its peer is up.
func running(t testing.TB, name string) {
	t.Helper()
	ctl, err := rtnl.Open()
	check(t, err)
	defer ctl.Close()
	ctx, stop := context.WithTimeout(context.Background(), 10*time.Second)
	defer stop()
	done := errors.New("frames pass")
	err = rtnl.Watch(ctx, ctl, rtnl.Interface{Name: name}, func(s rtnl.State) error {
		if s.Carrier {
			return done
		}
		return nil
	})
	if err != done {
		t.Fatalf("wait for the carrier of %s: %v, %v", name, err, ctx.Err())
	}
}

func open(t testing.TB, name string) *Link {
	t.Helper()
	l, err := Open(t.Context(), name)
	check(t, err)
	t.Cleanup(func() { l.Close() })
	return l
}

// arrivals gets what a link receives.
type arrivals struct {
	frames chan nic.Frame // copies
	ended  chan error
}

func (a *arrivals) WriteFrames(frames []nic.Frame) {
	for i := range frames {
		f := frames[i]
		f.Head, f.Body = packets.Bytes(&f), nil
		a.frames <- f
	}
}

// A receiver is a link of whatever kind.
type receiver interface {
	Receive(to nic.Sink) error
	Close() error
}

func receive(t testing.TB, l receiver) *arrivals {
	a := &arrivals{frames: make(chan nic.Frame, 10000), ended: make(chan error, 1)}
	go func() { a.ended <- l.Receive(a) }()
	t.Cleanup(func() { l.Close(); a.end(t) })
	return a
}

func (a *arrivals) end(t testing.TB) {
	t.Helper()
	select {
	case err := <-a.ended:
		a.ended <- err
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("Receive ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("Receive does not end")
	}
}

func (a *arrivals) next(t testing.TB) nic.Frame {
	t.Helper()
	select {
	case f := <-a.frames:
		return f
	case err := <-a.ended:
		a.ended <- err
		t.Fatalf("Receive has ended: %v", err)
	case <-time.After(10 * time.Second):
		t.Fatal("no frame comes")
	}
	panic("unreachable")
}

// expect receives a frame that was sent.
func (a *arrivals) expect(t testing.TB, what string, sent *nic.Frame) nic.Frame {
	t.Helper()
	want := packets.Bytes(sent)
	got := a.next(t)
	if !bytes.Equal(got.Head, want) {
		t.Errorf("%s: got %d bytes, want %d", what, len(got.Head), len(want))
	}
	return got
}

func stat(t testing.TB, l *Link, name string) uint64 {
	t.Helper()
	for _, s := range l.Stats() {
		if s.Name == name {
			return s.Value
		}
	}
	t.Fatalf("no counter %s", name)
	return 0
}

func lossless(t testing.TB, links ...*Link) {
	t.Helper()
	for _, l := range links {
		for _, s := range l.Stats() {
			if s.Value != 0 {
				t.Errorf("%s: %s %d", l.Name(), s.Name, s.Value)
			}
		}
	}
}

// frames returns one of each kind, in several pieces.
func frames(mtu int) []nic.Frame {
	return []nic.Frame{
		packets.Split(packets.Shape{}.Frame(packets.Random(10))),
		packets.Split(packets.Shape{}.Frame(packets.Random(100)), 60),
		packets.Split(packets.Shape{UDP: true}.Frame(packets.Random(mtu-28)), 60, 500),
		packets.Split(packets.Shape{V6: true}.Frame(packets.Random(700)), 100),
		packets.Split(packets.Shape{Tag: true}.Frame(packets.Random(mtu-40)), 60),
	}
}

// flagTxVLAN is ETH_FLAG_TXVLAN: the device puts in tags.
const flagTxVLAN = 1 << 7

// plain has an interface in the network namespace of the calling thread send frames as they
// are on a wire: checksums complete, nothing to be cut, tags in their place
// (`ethtool -K IF tx off txvlan off`). It is for the end of a veth whose other end is joined by
// AF_XDP.
func plain(name string) error {
	ctl, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer ctl.Close()
	if err := ethtool(ctl, name, []uint32{unix.ETHTOOL_STXCSUM, 0}); err != nil {
		return fmt.Errorf("have %s complete checksums: %w", name, err)
	}
	flags := []uint32{unix.ETHTOOL_GFLAGS, 0}
	if err := ethtool(ctl, name, flags); err != nil {
		return fmt.Errorf("ask for offloads of %s: %w", name, err)
	}
	if flags[1]&flagTxVLAN == 0 {
		return nil
	}
	if err := ethtool(ctl, name, []uint32{unix.ETHTOOL_SFLAGS, flags[1] &^ flagTxVLAN}); err != nil {
		return fmt.Errorf("have %s put in tags: %w", name, err)
	}
	return nil
}
