package netvsc

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"hvnet/nic"
	"hvnet/offload"
)

// TestFlowEstimate: estimates of flows that differ by a port alone are near, and end at the
// limit.
func TestFlowEstimate(t *testing.T) {
	for _, flows := range []int{0, 1, 2, 10, 100, 500, 1000, 3000, 5000} {
		var s flowSet
		for range 2 {
			for i := range flows {
				s.note(frame(i, 60), 7)
			}
		}
		if got := s.count(7); math.Abs(float64(got-flows)) > 0.15*float64(flows) {
			t.Errorf("%d flows: %d", flows, got)
		}
		if got := s.count(8); got != 0 {
			t.Errorf("%d flows of a spell before: %d", flows, got)
		}
	}
	var s flowSet
	for i := range 60000 {
		s.note(frame(i, 60), 1)
	}
	s.note(frame(0, 60), 0) // somebody late
	if got := s.count(1); got != nic.MaxFlows {
		t.Errorf("of 60000 flows %d, want %d", got, nic.MaxFlows)
	}
	var parts flowSet
	for i := range 10 {
		parts.note(fragment(1, i, 1480*i, i < 9), 1)
	}
	parts.note(make([]byte, 60), 1) // no flow
	parts.note(nil, 1)
	if got := parts.count(1); got != 1 {
		t.Errorf("of fragments of one pair %d flows", got)
	}
}

// TestFlows: flows are noted from the first question on, for each who asks since he did so
// last, and no longer when nobody has asked for a while.
func TestFlows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		n := open(t, h, Config{Queues: 2})
		up(t, n)
		send := func(from, to int) {
			t.Helper()
			for i := from; i < to; i++ {
				if n.Send(0, []nic.Frame{asFrame(frame(i, 60))}) != 1 {
					t.Fatal("Send refused a frame")
				}
			}
			synctest.Wait()
		}
		ask := func(mark uint32, want int) uint32 {
			t.Helper()
			r := n.Flows(mark, time.Second)
			sent := -1
			if len(r.Channels) == 2 {
				sent = r.Channels[0].Sent + r.Channels[1].Sent
			}
			if sent != want {
				t.Errorf("since %d: %d flows, want %d: %+v", mark, sent, want, r)
			}
			return r.Mark
		}
		send(0, 30)
		one := ask(0, -1)
		send(0, 4)
		another := ask(0, -1)
		send(3, 6)
		one = ask(one, 6)
		ask(another, 3)
		one = ask(one, 0)
		ask(one+2, -1) // a mark that was not given
		n.Flows(0, 10*time.Second)
		time.Sleep(9 * time.Second)
		send(7, 9)
		one = ask(one, 2)
		time.Sleep(2 * time.Second)
		if n.look.spell.Load() != 0 {
			t.Error("flows are noted although nobody asks")
		}
		ask(one, -1)
		if err := n.Close(t.Context()); err != nil {
			t.Error(err)
		}
		n.Flows(0, time.Hour)
		if n.look.spell.Load() != 0 {
			t.Error("flows are noted of a NIC that is closed")
		}
	})
}

// TestFlowsEverywhere: flows are noted on each way that frames can take, without allocation.
func TestFlowsEverywhere(t *testing.T) {
	h, n, x := still(t, 1, &counting{})
	q := n.session.Load().queues[0]
	frames := []nic.Frame{asFrame(frame(1, 60)), asFrame(frame(2, 1500))}
	ranges := receiveRanges(x, 1500)
	src := &loop{frame: frame(1, 64)}
	p := &pump{n: n, src: src}
	port := &VFPort{n: n, dev: newFakeVF(h), out: offload.NewSink(&counting{})}
	for _, c := range []struct {
		way  string
		f    func()
		want nic.Flows
	}{
		{"Send", func() { n.Send(0, frames); drainAll(q, x) }, nic.Flows{Sent: 2}},
		{"Pump", func() { src.left = 4; p.round(); drainAll(q, x) }, nic.Flows{Sent: 1}},
		{"receive", func() { x.give(1, ranges[:3]); drainAll(q, x) }, nic.Flows{Received: 3}},
		{"send by VF", func() { port.send(q.s, 0, frames) }, nic.Flows{Sent: 2}},
		{"receive by VF", func() { port.WriteFrames(frames) }, nic.Flows{Received: 2}},
	} {
		mark := n.Flows(0, time.Hour).Mark
		if a := testing.AllocsPerRun(20, c.f); a != 0 {
			t.Errorf("%s: %v allocations", c.way, a)
		}
		if r := n.Flows(mark, time.Hour); len(r.Channels) != 1 || r.Channels[0] != c.want {
			t.Errorf("%s: %+v, want %+v", c.way, r, c.want)
		}
	}
}
