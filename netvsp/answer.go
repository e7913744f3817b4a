package netvsp

import (
	"hvnet/nvsp"
	"hvnet/ring"
	"hvnet/rule"
	"hvnet/vmbus"
)

// roomToGoOn is how much of the ring must be free before a queue that could not
// send its answers tries again: a handful of them.
const roomToGoOn = 1024

// post sends a message of the device's own to the guest, in its turn; a guest that has left
// too many lying does not get it. It is called from any goroutine.
func (q *queue) post(m outgoing) {
	q.ch.Lock()
	room := len(q.pending) < maxPending
	if room {
		q.pending = append(q.pending, m)
	}
	q.ch.Unlock()
	if !room {
		q.bad(rule.RNDISAnswers.Broken("messages of the host are left lying"))
		return
	}
	q.ch.Wake()
}

// reply queues an RNDIS control message for the guest. It returns false if the
// guest has left too many lying. It is called from any goroutine, and the queue's
// goroutine sends it.
func (q *queue) reply(msg []byte) bool {
	q.ch.Lock()
	defer q.ch.Unlock()
	if q.receive == nil || len(q.replies) >= maxReplies || len(msg) > q.receive.size {
		return false
	}
	q.replies = append(q.replies, msg)
	return true
}

// putPending puts waiting answers into the ring, in order. It returns false if some
// are left. The caller holds the producer lock.
func (q *queue) putPending() bool {
	var head [16]byte
	for i, m := range q.pending {
		var b []byte
		switch {
		case m.completion:
			b = vmbus.AppendCompletion(head[:0], m.tid)
		case m.ask:
			b = vmbus.AppendInBand(head[:0], vmbus.FlagCompletionRequested, m.tid)
		default:
			b = vmbus.AppendInBand(head[:0], 0, m.tid)
		}
		if err := q.ch.Out.Put(b, m.payload); err == ring.ErrFull {
			q.pending = append(q.pending[:0], q.pending[i:]...)
			return false
		}
		// Any other error means that the ring is dead, and all answers with it.
		if m.ask {
			q.asked++
		}
	}
	clear(q.pending)
	q.pending = q.pending[:0]
	return true
}

// putReplies puts waiting control messages into sections and announces them. It
// returns false if the ring has no room; while there is no section, the guest's
// next completion brings one. The caller holds the producer lock.
func (q *queue) putReplies() bool {
	for len(q.replies) > 0 {
		id, ok := q.control.take()
		if !ok {
			return true
		}
		msg := q.replies[0]
		at := int(id) * q.receive.size
		copy(q.receive.mem[at:at+q.receive.size], msg)
		ids := [1]int32{id}
		ranges := [1]vmbus.ByteRange{{Count: uint32(len(msg)), Offset: uint32(at)}}
		head := vmbus.AppendTransferPages(make([]byte, 0, 32), uint64(id), nvsp.ReceiveBufferID, ranges[:])
		if err := q.ch.Out.Put(head, q.receive.control); err != nil {
			q.control.putBack(ids[:])
			return err != ring.ErrFull
		}
		q.control.give(ids[:])
		q.replies[0] = nil
		q.replies = q.replies[1:]
	}
	return true
}
