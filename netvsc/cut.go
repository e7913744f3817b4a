package netvsc

import (
	"hvnet/counter"
	"hvnet/nic"
	"hvnet/offload"
)

// cutting is the working memory of cut.
type cutting struct {
	cut   offload.Segmenter
	piece nic.Frame
	room  [nic.HeadLen]byte
	body  [][]byte
}

// forget lets go of the memory of others.
func (c *cutting) forget() {
	c.cut, c.piece = offload.Segmenter{}, nic.Frame{}
	clear(c.body)
}

// cut sends a frame in pieces that the host takes: of unit bytes of payload as long as
// it takes those, then segment by segment. It returns false if there is no memory: for
// nothing of it, or the sender has kept the rest.
func (t *sender) cut(l *lane, e entrySet, f *nic.Frame, unit int) bool {
	size := int(f.Offload.Size)
	c := &t.cutting
	defer c.forget()
	if !c.cut.Begin(f, unit, true) {
		t.s.n.count.Add(counter.TxMalformed, 1)
		return true
	}
	if !t.keeps && !t.s.enough(c.cut.Left(), unit) {
		return false
	}
	for first := true; c.cut.More(); {
		before := c.cut
		c.body = c.cut.Next(&c.piece, c.room[:], c.body[:0])
		switch {
		case c.piece.Offload.Segment != nic.SegmentNone && !t.asks(&c.piece):
			c.cut = before
			c.cut.SetUnit(size)
		case t.addOffload(l, e, &c.piece):
			first = false
		case first:
			return false
		case t.keeps:
			c.cut = before
			c.cut.SetUnit(nic.MaxFrame)
			c.body = c.cut.Next(&c.piece, c.room[:], c.body[:0])
			t.keep(&c.piece)
			return false
		default: // another sender was faster
			t.s.n.count.Add(counter.TxNoMemory, 1)
			return true
		}
	}
	return true
}

// enough reports whether there is memory now for a frame to be cut into pieces of size
// bytes of payload. One for which there would never be enough gets what there is.
func (s *session) enough(payload, size int) bool {
	pieces, longest, perSection := (payload+size-1)/size, headroom+nic.HeadLen+size, 0
	if longest <= s.limit {
		perSection = min(int(s.maxPackets), 1+(s.limit-longest)/((longest+s.align-1)&^(s.align-1)))
	}
	return s.sections.idle()*perSection+s.runs.idle() >= pieces || s.sections.max*perSection+s.runs.max < pieces
}

// A kept frame is one, or what is left of it, that a pump has read and found no memory
// for. It goes out before the pump reads another one.
type kept struct {
	frame nic.Frame // in whole
	head  [nic.HeadLen]byte
	body  [][]byte
	whole []byte // a frame that the driver has to work on
}

// waiting reports whether there is a frame.
func (k *kept) waiting() bool { return k.frame.Head != nil }

// keep keeps a frame, the body of which is in whole.
func (t *sender) keep(f *nic.Frame) {
	k := &t.kept
	k.body = append(k.body[:0], f.Body...)
	k.frame = nic.Frame{Head: k.head[:copy(k.head[:], f.Head)], Body: k.body, Offload: f.Offload}
}

// sendKept sends the frame that was kept, if there is one, and returns false if there
// is no memory for all of it still.
func (t *sender) sendKept() bool {
	k := &t.kept
	if !k.waiting() {
		return true
	}
	l, e := &t.lanes[0], entrySet(0)
	if len(t.lanes) > 1 {
		l, e = t.lane(t.flow(k.frame.Head))
		t.held |= e & t.moving
		t.curing.hold()
		t.curing.byPair = false // it was counted when it was read
	}
	if !t.addOffload(l, e, &k.frame) {
		return false
	}
	k.frame = nic.Frame{}
	return true
}

// dropKept counts a frame that was kept as lost, with the attachment that it was for.
func (t *sender) dropKept() {
	if t.kept.waiting() {
		t.kept.frame = nic.Frame{}
		t.s.n.count.Add(counter.TxLost, 1)
	}
}

// landedOffload is landed for a frame that leaves something to be done that the host
// does not do. It leaves the memory that it has landed in, for it may have to be
// read while pieces of it go there. It returns false if there is no memory for
// all of it now: the rest is kept.
func (t *sender) landedOffload(l *lane, e entrySet, first []byte, n int, m nic.Offload) bool {
	k := &t.kept
	if k.whole == nil {
		k.whole = make([]byte, maxLarge)
	}
	b := k.whole[:n]
	if at := copy(b, first); at < n {
		copy(b[at:], t.s.runs.bytes(t.run))
	}
	head := min(n, nic.HeadLen)
	f := nic.Frame{Head: b[:head:head], Offload: m}
	if head < n {
		k.body = append(k.body[:0], b[head:])
		f.Body = k.body
	}
	if t.addOffload(l, e, &f) {
		return true
	}
	if !k.waiting() {
		t.keep(&f)
	}
	return false
}
