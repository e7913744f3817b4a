package netvsp

import (
	"hvnet/hv"
	"hvnet/nic"
	"hvnet/nvsp"
	"hvnet/ring"
	"hvnet/rndis"
	"hvnet/vmbus"
)

// maxRanges is how many frames one ring packet carries. Guests take up to 375, but
// return the sections of a packet together: shorter ones come back sooner.
const maxRanges = 64

// receiveView is the receive buffer as deliveries use it.
type receiveView struct {
	mem     []byte
	size    int    // of a section
	offset  int    // of the frame in it
	longest int    // frame without tag
	message []byte // the NVSP message of every packet with frames
	control []byte // and of those with control messages
}

// delivery is the working memory of a delivery.
type delivery struct {
	ids    [maxRanges]int32
	ranges [maxRanges]vmbus.ByteRange
	head   []byte
	n      int
	packet uint16 // number of the last coalesced packet

	staged, sent tally // the frames in the current packet, and in the ones before
	dropped      [drops]uint64
}

// A tally is a number of frames.
type tally struct{ frames, bytes uint64 }

func (t *tally) add(more tally) { t.frames, t.bytes = t.frames+more.frames, t.bytes+more.bytes }

// rest returns how many of n frames nothing has become of.
func (d *delivery) rest(n int) uint64 {
	rest := uint64(n) - d.sent.frames
	for _, k := range d.dropped {
		rest -= k
	}
	return rest
}

// settle adds what became of the frames of a delivery to the counters.
func (d *delivery) settle(c *counters) {
	c.rxFrames.Add(d.sent.frames)
	c.rxBytes.Add(d.sent.bytes)
	for i, n := range d.dropped {
		if n > 0 {
			c.rxDropped[i].Add(n)
			d.dropped[i] = 0
		}
	}
	d.staged, d.sent = tally{}, tally{}
}

// setReceive takes a receive buffer into use. next is the links of its sections,
// shared by all queues. The caller holds the producer lock.
func (q *queue) setReceive(b *buffer, next []int32, c *control) {
	m := nvsp.RNDISPacket{Channel: nvsp.ChannelData, Section: nvsp.NoSection}
	offset := c.profile.DataOffset
	q.receive = &receiveView{mem: b.mapping.Bytes, size: b.size, offset: offset, longest: min(c.mtu, b.size-offset)}
	q.receive.message = c.pad(m.Append(nil))
	m.Channel = nvsp.ChannelControl
	q.receive.control = c.pad(m.Append(nil))
	q.former = sections{}
	q.data = newSections(next)
	q.control = newSections(next)
	q.delivery.head = make([]byte, 0, 24+8*maxRanges)
}

// dropReceive ends the use of the receive buffer; control messages that wait for a
// section have nowhere to go. The caller holds the producer lock.
//
// A guest revokes the buffer on the primary channel when it has completed everything, which
// may lie unread in the ring of another channel: that is for nothing, but no fault.
func (q *queue) dropReceive() {
	q.receive = nil
	if q.index != 0 && q.data.given > 0 {
		q.former = q.data
		q.former.pool = nil
	}
	q.data, q.control = sections{}, sections{}
	q.replies = nil
}

// reserve is how much of the ring frames leave to answers, so that a guest that
// takes many frames still learns what became of its own.
func (q *queue) reserve() int { return min(8<<10, q.ch.Out.Size()/4) }

// deliver writes frames that st has for this channel into receive sections of the
// guest and tells it, in one batch. flows are theirs, nil if they have none. It does
// nothing and returns false if frames are spread in another way now. It is called from
// any goroutine.
func (q *queue) deliver(st *steering, frames []nic.Frame, flows []flow) bool {
	q.ch.Lock()
	defer q.ch.Unlock()
	if q.s.steer.Load() != st {
		return false
	}
	if err := hv.Guard(func() { q.write(frames, flows) }); err != nil {
		d := &q.delivery
		d.dropped[DropFault] += d.rest(len(frames))
		d.settle(&q.count)
		q.blame(err)
	}
	q.data.settle()
	return true
}

// blame finds out whose memory is gone. The frames' sender looks after its own, and what
// is in the ring already is the guest's; if it is ours, the session ends.
func (q *queue) blame(err error) {
	taken := q.delivery.ids[:q.delivery.n]
	q.delivery.n = 0
	if q.receive == nil {
		return
	}
	ours := hv.Guard(func() {
		for _, id := range taken {
			for at := int(id) * q.receive.size; at < (int(id)+1)*q.receive.size; at += hv.PageSize / 2 {
				q.receive.mem[at] = 0
			}
		}
		q.ch.Flush()
	})
	q.data.putBack(taken)
	if ours != nil {
		q.s.fault(err)
	}
}

// write is deliver with the producer lock held.
func (q *queue) write(frames []nic.Frame, flows []flow) {
	d := &q.delivery
	r, passes := q.receive, filter{q.s.filter.Load(), *q.s.mac.Load()}
	sums := rxSums(q.s.sums.Load())
	if r == nil || passes.bits == 0 {
		count, reason := &q.count, DropFilter
		if q.stopped() {
			count = &q.s.d.lost // has taken over what the queue had counted
		}
		if r == nil {
			reason = DropNoBuffer
		}
		if q.closing.Load() {
			reason = DropClosing
		}
		count.rxDropped[reason].Add(uint64(len(frames)))
		return
	}
	room := 0 // frames that the current packet may still take
	for i := range frames {
		f := &frames[i]
		n := f.Len()
		if !passes.frame(f) {
			d.dropped[DropFilter]++
			continue
		}
		if room == 0 {
			q.flushFrames()
			if room = q.room(); room == 0 {
				d.dropped[DropRingFull] += uint64(len(frames) - i)
				break
			}
			q.data.want(min(room, len(frames)-i))
		}
		var info rndis.Info
		if flows != nil && flows[i].over != 0 {
			info.Has, info.Hash, info.HashInfo = rndis.HasHash|rndis.HasHashInfo, flows[i].hash, flows[i].over
		}
		if sums != 0 && f.Offload.Segment == nic.SegmentNone {
			if sum := sums.verify(f, n); sum != 0 {
				info.Has, info.Checksum = info.Has|rndis.HasChecksum, uint32(sum)
			}
		}
		tag, tagged := tagOf(f)
		if tagged {
			info.Has, info.VLAN = info.Has|rndis.HasVLAN, tag
		}
		if f.Offload.Segment != nic.SegmentNone {
			reason, ok := q.coalesced(f, n, info, &room)
			if !ok {
				d.dropped[reason]++
				continue
			}
			d.staged.add(tally{1, uint64(n)})
			continue
		}
		if tagged {
			n -= vlanTag
		}
		if n > r.longest {
			d.dropped[DropTooLong]++
			continue
		}
		if len(q.data.free) == 0 && !q.data.want(1) {
			d.dropped[DropNoSection]++
			continue
		}
		id, _ := q.data.take()
		d.ids[d.n] = id
		d.n++
		at := int(id) * r.size
		section := r.mem[at : at+r.size : at+r.size]
		if tagged {
			rndis.PutPacketAt(section, r.offset, n, &info)
			b := section[r.offset:]
			k := copy(b, f.Head[:12])
			k += copy(b[k:], f.Head[12+vlanTag:])
			for _, p := range f.Body {
				k += copy(b[k:], p)
			}
		} else {
			rndis.PutPacketAt(section, r.offset, n, &info)
			f.CopyTo(section[r.offset:])
		}
		d.ranges[d.n-1] = vmbus.ByteRange{Count: uint32(r.offset + n), Offset: uint32(at)}
		room--
		d.staged.add(tally{1, uint64(n)})
	}
	q.flushFrames()
	q.ch.Flush()
	d.settle(&q.count)
}

// room returns how many frames one more packet may carry.
func (q *queue) room() int {
	if len(q.pending) > 0 && !q.putPending() || len(q.replies) > maxReplies/2 {
		return 0 // answers first
	}
	free := q.ch.Out.Free() - q.reserve() - ring.Need(24+nvsp.MaxSize)
	return min(max(free/8, 0), maxRanges)
}

// flushFrames puts the packet with the frames so far into the ring. There is room:
// nobody else has had the lock since room was asked.
func (q *queue) flushFrames() {
	d := &q.delivery
	if d.n == 0 {
		return
	}
	ids := d.ids[:d.n]
	ranges := d.ranges[:d.n]
	staged := d.staged
	d.n, d.staged = 0, tally{}
	d.head = vmbus.AppendTransferPages(d.head[:0], uint64(ids[0]), nvsp.ReceiveBufferID, ranges)
	if err := q.ch.Out.Put(d.head, q.receive.message); err != nil {
		q.data.putBack(ids)
		d.dropped[DropRingFull] += staged.frames
		return
	}
	q.data.give(ids)
	d.sent.add(staged)
}
