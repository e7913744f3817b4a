package pcap

import (
	"fmt"
	"sync"

	"hvnet/nic"
)

// MaxSnaplen is the most bytes of a packet that are captured, and the default: more than
// the longest frame has.
const MaxSnaplen = 256 << 10

// Config says what to capture. Zero values mean defaults.
type Config struct {
	Name    string // of the interface in the file
	About   string // what it is, in words
	Snaplen int    // bytes of a packet that are kept, up to MaxSnaplen; 0: all
	Count   int    // ends after so many packets; 0: never
	// Messages has the messages of the protocol in the file, too, where there is somebody
	// who tells of them: see [Point.Message].
	Messages bool
}

// The memory of a capture: twice so many bytes, of so many packets. What comes while both
// are full is dropped. At 1 Gbit/s it is full after some 30 ms without a reader.
const (
	bufferBytes   = 4 << 20
	bufferPackets = 8 << 10
)

// A Capture copies what passes a [Point] until [Capture.Write] is done with it.
type Capture struct {
	point *Point
	cfg   Config

	ready chan struct{} // capacity 1: look again

	mu      sync.Mutex
	fill    stock
	left    int // packets to come; negative: no end
	count   Counts
	stopped bool
}

// Counts says what became of the packets that passed.
type Counts struct {
	Captured uint64
	Dropped  uint64 // for want of room
}

// A stock is a number of packets.
type stock struct {
	packets []packet
	data    []byte // of all, one behind the other
}

func newStock() stock {
	return stock{packets: make([]packet, 0, bufferPackets), data: make([]byte, 0, bufferBytes)}
}

// A packet is one that was captured, without its data.
type packet struct {
	at      int64 // ns since 1970
	whole   uint32
	kept    uint32
	place   *Place
	vf      bool
	queue   int32 // negative: not known
	hash    uint32
	kind    nic.HashKind
	offload nic.Offload
	message *Message // nil for a frame
}

// Capture begins a capture. What passes from now on is kept until [Capture.Write] writes
// it. An error is nic.ErrInvalid or nic.ErrBusy.
func (p *Point) Capture(cfg Config) (*Capture, error) {
	switch {
	case cfg.Snaplen < 0 || cfg.Snaplen > MaxSnaplen:
		return nil, fmt.Errorf("capture: %d bytes of a packet: %w, want 1 to %d", cfg.Snaplen, nic.ErrInvalid, MaxSnaplen)
	case cfg.Count < 0:
		return nil, fmt.Errorf("capture: %d packets: %w, want at least 1", cfg.Count, nic.ErrInvalid)
	}
	c := &Capture{point: p, cfg: cfg, ready: make(chan struct{}, 1), fill: newStock(), left: -1}
	if cfg.Snaplen == 0 {
		c.cfg.Snaplen = MaxSnaplen
	}
	if cfg.Count > 0 {
		c.left = cfg.Count
	}
	if err := p.add(c); err != nil {
		return nil, err
	}
	return c, nil
}

// take copies the frames of a batch. A copy may panic where a guest takes its memory away:
// nothing of such a frame is kept, and the lock is free again.
func (c *Capture) take(now int64, frames []nic.Frame, at *Place) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return
	}
	for i := range frames {
		if c.left == 0 {
			break
		}
		c.add(now, &frames[i], at)
	}
	c.wake()
}

// wake has the writer look.
func (c *Capture) wake() {
	select {
	case c.ready <- struct{}{}:
	default:
	}
}

// add copies one frame. The caller holds the lock.
func (c *Capture) add(now int64, f *nic.Frame, at *Place) {
	n := f.Len()
	kept := min(n, c.cfg.Snaplen)
	s := &c.fill
	if len(s.packets) == cap(s.packets) || cap(s.data)-len(s.data) < kept {
		c.count.Dropped++
		return
	}
	p := packet{at: now, whole: uint32(n), kept: uint32(kept), place: at, queue: -1,
		hash: f.Hash, kind: f.HashKind, offload: f.Offload}
	p.vf = at.VF != nil && at.VF(f)
	if at.Queue != nil {
		p.queue = int32(at.Queue(f))
	}
	data := s.data
	data = append(data, f.Head[:min(kept, len(f.Head))]...)
	for _, b := range f.Body {
		data = append(data, b[:min(len(b), kept-(len(data)-len(s.data)))]...)
	}
	s.data, s.packets = data, append(s.packets, p)
	c.count.Captured++
	if c.left > 0 {
		c.left--
	}
}

// swap takes what was captured and gives the memory of empty for what comes. done says
// that no more will come.
func (c *Capture) swap(empty stock) (got stock, done bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	got, c.fill = c.fill, stock{empty.packets[:0], empty.data[:0]}
	return got, c.left == 0 || c.stopped
}

// stop ends the capture: what passes from now on is not seen.
func (c *Capture) stop() {
	c.point.remove(c)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = true
}

// Counts returns what became of the packets so far.
func (c *Capture) Counts() Counts {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count
}
