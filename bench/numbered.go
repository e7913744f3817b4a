package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// numberedBytes is the payload of a datagram, of which the first eight are its number.
const numberedBytes = 1400

// A numbered stream is of UDP datagrams with numbers, at a constant rate.
type numbered struct {
	from, to *net.UDPConn
	window   uint64  // most datagrams on the way, 0 for any
	every    float64 // seconds from one to the next

	sent atomic.Uint64
	next atomic.Uint64 // after the largest number that has come

	mu       sync.Mutex // held to take a datagram, and by who looks
	times    []uint8    // that each number has come
	late     int        // came after one with a larger number
	overflow uint32     // the receiver's socket had no room
	last     time.Time  // when one came
	pause    time.Duration
}

func newNumbered(mbits, window int) *numbered {
	return &numbered{window: uint64(window), every: numberedBytes * 8 / (float64(mbits) * 1e6)}
}

// numberedTick is how often a stream sends what is due, and numberedBurst how many datagrams at
// most. A sender that is late by more than numberedLate, because it did not get the processor,
// does not make up for that.
const (
	numberedTick  = 250 * time.Microsecond
	numberedBurst = 64
	numberedLate  = 256
)

// send sends until ctx ends.
func (s *numbered) send(ctx context.Context) error {
	to := s.to.LocalAddr().(*net.UDPAddr).AddrPort()
	b := make([]byte, numberedBytes)
	tick := time.NewTicker(numberedTick)
	defer tick.Stop()
	begun, number := time.Now(), uint64(0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := time.Now()
		due := uint64(now.Sub(begun).Seconds() / s.every)
		n := min(due-min(due, number), numberedBurst)
		if s.window > 0 {
			on := number - s.next.Load()
			n = min(n, s.window-min(s.window, on))
		}
		for range n {
			binary.BigEndian.PutUint64(b, number)
			if _, err := s.from.WriteToUDPAddrPort(b, to); err != nil {
				return fmt.Errorf("send a datagram: %w", err)
			}
			number++
			s.sent.Store(number)
		}
		if late := due - min(due, number); late > numberedLate {
			begun = begun.Add(time.Duration(float64(late-numberedLate) * s.every * float64(time.Second)))
		}
	}
}

// receive takes datagrams until the socket's deadline.
func (s *numbered) receive() error {
	b, oob := make([]byte, 1<<11), make([]byte, 64)
	for {
		n, oobn, _, _, err := s.to.ReadMsgUDPAddrPort(b, oob)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("receive a datagram: %w", err)
		}
		if n != numberedBytes {
			return fmt.Errorf("receive a datagram: %d bytes, want %d", n, numberedBytes)
		}
		s.took(binary.BigEndian.Uint64(b), oob[:oobn])
	}
}

// took notes a datagram.
func (s *numbered) took(number uint64, oob []byte) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if n, ok := overflowed(oob); ok {
		s.overflow = n
	}
	if !s.last.IsZero() {
		s.pause = max(s.pause, now.Sub(s.last))
	}
	s.last = now
	if number >= s.sent.Load()+numberedBurst {
		return // nobody has sent it
	}
	next := s.next.Load()
	for uint64(len(s.times)) <= number {
		s.times = append(s.times, 0)
	}
	if number < next && s.times[number] == 0 {
		s.late++
	}
	if s.times[number] < 255 {
		s.times[number]++
	}
	s.next.Store(max(next, number+1))
}

// overflowed returns how many datagrams a socket has dropped for want of room, as its control
// message says: struct cmsghdr of 16 bytes, u32.
func overflowed(oob []byte) (n uint32, ok bool) {
	const level, kind = 1, 40 // SOL_SOCKET, SO_RXQ_OVFL
	ne := binary.NativeEndian
	if len(oob) < 20 || ne.Uint32(oob[8:]) != level || ne.Uint32(oob[12:]) != kind {
		return 0, false
	}
	return ne.Uint32(oob[16:]), true
}

// A numberedMark is where a stream is.
type numberedMark struct {
	next     uint64
	overflow uint32
	pause    time.Duration // the longest between two datagrams since the mark before
}

// mark returns where the stream is, and begins a new pause.
func (s *numbered) mark() numberedMark {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := numberedMark{s.next.Load(), s.overflow, s.pause}
	s.pause = 0
	return m
}

// lost returns how many datagrams have not come of those between two marks, and how many of
// them the receiver had no room for.
func (s *numbered) lost(a, b numberedMark) (lost, overflow int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.times[a.next:b.next] {
		if n == 0 {
			lost++
		}
	}
	return lost, min(lost, int(b.overflow-a.overflow))
}

// twice returns how many times a datagram has come that had come before.
func (s *numbered) twice() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, times := range s.times {
		n += max(int(times)-1, 0)
	}
	return n
}

// report says what became of the stream.
func (s *numbered) report(marks []numberedMark, took time.Duration) (r VFStream) {
	r.Sent = int(s.sent.Load())
	r.Mbits = float64(r.Sent) * numberedBytes * 8 / took.Seconds() / 1e6
	r.Duplicated = s.twice()
	r.Reordered = s.late
	end := s.mark()
	marks = append(marks, end)
	var outages, pauses []time.Duration
	for i, m := range marks[1:] {
		lost, overflow := s.lost(marks[i], m)
		outages = append(outages, time.Duration(float64(lost-overflow)*s.every*float64(time.Second)))
		pauses = append(pauses, m.pause)
	}
	all, overflow := s.lost(numberedMark{}, end)
	all += r.Sent - int(end.next) // the last ones
	r.Lost, r.Overflowed = all-overflow, overflow
	slices.Sort(outages)
	slices.Sort(pauses)
	if n := len(outages); n > 0 {
		r.OutageMedian, r.Outage99, r.OutageMax = outages[n/2], outages[n*99/100], outages[n-1]
		r.PauseMedian, r.PauseMax = pauses[n/2], pauses[n-1]
	}
	return r
}

// settle waits until all that was sent has come, or nothing comes for a while any more.
func (s *numbered) settle(ctx context.Context, quiet time.Duration) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		s.mu.Lock()
		last := s.last
		s.mu.Unlock()
		if s.next.Load() == s.sent.Load() || time.Since(last) > quiet {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for the last datagrams: %w", context.Cause(ctx))
		}
	}
}
