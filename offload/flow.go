// Package offload holds the computations on frames that hardware would do, as pure
// functions: the hashes that keep a flow on one channel, TCP and UDP checksums, and
// the cutting of long frames into segments. A [Sink] does for whoever takes frames
// what it does not do itself, and [Retag] gives and takes VLAN tags.
package offload

import "encoding/binary"

var be = binary.BigEndian

// HashTypes says for which packets a hash takes what in: a bit for an IP version
// takes the addresses, one for a protocol over it the ports too.
type HashTypes uint8

// The hash types.
const (
	HashIPv4 HashTypes = 1 << iota
	HashTCPv4
	HashUDPv4
	HashIPv6
	HashTCPv6
	HashUDPv6

	// HashAll takes all that there is.
	HashAll = HashIPv4 | HashTCPv4 | HashUDPv4 | HashIPv6 | HashTCPv6 | HashUDPv6
)

const (
	etherIPv4 = 0x0800
	etherIPv6 = 0x86dd
	etherVLAN = 0x8100

	protoTCP = 6
	protoUDP = 17
)

// A part says whether a packet is a fragment, and which.
type part uint8

const (
	whole part = iota
	firstPart
	laterPart
)

// dissect finds in the first bytes of a frame what a flow hash is computed over:
// source and destination address, one behind the other, and in the same way the
// ports. l3 is HashIPv4 or HashIPv6, l4 the bit of the protocol; zero if the frame
// is not of that kind, is too short or contradicts itself. Of fragments only the first
// has ports, though all have a protocol. IPv6 packets with an extension header other
// than that of a fragment have neither.
func dissect(head []byte) (addrs, ports []byte, l3, l4 HashTypes, of part) {
	const header, tag, v6Fragment = 14, 4, 44
	if len(head) < header {
		return
	}
	etherType, ip := be.Uint16(head[12:]), head[header:]
	if etherType == etherVLAN {
		if len(ip) < tag {
			return
		}
		etherType, ip = be.Uint16(ip[2:]), ip[tag:]
	}
	switch etherType {
	case etherIPv4:
		if len(ip) < 20 {
			return
		}
		n := int(ip[0]&0xf) * 4
		if ip[0]>>4 != 4 || n < 20 || n > len(ip) {
			return
		}
		addrs, l3 = ip[12:20], HashIPv4
		if bits := be.Uint16(ip[6:]); bits&0x3fff != 0 { // more fragments, or an offset
			if of = firstPart; bits&0x1fff != 0 {
				of = laterPart
			}
		}
		switch ip[9] {
		case protoTCP:
			l4 = HashTCPv4
		case protoUDP:
			l4 = HashUDPv4
		default:
			return
		}
		ip = ip[n:]
	case etherIPv6:
		if len(ip) < 40 || ip[0]>>4 != 6 {
			return
		}
		addrs, l3 = ip[8:40], HashIPv6
		proto := ip[6]
		if ip = ip[40:]; proto == v6Fragment {
			if of = laterPart; len(ip) < 8 {
				return
			}
			if be.Uint16(ip[2:])&^7 == 0 {
				of = firstPart
			}
			proto, ip = ip[0], ip[8:]
		}
		switch proto {
		case protoTCP:
			l4 = HashTCPv6
		case protoUDP:
			l4 = HashUDPv6
		default:
			return
		}
	default:
		return
	}
	switch {
	case of == laterPart:
	case len(ip) >= 4:
		ports = ip[:4]
	case of == whole:
		l4 = 0
	}
	return
}
