package netvsc

import (
	"hvnet/counter"
	"hvnet/nvsp"
	"hvnet/ring"
	"hvnet/vmbus"
)

// put puts a batch into the ring. If the ring is full the batch waits for
// completions and the queue stops: the sources are held back, nothing is lost. The
// caller holds the producer lock.
func (q *queue) put(b *batch) {
	if b.entries != 0 {
		b.entries |= 1 << era(q.era)
	}
	q.track(b.entries, 1)
	if len(q.waiting) == 0 {
		err := q.tryPut(b)
		if err == nil {
			return
		}
		if err != ring.ErrFull || q.outstanding == 0 {
			q.drop(b, err)
			return
		}
		q.s.n.count.Add(counter.TxBusy, 1)
	}
	q.waiting = append(q.waiting, *b)
	q.stop()
}

// drop gives up a batch that does not go into the ring: it is full and no
// completion will come that could be waited for, or it is broken.
func (q *queue) drop(b *batch, err error) {
	why := counter.TxLost
	if err == ring.ErrFull {
		why = counter.TxNoSpace
	}
	q.s.n.count.Add(why, uint64(b.frames))
	q.track(b.entries, -1)
	q.s.discard(b)
}

// tryPut puts a batch into the ring. If the host owes as many completions as the
// driver keeps in mind, that is a full ring too.
func (q *queue) tryPut(b *batch) error {
	id, t := q.txns.begin()
	if t == nil {
		return ring.ErrFull
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
	t.kind, t.section, t.run, t.frames, t.bytes, t.entries = kindData, b.section, b.run, b.frames, b.bytes, b.entries
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
			q.drop(&q.waiting[i], err)
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
