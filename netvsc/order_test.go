package netvsc

import (
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"hvnet/nic"
	"hvnet/nvsp"
	"hvnet/vmbus"
	"hvnet/vmbus/channel"
)

// numbered returns a frame of a flow that carries a number.
func numbered(flow, number int) []byte {
	b := frame(flow, 60)
	binary.BigEndian.PutUint32(b[44:], uint32(number))
	return b
}

// heard returns the numbers of the frames of a flow that have arrived, and the channels
// that they came on.
func (h *fakeHost) heard(flow int) (numbers, channels []int) {
	for i, b := range h.frames {
		if int(binary.BigEndian.Uint16(b[34:])) == 1024+flow {
			numbers = append(numbers, int(binary.BigEndian.Uint32(b[44:])))
			channels = append(channels, h.from[i])
		}
	}
	return
}

// allTo has the host send a table with one channel only, and waits until the driver
// has it.
func (h *fakeHost) allTo(t *testing.T, n *NIC, channel uint32) {
	t.Helper()
	m := nvsp.IndirectionTable{}
	for i := range m.Table {
		m.Table[i] = channel
	}
	before := n.session.Load().table.Load()
	if err := h.queue(0).send(vmbus.AppendInBand(nil, 0, 0), m.Append(nil)); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); n.session.Load().table.Load() == before; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("the driver does not take the table")
		}
	}
}

// slowChannel has the host stop at the first frame on a channel until the function
// that it returns is called.
func (h *fakeHost) slowChannel(c int) (held <-chan struct{}, release func()) {
	gate, at := make(chan struct{}), make(chan struct{}, 1)
	h.onData = func(q *fakeQueue, tid uint64) bool {
		if q.index == c {
			select {
			case at <- struct{}{}:
			default:
			}
			<-gate
		}
		return false
	}
	return at, sync.OnceFunc(func() { close(gate) })
}

// slowFlow returns a flow of the channel c, of an even table, and one of another
// channel, neither of them c nor the last.
func slowFlow(t *testing.T, n *NIC, c int) (slow, other int) {
	t.Helper()
	s := newSender(n.session.Load())
	s.begin()
	slow, other = -1, -1
	for i := 0; slow < 0 || other < 0; i++ {
		l, _ := s.lane(s.flow(frame(i, 60)))
		switch {
		case l.q.index == c && slow < 0:
			slow = i
		case l.q.index != c && l.q.index != 3 && other < 0:
			other = i
		}
	}
	return slow, other
}

// TestTableKeepsOrder has the host send another table while it has frames of a flow:
// the flow goes over to its new channel when those are completed, others at once.
func TestTableKeepsOrder(t *testing.T) {
	h := newFakeHost()
	h.noTable = true
	held, release := h.slowChannel(1)
	n := open(t, h, Config{Queues: 4})
	defer release()
	up(t, n)
	slow, other := slowFlow(t, n, 1)
	send := func(flow, number int) int { return n.Send(0, []nic.Frame{asFrame(numbered(flow, number))}) }
	if send(slow, 0)+send(other, 0) != 2 {
		t.Fatal("frames are refused")
	}
	<-held
	h.until(t, "the other flow arrives", func() bool { n, _ := h.heard(other); return len(n) == 1 })
	h.allTo(t, n, 3)
	if send(slow, 1) != 0 {
		t.Error("a frame is taken that would overtake one")
	}
	for send(other, 1) != 1 { // until its first one is completed
		runtime.Gosched()
	}
	h.until(t, "the other flow arrives", func() bool { n, c := h.heard(other); return len(n) == 2 && c[1] == 3 })
	h.allTo(t, n, 2) // it need not come by the channels in between
	release()
	for number := 1; number < 4; {
		number += send(slow, number)
		runtime.Gosched()
	}
	h.until(t, "all arrive", func() bool { n, _ := h.heard(slow); return len(n) == 4 })
	numbers, channels := h.heard(slow)
	if !slices.Equal(numbers, []int{0, 1, 2, 3}) || !slices.Equal(channels, []int{1, 2, 2, 2}) {
		t.Errorf("frames %v came on channels %v", numbers, channels)
	}
}

// TestTableKeepsOrderOfPumps is the same with a source, which is not read while a flow
// waits for its frames.
func TestTableKeepsOrderOfPumps(t *testing.T) {
	h := newFakeHost()
	h.noTable = true
	held, release := h.slowChannel(1)
	n := open(t, h, Config{Queues: 4})
	defer release()
	up(t, n)
	slow, _ := slowFlow(t, n, 1)
	src := newSource(numbered(slow, 0))
	pumping(t, n, src)
	<-held
	h.allTo(t, n, 3)
	src.add(numbered(slow, 1), numbered(slow, 2), numbered(slow, 3))
	for end := time.Now().Add(10 * time.Second); n.starving.Load() == 0; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("the pump does not wait")
		}
	}
	src.mu.Lock()
	if left := len(src.frames); left != 2 {
		t.Errorf("%d frames are left in the source, want 2: one more goes the old way", left)
	}
	src.mu.Unlock()
	release()
	h.until(t, "all arrive", func() bool { n, _ := h.heard(slow); return len(n) == 4 })
	numbers, channels := h.heard(slow)
	if !slices.Equal(numbers, []int{0, 1, 2, 3}) || !slices.Equal(channels, []int{1, 1, 3, 3}) {
		t.Errorf("frames %v came on channels %v", numbers, channels)
	}
}

// TestPumpNeedsNoWrongChannel runs out of sections while frames of many flows are read:
// each still goes by its own channel.
func TestPumpNeedsNoWrongChannel(t *testing.T) {
	for _, mtu := range []int{1500, 9000} { // in sections, and in sections and pages
		h := newFakeHost()
		gate := make(chan struct{})
		release := sync.OnceFunc(func() { close(gate) })
		h.onData = func(q *fakeQueue, tid uint64) bool { <-gate; return false }
		n := open(t, h, Config{Queues: 4, TxSections: 10, MTU: mtu})
		defer release()
		up(t, n)
		const flows, frames = 16, 400
		var list [][]byte
		for i := range frames {
			list = append(list, numbered(i%flows, i/flows))
		}
		pumping(t, n, newSource(list...))
		for end := time.Now().Add(10 * time.Second); n.starving.Load() == 0; runtime.Gosched() {
			if time.Now().After(end) {
				t.Fatal("the pump does not wait")
			}
		}
		release()
		h.until(t, "all arrive", func() bool { return len(h.frames) == frames })
		for flow := range flows {
			numbers, channels := h.heard(flow)
			if !slices.IsSorted(numbers) || slices.Min(channels) != slices.Max(channels) {
				t.Errorf("MTU %d: flow %d: frames %v came on channels %v", mtu, flow, numbers, channels)
			}
		}
	}
}

// TestEras has packets of many senders sent and completed in any order, and marks set and
// asked for in between: a mark has passed only if all is completed that was sent before
// it, and it does pass though the channel is never idle.
func TestEras(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		q := &queue{ch: new(channel.Channel)}
		type sent struct {
			number int
			of     entrySet
		}
		var live []sent
		number := 0
		marks := map[uint32]int{} // the latest packet before each
		send := func() {
			of := entrySet(1)<<r.IntN(tableSize) | 1<<era(q.era)
			q.track(of, 1)
			live = append(live, sent{number, of})
			number++
		}
		complete := func(i int) {
			q.track(live[i].of, -1)
			live = slices.Delete(live, i, i+1)
		}
		check := func(m uint32) bool {
			passed := q.passed(m)
			if under := slices.ContainsFunc(live, func(s sent) bool { return s.number < marks[m] }); passed && under {
				t.Fatalf("a mark at packet %d has passed, under way are %v", marks[m], live)
			}
			return passed
		}
		var waiting []uint32
		for range 400 {
			switch k := r.IntN(10); {
			case k < 4:
				send()
			case k < 8 && len(live) > 0:
				complete(r.IntN(len(live)))
			case k == 8:
				m := q.mark()
				marks[m] = number
				waiting = append(waiting, m)
			default:
				waiting = slices.DeleteFunc(waiting, check)
			}
		}
		// In order, one comes for each that goes.
		m := q.mark()
		marks[m] = number
		send()
		for steps := 0; !check(m); steps++ {
			if steps > 4*number {
				t.Fatalf("a mark does not pass, %d are under way", len(live))
			}
			send()
			complete(0)
		}
		if len(live) == 0 {
			t.Fatal("the channel was idle")
		}
	}
}
