package offload

import "hvnet/nic"

// MinSegment is the smallest payload of a segment, in bytes, that frames are cut
// into: what Linux takes for the smallest of TCP. It bounds how many frames one can
// become.
const MinSegment = 48

// A Segmenter cuts one frame after the other into frames that need less. It
// belongs to one goroutine and refers to memory of its frame until the last piece.
//
// Each piece has the headers of the frame with lengths, IPv4 identification and TCP
// sequence number of its own; FIN and PSH are only in the last one and CWR is only
// in the first one (RFC 3168 section 6.1.2), as if the stack had made them one by one.
type Segmenter struct {
	l       Layout
	f       nic.Frame
	unit    int  // payload of a piece
	partial bool // checksums are left to others
	done    int  // payload bytes that are cut off

	rest  []byte // payload of the piece where it goes on,
	piece int    // and the index in the body of the next
}

// Begin starts on a frame whose metadata say Segment. The pieces have unit bytes of
// payload: Size of the metadata or a multiple, in which case they are to be cut
// themselves. With partial their checksums are partial ones, else computed; pieces
// that are to be cut always have partial ones. It returns false for a frame whose
// headers are not what the metadata say, and for segments below MinSegment.
func (s *Segmenter) Begin(f *nic.Frame, unit int, partial bool) bool {
	l, ok := Parse(f.Head, f.Len())
	o := f.Offload
	if !ok || l.Segment() != o.Segment || l.Payload > nic.HeadLen || o.Size < MinSegment || unit < int(o.Size) || l.End == l.Payload {
		return false
	}
	*s = Segmenter{l: l, f: *f, unit: unit, partial: partial, rest: f.Head[l.Payload:min(l.End, len(f.Head))]}
	return true
}

// More reports whether another piece is left.
func (s *Segmenter) More() bool { return s.done < s.l.End-s.l.Payload }

// Left returns how many bytes of payload are left for pieces.
func (s *Segmenter) Left() int { return s.l.End - s.l.Payload - s.done }

// SetUnit changes the payload of the pieces that are left; see [Segmenter.Begin].
func (s *Segmenter) SetUnit(unit int) { s.unit = max(unit, int(s.f.Offload.Size)) }

// Flags of a TCP header's byte 13.
const (
	tcpFIN = 0x01
	tcpPSH = 0x08
	tcpCWR = 0x80
)

// Next makes the next piece. Its head is in room, which has nic.HeadLen bytes, and
// the rest of its body stays where it is, in slices that are appended to body. It
// returns body; out refers to room and to body.
func (s *Segmenter) Next(out *nic.Frame, room []byte, body [][]byte) [][]byte {
	l := &s.l
	n := min(s.unit, l.End-l.Payload-s.done)
	headers := copy(room, s.f.Head[:l.Payload])
	inHead := min(nic.HeadLen-headers, n)
	s.read(room[headers : headers+inHead])
	k := len(body)
	body = s.slice(body, n-inHead)
	*out = s.f
	out.Head, out.Body = room[:headers+inHead:headers+inHead], nil
	if len(body) > k {
		out.Body = body[k:len(body):len(body)]
	}
	s.headers(out, n)
	s.done += n
	return body
}

// headers makes the headers of a piece with n bytes of payload its own.
func (s *Segmenter) headers(out *nic.Frame, n int) {
	l := s.l
	size := int(s.f.Offload.Size)
	first, last := s.done == 0, s.done+n == l.End-l.Payload
	l.End = l.Payload + n
	ip, transport := out.Head[l.IP:l.Transport], out.Head[l.Transport:l.Payload]
	if l.IPv6 {
		be.PutUint16(ip[4:], uint16(l.End-l.IP-40))
	} else {
		be.PutUint16(ip[2:], uint16(l.End-l.IP))
		if !s.f.Offload.FixedID {
			be.PutUint16(ip[4:], be.Uint16(ip[4:])+uint16(s.done/size))
		}
		SumIPv4(ip)
	}
	if l.UDP() {
		be.PutUint16(transport[4:], uint16(l.End-l.Transport))
	} else {
		be.PutUint32(transport[4:], be.Uint32(transport[4:])+uint32(s.done))
		if !first {
			transport[13] &^= tcpCWR
		}
		if !last {
			transport[13] &^= tcpFIN | tcpPSH
		}
	}
	if n <= size {
		out.Offload.Segment, out.Offload.Size, out.Offload.FixedID = nic.SegmentNone, 0, false
	}
	l.Partial(out)
	if n <= size && !s.partial {
		Complete(out)
	}
}

// take returns the next bytes of payload that lie in one piece, at most n.
func (s *Segmenter) take(n int) []byte {
	for len(s.rest) == 0 {
		s.rest = s.f.Body[s.piece]
		s.piece++
	}
	b := s.rest[:min(n, len(s.rest))]
	s.rest = s.rest[len(b):]
	return b
}

// read copies the next bytes of payload.
func (s *Segmenter) read(b []byte) {
	for len(b) > 0 {
		b = b[copy(b, s.take(len(b))):]
	}
}

// slice appends the next n bytes of payload to dst, in place.
func (s *Segmenter) slice(dst [][]byte, n int) [][]byte {
	for n > 0 {
		b := s.take(n)
		dst = append(dst, b)
		n -= len(b)
	}
	return dst
}
