package netvsc

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"hvnet/offload"
)

// A UDP datagram that is longer than the MTU leaves in fragments, of which the first
// alone has ports. Where the channel is chosen by ports, the first goes by one channel and
// the others by another, and come in another order: a host or a router that wants
// fragments in order drops the datagram.
//
// The cure chooses the channel of every fragment by its addresses. So that the datagrams
// of a flow that are short enough to stay whole keep their order with those that are
// not, they are sent by addresses too as soon as a fragment of their pair of addresses was
// seen, until none has been for a while. A pair begins and ends to be sent so when all
// that was sent before is completed; what is of no such pair does not wait.

// FragmentCure reports whether the fragments of UDP datagrams are kept on one channel.
func (n *NIC) FragmentCure() bool { return !n.noCure.Load() }

// SetFragmentCure says whether the channel of every fragment of a UDP datagram, and of
// other datagrams between the same addresses, is chosen by addresses alone, as it is at
// first, or the channel of each frame by what it shows. The levels that [NIC.HashLevels]
// tells stay what they are. It works without a device, and stays,
// whatever the device goes through. Flows keep their order: senders pause until the host
// has what they have sent.
func (n *NIC) SetFragmentCure(ctx context.Context, on bool) error {
	release, err := n.take(ctx)
	if err != nil {
		return err
	}
	defer release()
	if on == n.FragmentCure() {
		return nil
	}
	n.pauseSending(ctx, func() {
		n.noCure.Store(!on)
		n.pairs.clear()
	})
	return nil
}

const (
	// pairSlots is how many pairs of addresses are known at a time, at most: in groups of
	// which a pair's hash says the one for it.
	pairSlots, pairGroup = 512, 8
	// pairAge is for how many seconds a pair is known after its last fragment.
	pairAge = 30
)

// A pairSet has the pairs whose datagrams are sent by addresses, each by its hash. It does
// not change.
type pairSet [pairSlots]uint32

// group is where the group of a pair begins.
func group(pair uint32) int { return int(pair%(pairSlots/pairGroup)) * pairGroup }

// find returns the place of a pair, -1 if it is not in the set. No pair has a hash of 0.
func (s *pairSet) find(pair uint32) int {
	at := group(pair)
	for i, h := range s[at : at+pairGroup] {
		if h == pair && pair != 0 {
			return at + i
		}
	}
	return -1
}

// has reports whether a pair is in the set.
func (s *pairSet) has(pair uint32) bool { return s.find(pair) >= 0 }

// pairs are those of a NIC. A pair whose group is full has to do without: its fragments
// stay together all the same, for that needs no memory.
type pairs struct {
	set   atomic.Pointer[pairSet] // never nil
	last  [pairSlots]atomic.Uint32
	epoch time.Time

	mu sync.Mutex // held to change set
}

func (p *pairs) init() {
	p.epoch = time.Now()
	p.clear()
}

// now is the time in seconds, from 1 on.
func (p *pairs) now() uint32 { return 1 + uint32(time.Since(p.epoch)/time.Second) }

func (p *pairs) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.set.Store(new(pairSet))
}

// aged reports whether the pair at a place has had no fragment for long. Somebody else's
// now may be later.
func (p *pairs) aged(at int, now uint32) bool { return int32(now-p.last[at].Load()) >= pairAge }

// change makes a set with one place changed the current one. The caller holds mu.
func (p *pairs) change(at int, pair uint32) {
	next := *p.set.Load()
	next[at] = pair
	p.set.Store(&next)
}

// fragment notes that a fragment of a pair was seen at a time.
func (p *pairs) fragment(pair, now uint32) {
	if at := p.set.Load().find(pair); at >= 0 {
		if p.last[at].Load() != now {
			p.last[at].Store(now)
		}
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.set.Load()
	if pair == 0 || s.has(pair) {
		return
	}
	for at := group(pair); at < group(pair)+pairGroup; at++ {
		if s[at] == 0 || p.aged(at, now) {
			p.last[at].Store(now)
			p.change(at, pair)
			return
		}
	}
}

// expire forgets a pair of which no fragment has been seen for long.
func (p *pairs) expire(pair, now uint32) {
	at := p.set.Load().find(pair)
	if at < 0 || !p.aged(at, now) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.set.Load()[at] == pair && p.aged(at, now) {
		p.change(at, 0)
	}
}

// A curing is what a sender knows of pairs: those that it sends by, and those that are
// to take their place when all is completed that it may have sent before.
type curing struct {
	on     bool
	pairs  *pairSet
	coming *pairSet // nil if there are none
	marks  []uint32 // by lane: what has to be completed,
	marked bool     // if that is known
	held   bool     // a pump waits for it
	now    uint32   // of this batch; 0: nobody has looked
	moves  bool     // the last frame is of a pair that begins or ends to be sent by addresses
	byPair bool     // it is sent by addresses although the level has the ports
	cured  uint64   // of those, how many this batch has
}

// cure returns the hash for the choice of the channel of a UDP frame.
func (t *sender) cure(f *offload.Flow) uint32 {
	c, p := &t.curing, &t.s.n.pairs
	before := c.pairs.has(f.Pair)
	if (before || f.Fragment) && c.now == 0 {
		c.now = p.now()
	}
	if f.Fragment {
		p.fragment(f.Pair, c.now)
		c.moves = before != p.set.Load().has(f.Pair)
		c.byPair = true
		return f.Pair
	}
	c.moves = c.coming != nil && before != c.coming.has(f.Pair)
	if !before {
		return f.Hash
	}
	p.expire(f.Pair, c.now)
	c.byPair = true
	return f.Pair
}

// hold has a pump wait after a frame of a pair that moves, which it has sent.
func (c *curing) hold() {
	if c.moves {
		c.held, c.marked = true, false
	}
}

// count counts the last frame, which is taken.
func (c *curing) count() {
	if c.byPair {
		c.cured++
		c.byPair = false
	}
}

// follow has the sender go on with other pairs when all is completed that was sent
// before. It is called while the sender has nothing in its lanes.
func (t *sender) follow(pairs *pairSet) {
	c := &t.curing
	if c.coming != pairs {
		c.coming, c.marked = pairs, false
	}
	if !c.marked {
		for i := range t.lanes {
			c.marks[i] = t.lanes[i].q.mark()
		}
		c.marked = true
	}
	if t.passed() {
		c.pairs, c.coming, c.held = c.coming, nil, false
	}
}

// passed reports whether all is completed that was sent up to the marks.
func (t *sender) passed() bool {
	for i, m := range t.curing.marks {
		if !t.lanes[i].q.passed(m) {
			return false
		}
	}
	return true
}
