package netvsc

import (
	"hvnet/counter"
	"hvnet/nic"
	"hvnet/nvsp"
	"hvnet/rndis"
	"hvnet/vmbus"
)

const (
	// maxRanges is how many ranges a receive packet may have: as many as
	// hv_netvsc takes from hosts that coalesce.
	maxRanges = 562
	// frameSlots is how many frames one batch can hold: the packet that crosses
	// half of it ends the batch.
	frameSlots = maxRanges + 128
	// packetMax is the largest packet in bytes that a host may send: NVSP
	// message, ranges and something to spare, as hv_netvsc has it.
	packetMax = 24 + maxRanges*8 + 40 + 64
	// bodySlots is how many pieces the frames of one batch can have in all.
	bodySlots = 2 * frameSlots
	// frontSize is how many of the first bytes of a message are copied for a
	// look at its header: all per-packet information of today's hosts fits.
	frontSize = 128
	// tagSize is the size of an 802.1Q tag.
	tagSize = nic.TagLen
)

func (r *receiver) init() {
	r.buf = make([]byte, packetMax)
	r.frames = make([]nic.Frame, 0, frameSlots)
	r.slots = make([]slot, frameSlots)
	r.places = make([][]byte, 0, frameSlots)
	r.body = make([][]byte, 0, bodySlots)
	r.join.parts = make([][]byte, 0, maxRanges)
	r.done = make([]completion, 0, pollPackets)
	r.owed = make([]owed, 0, pollPackets)
}

// begin starts a batch.
func (r *receiver) begin() {
	r.frames, r.places, r.body, r.bytes = r.frames[:0], r.places[:0], r.body[:0], 0
	r.done = r.done[:0]
}

// room reports whether another packet fits into the batch.
func (r *receiver) room() bool {
	return len(r.frames) <= frameSlots-maxRanges && len(r.body) <= bodySlots-maxRanges
}

// badMessage counts a message that makes no sense and was dropped, badFrame one
// with frames.
func (q *queue) badMessage() { q.s.n.count.Add(counter.HostBadMessage, 1) }
func (q *queue) badFrame()   { q.s.n.count.Add(counter.HostBadPacket, 1) }

// packet handles one packet from the host, a private copy.
func (q *queue) packet(b []byte) {
	p, err := vmbus.ParsePacket(b)
	if err != nil {
		q.badMessage()
		return
	}
	switch p.Type {
	case vmbus.PacketTransferPages:
		q.owe(p.TID, !q.transfer(&p))
	case vmbus.PacketCompletion:
		q.completed(&p)
	case vmbus.PacketInBand:
		q.message(&p)
	default:
		q.badMessage()
	}
}

// tooBig refuses a packet that is longer than any that makes sense. b is its beginning:
// sections that came with it go back.
func (q *queue) tooBig(b []byte) {
	p, err := vmbus.ParseDescriptor(b)
	if err != nil || p.Type != vmbus.PacketTransferPages {
		q.badMessage()
		return
	}
	q.badFrame()
	q.owe(p.TID, true)
}

// transfer handles a packet of received messages, as a rule one in each range, and returns
// whether all were good. Whatever is wrong with it, the host gets its completion,
// so that the sections aren't lost to both sides.
func (q *queue) transfer(p *vmbus.Packet) bool {
	rx := q.s.receive.Load()
	set, ranges, err := p.TransferPages(q.ranges[:0])
	if rx == nil || err != nil || set != nvsp.ReceiveBufferID || len(ranges) == 0 {
		q.badFrame()
		return false
	}
	if _, err := nvsp.ParseRNDISPacket(p.Payload); err != nil {
		q.badFrame()
		return false
	}
	// All fronts first: none of them is in this processor's caches yet, and so they
	// come together.
	for i, r := range ranges {
		q.fronts[i].n = 0
		if r.Within(len(rx.mem)) && int(r.Count) <= rx.section {
			q.fronts[i].n = copy(q.fronts[i].b[:], rx.mem[r.Offset:int(r.Offset)+int(r.Count)])
		}
	}
	ok := true
	for i, r := range ranges {
		if q.leaving.Load() { // ranges may be as long as the buffer, and overlap
			q.join.abandon()
			return false
		}
		f := &q.fronts[i]
		if f.n == 0 || !q.messages(f.b[:f.n], rx.mem[r.Offset:int(r.Offset)+int(r.Count)]) {
			q.badFrame()
			q.join.abandon() // a packet with a hole is none
			ok = false
		}
	}
	if q.join.abandon() { // pieces do not go on in another packet
		q.badFrame()
		ok = false
	}
	return ok
}

// messages handles the RNDIS messages of a range in shared memory, of which front is a
// private copy of the first bytes, and returns false if one is to be refused. Behind a
// PACKET there may be others; what else is there is padding.
func (q *queue) messages(front, m []byte) bool {
	for first := true; ; first = false {
		n, ok := q.received(front, m, first)
		if m = m[n:]; !ok || len(m) < rndis.PacketHeaderSize {
			return ok
		}
		front = q.next[:copy(q.next[:], m)]
	}
}

// received handles the RNDIS message at the start of m, in shared memory, of which front
// is a private copy of the first bytes, and returns its length, all of m if no other one
// can follow, and false if it is to be refused. Behind the first message of a range only a
// PACKET is one.
func (q *queue) received(front, m []byte, first bool) (n int, ok bool) {
	h, err := rndis.ParseHeader(front, len(m))
	if !first && (err != nil || h.Type != rndis.TypePacket) {
		return len(m), true
	}
	if err != nil {
		return len(m), false
	}
	if h.Type != rndis.TypePacket {
		return len(m), q.s.control(h, front, m)
	}
	p, err := rndis.ParsePacket(front, len(m))
	if err != nil && len(m) > frontSize {
		// Perhaps only because there is more per-packet information than usual:
		// everything is looked at anew in a longer copy.
		front = q.long[:copy(q.long[:], m)]
		p, err = rndis.ParsePacket(front, len(m))
	}
	if err != nil || p.DataLen > nic.MaxFrame {
		return len(m), false
	}
	q.info.Has = 0
	if len(p.PPI) > 0 && p.Info(&q.info) != nil {
		return len(m), false
	}
	data := m[p.DataOffset : p.DataOffset+p.DataLen]
	if q.info.Has&rndis.HasPacketID != 0 && q.info.PacketID.Flags()&rndis.PacketFragment != 0 {
		return p.Length, q.fragment(data)
	}
	q.join.abandon()
	if len(data) < nic.MinFrame {
		return len(m), false
	}
	q.frame(data)
	return p.Length, true
}

// frame adds a frame to the batch.
func (q *queue) frame(data []byte) {
	f, sl := q.begun(data)
	if q.info.Has != 0 {
		q.inform(f, sl)
	}
}

// begun adds a frame that begins with data, in shared memory, to the batch. Its first
// bytes become private.
func (q *queue) begun(data []byte) (*nic.Frame, *slot) {
	if len(q.frames) == cap(q.frames) { // several in each range
		q.deliver()
		q.frames, q.places, q.body, q.bytes = q.frames[:0], q.places[:0], q.body[:0], 0
	}
	sl := &q.slots[len(q.frames)]
	q.frames = q.frames[:len(q.frames)+1]
	f := &q.frames[len(q.frames)-1]
	k := copy(sl.head[tagSize:], data)
	f.Head, f.Body, f.Channel = sl.head[tagSize:tagSize+k], nil, uint16(q.index)
	f.Hash, f.HashKind, f.Offload = 0, nic.HashNone, nic.Offload{}
	if k < len(data) {
		at := len(q.body)
		q.body = append(q.body, data[k:])
		f.Body = q.body[at : at+1 : at+1]
	}
	q.places = append(q.places, data)
	q.bytes += uint64(len(data))
	return f, sl
}

// inform applies the per-packet information to a frame. A tag that the host has
// stripped goes back in front: a sink knows only frames.
func (q *queue) inform(f *nic.Frame, sl *slot) {
	if q.info.Has&rndis.HasHash != 0 && q.s.features.Load().hash {
		f.Hash, f.HashKind = q.info.Hash, nic.HashL4
		if q.info.Has&rndis.HasHashInfo != 0 && !q.info.HashInfo.Ports() {
			f.HashKind = nic.HashL3
		}
	}
	if q.info.Has&rndis.HasVLAN != 0 {
		putTag(sl.head[:], q.info.VLAN)
		f.Head = sl.head[:tagSize+len(f.Head)]
		q.bytes += tagSize
	}
	if q.info.Has&rndis.HasChecksum != 0 {
		q.verified(f, rndis.RxChecksum(q.info.Checksum))
	}
}

// message handles an NVSP message that the host sends unasked.
func (q *queue) message(p *vmbus.Packet) {
	t, err := nvsp.PeekType(p.Payload)
	if err != nil {
		q.badMessage()
		return
	}
	switch t {
	case nvsp.TypeIndirectionTable:
		rx := q.s.receive.Load()
		if rx == nil {
			q.badMessage()
			return
		}
		m, err := nvsp.ParseIndirectionTable(p.Payload, rx.version)
		if err != nil {
			q.badMessage()
			return
		}
		q.s.table.Store(&m.Table)
	case nvsp.TypeVFAssociation, nvsp.TypeSwitchDataPath:
		// No answer is expected, whatever the packet's flag says.
		if !q.vfMessage(t, p.Payload) {
			q.badMessage()
		}
	default:
		q.badMessage()
	}
}
