package rndis

import "fmt"

// A PPIType is the type of a piece of per-packet information.
type PPIType uint32

// The types that netvsc uses. Those with PPIInternal are private to the bus.
const (
	PPIChecksum  PPIType = 0 // TxChecksum or RxChecksum
	PPILargeSend PPIType = 2 // LargeSend
	PPIVLAN      PPIType = 6 // see Info.VLAN
	PPIHash      PPIType = 8 // flow hash; NDIS calls it the cancel id
	PPIHashInfo  PPIType = 9 // what the hash is over: a HashInfo; NDIS calls it the original buffer list
	PPIInternal  PPIType = 1 << 31
	PPIPacketID          = PPIInternal | 1 // PacketID
)

var ppiNames = [...]string{"checksum", "IPsec", "large send", "classification", "reserved", "scatter-gather list",
	"802.1Q", "original packet", "hash", "hash info", "cached buffer list", "short packet padding"}

// String names the type, also of those that have no use between guest and host.
func (t PPIType) String() string {
	switch {
	case t == PPIPacketID:
		return "packet id"
	case int64(t) < int64(len(ppiNames)):
		return ppiNames[t]
	}
	return fmt.Sprintf("PPI type %#x", uint32(t))
}

// PPISize is the size in bytes of a PPI of netvsc, whose data is always four bytes,
// and ppiHeader what is in front of that: size, type and data offset.
const (
	PPISize   = 16
	ppiHeader = 12
)

// InfoSet says which values of an Info are there.
type InfoSet uint8

// The values of an Info.
const (
	HasHash InfoSet = 1 << iota
	HasVLAN
	HasLargeSend
	HasChecksum
	HasPacketID
	HasHashInfo
)

// Info is the per-packet information of a frame. Of LargeSend and Checksum only the
// first is written: a large send implies its checksums. A guest writes four values at
// most. HashInfo is for hosts; Linux does not look at it, while to FreeBSD and DPDK a
// hash without it is none.
type Info struct {
	Has InfoSet
	// Hash is the flow hash, and HashInfo says what it was computed over.
	Hash     uint32
	HashInfo HashInfo
	// VLAN is the 802.1Q tag control word as in a frame: priority in the top
	// three bits, then drop eligible, then the id in 12 bits.
	VLAN uint16
	// LargeSend asks the host to cut the frame into segments.
	LargeSend LargeSend
	// Checksum is a TxChecksum from the guest, an RxChecksum from the host.
	Checksum uint32
	// PacketID marks the pieces of a coalesced packet from the host.
	PacketID PacketID
}

// put writes the PPIs to b, in the order in which Linux writes them, and returns
// their size.
func (in *Info) put(b []byte) int {
	n := 0
	if in.Has&HasHash != 0 {
		n += putPPI(b[n:], PPIHash, in.Hash)
	}
	if in.Has&HasHashInfo != 0 {
		n += putPPI(b[n:], PPIHashInfo, uint32(in.HashInfo))
	}
	if in.Has&HasVLAN != 0 {
		n += putPPI(b[n:], PPIVLAN, vlanWord(in.VLAN))
	}
	if in.Has&HasLargeSend != 0 {
		n += putPPI(b[n:], PPILargeSend, uint32(in.LargeSend))
	} else if in.Has&HasChecksum != 0 {
		n += putPPI(b[n:], PPIChecksum, in.Checksum)
	}
	if in.Has&HasPacketID != 0 {
		n += putPPI(b[n:], PPIPacketID, uint32(in.PacketID))
	}
	return n
}

func putPPI(b []byte, t PPIType, v uint32) int {
	b = b[:PPISize]
	le.PutUint32(b, PPISize)
	le.PutUint32(b[4:], uint32(t))
	le.PutUint32(b[8:], ppiHeader)
	le.PutUint32(b[12:], v)
	return PPISize
}

// Info reads all PPIs of the packet into in. Unknown ones are skipped, of two of
// one type the first counts. The first bad one ends it with an error, and then the
// packet is to be dropped: a PPI whose size is wrong does not tell where the next
// one begins.
func (p *Packet) Info(in *Info) error {
	*in = Info{}
	for rest := p.PPI; len(rest) > 0; {
		ppi, next, err := NextPPI(rest)
		if err != nil {
			return err
		}
		rest = next
		var has InfoSet
		switch ppi.Type {
		case PPIHash:
			has = HasHash
		case PPIHashInfo:
			has = HasHashInfo
		case PPIVLAN:
			has = HasVLAN
		case PPILargeSend:
			has = HasLargeSend
		case PPIChecksum:
			has = HasChecksum
		case PPIPacketID:
			has = HasPacketID
		}
		if has == 0 || in.Has&has != 0 {
			continue
		}
		if len(ppi.Data) < 4 {
			return errPPIData
		}
		in.Has |= has
		v := le.Uint32(ppi.Data)
		switch has {
		case HasHash:
			in.Hash = v
		case HasHashInfo:
			in.HashInfo = HashInfo(v)
		case HasVLAN:
			in.VLAN = vlanTag(v)
		case HasLargeSend:
			in.LargeSend = LargeSend(v)
		case HasChecksum:
			in.Checksum = v
		case HasPacketID:
			in.PacketID = PacketID(v)
		}
	}
	return nil
}

// A PPI is one piece of per-packet information.
type PPI struct {
	Type PPIType
	Data []byte
}

// NextPPI returns the first PPI of b, which is not empty, and what is behind it. It
// never returns without progress or an error.
func NextPPI(b []byte) (p PPI, rest []byte, err error) {
	if len(b) < ppiHeader {
		return PPI{}, nil, errPPISize
	}
	size, off := le.Uint32(b), le.Uint32(b[8:])
	if size < ppiHeader || uint64(size) > uint64(len(b)) {
		return PPI{}, nil, errPPISize
	}
	if off < ppiHeader || off >= size {
		return PPI{}, nil, errPPIOffset
	}
	return PPI{PPIType(le.Uint32(b[4:])), b[off:size:size]}, b[size:], nil
}

var (
	errPPISize   = fmt.Errorf("parse per-packet information: size below 12 or beyond the end: %w", ErrMalformed)
	errPPIOffset = fmt.Errorf("parse per-packet information: data not inside: %w", ErrMalformed)
	errPPIData   = fmt.Errorf("parse per-packet information: value shorter than 4 bytes: %w", ErrMalformed)
)

// vlanWord and vlanTag convert between the word of a frame's tag, priority first,
// and that of the PPI: priority in bits 0-2, drop eligible in 3, id in 4-15.
func vlanWord(tag uint16) uint32 {
	return uint32(tag>>13) | uint32(tag>>12&1)<<3 | uint32(tag&0xfff)<<4
}

func vlanTag(w uint32) uint16 {
	return uint16(w&7)<<13 | uint16(w>>3&1)<<12 | uint16(w>>4&0xfff)
}

// TxChecksum asks the host to compute checksums.
type TxChecksum uint32

// The bits of TxChecksum.
const (
	TxIPv4     TxChecksum = 1 << 0 // the packet is IPv4
	TxIPv6     TxChecksum = 1 << 1 // the packet is IPv6
	TxTCP      TxChecksum = 1 << 2 // compute the TCP checksum
	TxUDP      TxChecksum = 1 << 3 // compute the UDP checksum
	TxIPHeader TxChecksum = 1 << 4 // compute the IPv4 header checksum
)

// WithHeader returns c with the offset of the TCP or UDP header in the frame, below
// 1024.
func (c TxChecksum) WithHeader(off int) TxChecksum {
	return c&^(0x3ff<<16) | TxChecksum(off&0x3ff)<<16
}

// Header returns the offset of the TCP or UDP header in the frame, 0 if the guest
// did not tell.
func (c TxChecksum) Header() int { return int(c >> 16 & 0x3ff) }

// RxChecksum is what the host found about checksums.
type RxChecksum uint32

// The bits of RxChecksum. The two last say that a checksum was verified but that
// the bytes in the frame are not it, as after coalescing.
const (
	RxTCPFailed RxChecksum = 1 << iota
	RxUDPFailed
	RxIPFailed
	RxTCPOK
	RxUDPOK
	RxIPOK
	RxLoopback
	RxTCPValueInvalid
	RxIPValueInvalid
)

// LargeSend asks the host to cut a frame into TCP segments.
type LargeSend uint32

// NewLargeSend returns version 2 of a large send: segments of mss bytes of payload,
// below 2^20, with the TCP header at the given offset of the frame, below 1024.
func NewLargeSend(mss, header int, ipv6 bool) LargeSend {
	l := LargeSend(mss&0xfffff) | LargeSend(header&0x3ff)<<20 | 1<<30
	if ipv6 {
		l |= 1 << 31
	}
	return l
}

// MSS returns the payload bytes of a segment.
func (l LargeSend) MSS() int { return int(l & 0xfffff) }

// Header returns the offset of the TCP header in the frame.
func (l LargeSend) Header() int { return int(l >> 20 & 0x3ff) }

// V2 reports whether this is version 2, the only one that today's hosts offer.
func (l LargeSend) V2() bool { return l>>30&1 != 0 }

// IPv6 reports whether the frame is IPv6; of version 2 only.
func (l LargeSend) IPv6() bool { return l>>31 != 0 }

// PacketID tells the place of a frame in a packet that the host coalesced (RSC over
// VMBus): version in the low byte, flags in the next, packet number above.
type PacketID uint32

// The flags of a PacketID.
const (
	PacketFragment = 1 << iota // one of several pieces
	PacketFirst
	PacketLast
)

// NewPacketID returns a PacketID, version 1, of the given flags and packet number.
func NewPacketID(flags uint8, id uint16) PacketID {
	return 1 | PacketID(flags)<<8 | PacketID(id)<<16
}

// Flags returns the flags.
func (p PacketID) Flags() uint8 { return uint8(p >> 8) }

// ID returns the number of the packet.
func (p PacketID) ID() uint16 { return uint16(p >> 16) }
