package netvsc

import (
	"math/bits"

	"hvnet/offload"
)

// The frames of a flow keep their order although the host may send another table for
// sending at any time. A flow is at one entry of the table, and an entry moves as a
// whole: for each channel the driver counts, by entry, the packets that the host has
// yet to complete, and an entry goes over to another channel when there are none of it
// on the old one. As long as there are some nothing more is sent of it, so that it does
// move; a pump, which learns of a frame's flow when it has it, sends one more the old
// way and then waits.
//
// Where it is not known which entries matter, a sender marks a moment and waits until
// what was sent before is completed: each packet is in one of two eras too, which a
// channel counts like entries, and a new era begins when the one before the last is over.
// Other senders may go on meanwhile.
//
// Other changes of a flow's channel come with a change of settings, and those wait for
// everything that was sent.

// An entrySet is a set of entries of the table for sending, and of the two eras.
type entrySet uint32

// trackedEntries is how many things packets are counted by.
const trackedEntries = tableSize + 2

// era is the place of an era in an entrySet.
func era(n uint32) int { return tableSize + int(n&1) }

const allEntries entrySet = 1<<tableSize - 1

// next takes the least entry out of a set that is not empty.
func (s *entrySet) next() (e int) {
	e = bits.TrailingZeros32(uint32(*s))
	*s &= *s - 1
	return e
}

// track notes that packets with frames of some entries are under way, or with -1 that
// they are no longer. The caller holds the producer lock.
func (q *queue) track(s entrySet, d int32) {
	for s != 0 {
		q.entries[s.next()] += d
	}
}

// idle reports whether nothing of an entry is under way on the channel.
func (q *queue) idle(e int) bool {
	q.ch.Lock()
	defer q.ch.Unlock()
	return q.entries[e] == 0
}

// mark returns a mark of this moment.
func (q *queue) mark() uint32 {
	q.ch.Lock()
	defer q.ch.Unlock()
	m := q.era + 1
	q.turn(m)
	return m
}

// passed reports whether everything is completed that was sent before a mark.
func (q *queue) passed(mark uint32) bool {
	q.ch.Lock()
	defer q.ch.Unlock()
	q.turn(mark)
	over := int32(q.era - mark)
	return over > 0 || over == 0 && q.entries[era(q.era+1)] == 0
}

// turn begins the era of a mark if the one before the last is over. The caller holds the
// producer lock.
func (q *queue) turn(mark uint32) {
	if q.era+1 == mark && q.entries[era(mark)] == 0 {
		q.era = mark
	}
}

// wanted returns the lane that the host's table has for an entry: its word, reduced to
// the channels that there are; or an even one, before it has sent a table.
func (t *sender) wanted(e int) *lane {
	c := uint32(e)
	if t.told != nil {
		c = t.told[e]
	}
	return &t.lanes[c%uint32(len(t.lanes))]
}

// move has those entries follow the table that can. It is called while the sender has
// nothing in its lanes.
func (t *sender) move() {
	for left := t.moving; left != 0; {
		e := left.next()
		if to := t.wanted(e); t.table[e] == to || t.table[e].q.idle(e) {
			t.table[e] = to
			t.moving &^= 1 << e
		}
	}
	t.held &= t.moving
}

// waits reports whether a pump has sent a frame of what is to move, and waits with more.
func (t *sender) waits() bool { return t.held != 0 || t.curing.held }

// settled reports whether what a pump waits for can move.
func (t *sender) settled() bool {
	if c := &t.curing; c.held && c.marked && !t.passed() {
		return false
	}
	for left := t.held; left != 0; {
		if e := left.next(); !t.table[e].q.idle(e) {
			return false
		}
	}
	return true
}

// ChannelOf returns the index of the channel on which frames are sent now that begin with
// head, private memory of at most nic.HeadLen bytes. A flow that is changing its channel
// may still be on the one before.
func (n *NIC) ChannelOf(head []byte) int {
	s := n.session.Load()
	f := offload.FastFlow(head, n.levels())
	h := f.Hash
	if n.FragmentCure() && (f.Fragment || n.pairs.set.Load().has(f.Pair)) {
		h = f.Pair
	}
	c := h % tableSize
	if told := s.table.Load(); told != nil {
		c = told[c]
	}
	return int(c % uint32(max(len(s.queues), 1)))
}
