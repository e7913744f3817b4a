package netvsc

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"hvnet/counter"
	"hvnet/nic"
	"hvnet/offload"
	"hvnet/ring"
	"hvnet/rndis"
	"hvnet/vmbus"
	"hvnet/vmbus/channel"
)

// A queue is one channel with what the driver keeps for it. What the host sends on it
// is taken by the goroutine that hears the doorbell, or by the queue's own if there is
// more to do; any sender puts packets into it under the channel's producer lock.
type queue struct {
	s     *session
	ch    *channel.Channel
	index int

	// Under the producer lock.
	txns        transactions
	waiting     []batch               // what the full ring did not take
	outstanding int                   // sends of frames that the host has not completed
	confirmed   uint64                // and those that it has
	entries     [trackedEntries]int32 // sends that wait or are not completed, by entry of the table and by era
	era         uint32
	scratch     [512]byte
	pages       [1]vmbus.PageRange
	armed       bool // the host was asked to signal room

	// stopped is set while the host is behind: no sender starts anything new.
	stopped atomic.Bool

	_ [64]byte // what follows is another goroutine's

	taking sync.Mutex // held by who takes what the host sends
	over   bool       // nobody does any more
	receiver

	at      int // processor that the goroutine is pinned to, -1 for none
	closing chan struct{}
	ended   chan struct{}
	leaving atomic.Bool // closing is closed: nothing more of a long packet is looked at

	// A drain adds to asked and wakes the goroutine, which says in served up to
	// which it has then found its ring empty and owed the host nothing.
	asked, served atomic.Uint32

	count *counter.Queue

	rxFlows, txFlows flowSet
}

func newQueue(s *session, ch *channel.Channel, index int) *queue {
	q := &queue{s: s, ch: ch, index: index, at: -1, closing: make(chan struct{}), ended: make(chan struct{}), count: new(counter.Queue)}
	q.count.CPU.Store(int32(ch.VP()))
	q.receiver.init()
	return q
}

// run is the queue's goroutine. It sleeps until there is more to do than interrupt
// does, then works with the doorbell masked until there is nothing left.
func (q *queue) run() {
	defer close(q.ended)
	if !q.s.n.pinned { // else no other goroutine may do its work
		q.ch.OnInterrupt(q.interrupt)
	}
	owing := false
	retry := time.NewTimer(time.Hour)
	retry.Stop()
	defer retry.Stop()
	for {
		var again <-chan time.Time
		if owing {
			// The host takes no completions. It signals when it has made room,
			// unless it is one that never does.
			retry.Reset(time.Millisecond)
			again = retry.C
		}
		select {
		case <-q.ch.Event():
		case <-again:
		case <-q.closing:
			return
		case <-q.ch.Closed():
			q.fail(channel.ErrRescinded)
		case <-q.s.failed:
			<-q.closing
			return
		}
		q.count.Add(counter.Wakeups, 1)
		owing = q.takeAll()
	}
}

// takeAll takes what there is until nothing is left or the queue ends, and reports
// whether the host is owed completions.
func (q *queue) takeAll() (owing bool) {
	q.taking.Lock()
	defer q.taking.Unlock()
	asked := q.asked.Load()
	for !q.take() && !q.ending() {
		runtime.Gosched() // whoever else has to be heard
	}
	if len(q.owed) > 0 {
		return true
	}
	q.served.Store(asked)
	q.s.nudge()
	return false
}

// interrupt takes what the host sends, unless somebody does already, and returns false
// if something is left for the queue's goroutine.
func (q *queue) interrupt() (done bool) {
	if !q.taking.TryLock() {
		return false
	}
	defer q.taking.Unlock()
	if q.over {
		return true
	}
	if !q.take() || len(q.owed) > 0 {
		return false
	}
	q.count.Add(counter.Wakeups, 1)
	return true
}

const (
	pollPackets = 64 // ring packets of one batch
	takeRounds  = 8  // batches, before others have their turn
)

// take works with the doorbell masked until there is nothing left, but not for
// long: it returns false if there may be more. The caller holds taking.
func (q *queue) take() (done bool) {
	q.ch.In.Mask()
	for range takeRounds {
		if !q.poll() && !q.ch.In.Linger() && (q.overdue() || !q.ch.In.Unmask()) {
			return true
		}
	}
	return false
}

// ending reports whether nothing more is to be taken.
func (q *queue) ending() bool {
	select {
	case <-q.closing:
		return true
	case <-q.s.failed:
		return true
	default:
		return false
	}
}

// poll handles one batch of what the host has sent, and returns false if there was
// nothing.
func (q *queue) poll() bool {
	q.pin()
	q.begin()
	packets := 0
	if !q.overdue() {
		for packets < pollPackets && q.room() && !q.leaving.Load() {
			b, err := q.ch.In.Next(q.buf)
			if err == ring.ErrEmpty {
				break
			}
			packets++
			if err == ring.ErrTooBig {
				q.tooBig(b)
				continue
			}
			if err != nil {
				q.fail(q.ch.In.Err())
				return false
			}
			q.packet(b)
		}
		q.ch.Release()
	}
	q.deliver()
	q.settle()
	return packets > 0
}

// overdue reports whether the host owes room for so many completions that nothing
// more is taken from it. One that keeps to the protocol never comes near.
func (q *queue) overdue() bool {
	limit := pollPackets
	if rx := q.s.receive.Load(); rx != nil {
		limit = max(limit, rx.count)
	}
	return len(q.owed) > limit
}

// fail ends the session because of what happened on this channel.
func (q *queue) fail(err error) { q.s.fail(fmt.Errorf("channel %d: %w", q.index, err)) }

// end stops the goroutine, and waits for it and for an interrupt that is going on.
func (q *queue) end() {
	q.leaving.Store(true)
	close(q.closing)
	<-q.ended
	q.taking.Lock()
	q.over = true
	q.taking.Unlock()
}

// release gives back what the host has not completed, after the channel was
// closed: the host no longer has any of it.
func (q *queue) release() {
	q.ch.Lock()
	defer q.ch.Unlock()
	q.txns.each(func(t *transaction) {
		if t.kind == kindData {
			q.s.n.count.Add(counter.TxLost, uint64(t.frames))
			q.s.discard(&batch{section: t.section, run: t.run})
		}
		if t.kind == kindControl {
			q.s.pages.give(t.run)
		}
	})
	for i := range q.waiting {
		q.s.n.count.Add(counter.TxLost, uint64(q.waiting[i].frames))
		q.s.discard(&q.waiting[i])
	}
	q.waiting, q.outstanding = nil, 0
}

// A receiver is what is gathered in one batch.
type receiver struct {
	buf    []byte                     // the packet being looked at,
	ranges [maxRanges]vmbus.ByteRange // its ranges,
	fronts [maxRanges]front           // the starts of the messages in them,
	next   [frontSize]byte            // that of one behind the first,
	long   [rndis.PacketHeadSize]byte // a longer one
	info   rndis.Info                 // and the per-packet information of the message being looked at

	frames []nic.Frame
	slots  []slot   // of the frames' bytes
	places [][]byte // of the frames, in shared memory; nil for what came in pieces
	body   [][]byte // of the frames, in shared memory
	join   join     // what is being put together
	bytes  uint64

	coalescer offload.Coalescer

	done []completion // of the host, to be looked up
	owed []owed       // completions due to the host

	delivering sync.Mutex // held while frames are with the sink
}

// A slot holds the private part of a received frame.
type slot struct {
	head [tagSize + nic.HeadLen]byte // a VLAN tag is put back in front
}

// A front is a private copy of the first n bytes of a message.
type front struct {
	b [frontSize]byte
	n int
}

type completion struct {
	id     uint64
	status uint32
}

type owed struct {
	id     uint64
	failed bool
}
