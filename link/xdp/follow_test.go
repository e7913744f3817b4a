package xdp

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"hvnet/internal/packets"
	"hvnet/link/packet"
	"hvnet/link/rtnl"
	"hvnet/nic"
)

// A watched follower tells its states.
type watched struct {
	*Follower
	states chan packet.State
	ended  chan error
}

func watch(t *testing.T, name string) *watched {
	t.Helper()
	f, err := Follow(t.Context(), name)
	check(t, err)
	w := &watched{f, make(chan packet.State, 1000), make(chan error, 1)}
	go func() { w.ended <- f.Watch(context.Background(), func(s packet.State) { w.states <- s }) }()
	t.Cleanup(func() {
		f.Close()
		if err := <-w.ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Watch ended with %v", err)
		}
	})
	return w
}

func (w *watched) await(t *testing.T, want string, mtu int) packet.State {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		select {
		case s := <-w.states:
			if s.String() == want && s.MTU == mtu {
				return s
			}
		case <-deadline:
			t.Fatalf("the state is %+v, not %s", w.State(), want)
		}
	}
}

func count(t *testing.T, f *Follower, name string) uint64 {
	t.Helper()
	for _, s := range f.Stats() {
		if s.Name == name {
			return s.Value
		}
	}
	t.Fatalf("no counter %s", name)
	return 0
}

// TestFollow takes an interface down and up, changes its MTU, removes it, and has others of
// its name take its place.
func TestFollow(t *testing.T) {
	enter(t)
	veth(t, "v0", "v1", 1500, 1)
	a, b := watch(t, "v0"), open(t, "v1")
	in := receive(t, a)
	good := packets.Split(packets.Shape{}.Frame(packets.Random(1400)))
	a.await(t, "up", 1500)
	check(t, netlink.LinkSetDown(iface(t, "v0")))
	a.await(t, "down", 1500)
	up(t, "v0")
	a.await(t, "up", 1500)
	running(t, "v1")
	b.WriteFrames([]nic.Frame{good})
	in.expect(t, "down and up", &good)
	check(t, netlink.LinkSetMTU(iface(t, "v0"), 1400))
	a.await(t, "up", 1400)
	a.WriteFrames([]nic.Frame{good})
	if got := count(t, a.Follower, "xdp_write_too_long"); got != 1 {
		t.Errorf("xdp_write_too_long %d, want 1", got)
	}
	check(t, netlink.LinkDel(iface(t, "v0")))
	a.await(t, "removed", 0)
	before := a.Down()
	a.WriteFrames([]nic.Frame{good, good})
	if a.Down() == before {
		t.Error("that it is gone is not noticed")
	}
	check(t, a.Flush(t.Context()))
	b.Close()

	// Another, in which it is selective, for that was said meanwhile.
	check(t, a.SetPromiscuous(false))
	veth(t, "v0", "v1", 1500, 1)
	a.await(t, "up", 1500)
	b = open(t, "v1")
	b.WriteFrames([]nic.Frame{good})
	in.expect(t, "another of the name", &good)
	if v0 := iface(t, "v0").Attrs(); v0.Promisc != 0 {
		t.Errorf("promiscuous: %d", v0.Promisc)
	}
	check(t, a.SetPromiscuous(true))
	if v0 := iface(t, "v0").Attrs(); v0.Promisc == 0 {
		t.Error("not promiscuous")
	}
	if got := count(t, a.Follower, writeDown); got != 2 || a.Dropped() != 3 {
		t.Errorf("%s %d, want 2; %d dropped in all, want 3", writeDown, got, a.Dropped())
	}

	// One that can't be joined is, once it can.
	check(t, netlink.LinkDel(iface(t, "v0")))
	a.await(t, "removed", 0)
	b.Close()
	check(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "v0", MTU: 9000}, PeerName: "v1"}))
	if s := a.await(t, "refused", 0); !errors.Is(s.Refused, ErrMTU) || s.Present {
		t.Errorf("%+v", s)
	}
	check(t, netlink.LinkSetMTU(iface(t, "v0"), 1500))
	a.await(t, "down", 1500)
	clean(t, "v1")
	if v0 := iface(t, "v0").Attrs(); v0.Xdp == nil || !v0.Xdp.Attached {
		t.Errorf("it has no program: %+v", v0.Xdp)
	}
	check(t, a.Close())
	check(t, a.Close())
	in.end(t)
	clean(t, "v0")
	a.WriteFrames([]nic.Frame{good})
	if _, err := a.Follow(rtnl.State{Index: 1, Name: "v0", Ethernet: true}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Follow after Close: %v", err)
	}
	if err := a.Flush(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Flush after Close: %v", err)
	}
}

// TestFollowElsewhere joins interfaces of another namespace, and one that has gone before.
func TestFollowElsewhere(t *testing.T) {
	enter(t)
	there, err := os.Open("/proc/thread-self/ns/net")
	check(t, err)
	veth(t, "v0", "v1", 1500, 1)
	now := rtnl.State{Index: int32(iface(t, "v0").Attrs().Index), Name: "v0", Ethernet: true, MTU: 1500, Up: true, Carrier: true}
	b := open(t, "v1")
	check(t, unix.Unshare(unix.CLONE_NEWNET))
	f := NewFollower(there)
	defer f.Close()
	in := receive(t, f)
	for _, s := range []rtnl.State{{Index: 99, Name: "none", Ethernet: true}, {Index: 99, Name: "v0", Ethernet: true}, {Index: now.Index, Name: "v0"}} {
		if got, err := f.Follow(s); err != nil || got.Present {
			t.Errorf("%+v: %+v, %v", s, got, err)
		}
	}
	good := packets.Split(packets.Shape{}.Frame(packets.Random(1400)))
	for range 3 {
		s, err := f.Follow(now)
		if err != nil || !s.Present {
			t.Fatalf("%+v, %v", s, err)
		}
		b.WriteFrames([]nic.Frame{good})
		in.expect(t, "from elsewhere", &good)
		if _, err := f.Follow(rtnl.State{Removed: true}); err != nil {
			t.Error(err)
		}
	}
	null, err := os.Open(os.DevNull)
	check(t, err)
	none := NewFollower(null)
	defer none.Close()
	if _, err := none.Follow(now); err == nil || !strings.HasPrefix(err.Error(), "join interface v0 by AF_XDP: enter its network namespace: ") {
		t.Errorf("a namespace that is none: %v", err)
	}
}

// TestFlushStuck: a sink that does not return does not hold Flush up beyond its time.
func TestFlushStuck(t *testing.T) {
	enter(t)
	veth(t, "v0", "v1", 1500, 1)
	a, b := open(t, "v0"), open(t, "v1")
	stuck, free := make(chan struct{}), make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		ended <- b.Receive(sink(func([]nic.Frame) {
			close(stuck)
			<-free
		}))
	}()
	a.WriteFrames([]nic.Frame{packets.Split(packets.Shape{}.Frame(packets.Random(100)))})
	<-stuck
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := b.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Flush of a sink that is stuck: %v", err)
	}
	close(free)
	check(t, b.Flush(t.Context()))
	b.Close()
	<-ended
}

type sink func([]nic.Frame)

func (f sink) WriteFrames(frames []nic.Frame) { f(frames) }
