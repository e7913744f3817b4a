package rndis

import "fmt"

// Sizes in bytes of what is in front of a frame.
const (
	// PacketHeaderSize is the size of the header without PPIs.
	PacketHeaderSize = HeaderSize + packetBody
	// MaxPacketHeader is the room that drivers keep in front of a frame: enough
	// for the header and every PPI that they write.
	MaxPacketHeader = 116
	// PacketHeadSize is how many of the first bytes of a message to copy to
	// private memory for ParsePacket: header and PPIs of all known peers fit.
	PacketHeadSize = 256

	packetBody = 36
)

// PutPacket writes the header of a frame of frameLen bytes to the start of b and
// returns its size: 44 bytes and 16 for each PPI in info, which may be nil. The
// frame is to follow at once. b has room for the header, at most MaxPacketHeader
// bytes; it may be shared memory, for nothing is read from it.
func PutPacket(b []byte, frameLen int, info *Info) int {
	n := PacketHeaderSize
	if info != nil && info.Has != 0 {
		n += info.put(b[PacketHeaderSize:])
	}
	putPacketHeader(b, n, frameLen, packetBody, n-PacketHeaderSize)
	return n
}

// PutPacketAt is PutPacket with the frame at b[dataOffset], behind a gap that is left as
// it is. Hosts use it to have every frame at the same place of its section, guests
// because a frame may lie there before it is known what it needs. dataOffset leaves
// room for header and PPIs. Without PPIs their offset is 0, as Linux wants it: any
// other makes it look for some (rndis_get_ppi).
func PutPacketAt(b []byte, dataOffset, frameLen int, info *Info) {
	at, ppi := 0, 0
	if info != nil && info.Has != 0 {
		at, ppi = packetBody, info.put(b[PacketHeaderSize:])
	}
	putPacketHeader(b, dataOffset, frameLen, at, ppi)
}

func putPacketHeader(b []byte, dataOffset, frameLen, ppiOffset, ppi int) {
	b = b[:PacketHeaderSize]
	le.PutUint32(b[0:], uint32(TypePacket))
	le.PutUint32(b[4:], uint32(dataOffset+frameLen))
	le.PutUint32(b[8:], uint32(dataOffset-HeaderSize))
	le.PutUint32(b[12:], uint32(frameLen))
	le.PutUint64(b[16:], 0) // out-of-band data: offset, length
	le.PutUint32(b[24:], 0) // and count
	le.PutUint32(b[28:], uint32(ppiOffset))
	le.PutUint32(b[32:], uint32(ppi))
	le.PutUint64(b[36:], 0) // VC handle, reserved
}

// SetPacketLength changes the message length of a header that PutPacket wrote to
// length bytes: frame and padding. A packet with another one behind it is padded,
// with zeros, to the alignment that the host asked for.
func SetPacketLength(b []byte, length int) { le.PutUint32(b[4:], uint32(length)) }

// A Packet is the header of a frame. Offsets count from the start of the message.
type Packet struct {
	Length     int    // of the whole message with padding, in bytes
	DataOffset int    // where the frame begins
	DataLen    int    // length of the frame
	PPI        []byte // the PPIs, a slice of the head that was parsed; see Info

	plain bool // out-of-band data and VC handle are zero
}

// ParsePacket parses the PACKET message that begins with head and of which avail
// bytes are there in all. head is a private copy of its first bytes and has to
// hold header and PPIs: copy min(avail, PacketHeadSize).
//
// It makes the checks that both sides have to make: type; message length at least
// 44 and at most avail; frame not empty, behind the header and inside the message;
// PPIs behind the header and inside head. The frame is held against the message
// length, as DPDK does; Linux allows it to go to the end of avail, but no host
// relies on that. A host has to call CheckSent too, and to see that head came out
// of one page range. A guest drops frames shorter than an Ethernet header.
func ParsePacket(head []byte, avail int) (Packet, error) {
	if len(head) < PacketHeaderSize {
		return Packet{}, errPacketShort
	}
	b := head[:PacketHeaderSize]
	if MessageType(le.Uint32(b)) != TypePacket {
		return Packet{}, errPacketType
	}
	length := uint64(le.Uint32(b[4:]))
	if length < PacketHeaderSize || length > uint64(max(avail, 0)) {
		return Packet{}, errPacketLength
	}
	off, n := uint64(le.Uint32(b[8:])), uint64(le.Uint32(b[12:]))
	if n == 0 || off < packetBody || HeaderSize+off+n > length {
		return Packet{}, errPacketData
	}
	p := Packet{
		Length: int(length), DataOffset: int(HeaderSize + off), DataLen: int(n),
		plain: le.Uint64(b[16:])|uint64(le.Uint32(b[24:]))|uint64(le.Uint32(b[36:])) == 0,
	}
	if n := uint64(le.Uint32(b[32:])); n != 0 {
		off := uint64(le.Uint32(b[28:]))
		if off < packetBody || HeaderSize+off+n > min(length, uint64(len(head))) {
			return Packet{}, errPacketPPI
		}
		p.PPI = head[HeaderSize+off:][:n:n]
	}
	return p, nil
}

// CheckSent makes the checks of a host on a packet from a guest that ParsePacket
// leaves out: no out-of-band data and no VC handle.
func (p *Packet) CheckSent() error {
	if !p.plain {
		return errPacketOOB
	}
	return nil
}

var (
	errPacketShort  = fmt.Errorf("parse PACKET: fewer than 44 bytes: %w", ErrMalformed)
	errPacketType   = fmt.Errorf("parse PACKET: another type: %w", ErrMalformed)
	errPacketLength = fmt.Errorf("parse PACKET: message length below 44 or beyond the end: %w", ErrMalformed)
	errPacketData   = fmt.Errorf("parse PACKET: frame empty or not inside the message: %w", ErrMalformed)
	errPacketPPI    = fmt.Errorf("parse PACKET: per-packet information not inside the message's head: %w", ErrMalformed)
	errPacketOOB    = fmt.Errorf("parse PACKET: out-of-band data or VC handle: %w", ErrMalformed)
)
