package ring

import "fmt"

// A Producer is the writing end of a ring. One goroutine at a time may use it.
//
// Put writes packets behind the write index, Publish makes them all visible at
// once. When Put returns ErrFull the caller drops, retries when its peer has
// completed something, or asks for a signal with AwaitRoom.
type Producer struct {
	h    *header
	data []byte
	size int

	write     int // where the next packet goes; private, ahead of the header's
	published int // the header's write index
	read      int // the last good sample of the peer's read index
	free      int // what packets may take, as of that sample; 0 once err is set
	err       error
}

// NewProducer returns the writing end of the ring in mem: a header page and at
// least one page of data, aligned to 8 bytes. It goes on where the indices in the
// header stand, sets the feature bit, and clears a pending send size that an
// earlier user may have left. It returns an error if mem cannot be a ring or if
// the indices are not inside it.
func NewProducer(mem []byte) (*Producer, error) {
	h, data, err := layout(mem)
	if err != nil {
		return nil, err
	}
	w, r, err := startIndices(h, len(data))
	if err != nil {
		return nil, err
	}
	h.pending.Store(0)
	h.features.Store(featurePending)
	p := &Producer{h: h, data: data, size: len(data), write: w, published: w, read: r}
	p.free = p.size - used(w, r, p.size) - gap
	return p, nil
}

// startIndices takes the indices at which one end begins.
func startIndices(h *header, size int) (write, read int, err error) {
	w, r := h.write.Load(), h.read.Load()
	if err := checkIndex("write", w, size); err != nil {
		return 0, 0, err
	}
	if err := checkIndex("read", r, size); err != nil {
		return 0, 0, err
	}
	return int(w), int(r), nil
}

// Size returns the size of the data area in bytes.
func (p *Producer) Size() int { return p.size }

// Err returns what the peer did wrong, nil as long as the ring is in order.
func (p *Producer) Err() error { return p.err }

// Free returns how many bytes packets may still take, counted with Need, after a
// fresh look at the peer's read index. It is never the whole data area, and 0 on
// a corrupt ring.
func (p *Producer) Free() int {
	p.sample()
	return p.free
}

// Empty reports whether the peer has taken all that was published. A corrupt ring is empty:
// nobody takes anything from it.
func (p *Producer) Empty() bool { return !p.sample() || p.read == p.published }

// Put writes one packet: head, which begins with the 16-byte descriptor, then
// body, then zeros up to a multiple of 8 bytes, then the trailer. Put writes the
// descriptor's length field itself; the rest of the descriptor is the caller's,
// and head is not changed. The peer sees nothing before Publish.
//
// It returns ErrFull if the packet does not fit now, ErrTooBig if it never will,
// ErrShort if head holds no descriptor, and ErrCorrupt.
func (p *Producer) Put(head, body []byte) error {
	padded := (len(head) + len(body) + 7) &^ 7
	need := padded + Trailer
	if need > p.free || len(head) < Descriptor || padded > MaxPacket {
		if err := p.room(len(head), padded); err != nil {
			return err
		}
	}
	w := p.write
	end := w + need
	if end < p.size {
		dst := p.data[w:end:end]
		le.PutUint64(dst[padded-8:], 0)
		le.PutUint64(dst, withLength(le.Uint64(head), padded))
		le.PutUint64(dst[8:], le.Uint64(head[8:]))
		if len(head) > Descriptor {
			copy(dst[Descriptor:], head[Descriptor:])
		}
		copy(dst[len(head):], body)
		le.PutUint64(dst[padded:], uint64(w)<<32)
	} else {
		p.putAcrossEnd(head, body, padded)
		end -= p.size
	}
	p.write = end
	p.free -= need
	return nil
}

// room decides about a packet that Put's quick test did not let through.
func (p *Producer) room(head, padded int) error {
	switch {
	case p.err != nil:
		return ErrCorrupt
	case head < Descriptor:
		return ErrShort
	case padded > MaxPacket || padded+Trailer > p.size-gap:
		return ErrTooBig
	}
	p.sample()
	switch {
	case p.err != nil:
		return ErrCorrupt
	case padded+Trailer > p.free:
		return ErrFull
	}
	return nil
}

// putAcrossEnd is Put for a packet that reaches the end of the data area and may
// go on at its start. Eight aligned bytes are never split, but all else may be.
func (p *Producer) putAcrossEnd(head, body []byte, padded int) {
	var zeros [8]byte
	w := p.write
	at := p.copyIn(w, head)
	at = p.copyIn(at, body)
	at = p.copyIn(at, zeros[:padded-len(head)-len(body)])
	le.PutUint64(p.data[w:], withLength(le.Uint64(head), padded))
	le.PutUint64(p.data[at:], uint64(w)<<32)
}

// withLength returns the first word of a descriptor with its length field set.
func withLength(word uint64, bytes int) uint64 {
	return word&^(0xffff<<32) | uint64(bytes/8)<<32
}

// copyIn copies b to the data area from at on and returns where it ended.
func (p *Producer) copyIn(at int, b []byte) int {
	n := copy(p.data[at:], b)
	if n == len(b) && at+n < p.size {
		return at + n
	}
	return copy(p.data, b[n:])
}

// Publish makes all packets since the last Publish visible to the peer and
// returns whether the peer has to be signalled: it does not mask signals, and had
// emptied the ring before this batch. A peer that still had data finds the batch
// without being told.
func (p *Producer) Publish() (signal bool) {
	before := p.published
	if p.write == before {
		return false
	}
	p.published = p.write
	publish(&p.h.write, uint32(p.write))
	// The order of these three is the rule: a consumer that clears its mask and
	// looks again either sees the new write index, or is seen here unmasked and
	// with everything before this batch consumed.
	if p.h.mask.Load() != 0 {
		return false
	}
	return p.sample() && p.read == before
}

// AwaitRoom asks for a signal when n bytes are free, counted with Need, and looks
// once more. It returns true if there is room now: the caller goes on at once, and
// a signal that is no longer needed may come. It returns false if a signal will
// come; after it the caller tries again. On a corrupt ring it returns true, so
// that the next Put tells. More than the ring can hold counts as all of it.
//
// Everything must be published first, for the peer only makes room by consuming.
// A peer signals only if it has declared so: see [Consumer.PeerSignalsRoom] of the
// other direction.
func (p *Producer) AwaitRoom(n int) (ready bool) {
	n = min((max(n, 8)+7)&^7, p.size-gap)
	publish(&p.h.pending, uint32(n))
	// The second look closes the gap in which the peer made room without having
	// seen the pending send size.
	if !p.sample() || p.free >= n {
		p.h.pending.Store(0)
		return true
	}
	return false
}

// StopAwaiting takes the wish of AwaitRoom back: once there was room, or when the
// caller no longer waits.
func (p *Producer) StopAwaiting() { p.h.pending.Store(0) }

// sample looks at the peer's read index. It returns false if the ring is corrupt.
func (p *Producer) sample() bool {
	if p.err != nil {
		return false
	}
	i := p.h.read.Load()
	if err := checkIndex("read", i, p.size); err != nil {
		return p.fail(err)
	}
	// The peer reads on from where it was, and no further than it was told.
	held := used(p.write, int(i), p.size)
	if held > used(p.write, p.read, p.size) || held < used(p.write, p.published, p.size) {
		return p.fail(fmt.Errorf("ring: read index went from %d to %d with the write index at %d", p.read, i, p.published))
	}
	p.read = int(i)
	p.free = p.size - held - gap
	return true
}

func (p *Producer) fail(err error) bool {
	p.err, p.free = err, 0
	return false
}
