package impair

import (
	"context"
	"fmt"
	"time"

	"hvnet/nic"
)

// A held frame is a copy of one.
type held struct {
	frame nic.Frame
	buf   []byte
	at    time.Duration // when it is released
	seq   uint64        // among those of one time, the order in which they came
}

// copy returns a copy of a frame of n bytes, with what is known about it.
func (s *Sink) copy(f *nic.Frame, n int) *held {
	var h *held
	if n <= charge {
		h = s.buffers.Get().(*held)
	} else {
		h = &held{buf: make([]byte, n)}
	}
	b := h.buf[:n]
	f.CopyTo(b)
	h.frame = *f
	h.frame.Head, h.frame.Body = b, nil // all of it is private memory
	return h
}

// apply makes of a copy what v says.
func (h *held) apply(v fate) {
	h.at = v.at
	if v.corrupt {
		h.frame.Head[v.bit/8] ^= 1 << (v.bit % 8)
	}
}

// giveBack takes the memory of a copy that has been passed on.
func (s *Sink) giveBack(h *held) {
	if len(h.buf) == charge {
		h.frame = nic.Frame{}
		s.buffers.Put(h)
	}
}

// hold lets a copy wait, with the lock held.
func (s *Sink) hold(h *held) {
	s.seq++
	h.seq = s.seq
	first := len(s.waiting) == 0 || h.at < s.waiting[0].at
	s.waiting.push(h)
	s.bytes += cost(len(h.frame.Head))
	if !s.running {
		s.running = true
		go s.release()
	} else if first {
		s.wake()
	}
}

func (s *Sink) wake() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// Drain returns when all that had to wait has been passed on, or when ctx ends, with an
// error. What comes meanwhile is waited for too.
func (s *Sink) Drain(ctx context.Context) error {
	for {
		s.mu.Lock()
		if !s.running {
			s.mu.Unlock()
			return nil
		}
		if s.idle == nil {
			s.idle = make(chan struct{})
		}
		idle := s.idle
		s.mu.Unlock()
		select {
		case <-idle:
		case <-ctx.Done():
			return fmt.Errorf("wait for the frames that a bad line delays: %w", ctx.Err())
		}
	}
}

// maxBatch is how many frames are released at once at most.
const maxBatch = 64

// release passes frames on when their time has come, until none waits.
func (s *Sink) release() {
	batch := make([]*held, 0, maxBatch)
	frames := make([]nic.Frame, 0, maxBatch)
	var timer *time.Timer
	for {
		s.mu.Lock()
		batch, frames = batch[:0], frames[:0]
		now := time.Since(s.epoch)
		for len(batch) < maxBatch && len(s.waiting) > 0 && s.waiting[0].at <= now {
			h := s.waiting.pop()
			s.bytes -= cost(len(h.frame.Head))
			batch, frames = append(batch, h), append(frames, h.frame)
		}
		s.count.Passed += uint64(len(batch))
		var wait time.Duration
		if len(s.waiting) > 0 {
			wait = s.waiting[0].at - now
		}
		s.running = len(batch) > 0 || len(s.waiting) > 0
		running := s.running
		if !running && s.idle != nil {
			close(s.idle)
			s.idle = nil
		}
		s.mu.Unlock()
		switch {
		case len(batch) > 0:
			s.out.WriteFrames(frames)
			for _, h := range batch {
				s.giveBack(h)
			}
		case !running:
			return
		default:
			if timer == nil {
				timer = time.NewTimer(wait)
				defer timer.Stop()
			} else {
				timer.Reset(wait)
			}
			select {
			case <-timer.C:
			case <-s.kick:
			}
		}
	}
}

// A heap holds what waits, the one that is due first at index 0.
type heap []*held

func (h heap) less(i, j int) bool {
	if h[i].at != h[j].at {
		return h[i].at < h[j].at
	}
	return h[i].seq < h[j].seq
}

func (h *heap) push(x *held) {
	*h = append(*h, x)
	a := *h
	for i := len(a) - 1; i > 0; {
		up := (i - 1) / 2
		if !a.less(i, up) {
			break
		}
		a[i], a[up] = a[up], a[i]
		i = up
	}
}

func (h *heap) pop() *held {
	a := *h
	first, last := a[0], len(a)-1
	a[0] = a[last]
	a[last] = nil
	a = a[:last]
	*h = a
	for i := 0; ; {
		down := 2*i + 1
		if down >= len(a) {
			break
		}
		if down+1 < len(a) && a.less(down+1, down) {
			down++
		}
		if !a.less(down, i) {
			break
		}
		a[i], a[down] = a[down], a[i]
		i = down
	}
	return first
}
