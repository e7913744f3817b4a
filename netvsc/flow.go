package netvsc

import (
	"errors"

	"hvnet/counter"
	"hvnet/nvsp"
	"hvnet/ring"
	"hvnet/vmbus"
)

// errFull is what put sees when the host is owed as much as the driver allows.
var errFull = errors.New("netvsc: transaction table full")

// put puts a batch into the ring. If the ring is full the batch waits for
// completions and the queue stops: the sources are held back, nothing is lost. The
// caller holds the producer lock.
func (q *queue) put(b *batch) {
	if len(q.waiting) == 0 {
		err := q.tryPut(b)
		if err == nil {
			return
		}
		c := &q.s.n.count
		full := errors.Is(err, ring.ErrFull) || err == errFull
		if !full || q.outstanding == 0 {
			// No completion will come that could be waited for.
			if full {
				c.Add(counter.TxNoSpace, 1)
			}
			q.s.discard(b)
			return
		}
		c.Add(counter.TxBusy, 1)
	}
	q.waiting = append(q.waiting, *b)
	q.stop()
}

// tryPut puts a batch into the ring.
func (q *queue) tryPut(b *batch) error {
	id, t := q.txns.begin()
	if t == nil {
		return errFull
	}
	m := nvsp.RNDISPacket{Channel: nvsp.ChannelData, Section: nvsp.NoSection}
	if b.section != none {
		m.Section, m.SectionBytes = uint32(b.section), uint32(b.used)
	}
	h := q.scratch[:0]
	if b.run == none {
		h = vmbus.AppendInBand(h, vmbus.FlagCompletionRequested, id)
	} else {
		q.pages[0] = q.s.pageRange(b.run, b.runLen)
		h = vmbus.AppendGPADirect(h, id, q.pages[:])
	}
	start := len(h)
	h = nvsp.Pad(m.Append(h), start, nvsp.MaxSize)
	if err := q.ch.Out.Put(h, nil); err != nil {
		q.txns.end(id)
		return err
	}
	t.kind, t.section, t.run, t.frames, t.bytes = kindData, b.section, b.run, b.frames, b.bytes
	q.outstanding++
	return nil
}

// checkRing ends the session if the host broke the rules of the ring. The caller
// holds the producer lock.
func (q *queue) checkRing() {
	if err := q.ch.Out.Err(); err != nil {
		q.fail(err)
	}
}

// The marks of flow control in percent of free ring: a queue stops below the low
// one and goes on above the high one. They are hv_netvsc's.
const (
	lowWater  = 10
	highWater = 20
)

// watermark stops the queue if the ring is nearly full and completions are due
// that will start it again. The caller holds the producer lock.
func (q *queue) watermark() {
	q.checkRing()
	if q.outstanding > 0 && q.freePercent() < lowWater {
		q.stop()
	}
}

func (q *queue) freePercent() int { return q.ch.Out.Free() * 100 / q.ch.Out.Size() }

func (q *queue) stop() {
	if !q.stopped.Load() {
		q.stopped.Store(true)
		q.s.n.count.Add(counter.StopQueue, 1)
	}
}

// resume puts what waits for room into the ring, and starts a stopped queue again
// when the host has caught up. The caller holds the producer lock.
func (q *queue) resume() {
	if !q.stopped.Load() || q.s.broken() {
		return
	}
	done := 0
	for i := range q.waiting {
		err := q.tryPut(&q.waiting[i])
		if err != nil && q.outstanding > 0 {
			break
		}
		if err != nil {
			q.s.n.count.Add(counter.TxNoSpace, 1)
			q.s.discard(&q.waiting[i])
		}
		done++
	}
	q.waiting = q.waiting[:copy(q.waiting, q.waiting[done:])]
	if len(q.waiting) > 0 || q.outstanding > 0 && q.freePercent() <= highWater {
		return
	}
	q.stopped.Store(false)
	q.s.n.count.Add(counter.WakeQueue, 1)
}
