// Package packets makes TCP and UDP packets for tests: of all shapes, by gVisor's code
// where there is something to compute, so that nothing is tested against itself.
package packets

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"strings"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"hvnet/nic"
)

var be = binary.BigEndian

// A Shape is a kind of packet for tests.
type Shape struct {
	Name       string
	Tag        bool
	V6, UDP    bool
	IPOptions  int // bytes of IPv4 options, or of IPv6 extension headers
	TCPOptions int
	Flags      byte
}

// Shapes are those that there is something to say about.
var Shapes = []Shape{
	{Name: "tcp4"},
	{Name: "tcp4 options", TCPOptions: 12, Flags: 0x18},
	{Name: "tcp4 ip options", IPOptions: 8, TCPOptions: 40},
	{Name: "tcp4 vlan", Tag: true, TCPOptions: 12, Flags: 0x19},
	{Name: "tcp4 cwr", Flags: 0x80 | 0x40 | 0x18},
	{Name: "tcp6", V6: true, Flags: 0x11},
	{Name: "tcp6 extensions", V6: true, IPOptions: 24, TCPOptions: 12},
	{Name: "tcp6 vlan cwr", V6: true, Tag: true, TCPOptions: 12, Flags: 0x98},
	{Name: "udp4", UDP: true},
	{Name: "udp4 vlan", UDP: true, Tag: true, IPOptions: 4},
	{Name: "udp6", UDP: true, V6: true},
	{Name: "udp6 extensions", UDP: true, V6: true, IPOptions: 8},
}

// Frame returns a frame with right checksums.
func (s Shape) Frame(payload []byte) []byte {
	b := Hex("00155d0000020 0155d000001")
	if s.Tag {
		b = append(b, 0x81, 0x00, 0xa0, 0x05)
	}
	l4 := 20 + s.TCPOptions
	proto := byte(6)
	if s.UDP {
		l4, proto = 8, 17
	}
	total := l4 + len(payload)
	if s.V6 {
		b = append(b, 0x86, 0xdd, 0x60, 0x01, 0x02, 0x03)
		b = be.AppendUint16(b, uint16(s.IPOptions+total))
		next := proto
		if s.IPOptions > 0 {
			next = 0 // hop by hop, then destination options
		}
		b = append(b, next, 64)
		b = append(b, Hex("20010db8000000000000000000000001 20010db8000000000000000000000002")...)
		if s.IPOptions > 0 {
			first := 8
			next = proto
			if s.IPOptions > first {
				next = 60
			}
			b = append(b, next, 0, 1, 4, 0, 0, 0, 0)
			if rest := s.IPOptions - first; rest > 0 {
				b = append(b, proto, byte(rest/8-1), 1, byte(rest-4))
				b = append(b, make([]byte, rest-4)...)
			}
		}
	} else {
		b = append(b, 0x08, 0x00, byte(0x45+s.IPOptions/4), 0x02)
		b = be.AppendUint16(b, uint16(20+s.IPOptions+total))
		b = append(b, Hex("fffe 4000 40")...)
		b = append(b, proto, 0, 0)
		b = append(b, Hex("c0a80001 c0a80002")...)
		b = append(b, bytes.Repeat([]byte{1}, s.IPOptions)...)
	}
	if s.UDP {
		b = append(b, 0x10, 0x00, 0x20, 0x00)
		b = be.AppendUint16(b, uint16(total))
		b = append(b, 0, 0)
	} else {
		b = append(b, Hex("1000 2000 fffffff0 00000005")...)
		b = append(b, byte(5+s.TCPOptions/4)<<4, 0x10|s.Flags, 0x02, 0x00, 0, 0, 0, 0)
		b = append(b, bytes.Repeat([]byte{1}, s.TCPOptions)...)
	}
	b = append(b, payload...)
	Correct(b)
	return b
}

// Parts finds IP header and transport header by gVisor's parsers, for shapes.
func Parts(b []byte) (ip, l4 int, proto tcpip.TransportProtocolNumber, pseudo uint16) {
	ip = 14
	kind := be.Uint16(b[12:])
	if kind == 0x8100 {
		ip, kind = 18, be.Uint16(b[16:])
	}
	if kind == 0x0800 {
		h := header.IPv4(b[ip:])
		l4, proto = ip+int(h.HeaderLength()), h.TransportProtocol()
		return ip, l4, proto, header.PseudoHeaderChecksum(proto, h.SourceAddress(), h.DestinationAddress(), uint16(int(h.TotalLength())+ip-l4))
	}
	h := header.IPv6(b[ip:])
	l4 = ip + 40
	next := h.NextHeader()
	for next != 6 && next != 17 {
		next, l4 = b[l4], l4+8*(int(b[l4+1])+1)
	}
	proto = tcpip.TransportProtocolNumber(next)
	return ip, l4, proto, header.PseudoHeaderChecksum(proto, h.SourceAddress(), h.DestinationAddress(), uint16(int(h.PayloadLength())+ip+40-l4))
}

// Field is where the checksum of a frame is.
func Field(b []byte) int {
	_, l4, proto, _ := Parts(b)
	if proto == header.UDPProtocolNumber {
		return l4 + 6
	}
	return l4 + 16
}

// Correct computes the checksums with gVisor.
func Correct(b []byte) {
	ip, l4, proto, pseudo := Parts(b)
	if b[ip]>>4 == 4 {
		h := header.IPv4(b[ip:])
		h.SetChecksum(0)
		h.SetChecksum(^h.CalculateChecksum())
	}
	at := Field(b)
	b[at], b[at+1] = 0, 0
	sum := ^checksum.Checksum(b[l4:], pseudo)
	if sum == 0 && proto == header.UDPProtocolNumber {
		sum = 0xffff
	}
	be.PutUint16(b[at:], sum)
}

// Partial makes the checksum a partial one, as Linux leaves it, and returns the
// frame in pieces, the head of the usual length.
func Partial(b []byte, seg nic.Segment, size int, cuts ...int) nic.Frame {
	_, l4, _, pseudo := Parts(b)
	at := Field(b)
	be.PutUint16(b[at:], pseudo)
	f := Split(b, cuts...)
	f.Offload = nic.Offload{Checksum: nic.ChecksumPartial, Segment: seg, Size: uint16(size), Start: uint16(l4), Field: uint8(at - l4)}
	return f
}

// Split returns b as a frame: a head, and a body with the given cuts, from its start.
func Split(b []byte, cuts ...int) nic.Frame {
	n := min(len(b), nic.HeadLen)
	f := nic.Frame{Head: b[:n:n]}
	rest := b[n:]
	at := 0
	for _, c := range cuts {
		if c > at && c < len(rest) {
			f.Body = append(f.Body, rest[at:c])
			at = c
		}
	}
	if at < len(rest) {
		f.Body = append(f.Body, rest[at:])
	}
	return f
}

// Bytes returns the bytes of a frame.
func Bytes(f *nic.Frame) []byte {
	b := make([]byte, f.Len())
	f.CopyTo(b)
	return b
}

// Random returns n bytes that are the same each time.
func Random(n int) []byte {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// Hex reads hexadecimal with blanks.
func Hex(s string) []byte {
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		panic(err)
	}
	return b
}

// Segment is the kind in which a shape is cut.
func (s Shape) Segment() nic.Segment {
	switch {
	case s.UDP:
		return nic.SegmentUDP
	case s.V6:
		return nic.SegmentTCPv6
	}
	return nic.SegmentTCPv4
}
