package netvsp

import (
	"encoding/binary"

	"hvnet/nic"
	"hvnet/rndis"
)

// The limits of a batch of frames from the guest. When one is reached the frames
// go to the port and the batch starts anew, so they bound memory, not the guest.
const (
	maxBatch  = 64
	maxPieces = 512
)

// A head is the private memory of one frame: the first bytes of its RNDIS message
// as they were checked, and behind them room for the first bytes of a frame that
// is elsewhere, or that gets a VLAN tag.
type head [rndis.PacketHeadSize + nic.HeadLen + vlanTag]byte

// vlanTag is the size of an 802.1Q tag.
const vlanTag = 4

// batch collects the frames of many ring packets for one call of the port.
type batch struct {
	frames []nic.Frame
	pieces [][]byte
	heads  [maxBatch]head
}

func (b *batch) init() {
	b.frames = make([]nic.Frame, 0, maxBatch)
	b.pieces = make([][]byte, 0, maxPieces)
}

// full reports whether another frame of a packet of n pieces may not fit.
func (b *batch) full(n int) bool {
	return len(b.frames) == maxBatch || cap(b.pieces)-len(b.pieces) < n
}

// drop takes the frame back that was added last.
func (b *batch) drop() {
	last := len(b.frames) - 1
	b.frames[last] = nic.Frame{}
	b.frames = b.frames[:last]
}

func (b *batch) reset() {
	clear(b.frames)
	b.frames, b.pieces = b.frames[:0], b.pieces[:0]
}

// add takes the PACKET message at pos of src to the batch, which is not full. It
// returns the length of the message; an error means that the rest of the ring
// packet can't be understood, or should not be. errControl is the first message of
// a packet if it is none for here.
//
// Everything that is looked at is copied to private memory first, once, and what
// was looked at is what travels. The copy is made of one piece of src, or of the
// first page range: a guest that splits header and per-packet information over page
// ranges is refused, as real hosts do.
func (b *batch) add(src *scatter, pos int, channel uint16, offered *rndis.HardwareOffload) (length int, err error) {
	h := &b.heads[len(b.frames)]
	n := src.head(h[:rndis.PacketHeadSize], pos)
	if pos == 0 && n >= rndis.HeaderSize && rndis.MessageType(binary.LittleEndian.Uint32(h[:])) != rndis.TypePacket {
		return 0, errControl
	}
	if n < rndis.PacketHeaderSize && src.total-pos >= rndis.PacketHeaderSize {
		return 0, errSplit
	}
	p, err := rndis.ParsePacket(h[:n], src.total-pos)
	if err != nil {
		return 0, err
	}
	if err := p.CheckSent(); err != nil {
		return 0, err
	}
	var info rndis.Info
	if len(p.PPI) > 0 {
		if err := p.Info(&info); err != nil {
			return 0, err
		}
	}
	headLen := min(p.DataLen, nic.HeadLen)
	var first []byte
	if p.DataOffset+headLen <= n {
		first = h[p.DataOffset:][:headLen:headLen]
	} else {
		first = h[rndis.PacketHeadSize:][:headLen:headLen]
		src.copy(first, pos+p.DataOffset)
	}
	if info.Has&rndis.HasVLAN != 0 && headLen >= nic.HeaderLen {
		first = tagged(h, first, info.VLAN)
	}
	b.frames = b.frames[:len(b.frames)+1] // a clean one: there is room, and reset clears
	f := &b.frames[len(b.frames)-1]
	f.Head, f.Channel = first, channel
	if p.DataLen > headLen {
		k := len(b.pieces)
		b.pieces = src.slice(b.pieces, pos+p.DataOffset+headLen, p.DataLen-headLen)
		f.Body = b.pieces[k:len(b.pieces):len(b.pieces)]
	}
	if info.Has&(rndis.HasLargeSend|rndis.HasChecksum) != 0 {
		if err := asked(f, &info, offered, f.Len()-p.DataLen); err != nil {
			b.drop()
			return 0, err
		}
	}
	return p.Length, nil
}

// tagged puts the VLAN tag that the guest took out of the frame back between the
// addresses and the type.
func tagged(h *head, first []byte, tag uint16) []byte {
	out := h[rndis.PacketHeadSize:][:len(first)+vlanTag]
	copy(out[12+vlanTag:], first[12:]) // may overlap
	copy(out[:12], first[:12])
	binary.BigEndian.PutUint16(out[12:], 0x8100)
	binary.BigEndian.PutUint16(out[14:], tag)
	return out
}
