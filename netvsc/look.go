package netvsc

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"hvnet/nic"
	"hvnet/offload"
)

// flowSlots is how many slots flows are spread over to be counted. With 1024 the estimate
// of 1000 flows is as a rule less than 3 % away, of 5000 less than 8 %. A flowSet of them is
// one page.
const flowSlots = 1 << flowBits
const flowBits = 10

// A flowSet says of each slot in which spell a flow of it was seen last. Any goroutine
// may note flows and count them; who comes late for his spell changes nothing much.
type flowSet [flowSlots]atomic.Uint32

// note notes the flow of a frame, if it has one. head is private memory.
func (s *flowSet) note(head []byte, spell uint32) {
	f := offload.FastFlow(head, offload.HashAll)
	h := f.Hash
	switch {
	case f.Kind == nic.HashNone:
		return
	case f.Fragment: // all of a packet have only this in common
		h = f.Pair
	}
	// Slots must be as good as random: the hash spreads similar flows too evenly.
	h = (h ^ h>>16) * 0x243f6a89
	h = (h ^ h>>15) * 0x85a308d3
	if slot := &s[h>>(32-flowBits)]; slot.Load() < spell { // the store takes the line from others
		slot.Store(spell)
	}
}

// count estimates how many flows were noted in a spell or later, from how many slots were
// left free (linear counting). It is at most nic.MaxFlows, what one free slot would mean.
func (s *flowSet) count(since uint32) int {
	free := 0
	for i := range s {
		if s[i].Load() < since {
			free++
		}
	}
	return int(math.Round(flowSlots * math.Log(flowSlots/float64(max(free, 1)))))
}

// maxLook is the longest time for which flows are noted without anybody asking.
const maxLook = time.Hour

// A look is whether anybody wants to know of flows. Time in which somebody does falls into
// spells: each question begins one, so that those who ask do not disturb each other.
type look struct {
	spell atomic.Uint32 // that it is now; 0: nobody looks, and nothing is noted

	mu    sync.Mutex
	first uint32 // spell since which somebody looks without a break
	last  uint32 // spell that was begun last
	until time.Time
	timer *time.Timer // ends the look; nil: there was none yet
}

// Flows returns how many flows each channel has had since mark, which came with the answer
// before; the first to ask has 0. The channels are missing if flows were not noted all the
// time since. Frames that go by a virtual function count as they do in [NIC.Stats].
//
// From then on flows are noted for as long as keep says, an hour at most; otherwise that
// costs senders and receivers nothing but a look at one number for each batch.
func (n *NIC) Flows(mark uint32, keep time.Duration) (r nic.FlowReport) {
	l := &n.look
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.spell.Load() == 0 {
		l.first = l.last + 1
	}
	if mark >= l.first && mark <= l.last {
		for _, q := range n.session.Load().queues {
			r.Channels = append(r.Channels, nic.Flows{Received: q.rxFlows.count(mark), Sent: q.txFlows.count(mark)})
		}
	}
	l.last++
	r.Mark = l.last
	if n.closed() {
		return r
	}
	l.spell.Store(l.last)
	if until := time.Now().Add(min(keep, maxLook)); until.After(l.until) {
		l.until = until
	}
	if left := time.Until(l.until); l.timer == nil {
		l.timer = time.AfterFunc(left, l.lapse)
	} else {
		l.timer.Reset(left)
	}
	return r
}

// lapse ends the look, unless somebody has just gone on with it.
func (l *look) lapse() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !time.Now().Before(l.until) {
		l.spell.Store(0)
	}
}

// end ends the look for good. The NIC is closed.
func (l *look) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spell.Store(0)
	if l.timer != nil {
		l.timer.Stop()
	}
}
