// Package pcap captures the frames of a running NIC as a pcapng file, which Wireshark
// opens.
//
// A [Point] is where the frames of one NIC pass: it wraps the sinks that they go to and
// the sources that they come from. While nobody captures, a wrapper looks at one pointer
// for each batch and passes the batch on. A [Capture] copies what passes to memory of a
// fixed size, and another goroutine makes a file of it. When that does not keep up, frames
// are missing from the file, and counted; the NIC never waits.
//
// Frames are captured as they pass: a frame that is still to be cut into segments is one
// packet, and a checksum that is still to be completed is wrong in the file, as in any
// capture on a machine whose NIC computes checksums. The packet's comment says both.
package pcap

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"hvnet/nic"
)

// A Direction is that of a frame as the NIC sees it, on whichever side of the wire it is
// captured.
type Direction uint8

// The directions.
const (
	Inbound  Direction = iota // the NIC receives
	Outbound                  // the NIC sends
)

// The paths of a NIC's frames: Synthetic are those that go over VMBus channels, VF those of
// the virtual function beside it.
const (
	Synthetic = "synthetic"
	VF        = "vf"
)

// A Place says what is known of the frames that pass a wrapper.
type Place struct {
	Direction Direction
	// Queue returns the channel that a frame goes over; negative or nil: not known. The
	// frame's Head is private memory.
	Queue func(*nic.Frame) int
	// Path is the way that the frames take, such as Synthetic; empty: there is but one.
	Path string
}

// Channel is the Queue of frames whose Channel is set.
func Channel(f *nic.Frame) int { return int(f.Channel) }

// A Point is where the frames of a NIC pass. The zero value is one that nobody captures
// at. Its methods may be called from any goroutine.
type Point struct {
	mu   sync.Mutex
	open atomic.Pointer[[]*Capture] // nil: none; replaced when it changes, never written to
}

// maxCaptures is how many captures a point has at a time: each takes memory.
const maxCaptures = 8

// add opens a capture.
func (p *Point) add(c *Capture) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []*Capture
	if l := p.open.Load(); l != nil {
		list = slices.Clone(*l)
	}
	if len(list) >= maxCaptures {
		return fmt.Errorf("capture: there are %d captures here already: %w", maxCaptures, nic.ErrBusy)
	}
	list = append(list, c)
	p.open.Store(&list)
	return nil
}

// remove ends it.
func (p *Point) remove(c *Capture) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.open.Load()
	if l == nil {
		return
	}
	list := slices.DeleteFunc(slices.Clone(*l), func(o *Capture) bool { return o == c })
	if len(list) == 0 {
		p.open.Store(nil)
		return
	}
	p.open.Store(&list)
}

// Pass has frames captured that pass the place. It keeps nothing of them.
func (p *Point) Pass(frames []nic.Frame, at *Place) {
	if l := p.open.Load(); l != nil && len(frames) > 0 {
		pass(*l, frames, at)
	}
}

func pass(list []*Capture, frames []nic.Frame, at *Place) {
	now := time.Now().UnixNano() // one time for a batch
	for _, c := range list {
		c.take(now, frames, at)
	}
}

// Sink returns out with the place in front of it. It takes what out takes.
func (p *Point) Sink(out nic.Sink, at Place) nic.Taker {
	return &sink{p: p, out: out, at: at}
}

type sink struct {
	p   *Point
	out nic.Sink
	at  Place
}

func (s *sink) Takes() nic.Offloads {
	if t, ok := s.out.(nic.Taker); ok {
		return t.Takes()
	}
	return 0
}

// WriteFrames passes frames on; they are captured first, for whoever gets them may work on
// them in place.
func (s *sink) WriteFrames(frames []nic.Frame) {
	s.p.Pass(frames, &s.at)
	s.out.WriteFrames(frames)
}

// Source returns src with the place behind it. As of any source, one goroutine reads from
// it at a time.
func (p *Point) Source(src nic.Source, at Place) nic.Relay {
	return &source{Source: src, p: p, at: at}
}

type source struct {
	nic.Source
	p  *Point
	at Place

	frame [1]nic.Frame // the one that was read
	head  [nic.HeadLen]byte
	body  [2][]byte
}

// Batch implements nic.Relay: who captures nothing reads from the source itself.
func (s *source) Batch() nic.Source {
	if s.p.open.Load() == nil {
		return s.Source
	}
	return s
}

// ReadFrame reads a frame and has it captured. The memory that it was read into may be
// shared with a hostile host, so it is only copied.
func (s *source) ReadFrame(first, rest []byte) (int, nic.Offload, error) {
	n, o, err := s.Source.ReadFrame(first, rest)
	l := s.p.open.Load()
	if err != nil || l == nil {
		return n, o, err
	}
	here := min(n, len(first))
	k := copy(s.head[:], first[:here])
	body := s.body[:0]
	if here > k {
		body = append(body, first[k:here])
	}
	if n > here {
		body = append(body, rest[:n-here])
	}
	s.frame[0] = nic.Frame{Head: s.head[:k], Body: body, Offload: o}
	pass(*l, s.frame[:], &s.at)
	return n, o, err
}
