package vmbus

import "fmt"

// The types of packets on a channel's ring. Others are reserved.
const (
	PacketInBand        = 6  // payload only
	PacketTransferPages = 7  // from the host: data is in ranges of the receive buffer
	PacketGPADirect     = 9  // from the guest: data is in pages that the packet lists
	PacketCompletion    = 11 // answers a packet, with its transaction id
)

// FlagCompletionRequested asks for a completion. Other flags do not exist.
const FlagCompletionRequested = 1

// descriptorSize is the size of what each packet begins with: u16 type, u16 offset
// of the payload in 8 bytes, u16 length in 8 bytes, u16 flags, u64 transaction id.
const descriptorSize = 16

// extensionSize is the size of what precedes the ranges in a transfer-page or
// GPA-direct packet, behind the descriptor.
const extensionSize = 8

// appendDescriptor appends a descriptor. The length is left 0: it is known when the
// packet goes on a ring, and written there by ring.Producer.Put.
func appendDescriptor(b []byte, typ, offset8, flags uint16, tid uint64) []byte {
	b = le.AppendUint64(b, uint64(typ)|uint64(offset8)<<16|uint64(flags)<<48)
	return le.AppendUint64(b, tid)
}

// AppendInBand appends the descriptor of an in-band packet, 16 bytes. The payload
// follows. The length field is 0 until the packet is put on a ring.
func AppendInBand(b []byte, flags uint16, tid uint64) []byte {
	return appendDescriptor(b, PacketInBand, descriptorSize/8, flags, tid)
}

// AppendCompletion appends the descriptor of the completion of transaction tid, 16
// bytes. The payload follows, if any.
func AppendCompletion(b []byte, tid uint64) []byte {
	return appendDescriptor(b, PacketCompletion, descriptorSize/8, 0, tid)
}

// A ByteRange is a run of bytes in a buffer.
type ByteRange struct{ Count, Offset uint32 }

// Within reports whether the range lies inside a buffer of size bytes.
func (r ByteRange) Within(size int) bool { return uint64(r.Offset)+uint64(r.Count) <= uint64(size) }

// AppendTransferPages appends the descriptor of a transfer-page packet with its
// ranges of the buffer with the given set id: 24 bytes and 8 a range. The payload
// follows. Such packets always ask for a completion, which gives the ranges back.
func AppendTransferPages(b []byte, tid uint64, set uint16, ranges []ByteRange) []byte {
	offset8 := uint16((descriptorSize + extensionSize + 8*len(ranges)) / 8)
	b = appendDescriptor(b, PacketTransferPages, offset8, FlagCompletionRequested, tid)
	b = le.AppendUint32(b, uint32(set)) // the sender owns the set: 0
	b = le.AppendUint32(b, uint32(len(ranges)))
	for _, r := range ranges {
		b = le.AppendUint64(b, uint64(r.Count)|uint64(r.Offset)<<32)
	}
	return b
}

// AppendGPADirect appends the descriptor of a GPA-direct packet with its ranges: 24
// bytes, 8 a range and 8 a page. The payload follows. Such packets always ask for a
// completion, which gives the pages back.
func AppendGPADirect(b []byte, tid uint64, ranges []PageRange) []byte {
	size := descriptorSize + extensionSize
	for i := range ranges {
		size += rangeSize + 8*len(ranges[i].PFNs)
	}
	b = appendDescriptor(b, PacketGPADirect, uint16(size/8), FlagCompletionRequested, tid)
	b = le.AppendUint64(b, uint64(len(ranges))<<32)
	for i := range ranges {
		r := &ranges[i]
		b = le.AppendUint64(b, uint64(r.Count)|uint64(r.Offset)<<32)
		for _, pfn := range r.PFNs {
			b = le.AppendUint64(b, pfn)
		}
	}
	return b
}

// ParseDescriptor returns type, flags and transaction id of a packet of which only the
// beginning is there.
func ParseDescriptor(b []byte) (Packet, error) {
	if len(b) < descriptorSize {
		return Packet{}, errPacket
	}
	return Packet{Type: le.Uint16(b), Flags: le.Uint16(b[6:]), TID: le.Uint64(b[8:])}, nil
}

// A Packet is a packet taken from a ring, in its parts.
type Packet struct {
	Type, Flags uint16
	TID         uint64
	Ext         []byte // between descriptor and payload; of the packet, not a copy
	Payload     []byte // a multiple of 8 bytes; of the packet, not a copy
}

// Errors of the packet functions have no details, since a hostile peer can provoke
// any number of them on the data path.
var (
	errPacket   = fmt.Errorf("%w packet: lengths in the descriptor", ErrMalformed)
	errType     = fmt.Errorf("%w packet: not of this type", ErrMalformed)
	errRanges   = fmt.Errorf("%w packet: number of ranges", ErrMalformed)
	errRange    = fmt.Errorf("%w packet: range", ErrMalformed)
	errTooMany  = fmt.Errorf("%w packet: more ranges than the receiver takes", ErrMalformed)
	errTooLarge = fmt.Errorf("%w packet: ranges with more bytes than the receiver takes", ErrMalformed)
)

// CompletionRequested reports whether the sender waits for a completion.
func (p *Packet) CompletionRequested() bool { return p.Flags&FlagCompletionRequested != 0 }

// ParsePacket splits a packet, without trailer and in private memory: what
// ring.Consumer.Next returns. The parts alias b. The type may be unknown.
func ParsePacket(b []byte) (Packet, error) {
	if len(b) < descriptorSize {
		return Packet{}, errPacket
	}
	offset := 8 * int(le.Uint16(b[2:]))
	end := 8 * int(le.Uint16(b[4:]))
	if offset < descriptorSize || end < offset || len(b) < end {
		return Packet{}, errPacket
	}
	return Packet{
		Type:    le.Uint16(b),
		Flags:   le.Uint16(b[6:]),
		TID:     le.Uint64(b[8:]),
		Ext:     b[descriptorSize:offset:offset],
		Payload: b[offset:end:end],
	}, nil
}

// TransferPages decodes the ranges of a transfer-page packet into dst, from its
// beginning and up to its capacity, and returns them with the set id. It returns an
// error if the packet is of another type, if it claims more ranges than it holds or
// than dst takes. Where a range may lie is for the caller to check; see
// [ByteRange.Within].
func (p *Packet) TransferPages(dst []ByteRange) (set uint16, ranges []ByteRange, err error) {
	if p.Type != PacketTransferPages {
		return 0, nil, errType
	}
	if len(p.Ext) < extensionSize {
		return 0, nil, errPacket
	}
	n := le.Uint32(p.Ext[4:])
	list := p.Ext[extensionSize:]
	if uint64(n) > uint64(len(list)/8) {
		return 0, nil, errRanges
	}
	if int(n) > cap(dst) {
		return 0, nil, errTooMany
	}
	dst = dst[:n]
	for i := range dst {
		w := le.Uint64(list[8*i:])
		dst[i] = ByteRange{Count: uint32(w), Offset: uint32(w >> 32)}
	}
	return le.Uint16(p.Ext), dst, nil
}

// A Span is a run of bytes in guest-physical memory.
type Span struct {
	GPA uint64
	Len int
}

// MaxRanges is how many ranges a GPA-direct packet may have. Linux and Windows
// guests keep to it.
const MaxRanges = 32

// GPASpans decodes the ranges of a GPA-direct packet into dst, from its beginning and
// up to its capacity, as spans of guest-physical memory: pages that follow each
// other become one span. It returns them with the sum of their bytes. It returns an
// error if the packet is of another type, has no range or more than MaxRanges, more
// than limit bytes, more spans than dst takes, or a range that is empty, begins
// behind its first page, lists fewer pages than its bytes touch, or an address above
// 63 bits. Whether the memory exists is for the caller to check.
func (p *Packet) GPASpans(dst []Span, limit int) (spans []Span, total int, err error) {
	if p.Type != PacketGPADirect {
		return nil, 0, errType
	}
	if len(p.Ext) < extensionSize {
		return nil, 0, errPacket
	}
	n := le.Uint32(p.Ext[4:])
	if n == 0 || n > MaxRanges {
		return nil, 0, errRanges
	}
	dst = dst[:0]
	list := p.Ext[extensionSize:]
	for range n {
		if len(list) < rangeSize {
			return nil, 0, errRanges
		}
		count, offset := le.Uint32(list), le.Uint32(list[4:])
		list = list[rangeSize:]
		pages := pageCount(count, offset)
		if count == 0 || offset >= PageSize || pages > uint64(len(list)/8) {
			return nil, 0, errRange
		}
		if uint64(count) > uint64(limit-total) {
			return nil, 0, errTooLarge
		}
		total += int(count)
		if dst, err = appendSpans(dst, list, int(count), int(offset)); err != nil {
			return nil, 0, err
		}
		list = list[8*pages:]
	}
	return dst, total, nil
}

// FirstRange returns the length in bytes of the first range of a GPA-direct packet
// that GPASpans has decoded, 0 of other packets. Some messages may not leave it.
func (p *Packet) FirstRange() int {
	if p.Type != PacketGPADirect || len(p.Ext) < extensionSize+rangeSize {
		return 0
	}
	return int(le.Uint32(p.Ext[extensionSize:]))
}

// appendSpans appends count bytes that begin at offset in the first page of list.
func appendSpans(dst []Span, list []byte, count, offset int) ([]Span, error) {
	for ; count > 0; list = list[8:] {
		pfn := le.Uint64(list)
		if pfn >= 1<<51 {
			return nil, errRange
		}
		gpa := pfn*PageSize + uint64(offset)
		n := min(count, PageSize-offset)
		count, offset = count-n, 0
		if k := len(dst); k > 0 && dst[k-1].GPA+uint64(dst[k-1].Len) == gpa {
			dst[k-1].Len += n
			continue
		}
		if len(dst) == cap(dst) {
			return nil, errTooMany
		}
		dst = append(dst, Span{GPA: gpa, Len: n})
	}
	return dst, nil
}
