package tap

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"hvnet/nic"
)

// watching watches the TAP until the end of the test, and returns what waits for a
// state, and what ends the watch and tells how it ended.
func watching(t *testing.T, tap *TAP) (await func(what string, want State), end func() error) {
	t.Helper()
	states := make(chan State, 100)
	ended := make(chan error, 1)
	ctx, stop := context.WithCancel(t.Context())
	go func() { ended <- tap.Watch(ctx, func(s State) { states <- s }) }()
	await = func(what string, want State) {
		t.Helper()
		deadline := time.After(10 * time.Second)
		var last State
		for {
			select {
			case last = <-states:
				if last == want {
					return
				}
			case err := <-ended:
				t.Fatalf("%s: the watch has ended: %v", what, err)
			case <-deadline:
				t.Fatalf("%s: the last state is %+v, want %+v", what, last, want)
			}
		}
	}
	end = func() error {
		stop()
		return <-ended
	}
	return await, end
}

// TestWatch sees what `ip link` does.
func TestWatch(t *testing.T) {
	enter(t)
	tap := open(t, Config{Name: "eth0", MAC: macA, MTU: 1500})
	open(t, Config{Name: "other", MAC: macB})
	l := link(t, "eth0")
	await, end := watching(t, tap)
	want := State{MTU: 1500, MAC: macA}
	await("at first", want)
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(netlink.LinkSetMTU(link(t, "other"), 1400))
	check(netlink.LinkSetMTU(l, 9000))
	want.MTU = 9000
	await("MTU", want)
	check(netlink.LinkSetUp(l))
	want.Up = true
	await("up", want)
	check(netlink.LinkSetHardwareAddr(l, net.HardwareAddr{2, 0, 0, 0, 0, 9}))
	want.MAC = nic.MAC{2, 0, 0, 0, 0, 9}
	await("address", want)
	check(netlink.SetPromiscOn(l))
	want.Promiscuous = true
	await("promiscuous", want)

	// The way back.
	check(tap.SetNormal())
	want.Promiscuous = false
	await("not promiscuous", want)
	check(tap.SetMAC(macA))
	want.MAC = macA
	await("old address", want)
	check(tap.SetMTU(1500))
	want.MTU = 1500
	await("old MTU", want)
	check(tap.SetDown())
	want.Up = false
	await("down", want)
	if err := end(); err != nil {
		t.Errorf("at the end: %v", err)
	}

	// Another watch, of an interface that is removed.
	await, end = watching(t, tap)
	await("again", want)
	check(netlink.LinkDel(l))
	if err := end(); err != nil && !errors.Is(err, ErrRemoved) {
		t.Errorf("removed: %v", err)
	}
	if err := tap.Watch(t.Context(), func(State) {}); !errors.Is(err, ErrRemoved) {
		t.Errorf("there is nothing to watch: %v", err)
	}
}

// TestWatchOverrun has more happen than the socket holds while nobody reads: the
// last state is seen all the same.
func TestWatchOverrun(t *testing.T) {
	enter(t)
	tap := open(t, Config{Name: "eth0", MAC: macA, MTU: 1500})
	l := link(t, "eth0")
	held, hold := make(chan struct{}), make(chan struct{})
	states := make(chan State, 10000)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	first := true
	go func() {
		ended <- tap.Watch(ctx, func(s State) {
			if first {
				first = false
				close(held)
				<-hold
			}
			states <- s
		})
	}()
	<-held
	for i := range 2000 {
		if err := netlink.LinkSetMTU(l, 1501+i%2); err != nil {
			t.Fatal(err)
		}
	}
	if err := netlink.LinkSetMTU(l, 1499); err != nil {
		t.Fatal(err)
	}
	close(hold)
	deadline := time.After(10 * time.Second)
	for n := 0; ; n++ {
		select {
		case s := <-states:
			if s.MTU != 1499 {
				continue
			}
			if n > 10 {
				t.Errorf("%d states of a burst, want few", n)
			}
		case <-deadline:
			t.Fatal("the last state does not come")
		}
		break
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestWatchClosed(t *testing.T) {
	enter(t)
	tap := open(t, Config{Name: "eth0"})
	seen, ended := make(chan State, 10), make(chan error, 1)
	go func() { ended <- tap.Watch(context.Background(), func(s State) { seen <- s }) }()
	<-seen
	tap.Close()
	// The kernel tells of the removal, if it is read before the socket is closed.
	if err := <-ended; !errors.Is(err, net.ErrClosed) && !errors.Is(err, ErrRemoved) {
		t.Errorf("after Close: %v", err)
	}
	without := &TAP{name: "eth0"}
	if err := without.Watch(t.Context(), nil); !errors.Is(err, nic.ErrNotSupported) {
		t.Errorf("without a socket: %v", err)
	}
}

// TestRenamed: users may rename the interface, and give its name to another, which stays as
// it is.
func TestRenamed(t *testing.T) {
	enter(t)
	tap := open(t, Config{Name: "eth0", MAC: macA, MTU: 1500, Offloads: Offloads})
	l := link(t, "eth0")
	check := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	check("rename", netlink.LinkSetName(l, "lan0"))
	another := open(t, Config{Name: "eth0", MAC: macB, MTU: 1500, Offloads: Offloads})
	other := link(t, "eth0")
	check("up", netlink.LinkSetUp(l))
	check("up", netlink.LinkSetUp(other))
	check("promiscuous", netlink.SetPromiscOn(l))
	check("promiscuous", netlink.SetPromiscOn(other))

	await, end := watching(t, tap)
	await("renamed", State{Up: true, MTU: 1500, MAC: macA, Promiscuous: true})
	check("MTU", tap.SetMTU(1400))
	check("address", tap.SetMAC(nic.MAC{2, 0, 0, 0, 0, 9}))
	check("not promiscuous", tap.SetNormal())
	check("link", tap.SetLink(nic.LinkState{Up: true, Mbps: 4000}))
	check("longest frame", tap.SetLargest(20000))
	check("features", tap.SetFeatures(nic.FeaturesOf(nic.FeatureGRO), 0))
	check("down", tap.SetDown())
	await("changed", State{MTU: 1400, MAC: nic.MAC{2, 0, 0, 0, 0, 9}})
	if err := end(); err != nil {
		t.Error(err)
	}
	for x, want := range map[*TAP]bool{tap: false, another: true} {
		if set, err := x.Features(); err != nil || set.Has(nic.FeatureGRO) != want {
			t.Errorf("features of %s, as it was made: %#x, %v", x.Name(), set, err)
		}
	}
	if a := link(t, "lan0").Attrs(); a.GSOMaxSize != 20000 {
		t.Errorf("the longest frame is %d", a.GSOMaxSize)
	}
	if a := link(t, "eth0").Attrs(); a.MTU != 1500 || a.Promisc != 1 || a.Flags&net.FlagUp == 0 || a.GSOMaxSize == 20000 {
		t.Errorf("the interface that has its old name is %+v", a)
	}
}
