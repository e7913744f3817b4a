package ring

import (
	"fmt"
	"sync/atomic"
	"unsafe"
)

// A Consumer is the reading end of a ring. One goroutine at a time may use it.
//
// The usual loop: Mask, then Next until ErrEmpty with a Release after each batch,
// then Unmask; if it returns true there is more, else wait for the peer's signal.
type Consumer struct {
	h    *header
	data []byte
	size int

	read      int // where the next packet starts; private, ahead of the header's
	published int // the header's read index
	avail     int // bytes from read to the last good sample of the write index; 0 once err is set
	err       error
	patience  int // how often Linger looks
}

// NewConsumer returns the reading end of the ring in mem: a header page and at
// least one page of data, aligned to 8 bytes. It goes on where the indices in the
// header stand and leaves the interrupt mask as it is. It returns an error if mem
// cannot be a ring or if the indices are not inside it.
func NewConsumer(mem []byte) (*Consumer, error) {
	h, data, err := layout(mem)
	if err != nil {
		return nil, err
	}
	w, r, err := startIndices(h, len(data))
	if err != nil {
		return nil, err
	}
	return &Consumer{h: h, data: data, size: len(data), read: r, published: r, avail: used(w, r, len(data))}, nil
}

// Size returns the size of the data area in bytes.
func (c *Consumer) Size() int { return c.size }

// Err returns what the peer did wrong, nil as long as the ring is in order.
func (c *Consumer) Err() error { return c.err }

// Next copies the next packet, without its trailer, to buf and returns that part
// of buf. The descriptor in it has been checked: its payload begins at or behind
// the descriptor and not behind the end, the length field is the length of what is
// returned, no unknown flag is set. Everything behind the descriptor is the peer's
// word, but it no longer changes.
//
// It returns ErrEmpty if there is no packet, ErrTooBig with as much as buf, of 16 bytes
// at least, has room for of one that is now skipped, and ErrCorrupt.
func (c *Consumer) Next(buf []byte) ([]byte, error) {
	if c.avail == 0 && !c.look() {
		if c.err != nil {
			return nil, ErrCorrupt
		}
		return nil, ErrEmpty
	}
	r := c.read
	// One load of type, offset, length and flags; the copy below gets exactly
	// what was checked, whatever the peer stores meanwhile.
	d := atomic.LoadUint64((*uint64)(unsafe.Pointer(&c.data[r])))
	offset8, len8, flags := d>>16&0xffff, d>>32&0xffff, d>>48
	n := int(len8) * 8
	if offset8 < Descriptor/8 || len8 < offset8 || flags > 1 || n+Trailer > c.avail {
		c.fail(fmt.Errorf("ring: packet at %d with offset %d, length %d, flags %#x and %d bytes available",
			r, offset8*8, n, flags, c.avail))
		return nil, ErrCorrupt
	}
	c.avail -= n + Trailer
	c.read = r + n + Trailer
	if c.read >= c.size {
		c.read -= c.size
	}
	out := buf[:min(n, len(buf))]
	if end := r + len(out); end <= c.size {
		copy(out, c.data[r:end])
	} else {
		copy(out[copy(out, c.data[r:]):], c.data)
	}
	le.PutUint64(out, d)
	if len(out) < n {
		return out, ErrTooBig
	}
	return out, nil
}

// Release gives the memory of all packets since the last Release back to the
// peer, and returns whether the peer has to be signalled: it waits for room, and
// this batch made as much of it as it waits for. The interrupt mask is about new
// data and has no say here.
func (c *Consumer) Release() (signal bool) {
	before := c.published
	if c.read == before {
		return false
	}
	c.published = c.read
	publish(&c.h.read, uint32(c.read))
	// Only now the pending send size, and only then the write index: a producer
	// that stores the one and looks at the read index again misses nothing. Some
	// peers store size-1 for "when empty", so the low bits do not count.
	pending := int(c.h.pending.Load() &^ 7)
	if pending == 0 || !c.PeerSignalsRoom() || !c.sample() {
		return false
	}
	w := (c.read + c.avail) % c.size
	freeBefore := c.size - used(w, before, c.size) - gap
	freeAfter := c.size - c.avail - gap
	return freeBefore < pending && pending <= freeAfter
}

// PeerSignalsRoom reports the feature bit of the producer of this ring: it uses
// the pending send size here, and it honours ours in the ring of the other
// direction. A side without it polls when its ring is full, and the peer must not
// signal it.
func (c *Consumer) PeerSignalsRoom() bool { return c.h.features.Load()&featurePending != 0 }

// Empty reports whether there is no packet, after a fresh look. A corrupt ring is
// not empty: Next has something to say.
func (c *Consumer) Empty() bool { return c.sample() && c.avail == 0 }

// How often Linger looks at an empty ring, of a few nanoseconds each.
const (
	lingerMin = 1 << 6
	lingerMax = 1 << 12
)

// Linger looks at an empty ring for a moment, before its reader goes to sleep, and
// reports whether a packet has come: the longer, up to some ten microseconds, the more
// often that was worth it lately. It does not yield to other goroutines: in a process with
// nothing else to do each yield has the scheduler wake a thread, which costs more than
// the moment.
func (c *Consumer) Linger() bool {
	for range max(c.patience, lingerMin) {
		if !c.Empty() {
			c.patience = min(2*max(c.patience, lingerMin), lingerMax)
			return true
		}
	}
	c.patience /= 2
	return false
}

// Used returns how many bytes of packets wait, counted with Need, after a fresh
// look. It is 0 on a corrupt ring.
func (c *Consumer) Used() int {
	c.sample()
	return c.avail
}

// Mask tells the peer not to signal new data.
func (c *Consumer) Mask() { c.h.mask.Store(1) }

// Unmask tells the peer to signal again and looks once more, for data that came
// before the peer knew is never signalled. If there is some, or the ring is
// corrupt, Unmask masks again and returns true: the caller goes on reading. If it
// returns false, new data will be signalled. Everything read must be released
// first, else the peer does not see that the ring was empty.
func (c *Consumer) Unmask() (more bool) {
	publish(&c.h.mask, 0)
	if c.Empty() {
		return false
	}
	c.h.mask.Store(1)
	return true
}

// look samples the write index and returns whether there is a packet.
func (c *Consumer) look() bool { return c.sample() && c.avail != 0 }

// sample looks at the peer's write index. It returns false if the ring is corrupt.
func (c *Consumer) sample() bool {
	if c.err != nil {
		return false
	}
	i := c.h.write.Load()
	if err := checkIndex("write", i, c.size); err != nil {
		return c.fail(err)
	}
	// The peer writes on from where it was, and not over what is not released.
	avail := used(int(i), c.read, c.size)
	if avail < c.avail || avail+used(c.read, c.published, c.size) >= c.size {
		return c.fail(fmt.Errorf("ring: write index went from %d to %d with the read index at %d",
			(c.read+c.avail)%c.size, i, c.published))
	}
	c.avail = avail
	return true
}

func (c *Consumer) fail(err error) bool {
	c.err, c.avail = err, 0
	return false
}
