// Package impair makes a good line a bad one: a [Sink] stands in front of another
// and loses, delays, doubles, changes and reorders what passes, by chances that a
// seed fixes. It needs nothing of the kernel.
//
// What becomes of a frame is decided by a value without clock (decider). A frame
// that passes at once is handed on in place. One that has to wait is copied, up to
// a bound, and a goroutine that lives only while frames wait releases it.
package impair

import (
	"sync"
	"time"

	"hvnet/nic"
)

// A Sink passes frames on to another sink, as its Config has it. Its methods may
// be called from any goroutine.
type Sink struct {
	out   nic.Sink
	epoch time.Time // the decider's time is since then

	mu      sync.Mutex
	core    decider
	count   Info
	waiting heap
	bytes   int           // cost of all that waits
	seq     uint64        // of the frame that came to wait last
	running bool          // the goroutine that releases
	idle    chan struct{} // closed when it ends; nil: nobody waits for that
	kick    chan struct{} // capacity 1: look again, something came that is due earlier
	closed  bool

	staging sync.Pool // of *staging
	buffers sync.Pool // of *held with room for charge bytes
}

// New returns a sink that disturbs what goes to out.
func New(cfg Config, out nic.Sink) *Sink {
	s := &Sink{out: out, epoch: time.Now(), core: newDecider(cfg), kick: make(chan struct{}, 1)}
	s.staging.New = func() any { return new(staging) }
	s.buffers.New = func() any { return &held{buf: make([]byte, charge)} }
	return s
}

// Info tells what a Sink has done, in frames. Of those that came, and were
// doubled, each was passed on, was lost, or waits.
type Info struct {
	Frames     uint64 // that came
	Passed     uint64 // handed on
	Lost       uint64 // by chance
	Overflowed uint64 // lost because more waited than Limit
	Discarded  uint64 // lost because the sink was closed
	Doubled    uint64
	Corrupted  uint64
	Reordered  uint64 // held back
	Delayed    uint64 // that had to wait
	Fragments  uint64 // fragments that were lost, doubled or held back for being one
	Waiting    int
}

// Info returns the counts so far.
func (s *Sink) Info() Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.count
	i.Waiting = len(s.waiting)
	return i
}

// staging is the working memory of one WriteFrames.
type staging struct {
	now    []nic.Frame // what is passed on at once
	copies []*held     // of those, the ones that are copies
}

// WriteFrames takes a batch of frames. What does not have to wait is passed on
// before it returns.
func (s *Sink) WriteFrames(frames []nic.Frame) {
	st := s.staging.Get().(*staging)
	s.sort(frames, st)
	// Others may hand frames on meanwhile: between senders there is no order.
	if len(st.now) > 0 {
		s.out.WriteFrames(st.now)
	}
	for _, h := range st.copies {
		s.giveBack(h)
	}
	clear(st.now) // the pool must not keep anyone's memory alive
	clear(st.copies)
	st.now, st.copies = st.now[:0], st.copies[:0]
	s.staging.Put(st)
}

// sort decides about all frames of a batch. A copy may panic where a guest takes
// its memory away; the lock is free again then.
func (s *Sink) sort(frames []nic.Frame, st *staging) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Since(s.epoch)
	if s.closed {
		s.count.Frames += uint64(len(frames))
		s.count.Discarded += uint64(len(frames))
		return
	}
	for i := range frames {
		s.take(&frames[i], now, st)
	}
	s.count.Passed += uint64(len(st.now))
}

// take decides about one frame.
func (s *Sink) take(f *nic.Frame, now time.Duration, st *staging) {
	n := f.Len()
	v := s.core.decide(now, f.Channel, f.Head, n, s.bytes)
	copies := 0
	if !v.lost {
		copies = 1
		if v.double {
			copies = 2
		}
	}
	for range copies {
		if !v.wait && !v.corrupt {
			st.now = append(st.now, *f)
			continue
		}
		h := s.copy(f, n)
		h.apply(v)
		if v.wait {
			s.hold(h)
		} else {
			st.copies = append(st.copies, h)
			st.now = append(st.now, h.frame)
		}
	}
	s.count.add(v)
}

// add counts what became of a frame.
func (i *Info) add(v fate) {
	i.Frames++
	for _, c := range [...]struct {
		n *uint64
		b bool
	}{
		{&i.Lost, v.lost && !v.full}, {&i.Overflowed, v.full}, {&i.Fragments, v.fault},
		{&i.Doubled, v.double}, {&i.Corrupted, v.corrupt}, {&i.Reordered, v.late}, {&i.Delayed, v.wait},
	} {
		if c.b {
			*c.n++
		}
	}
}

// Close lets nothing pass any more, and forgets what waits. What is just being
// released may still reach the sink behind when it returns.
func (s *Sink) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.count.Discarded += uint64(len(s.waiting))
	s.waiting, s.bytes = nil, 0
	s.wake()
}
