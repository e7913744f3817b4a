package netvsc

import (
	"fmt"
	"testing"

	"hvnet/counter"
	"hvnet/nic"
)

func TestSend(t *testing.T) {
	h := newFakeHost()
	n := open(t, h, Config{Queues: 1})
	f := []nic.Frame{asFrame(frame(0, 60))}
	if got := n.Send(0, f); got != 0 {
		t.Errorf("sent %d frames while down", got)
	}
	up(t, n)
	var want [][]byte
	var frames []nic.Frame
	for i := range 40 {
		b := frame(i, 14+i*37)
		want = append(want, b)
		frames = append(frames, asFrame(b))
	}
	if got := n.Send(0, frames); got != len(frames) {
		t.Fatalf("took %d of %d", got, len(frames))
	}
	h.until(t, "all frames arrive", func() bool { return len(h.frames) == len(want) })
	sameFrames(t, h.frames, want)
	for _, s := range h.sends {
		if s.direct || s.used == 0 {
			t.Errorf("a small frame went from pages: %+v", s)
		}
	}
	if got := len(h.sends); got >= len(want)/2 {
		t.Errorf("%d ring packets for %d frames: not batched", got, len(want))
	}
}

func TestSendBatchLimits(t *testing.T) {
	for _, c := range []struct {
		section   int
		packets   uint32
		size, max int // frame bytes, most frames of one section
	}{
		{6144, 8, 64, 8},
		{6144, 1, 64, 1},
		{6144, 64, 1500, 3},     // 3*1576 = 4728, 4*1576 = 6304
		{6304, 64, 1500, 3},     // exactly full is not allowed
		{6305, 64, 1500, 4},     // one byte less than full is
		{1 << 13, 200, 1000, 7}, // 7*1072 = 7504
		{200, 8, 60, 1},         // 132 each
		{80, 8, 60, 1},          // too short to be of use: from pages
		{68, 8, 60, 1},          //
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			h := newFakeHost()
			h.txSection, h.maxPackets = c.section, c.packets
			n := open(t, h, Config{Queues: 1})
			up(t, n)
			var frames []nic.Frame
			var want [][]byte
			for i := range 100 {
				b := frame(i, c.size)
				want, frames = append(want, b), append(frames, asFrame(b))
			}
			for sent := 0; sent < len(frames); {
				k := n.Send(0, frames[sent:])
				sent += k
				h.until(t, "the host catches up", func() bool { return len(h.frames) == sent })
			}
			sameFrames(t, h.frames, want)
			most := 0
			for _, s := range h.sends {
				most = max(most, s.messages)
			}
			if most != c.max {
				t.Errorf("most frames in a send: %d, want %d", most, c.max)
			}
		})
	}
}

func TestSendUnsendable(t *testing.T) {
	h := newFakeHost()
	n := open(t, h, Config{})
	up(t, n)
	frames := []nic.Frame{asFrame(frame(1, 13)), asFrame(frame(1, 1519)), asFrame(frame(1, 1518)), asFrame(frame(1, 14))}
	if got := n.Send(-1, frames); got != len(frames) {
		t.Errorf("took %d", got)
	}
	h.until(t, "two frames arrive", func() bool { return len(h.frames) == 2 })
	if n.count.Load(counter.TxTooBig) != 1 || n.count.Load(counter.TxMalformed) != 1 {
		t.Errorf("too big %d, malformed %d", n.count.Load(counter.TxTooBig), n.count.Load(counter.TxMalformed))
	}
}

// TestSendSpread checks that flows spread over all channels as the host's table
// says, and that each keeps to one.
func TestSendSpread(t *testing.T) {
	for _, table := range []bool{true, false} {
		h := newFakeHost()
		h.noTable = !table
		n := open(t, h, Config{})
		up(t, n)
		const flows = 256
		for round := range 4 {
			var frames []nic.Frame
			for i := range flows {
				frames = append(frames, asFrame(frame(i, 60)))
			}
			for len(frames) > 0 {
				frames = frames[n.Send(round, frames):]
			}
		}
		h.until(t, "all frames arrive", func() bool { return len(h.frames) == 4*flows })
		for c := range 8 {
			if h.perChan[c] == 0 || h.perChan[c]%4 != 0 {
				t.Errorf("channel %d has %d of %d frames", c, h.perChan[c], 4*flows)
			}
		}
	}
}

// TestSendSectionsRunOut has the host complete nothing: frames go from pages when
// the sections are used up, then are refused, and go on when the host completes.
func TestSendSectionsRunOut(t *testing.T) {
	h := newFakeHost()
	var held []uint64
	hold := true
	h.onData = func(q *fakeQueue, tid uint64) bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		if hold {
			held = append(held, tid)
			h.tell()
		}
		return hold
	}
	n := open(t, h, Config{Queues: 1, TxSections: 10})
	up(t, n)
	s := n.session.Load()
	sent := 0
	for {
		k := n.Send(0, []nic.Frame{asFrame(frame(0, 1000))})
		if k == 0 {
			break
		}
		sent++
	}
	if want := s.txSections + pageRuns; sent != want {
		t.Errorf("took %d frames, want %d", sent, want)
	}
	if got := n.count.Load(counter.TxSendFull); got < pageRuns {
		t.Errorf("tx_send_full is %d, want at least %d", got, pageRuns)
	}
	h.until(t, "host holds all", func() bool { return len(held) == sent })
	h.mu.Lock()
	hold = false
	h.mu.Unlock()
	for _, tid := range held {
		h.queue(0).complete(tid, []byte{108, 0, 0, 0, 1, 0, 0, 0})
	}
	for n.session.Load().sections.idle() < s.txSections {
	}
	if n.Send(0, []nic.Frame{asFrame(frame(0, 1000))}) != 1 {
		t.Error("took nothing after the host has completed everything")
	}
}

// TestSendRingFull has the host read nothing for a while: queues stop, what the
// ring does not take waits, nothing is lost or changes its order.
func TestSendRingFull(t *testing.T) {
	h := newFakeHost()
	gate := make(chan struct{})
	h.onData = func(q *fakeQueue, tid uint64) bool { <-gate; return false }
	n := open(t, h, Config{Queues: 1, RingBytes: 2 * 4096, TxSections: 400})
	up(t, n)
	var want [][]byte
	for i := 0; ; i++ {
		b := frame(i, 60)
		if n.Send(0, []nic.Frame{asFrame(b)}) == 0 {
			break
		}
		want = append(want, b)
	}
	if len(want) < 40 || len(want) > 80 {
		t.Errorf("a ring of 4096 bytes took %d sends", len(want))
	}
	if n.count.Load(counter.StopQueue) != 1 {
		t.Errorf("stop_queue is %d", n.count.Load(counter.StopQueue))
	}
	close(gate)
	h.until(t, "all frames arrive", func() bool { return len(h.frames) == len(want) })
	for i := 0; i < 1000; i++ {
		b := frame(i, 60)
		for n.Send(0, []nic.Frame{asFrame(b)}) == 0 {
		}
		want = append(want, b)
	}
	h.until(t, "all frames arrive", func() bool { return len(h.frames) == len(want) })
	sameFrames(t, h.frames, want)
	if n.count.Load(counter.WakeQueue) == 0 {
		t.Error("wake_queue is 0")
	}
}

// TestSendBatchesRingFull sends batches that fill the ring before the marks of flow
// control are looked at: what does not fit waits, in order.
func TestSendBatchesRingFull(t *testing.T) {
	h := newFakeHost()
	gate := make(chan struct{})
	h.onData = func(q *fakeQueue, tid uint64) bool { <-gate; return false }
	n := open(t, h, Config{Queues: 1, RingBytes: 2 * 4096})
	up(t, n)
	var want [][]byte
	send := func(count int) {
		var frames []nic.Frame
		var raw [][]byte
		for i := range count {
			raw = append(raw, frame(len(want)+i, 1500))
			frames = append(frames, asFrame(raw[i]))
		}
		want = append(want, raw[:n.Send(0, frames)]...)
	}
	for before := -1; len(want) > before; {
		before = len(want)
		send(3 * readyMax)
	}
	if n.count.Load(counter.TxBusy) == 0 {
		t.Error("tx_busy is 0: nothing had to wait")
	}
	close(gate)
	for range 50 {
		send(100)
	}
	h.until(t, "all frames arrive", func() bool { return len(h.frames) == len(want) })
	sameFrames(t, h.frames, want)
}

// TestSendNoSpace fills the ring with completions of received frames, which no
// completion of the host will ever follow: frames to send are dropped then, for
// nothing would wake whoever waits.
func TestSendNoSpace(t *testing.T) {
	h := newFakeHost()
	n := open(t, h, Config{Queues: 1, RingBytes: 2 * 4096})
	r := up(t, n)
	x := quick(h) // reads nothing for now
	const count = 200
	for sent := 0; sent < count; sent++ {
		for x.q.indicate(packetMessage(frame(sent, 60), nil)) != nil {
		}
		r.wait(t, sent+1)
	}
	if n.Send(0, []nic.Frame{asFrame(frame(0, 60))}) != 1 {
		t.Error("Send took nothing")
	}
	if got := n.count.Load(counter.TxNoSpace); got != 1 {
		t.Errorf("tx_no_space is %d", got)
	}
	x.back()
	h.until(t, "all sections come back", func() bool { return len(h.rxBusy) == 0 })
	alive(t, h, n, r)
}
