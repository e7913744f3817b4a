package xdp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"hvnet/internal/packets"
	"hvnet/link/packet"
	"hvnet/nic"
)

// TestFrames sends frames of all kinds from one link to another over a wire, both ways,
// one by one and more than the rings hold: they come as they were, and each queue's in
// order.
func TestFrames(t *testing.T) {
	for _, tt := range []struct {
		mtu, queues int
		driver      bool
	}{{1500, 1, true}, {1500, 2, true}, {MaxMTU, 1, false}} {
		t.Run(fmt.Sprintf("mtu %d, %d queues", tt.mtu, tt.queues), func(t *testing.T) {
			enter(t)
			veth(t, "v0", "v1", tt.mtu, tt.queues)
			a, b := open(t, "v0"), open(t, "v1")
			if got, want := a.Mode(), (Mode{Queues: tt.queues, Driver: tt.driver}); got != want {
				t.Errorf("mode %+v, want %+v", got, want)
			}
			fromA, fromB := receive(t, b), receive(t, a)
			list := frames(tt.mtu)
			for i := range list {
				list[i].Channel = uint16(i)
				a.WriteFrames(list[i : i+1])
				fromA.expect(t, "alone", &list[i])
			}
			// More than there is memory for goes in parts: the wire holds 256 frames.
			for range 3 * received / batch {
				many := make([]nic.Frame, batch)
				for i := range many {
					many[i] = list[i%len(list)]
					many[i].Channel = 1
				}
				b.WriteFrames(many)
				for i := range many {
					if got := fromB.expect(t, "in a batch", &many[i]); int(got.Channel) != 1%tt.queues {
						t.Errorf("came on queue %d", got.Channel)
					}
				}
			}
			lossless(t, a, b)
			a.Close()
			b.Close()
			if len(fromA.frames) != 0 || len(fromB.frames) != 0 {
				t.Errorf("%d and %d frames more: what a link sends does not return", len(fromA.frames), len(fromB.frames))
			}
		})
	}
}

// TestFewSenders has an interface with less queues to send than to receive.
func TestFewSenders(t *testing.T) {
	enter(t)
	vethQueues(t, "v0", "v1", 1500, 2, 1)
	a, b := open(t, "v0"), open(t, "v1")
	if len(a.queues) != 2 || len(a.senders) != 1 {
		t.Fatalf("%d queues, %d of them to send", len(a.queues), len(a.senders))
	}
	in := receive(t, b)
	for i := range uint16(3) {
		f := packets.Split(packets.Shape{}.Frame(packets.Random(100)))
		f.Channel = i
		a.WriteFrames([]nic.Frame{f})
		in.expect(t, "by any channel", &f)
	}
	lossless(t, a, b)
}

// TestPacket has a packet socket at the other end of the wire, which completes and cuts
// nothing itself.
func TestPacket(t *testing.T) {
	enter(t)
	veth(t, "v0", "v1", 1500, 1)
	a := open(t, "v0")
	b, err := packet.Open("v1")
	check(t, err)
	fromA, fromB := receive(t, b), receive(t, a)
	list := frames(1500)
	a.WriteFrames(list)
	for i := range list {
		fromA.expect(t, "to a packet socket", &list[i])
	}
	b.WriteFrames(list)
	for i := range list {
		fromB.expect(t, "from a packet socket", &list[i])
	}
	whole := packets.Shape{UDP: true}.Frame(packets.Random(700))
	partial := packets.Partial(append([]byte(nil), whole...), nic.SegmentNone, 0)
	b.WriteFrames([]nic.Frame{partial})
	fromB.expect(t, "a partial checksum", &nic.Frame{Head: whole})
	super := packets.Shape{}.Frame(packets.Random(3 * 1460))
	b.WriteFrames([]nic.Frame{packets.Partial(super, nic.SegmentTCPv4, 1460)})
	for range 3 {
		if got := fromB.next(t); len(got.Head) != 1514 {
			t.Errorf("a segment of %d bytes", len(got.Head))
		}
	}
	lossless(t, a)
}

// TestRefused writes what the interface can't send.
func TestRefused(t *testing.T) {
	enter(t)
	veth(t, "v0", "v1", 1400, 1)
	a, b := open(t, "v0"), open(t, "v1")
	in := receive(t, b)
	good := packets.Split(packets.Shape{}.Frame(packets.Random(1360)))
	tagged := packets.Split(packets.Shape{Tag: true}.Frame(packets.Random(1360)), 100)
	long := packets.Split(packets.Shape{}.Frame(packets.Random(1361)))
	huge := packets.Split(packets.Shape{}.Frame(packets.Random(60000)), 128)
	partial := packets.Partial(packets.Shape{}.Frame(packets.Random(500)), nic.SegmentNone, 0)
	cut := packets.Partial(packets.Shape{}.Frame(packets.Random(5000)), nic.SegmentTCPv4, 1360)
	runt := nic.Frame{Head: good.Head[:10]}
	a.WriteFrames([]nic.Frame{long, good, runt, partial, cut, huge, tagged, {}})
	in.expect(t, "what fits", &good)
	in.expect(t, "what fits with its tag", &tagged)
	if got := stat(t, a, "xdp_write_too_long"); got != 2 {
		t.Errorf("xdp_write_too_long %d, want 2", got)
	}
	if got := stat(t, a, "xdp_write_refused"); got != 4 {
		t.Errorf("xdp_write_refused %d, want 4", got)
	}
	check(t, netlink.LinkSetDown(iface(t, "v1")))
	many := make([]nic.Frame, 3*burst)
	for i := range many {
		many[i] = good
	}
	a.WriteFrames(many)
	if got := stat(t, a, "xdp_write_busy"); got == 0 || got > 3*burst {
		t.Errorf("xdp_write_busy %d, want up to %d: there is no carrier", got, 3*burst)
	}
	before := a.Down()
	check(t, netlink.LinkSetDown(iface(t, "v0")))
	a.WriteFrames([]nic.Frame{good})
	if a.Down() == before {
		t.Error("that it is down is not noticed at once")
	}
	a.WriteFrames([]nic.Frame{good, good})
	if got := stat(t, a, "xdp_write_down"); got != 2 {
		t.Errorf("xdp_write_down %d, want 2, besides the one that was kept", got)
	}
	a.Close()
	a.WriteFrames([]nic.Frame{good})
	if got := stat(t, a, "xdp_write_closed"); got != 2 {
		t.Errorf("xdp_write_closed %d, want 2: the one that was kept, and the last", got)
	}
	if got := a.Dropped(); got < 2+4+2+2 {
		t.Errorf("%d frames dropped", got)
	}
	if err := a.Receive(in); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Receive after Close: %v", err)
	}
	check(t, a.Close())
}

// TestDropped has more come than a link holds while nobody receives.
func TestDropped(t *testing.T) {
	enter(t)
	veth(t, "v0", "v1", 1500, 1)
	a, b := open(t, "v0"), open(t, "v1")
	list := make([]nic.Frame, burst)
	for i := range list {
		list[i] = packets.Split(packets.Shape{}.Frame(packets.Random(100)))
	}
	for range 1000 {
		a.WriteFrames(list)
		if stat(t, b, "xdp_read_dropped") > 0 {
			break
		}
	}
	if stat(t, b, "xdp_read_dropped") == 0 {
		t.Error("nothing is dropped, or not counted")
	}
	in := receive(t, b)
	for range received {
		in.expect(t, "what was kept", &list[0])
	}
	a.WriteFrames(list[:1])
	in.expect(t, "afterwards", &list[0])
	before := stat(t, b, "xdp_read_dropped")
	b.Close()
	if after := stat(t, b, "xdp_read_dropped"); after != before {
		t.Errorf("xdp_read_dropped was %d, is %d after Close", before, after)
	}
}

// TestFlush has all that has come passed on when Flush returns.
func TestFlush(t *testing.T) {
	enter(t)
	veth(t, "v0", "v1", 1500, 1)
	a, b := open(t, "v0"), open(t, "v1")
	check(t, b.Flush(t.Context())) // nobody receives
	in := receive(t, b)
	list := frames(1500)
	a.WriteFrames(list[:1])
	in.expect(t, "now somebody does", &list[0])
	rx := &b.queues[0].rx
	deadline := time.Now().Add(10 * time.Second)
	for i := range 200 {
		a.WriteFrames(list)
		for int(rx.producer.Load()) < 1+(i+1)*len(list) { // on the way, but for a moment
			if runtime.Gosched(); time.Now().After(deadline) {
				t.Fatal("not all frames come")
			}
		}
		check(t, b.Flush(t.Context()))
		if got := len(in.frames); got != (i+1)*len(list) {
			t.Fatalf("%d frames are passed on, want %d", got, (i+1)*len(list))
		}
	}
	for range 200 {
		for i := range list {
			in.expect(t, "flushed", &list[i])
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Flush(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("Flush after the end of its context: %v", err)
	}
	b.Close()
	if err := b.Flush(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Flush after Close: %v", err)
	}
}

// TestPromiscuous has the interface receive what is for others, and no longer.
func TestPromiscuous(t *testing.T) {
	enter(t)
	veth(t, "v0", "v1", 1500, 1)
	a := open(t, "v0")
	for _, on := range []bool{false, false, true, false, true, true} {
		check(t, a.SetPromiscuous(on))
		if v0 := iface(t, "v0").Attrs(); v0.Promisc != 0 != on {
			t.Errorf("promiscuous %v: %d", on, v0.Promisc)
		}
	}
	if int(a.Index()) != iface(t, "v0").Attrs().Index {
		t.Errorf("index %d", a.Index())
	}
	check(t, netlink.LinkDel(iface(t, "v0")))
	check(t, a.SetPromiscuous(false))
	a.Close()
	check(t, a.SetPromiscuous(true))
}

// TestOpen fails with what it says.
func TestOpen(t *testing.T) {
	enter(t)
	veth(t, "v0", "v1", 9000, 1)
	for _, tt := range []struct {
		name string
		is   error
		want string
	}{
		{"none", packet.ErrNoInterface, "join interface none by AF_XDP: no such interface in this network namespace"},
		{"", packet.ErrNoInterface, "join interface  by AF_XDP: no such interface in this network namespace"},
		{"a-name-that-is-too-long", unix.EINVAL, "join interface a-name-that-is-too-long by AF_XDP: invalid argument"},
		{"lo", packet.ErrNotEthernet, "join interface lo by AF_XDP: not an Ethernet interface"},
		{"v0", ErrMTU, "join interface v0 by AF_XDP: MTU too large: it is 9000, and AF_XDP takes 3822 at most, a page for a frame; packet sockets take any"},
	} {
		_, err := Open(t.Context(), tt.name)
		if err == nil || err.Error() != tt.want || !errors.Is(err, tt.is) {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		}
	}
	for _, name := range []string{"v0", "v1"} {
		check(t, netlink.LinkSetMTU(iface(t, name), 1500))
	}
	open(t, "v0")
	if _, err := Open(t.Context(), "v0"); !errors.Is(err, ErrBusy) {
		t.Errorf("a second link: %v", err)
	}
	// Another's socket, without a program.
	q, err := openQueue(t.Context(), int32(iface(t, "v1").Attrs().Index), 0)
	check(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(ctx, "v1"); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of the context: %v", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := Open(ctx, "v1"); !errors.Is(err, ErrBusy) {
		t.Errorf("a link beside another's socket: %v", err)
	}
	clean(t, "v1")
	check(t, q.close())
	q.unmap()
	open(t, "v1") // as soon as the kernel has given up the socket
}

// TestPermission has somebody try who may do all to his own network and nothing else, as
// root of a user namespace may.
func TestPermission(t *testing.T) {
	enter(t)
	veth(t, "v0", "v1", 1500, 1)
	check(t, Permitted())
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	check(t, unix.Capget(&header, &caps[0]))
	caps[0].Effective = 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_NET_RAW
	caps[1].Effective = 0
	check(t, unix.Capset(&header, &caps[0])) // of this thread, which ends with the test
	_, err := Open(t.Context(), "v0")
	if !errors.Is(Permitted(), packet.ErrPermission) {
		t.Errorf("permitted: %v", Permitted())
	}
	if !errors.Is(err, packet.ErrPermission) || strings.Contains(err.Error(), "\n") || !strings.HasSuffix(err.Error(), "permission denied: AF_XDP takes root; packet sockets take CAP_NET_RAW alone") {
		t.Errorf("without the right to load programs: %v", err)
	}
}
