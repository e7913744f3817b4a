package netvsc

import (
	"context"
	"encoding/binary"
	"runtime"
	"slices"
	"testing"
	"time"

	"hvnet/counter"
	"hvnet/nic"
)

// fragment returns a fragment of a datagram of a flow, with a number; without ports if it
// is not the first.
func fragment(flow, number, at int, more bool) []byte {
	b := numbered(flow, number)
	bits := uint16(at / 8)
	if more {
		bits |= 0x2000
	}
	binary.BigEndian.PutUint16(b[20:], bits)
	return b
}

// c is the channel of the ports of a crossing flow.
const c = 2

// crossing returns a flow whose ports are for the channel c, and the channel of its
// addresses, which is another one.
func crossing(t *testing.T, n *NIC) (flow, pair int) {
	t.Helper()
	s := newSender(n.session.Load())
	s.begin()
	channel := func(b []byte) int { l, _ := s.lane(s.flow(b)); return l.q.index }
	s.levels = 0
	pair = channel(frame(0, 60))
	s.levels = n.levels()
	for i := range 1000 {
		if channel(frame(i, 60)) == c && pair != c {
			return i, pair
		}
	}
	t.Fatalf("the pair of addresses is for channel %d itself", c)
	return 0, 0
}

// sendUntil sends frames one after the other, however often they are refused.
func sendUntil(n *NIC, frames ...[]byte) {
	for _, b := range frames {
		for n.Send(0, []nic.Frame{asFrame(b)}) != 1 {
			runtime.Gosched()
		}
	}
}

// TestFragments: with the cure fragments go by addresses, and so do datagrams between
// those after them; without it all go as they look.
func TestFragments(t *testing.T) {
	for _, cure := range []bool{true, false} {
		h := newFakeHost()
		h.noTable = true
		n := open(t, h, Config{Queues: 4, NoFragmentCure: !cure})
		up(t, n)
		if n.FragmentCure() != cure {
			t.Fatalf("the cure is %v", n.FragmentCure())
		}
		flow, pair := crossing(t, n)
		sendUntil(n, numbered(flow, 0), fragment(flow, 1, 0, true), fragment(flow, 2, 1480, true), fragment(flow, 3, 2960, false), numbered(flow, 4))
		h.until(t, "all arrive", func() bool { return len(h.frames) == 5 })
		numbers, channels := h.heard(flow)
		want, sticky := []int{c, c, pair, pair, c}, uint64(0)
		if cure {
			want, sticky = []int{c, pair, pair, pair, pair}, 4
		}
		got := make([]int, 5)
		for i, k := range numbers {
			got[k] = channels[i]
		}
		if !slices.Equal(got, want) {
			t.Errorf("cure %v: on channels %v, want %v", cure, got, want)
		}
		if l := n.HashLevels(); l != (nic.HashLevels{nic.HashL4, nic.HashL4, nic.HashL4, nic.HashL4}) {
			t.Errorf("cure %v: levels are %v", cure, l)
		}
		if got := n.count.Load(counter.UDPFragL3Sticky); got != sticky {
			t.Errorf("cure %v: %d frames counted, want %d", cure, got, sticky)
		}
		// TCP has no pairs, whatever happens to UDP.
		tcp := numbered(flow, 5)
		tcp[23] = 6
		first := fragment(flow, 6, 0, true)
		first[23] = 6
		sendUntil(n, tcp, first)
		h.until(t, "all arrive", func() bool { return len(h.frames) == 7 })
		numbers, channels = h.heard(flow)
		at := func(k int) int { return channels[slices.Index(numbers, k)] }
		if whole, fragment := at(5), at(6); cure && fragment != pair || !cure && fragment != whole {
			t.Errorf("cure %v: TCP on channel %d, a fragment on %d", cure, whole, fragment)
		}
	}
}

// TestFragmentLevels: if the ports of UDP do not count there is nothing to cure.
func TestFragmentLevels(t *testing.T) {
	h := newFakeHost()
	n := open(t, h, Config{Queues: 4})
	up(t, n)
	if err := n.SetHashLevel(context.Background(), nic.FlowUDPv4, nic.HashL3); err != nil {
		t.Fatal(err)
	}
	empty := n.pairs.set.Load()
	sendUntil(n, numbered(1, 0), fragment(1, 1, 0, true), fragment(1, 2, 1480, false), numbered(2, 3))
	h.until(t, "all arrive", func() bool { return len(h.frames) == 4 })
	if n.pairs.set.Load() != empty || n.count.Load(counter.UDPFragL3Sticky) != 0 || len(h.perChan) != 1 {
		t.Errorf("%d counted, channels %v", n.count.Load(counter.UDPFragL3Sticky), h.perChan)
	}
}

// TestFragmentsKeepOrder has the host stop with a datagram on the channel of its ports: the
// fragment after it is refused, others are not, and goes when the datagram is completed,
// though the channel is never idle.
func TestFragmentsKeepOrder(t *testing.T) {
	h := newFakeHost()
	h.noTable = true
	held, release := h.slowChannel(c)
	n := open(t, h, Config{Queues: 4})
	defer release()
	up(t, n)
	flow, pair := crossing(t, n)
	send := func(b []byte) int { return n.Send(0, []nic.Frame{asFrame(b)}) }
	if send(numbered(flow, 0)) != 1 {
		t.Fatal("a frame is refused")
	}
	<-held
	tcp := numbered(flow, 1)
	tcp[23] = 6
	if send(fragment(flow, 2, 0, true)) != 0 {
		t.Error("a fragment is taken that would overtake a datagram")
	}
	if send(fragment(flow, 2, 0, true)) != 0 || send(numbered(flow, 2)) != 0 {
		t.Error("a frame is taken that would overtake a datagram")
	}
	if send(tcp) != 1 {
		t.Error("TCP waits for fragments of UDP")
	}
	// The next ones keep the channel busy, but come later.
	q := n.session.Load().queues[c]
	q.ch.Lock()
	q.entries[era(q.era)]++
	q.ch.Unlock()
	release()
	sendUntil(n, fragment(flow, 2, 0, true), fragment(flow, 3, 1480, false), numbered(flow, 4))
	h.until(t, "all arrive", func() bool { return len(h.frames) == 5 })
	q.ch.Lock()
	q.entries[era(q.era)]--
	q.ch.Unlock()
	var order []int
	numbers, channels := h.heard(flow)
	for i, k := range numbers {
		if k != 1 {
			order = append(order, k)
			if want := []int{c, 0, pair, pair, pair}[k]; channels[i] != want {
				t.Errorf("frame %d came on channel %d, want %d", k, channels[i], want)
			}
		}
	}
	if !slices.Equal(order, []int{0, 2, 3, 4}) {
		t.Errorf("frames came as %v", order)
	}
}

// TestFragmentsKeepOrderOfPumps is the same with a source: one fragment goes, the others
// wait, and no datagram is complete without its last one.
func TestFragmentsKeepOrderOfPumps(t *testing.T) {
	h := newFakeHost()
	h.noTable = true
	held, release := h.slowChannel(c)
	n := open(t, h, Config{Queues: 4})
	defer release()
	up(t, n)
	flow, pair := crossing(t, n)
	src := newSource(numbered(flow, 0))
	pumping(t, n, src)
	<-held
	src.add(fragment(flow, 1, 0, true), fragment(flow, 2, 1480, false), numbered(flow, 3))
	for end := time.Now().Add(10 * time.Second); n.starving.Load() == 0; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("the pump does not wait")
		}
	}
	src.mu.Lock()
	if left := len(src.frames); left != 2 {
		t.Errorf("%d frames are left in the source, want 2", left)
	}
	src.mu.Unlock()
	release()
	h.until(t, "all arrive", func() bool { return len(h.frames) == 4 })
	numbers, channels := h.heard(flow)
	at := slices.Index(numbers, 0)
	if slices.Index(numbers, 2) < at || channels[slices.Index(numbers, 3)] != pair || slices.Index(numbers, 3) < slices.Index(numbers, 2) {
		t.Errorf("frames %v came on channels %v, want the last ones on %d", numbers, channels, pair)
	}
}

// TestPairs: a pair is known until no fragment has come for a while, and leaves its place
// to no other one before.
func TestPairs(t *testing.T) {
	const a, more, next = 7, pairSlots / pairGroup, 7 + pairSlots
	var p pairs
	p.init()
	var full []uint32 // group
	for i := range uint32(pairGroup) {
		full = append(full, a+i*more)
		p.fragment(full[i], 1)
	}
	p.fragment(next, pairAge)
	p.fragment(0, 1)
	for _, pair := range full {
		if !p.set.Load().has(pair) {
			t.Errorf("pair %d is not known", pair)
		}
	}
	if s := p.set.Load(); s.has(next) || s.has(0) || s.has(a+1) {
		t.Errorf("pairs %v", *s)
	}
	p.fragment(a, 10)
	p.expire(a, 9+pairAge)
	if !p.set.Load().has(a) {
		t.Error("forgotten too early")
	}
	p.fragment(next, 9+pairAge)
	if s := p.set.Load(); !s.has(a) || s.has(full[1]) || !s.has(next) {
		t.Errorf("the place is not given up: %v", *s)
	}
	for _, pair := range append(full, next) {
		p.expire(pair, 9+2*pairAge)
	}
	if *p.set.Load() != (pairSet{}) {
		t.Errorf("not forgotten: %v", *p.set.Load())
	}
}

// TestPairExpires: datagrams go by their ports again when no fragment has come for long.
func TestPairExpires(t *testing.T) {
	h := newFakeHost()
	h.noTable = true
	n := open(t, h, Config{Queues: 4})
	up(t, n)
	flow, pair := crossing(t, n)
	sendUntil(n, fragment(flow, 0, 0, true), numbered(flow, 1))
	for i := range n.pairs.last {
		n.pairs.last[i].Add(-pairAge & 0xffffffff)
	}
	sendUntil(n, numbered(flow, 2), numbered(flow, 3))
	h.until(t, "all arrive", func() bool { return len(h.frames) == 4 })
	if numbers, channels := h.heard(flow); !slices.Equal(numbers, []int{0, 1, 2, 3}) || !slices.Equal(channels, []int{pair, pair, pair, c}) {
		t.Errorf("frames %v came on channels %v, want %d thrice, and %d", numbers, channels, pair, c)
	}
}

// TestSetFragmentCure changes it in both directions, with and without a device.
func TestSetFragmentCure(t *testing.T) {
	h := newFakeHost()
	h.noTable = true
	n := open(t, h, Config{Queues: 4})
	up(t, n)
	ctx := context.Background()
	flow, pair := crossing(t, n)
	var want []int
	set := func(on bool) {
		t.Helper()
		if err := n.SetFragmentCure(ctx, on); err != nil || n.FragmentCure() != on {
			t.Fatalf("set %v: %v, is %v", on, err, n.FragmentCure())
		}
	}
	probe := func(channels ...int) {
		t.Helper()
		k := len(want)
		sendUntil(n, fragment(flow, k, 0, true), numbered(flow, k+1))
		want = append(want, channels...)
		h.until(t, "all arrive", func() bool { return len(h.frames) == len(want) })
	}
	probe(pair, pair)
	set(false)
	probe(c, c)
	if err := n.Detach(ctx); err != nil {
		t.Fatal(err)
	}
	set(true)
	if err := n.Reattach(ctx, h); err != nil {
		t.Fatal(err)
	}
	probe(pair, pair)
	if _, channels := h.heard(flow); !slices.Equal(channels, want) {
		t.Errorf("on channels %v, want %v", channels, want)
	}
}
