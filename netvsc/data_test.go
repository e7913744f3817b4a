package netvsc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"

	"hvnet/counter"
	"hvnet/nic"
	"hvnet/rndis"
)

func up(t testing.TB, n *NIC) *recorder {
	t.Helper()
	r := newRecorder()
	if err := n.Up(context.Background(), r); err != nil {
		t.Fatal(err)
	}
	return r
}

func sameFrames(t *testing.T, got, want [][]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d frames, want %d", len(got), len(want))
	}
	for i := range want {
		if !bytes.Equal(got[i], want[i]) {
			t.Fatalf("frame %d of %d bytes differs from what was sent, %d bytes", i, len(got[i]), len(want[i]))
		}
	}
}

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
		{6144, 64, 1500, 3},     // 3*1544 = 4632, 4*1544 = 6176
		{6176, 64, 1500, 3},     // exactly full is not allowed
		{6177, 64, 1500, 4},     // one byte less than full is
		{1 << 13, 200, 1000, 7}, // 7*1048 = 7336
		{200, 8, 60, 1},         // 104 each
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
	var mu sync.Mutex
	var held []uint64
	hold := true
	h.onData = func(q *fakeQueue, tid uint64) bool {
		mu.Lock()
		defer mu.Unlock()
		if hold {
			held = append(held, tid)
			h.mu.Lock()
			h.tell()
			h.mu.Unlock()
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
	mu.Lock()
	hold = false
	for _, tid := range held {
		h.queue(0).complete(tid, []byte{108, 0, 0, 0, 1, 0, 0, 0})
	}
	mu.Unlock()
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

func TestReceive(t *testing.T) {
	h := newFakeHost()
	n := open(t, h, Config{})
	r := up(t, n)
	h.until(t, "the filter is set", func() bool { return h.filter == 0x0d })
	var want [][]byte
	for i := range 50 {
		b := frame(i, 14+i*29)
		want = append(want, b)
		if err := h.queue(3).indicate(packetMessage(b, nil)); err != nil {
			t.Fatal(err)
		}
	}
	sameFrames(t, r.wait(t, len(want)), want)
	for _, m := range r.meta {
		if m.Channel != 3 || m.HashKind != nic.HashNone {
			t.Errorf("metadata %+v", m)
		}
	}
	h.until(t, "all sections come back", func() bool { return len(h.rxBusy) == 0 })
	if got := n.session.Load().queues[3].count.Load(counter.RxPackets); got != 50 {
		t.Errorf("rx_queue_3_packets is %d", got)
	}
}

func TestReceiveSeveralRanges(t *testing.T) {
	h := newFakeHost()
	n := open(t, h, Config{})
	r := up(t, n)
	var want, messages [][]byte
	for i := range 200 {
		want = append(want, frame(i, 60+i))
		messages = append(messages, packetMessage(want[i], nil))
	}
	if err := h.queue(1).indicate(messages...); err != nil {
		t.Fatal(err)
	}
	sameFrames(t, r.wait(t, len(want)), want)
	if r.calls != 1 {
		t.Errorf("sink was called %d times for one packet", r.calls)
	}
}

func TestReceiveInfo(t *testing.T) {
	h := newFakeHost()
	n := open(t, h, Config{})
	r := up(t, n)
	b := frame(1, 300)
	h.queue(0).indicate(packetMessage(b, &rndis.Info{Has: rndis.HasHash | rndis.HasVLAN, Hash: 0x12345678, VLAN: 0x6123}))
	want := append(append(append([]byte(nil), b[:12]...), 0x81, 0x00, 0x61, 0x23), b[12:]...)
	sameFrames(t, r.wait(t, 1), [][]byte{want})
	if m := r.meta[0]; m.Hash != 0x12345678 || m.HashKind != nic.HashL4 {
		t.Errorf("metadata %+v", m)
	}
}

// TestReceiveRingFull has the driver's outbound ring full while it receives: the
// completions come later, all of them.
func TestReceiveRingFull(t *testing.T) {
	h := newFakeHost()
	gate := make(chan struct{})
	h.onData = func(q *fakeQueue, tid uint64) bool { <-gate; return false }
	n := open(t, h, Config{Queues: 1, RingBytes: 2 * 4096})
	r := up(t, n)
	for n.Send(0, []nic.Frame{asFrame(frame(0, 60))}) > 0 {
	}
	const count = 60
	for i := range count {
		for h.queue(0).indicate(packetMessage(frame(i, 60), nil)) != nil {
		}
	}
	r.wait(t, count)
	close(gate)
	h.until(t, "all sections come back", func() bool { return len(h.rxBusy) == 0 })
	if n.count.Load(counter.RxCompBusy) == 0 {
		t.Error("rx_comp_busy is 0")
	}
}

func TestUpDown(t *testing.T) {
	h := newFakeHost()
	n := open(t, h, Config{})
	ctx := context.Background()
	r := up(t, n)
	if err := n.Down(ctx); err != nil {
		t.Fatal(err)
	}
	if h.filter != 0 {
		t.Errorf("filter is %#x after Down", h.filter)
	}
	h.queue(0).indicate(packetMessage(frame(0, 60), nil))
	h.until(t, "the section comes back", func() bool { return len(h.rxBusy) == 0 })
	if len(r.frames) != 0 {
		t.Error("sink was called after Down")
	}
	r2 := up(t, n)
	h.queue(0).indicate(packetMessage(frame(0, 60), nil))
	r2.wait(t, 1)
	if err := n.Close(ctx); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{"Up": n.Up(ctx, r), "Down": n.Down(ctx), "SetChannels": n.SetChannels(ctx, 2)} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s after Close: %v", what, err)
		}
	}
	if n.Send(0, []nic.Frame{asFrame(frame(0, 60))}) != 0 {
		t.Error("Send took a frame after Close")
	}
}

// A source gives frames that a test puts in.
type source struct {
	mu     sync.Mutex
	frames [][]byte
	closed bool
	wake   chan struct{}
	reads  int
	split  int // reads whose frame went to both parts
}

func newSource(frames ...[]byte) *source {
	return &source{frames: frames, wake: make(chan struct{}, 1)}
}

func (s *source) ReadFrame(first, rest []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads++
	if s.closed {
		return 0, net.ErrClosed
	}
	if len(s.frames) == 0 {
		return 0, nic.ErrNoFrame
	}
	f := s.frames[0]
	s.frames = s.frames[1:]
	if len(f) > len(first)+len(rest) {
		return 0, fmt.Errorf("no room for a frame of %d bytes in %d and %d", len(f), len(first), len(rest))
	}
	if k := copy(first, f); k < len(f) {
		s.split++
		copy(rest, f[k:])
	}
	return len(f), nil
}

func (s *source) Wait() error { <-s.wake; return nil }

func (s *source) Wake() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *source) add(frames ...[]byte) {
	s.mu.Lock()
	s.frames = append(s.frames, frames...)
	s.mu.Unlock()
	s.Wake()
}

func (s *source) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.Wake()
}

// pumping runs Pump until the test ends.
func pumping(t testing.TB, n *NIC, src *source) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Pump(ctx, src) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("pump: %v", err)
		}
	})
}

func TestPump(t *testing.T) {
	for _, c := range []struct {
		name           string
		mtu, section   int
		queues, sizes  int // frames of 14 to sizes bytes
		direct, sameCh bool
	}{
		{"one channel", 1500, 6144, 1, 1514, false, true},
		{"eight channels", 1500, 6144, 8, 1514, false, false},
		{"jumbo", 9000, 6144, 1, 9014, true, true},
		{"jumbo, eight channels", 9000, 6144, 8, 9014, true, false},
		{"short sections", 1500, 512, 4, 1514, true, false},
		{"no sections", 1500, 70, 4, 1514, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newFakeHost()
			h.txSection = c.section
			n := open(t, h, Config{Queues: c.queues, MTU: c.mtu, TxSections: 2000})
			src := newSource()
			pumping(t, n, src)
			up(t, n)
			want := map[string]int{}
			const count = 2000
			for i := range count {
				b := frame(i%50, 42+(i*131)%(c.sizes-41))
				want[string(b)]++
				src.add(b)
			}
			h.until(t, "all frames arrive", func() bool { return len(h.frames) == count })
			for _, f := range h.frames {
				want[string(f)]--
			}
			for f, k := range want {
				if k != 0 {
					t.Fatalf("a frame of %d bytes is missing or changed", len(f))
				}
			}
			direct := false
			for _, s := range h.sends {
				direct = direct || s.direct
			}
			if direct != c.direct {
				t.Errorf("sent from pages: %v, want %v", direct, c.direct)
			}
			if c.section > 1000 && c.direct && src.split == 0 {
				t.Error("no frame began in a section and went on in pages")
			}
			if got := n.count.Load(counter.TxSteerCopy) > 0; c.section == 6144 && got == c.sameCh {
				t.Errorf("frames were copied over: %v", got)
			}
		})
	}
}

// TestPumpHoldsBack has the host complete nothing: the source is not read beyond
// what there is memory for.
func TestPumpHoldsBack(t *testing.T) {
	h := newFakeHost()
	gate := make(chan struct{})
	h.onData = func(q *fakeQueue, tid uint64) bool { <-gate; return false }
	n := open(t, h, Config{Queues: 2, TxSections: 10})
	up(t, n)
	var frames [][]byte
	for i := range 3000 {
		frames = append(frames, frame(i, 1500))
	}
	src := newSource(frames...)
	pumping(t, n, src)
	for n.starving.Load() == 0 {
	}
	src.mu.Lock()
	left := len(src.frames)
	src.mu.Unlock()
	if left < 2800 {
		t.Errorf("only %d frames are left in the source", left)
	}
	close(gate)
	h.until(t, "all frames arrive", func() bool { return len(h.frames) == len(frames) })
}

func TestPumpEnds(t *testing.T) {
	h := newFakeHost()
	n := open(t, h, Config{})
	up(t, n)
	src := newSource()
	ended := make(chan error, 1)
	go func() { ended <- n.Pump(context.Background(), src) }()
	src.close()
	if err := <-ended; err != nil {
		t.Errorf("source closed: %v", err)
	}
	go func() { ended <- n.Pump(context.Background(), newSource()) }()
	for n.pumping() == 0 {
	}
	if err := n.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, ErrClosed) {
		t.Errorf("NIC closed: %v", err)
	}
	if err := n.Pump(context.Background(), newSource()); !errors.Is(err, ErrClosed) {
		t.Errorf("NIC was closed: %v", err)
	}
}

func (n *NIC) pumping() int {
	n.pumpMu.Lock()
	defer n.pumpMu.Unlock()
	return len(n.pumps)
}
