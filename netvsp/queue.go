package netvsp

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"hvnet/hv"
	"hvnet/nvsp"
	"hvnet/ring"
	"hvnet/rndis"
	"hvnet/rule"
	"hvnet/vmbus"
	"hvnet/vmbus/channel"
)

// Bounds on what a guest can make a queue do or hold.
const (
	maxRound   = 64      // ring packets that are taken in one go
	maxReplies = 64      // control messages that wait for a section
	maxPending = 256     // answers, and messages of the device's own, that wait for room in the ring
	maxPacket  = 8 << 10 // bytes of a ring packet: descriptor, page list and NVSP message
	maxSend    = 128 << 10
	maxControl = 8 << 10 // bytes of an RNDIS control message
	maxSpans   = 96      // runs of pages of one ring packet
)

// retry is how often a queue that waits for room looks by itself, for guests that
// don't signal when they make some.
const retry = 5 * time.Millisecond

// outgoing is an NVSP message for the guest: a completion, or a message of its own.
type outgoing struct {
	completion bool
	ask        bool // the message asks for a completion, which no guest has to send
	tid        uint64
	payload    []byte
}

// A queue is one open channel of the device. What the guest sends is taken by the
// goroutine that hears its doorbell, or by the queue's own if there is more to do; any
// goroutine delivers frames to it.
type queue struct {
	s     *session
	ch    *channel.Channel
	index int

	quit, exited chan struct{}
	once         sync.Once
	closing      atomic.Bool // the channel is being taken away or closed: what is on it now is nobody's fault

	// Of who takes what the guest sends, and holds taking. work is held while frames
	// of a batch are on their way, that is, while the send buffer is looked at.
	taking  sync.Mutex
	over    bool   // nobody takes anything any more
	heard   uint64 // ring packets
	work    sync.Mutex
	sendBuf buffer
	longest int // frame in bytes, tag included
	offered *rndis.HardwareOffload
	spoiled int // profile.Profile.SpoiledUDP
	okBytes []byte
	noBytes []byte // payloads of the completions of data: success and failure
	packet  [maxPacket]byte
	spans   [maxSpans]vmbus.Span
	src     scatter
	batch   batch
	done    []outgoing
	freed   []uint64
	ask     request
	blocked bool // answers are left for want of room in the ring
	offer   int  // sub-channels to offer once the answer is in the ring
	follow  bool // a control message may have changed what the guest is to know of a virtual function

	// Under the channel's producer lock.
	receive  *receiveView
	control  sections // for control messages; the primary's only
	data     sections
	former   sections   // of a buffer that was revoked while the guest had some; a sub-channel's only
	pending  []outgoing // what did not fit into the ring
	replies  [][]byte   // control messages that wait for a section or for room
	asked    int        // messages of the device's own that the guest may complete
	delivery delivery

	count counters
}

// A request is a control message that ends a round: it is handled when no lock is
// held and no frame on its way.
type request struct {
	kind   requestKind
	msg    []byte
	tid    uint64
	answer bool // the guest asked for a completion
}

type requestKind uint8

const (
	requestNone requestKind = iota
	requestNVSP
	requestRNDIS
)

func newQueue(s *session, ch *channel.Channel) *queue {
	q := &queue{s: s, ch: ch, index: ch.Index, quit: make(chan struct{}), exited: make(chan struct{})}
	q.batch.init()
	q.src.pieces = make([][]byte, 0, maxSpans+1)
	q.done = make([]outgoing, 0, maxRound+1)
	q.freed = make([]uint64, 0, maxRound)
	return q
}

// limits takes what was negotiated. The caller holds work.
func (q *queue) limits(c *control) {
	q.longest = c.mtu + vlanTag
	q.offered = &c.profile.Offload
	q.spoiled = c.profile.SpoiledUDP
	q.okBytes = c.pad(nvsp.RNDISPacketComplete{Status: nvsp.StatusSuccess}.Append(nil))
	q.noBytes = c.pad(nvsp.RNDISPacketComplete{Status: nvsp.StatusFail}.Append(nil))
}

// setSend takes a send buffer, or none, into use. The caller holds work.
func (q *queue) setSend(b *buffer) { q.sendBuf = *b }

// start runs the queue's goroutine.
func (q *queue) start() {
	go func() {
		defer close(q.exited)
		if err := hv.Guard(q.run); err != nil {
			q.s.fault(err)
		}
	}()
}

// stop ends the goroutine, waits for an interrupt that is going on, and closes the
// queue for deliveries.
func (q *queue) stop() {
	q.once.Do(func() { close(q.quit) })
	<-q.exited
	q.taking.Lock()
	q.over = true
	q.taking.Unlock()
	q.ch.Lock()
	q.dropReceive()
	q.ch.Unlock()
}

// run takes what the guest sends until the queue is stopped, as far as interrupt
// leaves anything. While there is work the guest need not ring, and before the goroutine
// sleeps it looks a few times more, the more often the more that was worth it lately: an
// idle channel costs nothing, a busy one no doorbells.
func (q *queue) run() {
	q.ch.OnInterrupt(q.interrupt)
	timer := time.NewTimer(retry)
	timer.Stop()
	defer timer.Stop()
	for {
		left := q.attend()
		if q.stopped() {
			return
		}
		var tick <-chan time.Time
		switch left {
		case leftMore:
			runtime.Gosched() // whoever else has to be heard
			continue
		case leftAnswers:
			timer.Reset(retry)
			tick = timer.C
		case leftCorrupt:
			q.bad(rule.Ring.Err(q.ch.In.Err()))
			<-q.quit // nothing that comes out of this ring can be believed
			return
		}
		select {
		case <-q.ch.Event():
			q.count.wakeups.Add(1)
		case <-tick:
		case <-q.quit:
			return
		case <-q.ch.Closed():
			<-q.quit
			return
		}
	}
}

// stopped reports whether the queue is to end.
func (q *queue) stopped() bool {
	select {
	case <-q.quit:
		return true
	default:
		return false
	}
}

// interrupt takes what the guest sends, unless somebody does already, and returns
// false if something is left for the queue's goroutine.
func (q *queue) interrupt() (done bool) {
	if !q.taking.TryLock() {
		return false
	}
	defer q.taking.Unlock()
	if q.over {
		return true
	}
	if err := hv.Guard(func() { done = q.take() == leftNothing }); err != nil {
		q.s.fault(err)
	}
	if done {
		q.count.wakeups.Add(1)
	}
	return done
}

// attend takes what the guest sends, control messages too.
func (q *queue) attend() left {
	q.taking.Lock()
	defer q.taking.Unlock()
	left := q.take()
	if left == leftRequest {
		q.handle()
		q.finish()
		left = leftMore
	}
	return left
}

// left is what take has left to be done.
type left int

const (
	leftNothing left = iota // the guest rings when there is more
	leftMore
	leftRequest // a control message
	leftAnswers // the guest leaves no room for them: nothing more is taken before there is some
	leftCorrupt
)

// takeRounds is how many batches one guest may send before others have their turn.
const takeRounds = 8

// take works with the doorbell masked until there is nothing left, or something that
// it can't do, but not for long. The caller holds taking.
func (q *queue) take() left {
	in := q.ch.In
	in.Mask()
	if q.blocked && q.finish() {
		return leftAnswers
	}
	for range takeRounds {
		empty := q.round()
		switch {
		case q.ask.kind != requestNone:
			return leftRequest
		case q.finish():
			return leftAnswers
		case q.stopped():
			return leftMore
		case !empty || in.Linger() && in.Err() == nil:
		case in.Err() != nil:
			return leftCorrupt
		case !in.Unmask():
			return leftNothing
		}
	}
	return leftMore
}

// round takes a batch of ring packets and sends their frames on. It ends early at a
// control message. empty means that nothing was left; whoever looks before sleeping
// finds what came since.
func (q *queue) round() (empty bool) {
	q.work.Lock()
	defer q.work.Unlock()
	q.s.mem.RLock()
	defer q.s.mem.RUnlock()
	for n := 0; n < maxRound && q.ask.kind == requestNone; n++ {
		b, err := q.ch.In.Next(q.packet[:])
		if err == ring.ErrTooBig {
			q.heard++
			q.bad(errPacketSize)
			continue
		}
		if err != nil {
			empty = true // or corrupt, which take looks at
			break
		}
		q.heard++
		q.received(b)
	}
	q.emit()
	return empty
}

// handle does what a control message asks for.
func (q *queue) handle() {
	r := q.ask
	if r.kind == requestNone {
		return
	}
	q.ask = request{}
	answer := func(payload []byte) {
		if r.answer {
			q.complete(outgoing{completion: true, tid: r.tid, payload: payload})
		}
	}
	switch {
	case r.kind == requestNVSP:
		q.s.handleNVSP(r.msg, answer)
	case q.s.handleRNDIS(r.msg) == nvsp.StatusSuccess:
		q.follow = true
		answer(q.okBytes)
	default:
		answer(q.noBytes)
	}
}

// complete has a control message completed, after all that came before it: what is posted
// from now on comes later.
func (q *queue) complete(out outgoing) {
	q.ch.Lock()
	defer q.ch.Unlock()
	q.pending = append(append(q.pending, q.done...), out)
	q.done = q.done[:0]
}

// finish ends a round: sections that the guest returned are free again, answers go
// out, the ring memory is released. It reports whether answers are left.
func (q *queue) finish() (blocked bool) {
	for range q.answer() {
		q.blameGuest(errCompletion)
	}
	q.ch.Release()
	if q.offer > 0 && !q.blocked {
		n := q.offer
		q.offer = 0
		if err := q.s.bus.OfferSubChannels(n); err != nil {
			q.s.d.log.Warn("offer sub-channels", "err", err)
		}
	}
	if q.follow && !q.blocked {
		q.follow = false
		q.s.followVF()
	}
	return q.blocked
}

// answer is the part of finish that needs the producer lock. It returns how many
// completions of the guest were for nothing, and sets blocked.
func (q *queue) answer() (unknown int) {
	q.ch.Lock()
	defer q.ch.Unlock()
	for _, id := range q.freed {
		if id == associationTID && q.asked > 0 {
			q.asked--
			continue
		}
		if q.data.giveBack(id) == 0 && q.control.giveBack(id) == 0 && q.former.giveBack(id) == 0 {
			unknown++
		}
	}
	q.freed = q.freed[:0]
	q.data.settle()
	if q.closing.Load() {
		unknown = 0
	}
	q.count.faults.Add(uint64(unknown)) // before the guest can see an answer
	q.pending = append(q.pending, q.done...)
	q.done = q.done[:0]
	for {
		sent := q.putPending() && q.putReplies()
		q.ch.Flush()
		if sent {
			if q.blocked {
				q.ch.Out.StopAwaiting()
				q.blocked = false
			}
			return unknown
		}
		if !q.ch.Out.AwaitRoom(roomToGoOn) {
			q.blocked = true // the guest rings when it has made room
			return unknown
		}
	}
}
