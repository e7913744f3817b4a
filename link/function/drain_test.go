package function

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"hvnet/internal/packets"
	"hvnet/link/iface"
	"hvnet/nic"
)

// numbered returns frames with consecutive numbers behind the headers.
func numbered(from uint32, n int) []nic.Frame {
	list := make([]nic.Frame, n)
	for i := range list {
		b := packets.Shape{UDP: true}.Frame(packets.Random(100))
		binary.BigEndian.PutUint32(b[len(b)-4:], from+uint32(i))
		list[i] = nic.Frame{Head: b}
	}
	return list
}

// gaps returns how many numbers are missing from 0 up to n, and fails for a number that
// comes late or twice.
func gaps(t *testing.T, frames []nic.Frame, n uint32) (missing uint64) {
	t.Helper()
	next := uint32(0)
	for _, f := range frames {
		k := binary.BigEndian.Uint32(f.Head[len(f.Head)-4:])
		if k < next || k >= n {
			t.Fatalf("frame %d comes behind frame %d, of %d", k, int64(next)-1, n)
		}
		missing += uint64(k - next)
		next = k + 1
	}
	return missing + uint64(n-next)
}

func dropped(stats []nic.Stat) (n uint64) {
	for _, s := range stats {
		n += s.Value
	}
	return n
}

// TestDrain: when a function is drained all that was sent by it is where it was to go, both
// ways at once, and when it is pulled out then, its guest gets that.
func TestDrain(t *testing.T) { testDrain(t, iface.Packet) }

func testDrain(t *testing.T, way iface.Way) {
	ns := enter(t)
	w := watchBy(t, way)
	rounds := 4
	if testing.Short() {
		rounds = 2
	}
	for round := range rounds {
		h := madeFor(t, ns, Config{MAC: address, Serial: uint32(round), Wire: way == iface.XDP})
		fromGuest := newTally()
		h.Start(fromGuest)
		p := w.up(t)
		lost := dropped(p.dev.Stats())
		var n uint32
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			for i := range uint32(50) {
				p.dev.WriteFrames(numbered(i*40, 40))
			}
		}()
		for ; n < 2000; n += 40 {
			h.WriteFrames(numbered(n, 40))
		}
		<-sent
		check(t, h.Drain(t.Context()))
		drained := fromGuest.len()
		if round%2 == 0 {
			check(t, h.Close())
		} else { // its users can pull it out too
			l, err := netlink.LinkByName(p.dev.Name())
			check(t, err)
			check(t, netlink.LinkDel(l))
		}
		<-p.left
		// What is dropped, is dropped with a count: the kernel's queues are short.
		ours, theirs := gaps(t, fromGuest.frames[:drained], n), gaps(t, p.frames, n)
		if counted := dropped(h.Stats()) + dropped(p.dev.Stats()) - lost; ours+theirs != counted {
			t.Errorf("round %d: the host lacks %d frames, the guest %d; %d are counted as lost", round, ours, theirs, counted)
		}
		if ours+theirs > 1000 {
			t.Errorf("round %d: %d frames are lost", round, ours+theirs)
		}
		check(t, h.Close())
	}
}

// TestDrainInVain: what can't be drained in time is told, and waited for again.
func TestDrainInVain(t *testing.T) {
	ns := enter(t)
	h, w := made(t, ns, 7), watch(t)
	stuck, free := make(chan struct{}), make(chan struct{})
	var came atomic.Uint64
	h.Start(sink(func(list []nic.Frame) {
		if came.Add(uint64(len(list))) == 1 {
			close(stuck)
			<-free
		}
	}))
	p := w.up(t)
	p.dev.WriteFrames(numbered(0, 1))
	<-stuck
	p.dev.WriteFrames(numbered(1, 99))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.Drain(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("drained, though the switch has not taken a frame: %v", err)
	}
	close(free)
	if err := h.Drain(t.Context()); err != nil || came.Load() != 100 {
		t.Errorf("%d of 100 frames have come: %v", came.Load(), err)
	}
}

// stray is a frame that a veth counts as received and that comes to no packet socket: the
// kernel drops what has the type of a tag and no room for one. To who drains it is one that is
// under way between the two ends, for as long as a test likes.
var stray = []nic.Frame{{Head: append(make([]byte, 12), 0x81, 0)}}

// TestDrainUnderWay: frames that are between the two ends of the pair are waited for.
func TestDrainUnderWay(t *testing.T) {
	ns := enter(t)
	h, w := made(t, ns, 7), watch(t)
	h.Start(newTally())
	p := w.up(t)
	p.dev.WriteFrames(numbered(0, 10))
	check(t, h.Drain(t.Context()))
	p.dev.WriteFrames(stray)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.Drain(ctx); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "frames on the way in") {
		t.Errorf("drained, with a frame under way: %v", err)
	}
}

// TestDrainWhatGoes: nobody waits for the frames of a function that is removed meanwhile.
func TestDrainWhatGoes(t *testing.T) {
	ns := enter(t)
	h, w := made(t, ns, 7), watch(t)
	h.Start(newTally())
	p := w.up(t)
	p.dev.WriteFrames(stray)
	drained := make(chan error, 1)
	go func() { drained <- h.Drain(t.Context()) }()
	l, err := netlink.LinkByName(p.dev.Name())
	check(t, err)
	check(t, netlink.LinkDel(l))
	select {
	case err := <-drained:
		check(t, err)
	case <-time.After(10 * time.Second):
		t.Error("it still waits")
	}
}

// TestGoneAfterClose: a function that could not be removed is told gone when it is closed:
// who waits for that is not left behind.
func TestGoneAfterClose(t *testing.T) {
	h := made(t, enter(t), 7)
	check(t, h.settings.Close())
	if err := h.Close(); err == nil {
		t.Error("it was removed by a closed socket")
	}
	select {
	case <-h.Gone():
	default:
		t.Error("it is closed, and not told gone")
	}
}

// A sink is a function of frames.
type sink func([]nic.Frame)

func (f sink) WriteFrames(frames []nic.Frame) { f(frames) }

// TestNoAllocation passes frames both ways without allocating.
func TestNoAllocation(t *testing.T) { testNoAllocation(t, iface.Packet, frames()) }

func testNoAllocation(t *testing.T, way iface.Way, list []nic.Frame) {
	ns := enter(t)
	h, w := madeFor(t, ns, Config{MAC: address, Serial: 7, Wire: way == iface.XDP}), watchBy(t, way)
	came, went := newCounting(), newCounting()
	h.Start(came)
	p := w.up(t)
	p.counts.Store(&went)
	exchange := func() {
		p.dev.WriteFrames(list)
		came.await(len(list))
		h.WriteFrames(list)
		went.await(len(list))
	}
	exchange()
	if n := testing.AllocsPerRun(100, exchange); n != 0 {
		t.Errorf("%v allocations for %d frames each way", n, len(list))
	}
}

// counting counts frames without an allocation.
type counting struct{ news chan int }

func newCounting() counting                       { return counting{make(chan int, 100)} }
func (c counting) WriteFrames(frames []nic.Frame) { c.news <- len(frames) }

// await waits for n frames.
func (c counting) await(n int) {
	for n > 0 {
		n -= <-c.news
	}
}
