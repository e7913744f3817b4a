package netvsc

import (
	"hvnet/nic"
	"hvnet/offload"
	"hvnet/rndis"
)

// A join is a coalesced packet of which not all pieces are there yet (RSC over
// VMBus). The pieces follow each other in one packet of the ring; what is known of
// the whole is said with the first one.
type join struct {
	parts [][]byte
	bytes int
	info  rndis.Info // of the first piece
}

// abandon gives up what has been gathered, and reports whether that was anything.
func (j *join) abandon() bool {
	some := len(j.parts) > 0
	j.parts, j.bytes = j.parts[:0], 0
	return some
}

// fragment takes one piece, and adds the packet to the batch when it is the last
// one. It returns false for a piece that is not to be had: it follows none, or there
// are too many. The caller then gives up what there is.
func (q *queue) fragment(data []byte) bool {
	j := &q.join
	flags := q.info.PacketID.Flags()
	if flags&rndis.PacketFirst != 0 {
		j.abandon()
		j.info = q.info
	} else if len(j.parts) == 0 {
		return false
	}
	if len(j.parts) == maxRanges || j.bytes+len(data) > nic.MaxFrame {
		return false
	}
	j.parts, j.bytes = append(j.parts, data), j.bytes+len(data)
	if flags&rndis.PacketLast == 0 {
		return true
	}
	if j.bytes < nic.MinFrame {
		return false
	}
	q.info = j.info
	q.joined(j.parts)
	j.abandon()
	return true
}

// rightTCP reports whether the host has found the TCP checksum of what was received
// right. Of a coalesced packet nobody else can say.
func (q *queue) rightTCP() bool {
	sum := rndis.RxChecksum(q.info.Checksum)
	return q.info.Has&rndis.HasChecksum != 0 && sum&rndis.RxTCPOK != 0 && sum&(rndis.RxTCPFailed|rndis.RxUDPFailed) == 0
}

// joined adds a coalesced packet to the batch: one frame that is to be cut again,
// should it go to where it has to be. Its segments are as long as the first one was,
// which is what the first piece holds, and not longer than the MTU has it.
func (q *queue) joined(parts [][]byte) {
	f, sl := q.begun(parts[0])
	q.places[len(q.places)-1] = nil
	at := len(q.body) - len(f.Body)
	for _, p := range parts[1:] {
		q.bytes += uint64(len(p))
		if n := len(f.Head); n < nic.HeadLen {
			k := copy(sl.head[tagSize+n:], p)
			f.Head, p = sl.head[tagSize:tagSize+n+k], p[k:]
		}
		if len(p) > 0 {
			q.body = append(q.body, p)
		}
	}
	f.Body = q.body[at:len(q.body):len(q.body)]
	q.inform(f, sl)
	l, ok := offload.Parse(f.Head, f.Len())
	if !ok || !l.TCP() || l.End != f.Len() || !q.rightTCP() {
		return // the stack will see
	}
	most := q.s.receive.Load().mtu - (l.Payload - l.IP)
	size := len(parts[0]) - l.Payload
	if q.info.Has&rndis.HasVLAN != 0 {
		size += tagSize // the piece came without
	}
	if size <= 0 || size > most {
		size = most
	}
	if size < offload.MinSegment || l.End-l.Payload <= size {
		return
	}
	l.Partial(f)
	f.Offload.Segment, f.Offload.Size = l.Segment(), uint16(size)
}
