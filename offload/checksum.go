package offload

import (
	"encoding/binary"
	"math/bits"

	"hvnet/nic"
)

var le = binary.LittleEndian

// Sum adds b to a partial Internet checksum (RFC 1071), in host byte order and not
// complemented. b begins at an even offset of what is summed.
func Sum(b []byte, initial uint16) uint16 {
	return fold(add(uint64(bits.ReverseBytes16(initial)), b))
}

// add adds b, as little-endian words, to an accumulator. The sum does not depend on
// the width of the words, nor, but for its own byte order, on theirs.
func add(acc uint64, b []byte) uint64 {
	var c uint64
	for len(b) >= 64 {
		w := b[:64]
		acc, c = bits.Add64(acc, le.Uint64(w), 0)
		acc, c = bits.Add64(acc, le.Uint64(w[8:]), c)
		acc, c = bits.Add64(acc, le.Uint64(w[16:]), c)
		acc, c = bits.Add64(acc, le.Uint64(w[24:]), c)
		acc, c = bits.Add64(acc, le.Uint64(w[32:]), c)
		acc, c = bits.Add64(acc, le.Uint64(w[40:]), c)
		acc, c = bits.Add64(acc, le.Uint64(w[48:]), c)
		acc, c = bits.Add64(acc, le.Uint64(w[56:]), c)
		acc, c = bits.Add64(acc, 0, c)
		acc += c // all ones and a carry go around once more
		b = b[64:]
	}
	for len(b) >= 8 {
		acc, c = bits.Add64(acc, le.Uint64(b), 0)
		acc += c
		b = b[8:]
	}
	var last uint64
	if len(b) >= 4 {
		last = uint64(le.Uint32(b))
		b = b[4:]
	}
	acc, c = bits.Add64(acc, last, 0)
	acc += c
	last = 0
	if len(b) >= 2 {
		last = uint64(le.Uint16(b))
		b = b[2:]
	}
	if len(b) > 0 {
		last += uint64(b[0])
	}
	acc, c = bits.Add64(acc, last, 0)
	return acc + c
}

// fold makes an accumulator a sum in host byte order.
func fold(acc uint64) uint16 {
	acc = acc>>32 + acc&0xffffffff
	acc = acc>>32 + acc&0xffffffff
	s := uint32(acc>>16) + uint32(acc&0xffff)
	s = s>>16 + s&0xffff
	return bits.ReverseBytes16(uint16(s + s>>16))
}

// addTail adds the bytes of a frame from offset on, which lies in the head, up to
// end. Pieces may begin at odd offsets: their bytes then change places.
func addTail(acc uint64, f *nic.Frame, from, end int) uint64 {
	b := f.Head[from:min(end, len(f.Head))]
	acc = add(acc, b)
	odd, left := len(b)&1 != 0, end-from-len(b)
	for i := 0; left > 0 && i < len(f.Body); i++ {
		b = f.Body[i][:min(left, len(f.Body[i]))]
		if odd {
			acc = addOdd(acc, b)
		} else {
			acc = add(acc, b)
		}
		odd = odd != (len(b)&1 != 0)
		left -= len(b)
	}
	return acc
}

// addOdd adds what begins at an odd offset.
func addOdd(acc uint64, b []byte) uint64 {
	s, c := bits.Add64(acc, uint64(Sum(b, 0)), 0) // Sum is swapped against an accumulator
	return s + c
}

// pseudo is the sum of the pseudo header of a packet, whose addresses are those of
// its IP header, with the given length of the transport's part.
func (l *Layout) pseudo(head []byte, length int) uint64 {
	addrs := head[l.IP+12 : l.IP+20]
	if l.IPv6 {
		addrs = head[l.IP+8 : l.IP+40]
	}
	acc := uint64(bits.ReverseBytes16(uint16(l.Protocol))) + uint64(bits.ReverseBytes16(uint16(length))) +
		uint64(bits.ReverseBytes16(uint16(length>>16)))
	return add(acc, addrs)
}

// finish is what goes into the checksum field for a sum. A UDP checksum of zero
// would say that there is none (RFC 768).
func finish(acc uint64, udp bool) uint16 {
	s := ^fold(acc)
	if s == 0 && udp {
		s = 0xffff
	}
	return s
}

// Where the checksum is in the transport's header.
const (
	tcpField = 16
	udpField = 6
)

// Complete computes the partial checksum of a frame that is not to be cut and writes
// it into the head. It returns false, and changes nothing, if the field is not in
// the head. The state is then ChecksumOK.
func Complete(f *nic.Frame) bool {
	o := &f.Offload
	at := int(o.Start) + int(o.Field)
	if o.Checksum != nic.ChecksumPartial || o.Segment != nic.SegmentNone || at+2 > len(f.Head) {
		return false
	}
	s := finish(addTail(0, f, int(o.Start), f.Len()), o.Field == udpField)
	be.PutUint16(f.Head[at:], s)
	*o = nic.Offload{Checksum: nic.ChecksumOK}
	return true
}

// Partial makes the checksum of a TCP or UDP packet a partial one: the field becomes
// the sum of the pseudo header.
func (l *Layout) Partial(f *nic.Frame) {
	f.Offload.Checksum, f.Offload.Start, f.Offload.Field = nic.ChecksumPartial, uint16(l.Transport), l.Field()
	be.PutUint16(f.Head[l.Transport+int(l.Field()):], fold(l.pseudo(f.Head, l.End-l.Transport)))
}

// Verify looks at the checksum of a TCP or UDP packet that lies in f. A UDP packet
// over IPv4 without checksum stays unknown; over IPv6 that is not allowed (RFC 8200
// section 8.1).
func (l *Layout) Verify(f *nic.Frame) nic.Checksum {
	if l.Protocol == protoUDP && be.Uint16(f.Head[l.Transport+udpField:]) == 0 {
		if l.IPv6 {
			return nic.ChecksumBad
		}
		return nic.ChecksumUnknown
	}
	if fold(addTail(l.pseudo(f.Head, l.End-l.Transport), f, l.Transport, l.End)) == 0xffff {
		return nic.ChecksumOK
	}
	return nic.ChecksumBad
}

// Field is where the checksum is in the packet's transport header.
func (l *Layout) Field() uint8 {
	if l.Protocol == protoUDP {
		return udpField
	}
	return tcpField
}

// SumIPv4 computes the checksum of the IPv4 header that begins with b, which is
// whole.
func SumIPv4(b []byte) {
	b = b[:int(b[0]&0xf)*4]
	b[10], b[11] = 0, 0
	be.PutUint16(b[10:], ^fold(add(0, b)))
}

// VerifyIPv4 reports whether the checksum of the IPv4 header that begins with b,
// which is whole, is right.
func VerifyIPv4(b []byte) bool { return fold(add(0, b[:int(b[0]&0xf)*4])) == 0xffff }

// ClearLengths makes the headers of a TCP packet in head what a host wants for a
// large send, as hv_netvsc leaves them: the IP length zero, the checksum of an IPv4
// header too, and the sum of the pseudo header without a length.
func (l *Layout) ClearLengths(head []byte) {
	ip := head[l.IP:]
	if l.IPv6 {
		be.PutUint16(ip[4:], 0)
	} else {
		be.PutUint16(ip[2:], 0)
		be.PutUint16(ip[10:], 0)
	}
	be.PutUint16(head[l.Transport+int(l.Field()):], fold(l.pseudo(head, 0)))
}

// SetLengths is the opposite of ClearLengths but for the TCP checksum, for a packet
// that goes to the end of its frame of n bytes. It returns false if the frame has no
// IP header or is too long for one.
func SetLengths(head []byte, n int) bool {
	at, ipv6 := NetworkHeader(head)
	size := n - at
	if ipv6 {
		size -= 40
	}
	if at == 0 || size < 0 || size > 0xffff {
		return false
	}
	if ipv6 {
		be.PutUint16(head[at+4:], uint16(size))
	} else {
		be.PutUint16(head[at+2:], uint16(size))
		SumIPv4(head[at:])
	}
	return true
}
