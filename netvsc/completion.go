package netvsc

import (
	"fmt"

	"hvnet/counter"
	"hvnet/nvsp"
	"hvnet/ring"
	"hvnet/vmbus"
)

// settle does what a batch has led to, taking the producer lock once: it frees what
// the host has completed, starts the queue again if it can, and completes what was
// received.
func (q *queue) settle() {
	if len(q.done) == 0 && len(q.owed) == 0 {
		return
	}
	s := q.s
	var freed freed
	q.ch.Lock()
	for i := range q.done {
		q.complete(&q.done[i], &freed)
	}
	q.resume()
	q.payOwed()
	q.ch.Unlock()
	if freed.batches > 0 {
		q.count.Add(counter.TxPackets, freed.frames)
		q.count.Add(counter.TxBytes, freed.bytes)
		q.count.Add(counter.TxBatches, freed.batches)
	}
	freed.flush(s)
	if len(q.done) > 0 {
		if s.n.starving.Load() > 0 {
			s.n.wakePumps()
		}
		s.nudge()
	}
}

// freed collects what a batch of completions gives back, so that the pools' locks
// are taken once for many.
type freed struct {
	sections, runs         [32]int32
	nsections, nruns       int
	batches, frames, bytes uint64
}

func (f *freed) add(s *session, t *transaction) {
	f.batches++
	f.frames += uint64(t.frames)
	f.bytes += uint64(t.bytes)
	if t.section != none {
		f.sections[f.nsections] = t.section
		f.nsections++
	}
	if t.run != none {
		f.runs[f.nruns] = t.run
		f.nruns++
	}
	if f.nsections == len(f.sections) || f.nruns == len(f.runs) {
		f.flush(s)
	}
}

func (f *freed) flush(s *session) {
	if f.nsections > 0 {
		s.sections.give(f.sections[:f.nsections]...)
	}
	if f.nruns > 0 {
		s.runs.give(f.runs[:f.nruns]...)
	}
	f.nsections, f.nruns = 0, 0
}

// complete handles a completion of an RNDIS packet. What matches nothing that is
// under way, because it is a second one or made up, is counted and dropped. The
// caller holds the producer lock.
func (q *queue) complete(c *completion, freed *freed) {
	t := q.txns.find(c.id)
	switch {
	case t != nil && t.kind == kindData:
		// A failed send frees its memory just the same.
		if nvsp.Status(c.status) != nvsp.StatusSuccess {
			q.s.n.count.Add(counter.HostRefused, 1)
		}
		freed.add(q.s, t)
		q.track(t.entries, -1)
		q.outstanding--
		q.confirmed++
	case t != nil && t.kind == kindSwitch:
		q.s.n.vf.answered(q.s, false)
	case t != nil && t.kind == kindControl:
		q.s.pages.give(t.run)
		if nvsp.Status(c.status) != nvsp.StatusSuccess {
			q.s.requests.finish(t.request, nil, fmt.Errorf("the host has refused the message: %w", nvsp.Status(c.status)))
		}
	default:
		q.s.n.count.Add(counter.HostBadCompletion, 1)
		return
	}
	q.txns.end(c.id)
}

// completed takes a completion packet from the host. Those of RNDIS packets are
// collected; an answer to an NVSP request goes to whoever has asked, if it is of
// the type that answers it. The packet is in private memory.
func (q *queue) completed(p *vmbus.Packet) {
	if m, err := nvsp.ParseRNDISPacketComplete(p.Payload); err == nil {
		q.done = append(q.done, completion{p.TID, uint32(m.Status)})
		return
	}
	q.ch.Lock()
	defer q.ch.Unlock()
	t := q.txns.find(p.TID)
	if t != nil && t.kind == kindSwitch {
		q.s.n.vf.answered(q.s, len(p.Payload) == 0)
		q.txns.end(p.TID)
		return
	}
	typ, err := nvsp.PeekType(p.Payload)
	if t == nil || t.kind != kindRequest || err != nil || uint32(typ) != t.request.reply {
		q.s.n.count.Add(counter.HostBadCompletion, 1)
		return
	}
	q.s.requests.finish(t.request, append([]byte(nil), p.Payload...), nil)
	q.txns.end(p.TID)
}

// owe notes a completion that is due to the host for a packet of id.
func (q *queue) owe(id uint64, failed bool) { q.owed = append(q.owed, owed{id, failed}) }

// payOwed completes what was received, as far as the ring has room. What is left
// is tried again when the host has made some. The caller holds the producer lock.
func (q *queue) payOwed() {
	sent := 0
	for sent < len(q.owed) {
		o := q.owed[sent]
		status := nvsp.StatusSuccess
		if o.failed {
			status = nvsp.StatusFail
		}
		b := nvsp.RNDISPacketComplete{Status: status}.Append(vmbus.AppendCompletion(q.scratch[:0], o.id))
		err := q.ch.Out.Put(b, nil)
		if err == nil {
			sent++
			continue
		}
		if err != ring.ErrFull {
			break
		}
		q.s.n.count.Add(counter.RxCompBusy, 1)
		q.ch.Flush()
		q.armed = true
		if !q.ch.Out.AwaitRoom(ring.Need(len(b))) {
			break
		}
	}
	q.ch.Flush()
	q.checkRing()
	q.owed = q.owed[:copy(q.owed, q.owed[sent:])]
	if q.armed && len(q.owed) == 0 {
		q.ch.Out.StopAwaiting()
		q.armed = false
	}
}
