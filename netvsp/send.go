package netvsp

import (
	"hvnet/hv"
	"hvnet/nic"
	"hvnet/nvsp"
	"hvnet/vmbus"
)

// received handles one ring packet of the guest, which is a private copy. The send
// buffer and the guest's memory are held in place.
func (q *queue) received(b []byte) {
	p, err := vmbus.ParsePacket(b)
	if err != nil {
		q.bad(err)
		return
	}
	switch p.Type {
	case vmbus.PacketCompletion:
		q.freed = append(q.freed, p.TID)
		return
	case vmbus.PacketInBand, vmbus.PacketGPADirect:
		m, err := nvsp.ParseRNDISPacket(p.Payload)
		if err == nil {
			q.takeRNDIS(&p, m)
			return
		}
		if t, _ := nvsp.PeekType(p.Payload); q.index == 0 && p.Type == vmbus.PacketInBand && t != nvsp.TypeNone && t != nvsp.TypeRNDISPacket {
			q.ask = request{requestNVSP, append([]byte(nil), p.Payload...), p.TID, p.CompletionRequested()}
			return
		}
		q.bad(errPlace)
	default:
		q.bad(errPacketType)
	}
	if p.CompletionRequested() {
		q.done = append(q.done, outgoing{completion: true, tid: p.TID})
	}
}

// takeRNDIS handles a ring packet with RNDIS messages. It is completed with
// failure if any of them is wrong; those before are sent all the same.
func (q *queue) takeRNDIS(p *vmbus.Packet, m nvsp.RNDISPacket) {
	err := q.gather(p, m)
	if err == nil {
		err = q.frames()
	}
	payload := q.okBytes
	if err == errControl {
		if q.askRNDIS(p) {
			return
		}
	}
	if err != nil {
		q.count.txFailed.Add(1)
		q.bad(err)
		payload = q.noBytes
	}
	if p.CompletionRequested() {
		q.done = append(q.done, outgoing{completion: true, tid: p.TID, payload: payload})
	}
}

// gather finds the packet's RNDIS bytes in shared memory: those in the send
// section, then those in the page ranges. All addresses are checked.
func (q *queue) gather(p *vmbus.Packet, m nvsp.RNDISPacket) error {
	q.src.reset()
	if m.Section != nvsp.NoSection && m.SectionBytes > 0 {
		b := &q.sendBuf
		if b.mapping == nil || uint64(m.Section) >= uint64(b.count) || uint64(m.SectionBytes) > uint64(b.size) {
			return errSection
		}
		at := int(m.Section) * b.size
		q.src.add(b.mapping.Bytes[at : at+int(m.SectionBytes)])
	}
	if p.Type != vmbus.PacketGPADirect {
		return nil
	}
	spans, _, err := p.GPASpans(q.spans[:0], maxSend)
	if err != nil {
		return err
	}
	if len(q.src.pieces) == 0 {
		q.src.first = p.FirstRange()
	}
	for _, span := range spans {
		if err := q.pages(hv.GPA(span.GPA), span.Len); err != nil {
			return err
		}
	}
	return nil
}

// pages adds a run of guest memory, in pieces if it crosses regions.
func (q *queue) pages(gpa hv.GPA, n int) error {
	b, err := q.s.mem.Bytes(gpa, n)
	if err == nil {
		q.src.add(b)
		return nil
	}
	for n > 0 && len(q.src.pieces) < cap(q.src.pieces) {
		k := min(n, hv.PageSize-int(gpa%hv.PageSize))
		if b, err = q.s.mem.Bytes(gpa, k); err != nil {
			return err
		}
		q.src.add(b)
		gpa, n = gpa+hv.GPA(k), n-k
	}
	if n > 0 {
		return errSplit
	}
	return nil
}

// askRNDIS copies a control message, to be handled when the round is over. It
// returns false if there may be none: they come one at a time, on the primary
// channel, and are not long.
func (q *queue) askRNDIS(p *vmbus.Packet) bool {
	if q.index != 0 || q.src.total > maxControl {
		return false
	}
	msg := make([]byte, q.src.total)
	q.src.copy(msg, 0)
	q.ask = request{requestRNDIS, msg, p.TID, p.CompletionRequested()}
	return true
}

// frames takes the PACKET messages of one ring packet to the batch. Several follow
// each other, and nothing else may follow them. A packet that begins with another
// message is a control message, errControl.
func (q *queue) frames() error {
	open := q.s.open.Load()
	for pos := 0; ; {
		if q.batch.full(len(q.src.pieces)) {
			q.emit()
		}
		n, err := q.batch.add(&q.src, pos, uint16(q.index), q.offered)
		if err != nil {
			return err
		}
		switch {
		case open:
			q.check()
		case q.closing.Load(), q.s.halted.Load():
			// Linux may have a frame under way when it halts.
			q.count.txDropped[DropClosing].Add(1)
			q.batch.drop()
		default:
			q.batch.drop()
			return errEarly
		}
		if pos += n; pos == q.src.total {
			return nil
		}
	}
}

// check drops the frame that was added last if this guest may not send it.
func (q *queue) check() {
	frames := q.batch.frames
	f := &frames[len(frames)-1]
	if q.spoiled > 0 && f.Offload.Checksum == nic.ChecksumPartial {
		spoil(f, q.spoiled)
	}
	reason := Drop(-1)
	switch n := f.Len(); {
	case n < nic.MinFrame:
		reason = DropRunt
	case wireLen(f, n) > q.longest:
		reason = DropTooLong
	case f.Src() != *q.s.mac.Load() && !q.s.d.cfg.AllowSpoofing:
		reason = DropSource
	}
	if reason >= 0 {
		q.count.txDropped[reason].Add(1)
		q.batch.drop()
	}
}

// emit sends the batch to the port.
func (q *queue) emit() {
	frames := q.batch.frames
	if len(frames) == 0 {
		q.batch.pieces = q.batch.pieces[:0]
		return
	}
	var n uint64
	for i := range frames {
		n += uint64(frames[i].Len())
	}
	q.count.txFrames.Add(uint64(len(frames)))
	q.count.txBytes.Add(n)
	q.s.port.WriteFrames(frames)
	q.batch.reset()
}
