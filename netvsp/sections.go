package netvsp

import "math/bits"

// minSections is the fewest sections of a receive buffer that a device can work
// with: one for control messages and one for data.
const minSections = 2

// controlSections is how many sections at the start of the receive buffer are kept
// for control messages, so that data can never use up what an answer needs. A very
// small buffer is shared evenly.
func controlSections(n int) int { return min(16, n/2) }

// sections keeps account of some sections of the receive buffer: which are free,
// and which the guest has and must return. A guest returns whole packets by their
// transaction id, which is the index of the packet's first section; one that
// returns what it does not have changes nothing.
//
// Every section belongs to one sections value at a time, and to whoever holds the
// lock of that one. Nothing is allocated after the start.
type sections struct {
	next  []int32  // by section, shared by all values of a session: the next of the same packet, -1 at its end
	heads []uint64 // a bit by section: a packet of ours begins there and is with the guest
	free  []int32  // at hand: a stack, for what was used last is still in the caches
	given int      // sections that the guest has

	pool *pool // where those for frames come from and go to; nil: all are at hand
	held int   // sections from it, at hand or given; under its lock
}

// newSections returns an account without sections of a buffer of len(next).
func newSections(next []int32) sections {
	return sections{next: next, heads: make([]uint64, (len(next)+63)/64), free: make([]int32, 0, len(next))}
}

// add makes sections from first up to, but without, end free.
func (s *sections) add(first, end int) {
	for i := end - 1; i >= first; i-- {
		s.free = append(s.free, int32(i))
	}
}

// want gets sections from the pool until n are at hand, and reports whether they are.
func (s *sections) want(n int) bool {
	if k := n - len(s.free); k > 0 && s.pool != nil {
		s.pool.fetch(s, k)
	}
	return len(s.free) >= n
}

// settle gives what is at hand back to the pool. It ends every batch.
func (s *sections) settle() {
	if s.pool != nil && len(s.free) > 0 {
		s.pool.put(s)
	}
}

// take takes a free section, or returns false. The section is then given to the
// guest or put back.
func (s *sections) take() (int32, bool) {
	k := len(s.free) - 1
	if k < 0 {
		return 0, false
	}
	i := s.free[k]
	s.free = s.free[:k]
	return i, true
}

// putBack makes sections that were taken free again.
func (s *sections) putBack(taken []int32) { s.free = append(s.free, taken...) }

// give notes that the guest now has a packet of sections that were taken.
func (s *sections) give(packet []int32) {
	for k, i := range packet[:len(packet)-1] {
		s.next[i] = packet[k+1]
	}
	s.next[packet[len(packet)-1]] = -1
	first := packet[0]
	s.heads[first/64] |= 1 << (first % 64)
	s.given += len(packet)
}

// reclaim takes the sections back that the guest has: it can't return them any more.
func (s *sections) reclaim() {
	for i, w := range s.heads {
		for ; w != 0; w &= w - 1 {
			s.giveBack(uint64(64*i + bits.TrailingZeros64(w)))
		}
	}
}

// giveBack makes the sections of the packet that begins with section id free. It
// returns how many they are, 0 if the guest has no such packet of ours.
func (s *sections) giveBack(id uint64) int {
	if id >= uint64(len(s.next)) || s.heads[id/64]&(1<<(id%64)) == 0 {
		return 0
	}
	s.heads[id/64] &^= 1 << (id % 64)
	n := 0
	for i := int32(id); i >= 0; i = s.next[i] {
		s.free = append(s.free, i)
		n++
	}
	s.given -= n
	return n
}
