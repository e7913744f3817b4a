package netvsc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"

	"hvnet/counter"
	"hvnet/nic"
)

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

func (s *source) ReadFrame(first, rest []byte) (n int, o nic.Offload, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads++
	if s.closed {
		return 0, o, net.ErrClosed
	}
	if len(s.frames) == 0 {
		return 0, o, nic.ErrNoFrame
	}
	f := s.frames[0]
	s.frames = s.frames[1:]
	if len(f) > len(first)+len(rest) {
		return 0, o, fmt.Errorf("no room for a frame of %d bytes in %d and %d", len(f), len(first), len(rest))
	}
	if k := copy(first, f); k < len(f) {
		s.split++
		copy(rest, f[k:])
	}
	return len(f), o, nil
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
			const count = 1000
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
// A relay stands behind another source every other batch.
type relay struct {
	*source
	other   *source
	batches int
}

func (r *relay) Batch() nic.Source {
	if r.batches++; r.batches%2 == 0 {
		return r.other
	}
	return r.source
}

// A pump asks a relay before each batch whom to read.
func TestPumpRelay(t *testing.T) {
	h := newFakeHost()
	n := open(t, h, Config{})
	var a, b [][]byte
	for i := range 2 * pumpBatch {
		a, b = append(a, frame(i, 60)), append(b, frame(1000+i, 60))
	}
	src := newSource(a...)
	r := &relay{source: src, other: newSource(b...)}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.Pump(ctx, r) }()
	up(t, n)
	h.until(t, "frames of both arrive", func() bool { return len(h.frames) >= 4*pumpBatch })
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

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

// TestPumpSendFull has a pump find no section free: what is counted are the frames that go
// from pages, and not that it has looked whether there is one.
func TestPumpSendFull(t *testing.T) {
	h := newFakeHost()
	n := open(t, h, Config{Queues: 1})
	up(t, n)
	s := n.session.Load()
	for i := s.sections.take(); i != none; i = s.sections.take() {
		defer s.sections.give(i)
	}
	src := newSource()
	p := &pump{n: n, src: src, wake: make(chan struct{}, 1)}
	for frames := range 3 {
		for range 2 {
			if err := p.round(); err != nic.ErrNoFrame {
				t.Fatal(err)
			}
			if got := n.count.Load(counter.TxSendFull); got != uint64(frames) {
				t.Fatalf("tx_send_full is %d after %d frames", got, frames)
			}
		}
		src.add(frame(frames, 100))
	}
}
