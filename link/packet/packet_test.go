package packet

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
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

// veth makes two interfaces, up, each the other's wire.
func veth(t testing.TB, a, b string, mtu int) {
	t.Helper()
	check(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: a, MTU: mtu}, PeerName: b}))
	for _, name := range []string{a, b} {
		check(t, netlink.LinkSetMTU(iface(t, name), mtu))
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

func up(t testing.TB, name string) {
	t.Helper()
	check(t, netlink.LinkSetUp(iface(t, name)))
}

func iface(t testing.TB, name string) netlink.Link {
	t.Helper()
	l, err := netlink.LinkByName(name)
	check(t, err)
	return l
}

func open(t testing.TB, name string) *Link {
	t.Helper()
	l, err := Open(name)
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
		a.frames <- nic.Frame{Head: packets.Bytes(&frames[i]), Offload: frames[i].Offload}
	}
}

func receive(t testing.TB, l *Link) *arrivals {
	a := &arrivals{frames: make(chan nic.Frame, 1000), ended: make(chan error, 1)}
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

// expect receives a frame that was sent, its metadata too.
func (a *arrivals) expect(t testing.TB, what string, sent *nic.Frame) {
	t.Helper()
	want := packets.Bytes(sent)
	got := a.next(t)
	if !bytes.Equal(got.Head, want) || got.Offload != sent.Offload {
		t.Errorf("%s: got %d bytes, %+v; want %d, %+v", what, len(got.Head), got.Offload, len(want), sent.Offload)
	}
}

func stat(l *Link, name string) uint64 {
	for _, s := range l.Stats() {
		if s.Name == name {
			return s.Value
		}
	}
	return 1 << 63
}

func lossless(t *testing.T, links ...*Link) {
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
	tcp := func(s packets.Shape, n int) []byte { return s.Frame(packets.Random(n)) }
	list := []nic.Frame{
		packets.Split(tcp(packets.Shape{}, 100), 60),
		packets.Split(tcp(packets.Shape{UDP: true}, mtu-28), 60, 500),
		packets.Partial(tcp(packets.Shape{V6: true}, 700), nic.SegmentNone, 0, 100),
		packets.Partial(tcp(packets.Shape{TCPOptions: 12, Flags: 0x08}, 60000), nic.SegmentTCPv4, mtu-52, 128, 30000),
		packets.Partial(tcp(packets.Shape{V6: true}, 3*mtu), nic.SegmentTCPv6, mtu-60),
		packets.Split(tcp(packets.Shape{Tag: true}, mtu-40), 60),
		packets.Partial(tcp(packets.Shape{Tag: true, UDP: true}, 700), nic.SegmentNone, 0, 100),
		packets.Partial(tcp(packets.Shape{Tag: true, TCPOptions: 12}, 40000), nic.SegmentTCPv4, mtu-52, 128),
	}
	return list
}

// TestFrames sends frames of all kinds from one link to another over a wire, both ways,
// one by one and in a batch: they come as they were, with what is left to be done, and
// with their tags.
func TestFrames(t *testing.T) {
	for _, mtu := range []int{1500, 9000} {
		enter(t)
		veth(t, "v0", "v1", mtu)
		a, b := open(t, "v0"), open(t, "v1")
		fromA, fromB := receive(t, b), receive(t, a)
		list := frames(mtu)
		if a.Takes()&nic.TakesUDP != 0 {
			list = append(list, packets.Partial(packets.Shape{UDP: true}.Frame(packets.Random(5000)), nic.SegmentUDP, 1400))
		}
		for i := range list {
			a.WriteFrames(list[i : i+1])
			fromA.expect(t, "alone", &list[i])
		}
		var many []nic.Frame
		for range 10 {
			many = append(many, list...)
		}
		b.WriteFrames(many)
		for i := range many {
			fromB.expect(t, "in a batch", &many[i])
		}
		lossless(t, a, b)
		a.Close()
		b.Close()
		if len(fromA.frames) != 0 || len(fromB.frames) != 0 {
			t.Errorf("%d and %d frames more: what a link sends does not return", len(fromA.frames), len(fromB.frames))
		}
	}
}

// TestRefused writes what the interface can't send.
func TestRefused(t *testing.T) {
	enter(t)
	veth(t, "v0", "v1", 1400)
	a, b := open(t, "v0"), open(t, "v1")
	in := receive(t, b)
	good := packets.Split(packets.Shape{}.Frame(packets.Random(1360)))
	long := packets.Split(packets.Shape{}.Frame(packets.Random(1361)))
	tagged := packets.Split(packets.Shape{Tag: true}.Frame(packets.Random(1360)))
	cut := packets.Partial(packets.Shape{}.Frame(packets.Random(5000)), nic.SegmentTCPv4, 1360)
	cutLong := packets.Partial(packets.Shape{}.Frame(packets.Random(5000)), nic.SegmentTCPv4, 1361)
	cutTagged := packets.Partial(packets.Shape{Tag: true}.Frame(packets.Random(5000)), nic.SegmentTCPv4, 1360)
	runt := nic.Frame{Head: good.Head[:10]}
	pieces := nic.Frame{Head: good.Head[:100], Body: make([][]byte, 1100)}
	a.WriteFrames([]nic.Frame{long, good, runt, cutLong, pieces, tagged, cut, long, cutTagged})
	for _, f := range []nic.Frame{good, tagged, cut, cutTagged} {
		in.expect(t, "what fits", &f)
	}
	if got := stat(a, "packet_write_too_long"); got != 3 {
		t.Errorf("packet_write_too_long %d, want 3", got)
	}
	if got := stat(a, "packet_write_refused"); got != 2 {
		t.Errorf("packet_write_refused %d, want 2", got)
	}
	check(t, netlink.LinkSetDown(iface(t, "v0")))
	a.WriteFrames([]nic.Frame{good, good})
	if got := stat(a, "packet_write_down"); got != 2 {
		t.Errorf("packet_write_down %d, want 2", got)
	}
	a.Close()
	a.WriteFrames([]nic.Frame{good})
	if got := stat(a, "packet_write_closed"); got != 1 {
		t.Errorf("packet_write_closed %d, want 1", got)
	}
	if err := a.Receive(in); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Receive after Close: %v", err)
	}
	if err := a.Watch(t.Context(), func(State) {}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Watch after Close: %v", err)
	}
	check(t, a.Close())
}

// TestDropped has more come than a link holds while nobody receives.
func TestDropped(t *testing.T) {
	enter(t)
	veth(t, "v0", "v1", 1500)
	a, b := open(t, "v0"), open(t, "v1")
	long := make([]nic.Frame, 64)
	for i := range long {
		long[i] = packets.Partial(packets.Shape{}.Frame(packets.Random(60000)), nic.SegmentTCPv4, 1460)
	}
	for range 1000 {
		a.WriteFrames(long)
		if stat(b, "packet_read_dropped") > 0 {
			break
		}
	}
	if got := stat(b, "packet_read_dropped"); got == 0 {
		t.Error("nothing is dropped, or not counted")
	} else if again := stat(b, "packet_read_dropped"); again < got {
		t.Errorf("packet_read_dropped was %d, is %d", got, again)
	}
	in := receive(t, b)
	in.expect(t, "what was kept", &long[0])
}

// watching watches a link and returns what waits for a state of it.
func watching(t *testing.T, l *Link) (await func(State) State) {
	t.Helper()
	states, ended := make(chan State, 1000), make(chan error, 1)
	ctx, stop := context.WithCancel(t.Context())
	go func() { ended <- l.Watch(ctx, func(s State) { states <- s }) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Watch: %v", err)
		}
	})
	return func(want State) State {
		t.Helper()
		deadline := time.After(10 * time.Second)
		var last State
		for {
			select {
			case last = <-states:
				if last.String() == want.String() && (want.MTU == 0 || want.MTU == last.MTU) {
					return last
				}
			case err := <-ended:
				ended <- err
				t.Fatalf("the watch has ended: %v", err)
			case <-deadline:
				t.Fatalf("the last state is %+v, want %+v", last, want)
			}
		}
	}
}

// TestComeAndGo takes an interface down and up, its wire away, and removes it and makes
// another of its name.
func TestComeAndGo(t *testing.T) {
	enter(t)
	veth(t, "v0", "v1", 1500)
	a := open(t, "v0")
	in := receive(t, a)
	await := watching(t, a)
	good := packets.Split(packets.Shape{}.Frame(packets.Random(1400)))
	pass := func(what string) {
		t.Helper()
		running(t, "v1")
		b := open(t, "v1")
		back := receive(t, b)
		a.WriteFrames([]nic.Frame{good})
		back.expect(t, what, &good)
		b.WriteFrames([]nic.Frame{good})
		in.expect(t, what, &good)
		b.Close()
	}
	passing := State{Present: true, Up: true, Carrier: true}
	await(passing)
	pass("at first")
	check(t, netlink.LinkSetDown(iface(t, "v0")))
	await(State{Present: true})
	check(t, netlink.LinkSetUp(iface(t, "v0")))
	await(passing)
	pass("down and up")
	check(t, netlink.LinkSetDown(iface(t, "v1")))
	await(State{Present: true, Up: true})
	up(t, "v1")
	check(t, netlink.LinkSetMTU(iface(t, "v0"), 1400))
	await(State{Present: true, Up: true, Carrier: true, MTU: 1400})
	for range 3 {
		check(t, netlink.LinkDel(iface(t, "v0")))
		await(State{})
		a.WriteFrames([]nic.Frame{good})
		// One of the name that is not Ethernet is none.
		check(t, netlink.LinkAdd(&netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "v0"}, Mode: netlink.TUNTAP_MODE_TUN}))
		await(State{})
		check(t, netlink.LinkDel(iface(t, "v0")))
		veth(t, "v0", "v1", 1500)
		await(passing)
		pass("removed and made again")
		if iface(t, "v0").Attrs().Promisc != 1 {
			t.Error("the new interface is not promiscuous")
		}
	}
	if got := stat(a, "packet_write_down"); got != 3 {
		t.Errorf("packet_write_down %d, want 3", got)
	}
}

// TestOpen fails with what it says.
func TestOpen(t *testing.T) {
	enter(t)
	for _, tt := range []struct {
		name string
		is   error
		want string
	}{
		{"none", ErrNoInterface, "join interface none: no such interface in this network namespace"},
		{"lo", ErrNotEthernet, "join interface lo: not an Ethernet interface"},
		{"", ErrNoInterface, "join interface : no such interface in this network namespace"},
		{"a-name-that-is-too-long", nil, "join interface a-name-that-is-too-long: invalid argument"},
	} {
		_, err := Open(tt.name)
		if err == nil || err.Error() != tt.want || tt.is != nil && !errors.Is(err, tt.is) {
			t.Errorf("%q: %v, want %s", tt.name, err, tt.want)
		}
	}
	veth(t, "v0", "v1", 1500)
	files, err := OpenFiles("v0")
	check(t, err)
	files.Receive.Close()
	if _, err := FromFiles("v0", files); err == nil {
		t.Error("made of a closed file")
	}
	if files.Send.Close() == nil {
		t.Error("the other files are open")
	}
}

// TestElsewhere has the sockets opened in one namespace and used in another.
func TestElsewhere(t *testing.T) {
	enter(t)
	veth(t, "v0", "v1", 1500)
	peer := open(t, "v1")
	in := receive(t, peer)
	files, err := OpenFiles("v0")
	check(t, err)
	there, err := os.Open("/proc/thread-self/ns/net")
	check(t, err)
	defer there.Close()
	check(t, unix.Unshare(unix.CLONE_NEWNET))
	a, err := FromFiles("v0", files)
	check(t, err)
	t.Cleanup(func() { a.Close() })
	await := watching(t, a)
	await(State{Present: true, Up: true, Carrier: true})
	f := packets.Split(packets.Shape{}.Frame(packets.Random(200)))
	a.WriteFrames([]nic.Frame{f})
	in.expect(t, "from another namespace", &f)
	check(t, unix.Setns(int(there.Fd()), unix.CLONE_NEWNET))
	check(t, netlink.LinkDel(iface(t, "v0")))
	await(State{})
}

// TestTag holds what the kernel says about a tag against literal bytes.
func TestTag(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the bytes are those of a little-endian machine")
	}
	const all = unix.SizeofCmsghdr + auxLen
	head := unix.Cmsghdr{Level: unix.SOL_PACKET, Type: unix.PACKET_AUXDATA, Len: all}
	for _, tt := range []struct {
		aux  string
		n    int
		want uint32
		ok   bool
	}{
		{"51000000 3c000000 3c000000 0000 0e00 6420 0081", all, 0x81002064, true},
		{"51000000 3c000000 3c000000 0000 0e00 0100 a888", all, 0x88a80001, true},
		{"11000000 3c000000 3c000000 0000 0e00 6420 0000", all, 0x81002064, true},
		{"51000000 3c000000 3c000000 0000 0e00 0000 0081", all, 0x81000000, true},
		{"01000000 3c000000 3c000000 0000 0e00 6420 0081", all, 0, false},
		{"51000000 3c000000 3c000000 0000 0e00 6420 0081", all - 1, 0, false},
		{"51000000 3c000000 3c000000 0000 0e00 6420 0081", 0, 0, false},
	} {
		c := control{head: head}
		copy(c.aux[:], packets.Hex(tt.aux))
		if got, ok := c.tag(tt.n); got != tt.want || ok != tt.ok {
			t.Errorf("%s, %d bytes: %#x, %v; want %#x, %v", tt.aux, tt.n, got, ok, tt.want, tt.ok)
		}
		c.head.Type++
		if _, ok := c.tag(tt.n); ok {
			t.Error("another kind of message has a tag")
		}
	}
}
