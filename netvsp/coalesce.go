package netvsp

import (
	"encoding/binary"

	"hvnet/nic"
	"hvnet/offload"
	"hvnet/rndis"
)

// coalesced writes a frame that is to be cut into TCP segments to receive sections,
// as pieces of one coalesced packet (RSC over VMBus): each piece has the payload of
// one segment, and only the first one headers. All of them are in one ring packet,
// as guests insist. What is known of the packet is said with the first piece: its
// checksum is right, but the bytes in the frame are not it. room is how many ranges
// the current ring packet may still take. The caller holds the producer lock.
func (q *queue) coalesced(f *nic.Frame, n int, info rndis.Info, room *int) (reason Drop, ok bool) {
	d, r := &q.delivery, q.receive
	transport, size := int(f.Offload.Start), int(f.Offload.Size)
	if transport+20 > len(f.Head) || size < offload.MinSegment {
		return DropOffload, false
	}
	headers := transport + int(f.Head[transport+12]>>4)*4
	if headers >= n {
		return DropOffload, false
	}
	src := pieces{head: f.Head, body: f.Body}
	if info.Has&rndis.HasVLAN != 0 {
		headers, n = headers-vlanTag, n-vlanTag
	}
	if headers+size > r.longest {
		return DropTooLong, false
	}
	if (n-headers+size-1)/size > maxRanges {
		size = r.longest - headers // too many: whole sections, then
	}
	k := (n - headers + size - 1) / size
	if *room < k {
		q.flushFrames()
		if *room = q.room(); *room < k {
			return DropRingFull, false
		}
	}
	if !q.data.want(k) {
		return DropNoSection, false
	}
	*room -= k
	d.packet++
	info.Has |= rndis.HasChecksum | rndis.HasPacketID
	info.Checksum = uint32(rndis.RxTCPOK | rndis.RxTCPValueInvalid)
	for i, left := 0, n; i < k; i++ {
		part, flags := min(size, left), uint8(rndis.PacketFragment)
		if i == 0 {
			part, flags = headers+size, flags|rndis.PacketFirst
		} else {
			info.Has = rndis.HasPacketID
		}
		if left -= part; left <= 0 {
			part, flags = part+left, flags|rndis.PacketLast
		}
		info.PacketID = rndis.NewPacketID(flags, d.packet)
		id, _ := q.data.take()
		at := int(id) * r.size
		d.ids[d.n] = id
		d.ranges[d.n].Count, d.ranges[d.n].Offset = uint32(r.offset+part), uint32(at)
		d.n++ // before the sender's memory is touched, which may be gone
		section := r.mem[at : at+r.size : at+r.size]
		rndis.PutPacketAt(section, r.offset, part, &info)
		dst := section[r.offset : r.offset+part]
		if info.Has&rndis.HasVLAN != 0 { // of the first piece: it leaves the bytes
			src.read(dst[:12])
			src.head = src.head[vlanTag:]
			dst = dst[12:]
		}
		src.read(dst)
	}
	return 0, true
}

// tagOf returns the 802.1Q tag of a frame, if it has one.
func tagOf(f *nic.Frame) (tag uint16, ok bool) {
	if len(f.Head) < nic.HeaderLen+vlanTag || binary.BigEndian.Uint16(f.Head[12:]) != 0x8100 {
		return 0, false
	}
	return binary.BigEndian.Uint16(f.Head[14:]), true
}

// pieces reads a frame from front to back.
type pieces struct {
	head []byte
	body [][]byte
}

// read copies the next bytes to b, which are all there.
func (p *pieces) read(b []byte) {
	for len(b) > 0 {
		if len(p.head) == 0 {
			p.head, p.body = p.body[0], p.body[1:]
		}
		n := copy(b, p.head)
		b, p.head = b[n:], p.head[n:]
	}
}
