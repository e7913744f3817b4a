package offload

import "hvnet/nic"

// A Layout tells where the parts of a whole TCP or UDP packet are in its frame.
// Offsets count from the start of the frame.
type Layout struct {
	IP        int // the IP header
	Transport int // the TCP or UDP header
	Payload   int // behind it
	End       int // of the IP packet; what is behind is Ethernet padding
	IPv6      bool
	Protocol  uint8 // as in the IP header: 6 is TCP, 17 UDP
}

// TCP and UDP report the protocol.
func (l *Layout) TCP() bool { return l.Protocol == protoTCP }

// UDP reports whether it is UDP; see TCP.
func (l *Layout) UDP() bool { return l.Protocol == protoUDP }

// Segment returns how such a packet is cut.
func (l *Layout) Segment() nic.Segment {
	switch {
	case l.UDP():
		return nic.SegmentUDP
	case l.IPv6:
		return nic.SegmentTCPv6
	}
	return nic.SegmentTCPv4
}

// The next headers of IPv6 that are extension headers.
const (
	extHopByHop    = 0
	extRouting     = 43
	extAuth        = 51
	extDestination = 60
)

// NetworkHeader returns where the IP header of a frame is by its first bytes, and
// whether it is one of IPv6. It is 0 for other frames, and where the header is not
// whole in head or says another version than the frame's type.
func NetworkHeader(head []byte) (at int, ipv6 bool) {
	const header, tag = 14, 4
	if len(head) < header {
		return 0, false
	}
	at = header
	etherType := be.Uint16(head[at-2:])
	if etherType == etherVLAN {
		if at += tag; len(head) < at {
			return 0, false
		}
		etherType = be.Uint16(head[at-2:])
	}
	ip := head[at:]
	switch {
	case etherType == etherIPv4 && len(ip) >= 20 && ip[0]>>4 == 4 && ip[0]&0xf >= 5 && len(ip) >= int(ip[0]&0xf)*4:
		return at, false
	case etherType == etherIPv6 && len(ip) >= 40 && ip[0]>>4 == 6:
		return at, true
	}
	return 0, false
}

// Parse finds the parts of a frame of n bytes by its first bytes, head: a private
// copy of at least min(n, nic.HeadLen) of them. It returns false for what is no TCP or UDP,
// contradicts itself, has headers that are not all in head, or is a fragment, for
// its checksum is over more than is there. IPv6 extension headers are passed over;
// a packet with hops left in a routing header is left alone, because its checksum
// is over another destination than it shows.
func Parse(head []byte, n int) (l Layout, ok bool) {
	l.IP, l.IPv6 = NetworkHeader(head)
	if l.IP == 0 {
		return l, false
	}
	ip := head[l.IP:]
	if l.IPv6 {
		l.End = l.IP + 40 + int(be.Uint16(ip[4:]))
		if l.Protocol, l.Transport, ok = extensions(head, ip[6], l.IP+40); !ok {
			return l, false
		}
	} else {
		if be.Uint16(ip[6:])&0x3fff != 0 { // more fragments, or an offset
			return l, false
		}
		l.Protocol, l.Transport = ip[9], l.IP+int(ip[0]&0xf)*4
		l.End = l.IP + int(be.Uint16(ip[2:]))
	}
	switch l.Protocol {
	case protoTCP:
		if l.Transport+20 > len(head) {
			return l, false
		}
		size := int(head[l.Transport+12]>>4) * 4
		l.Payload = l.Transport + size
		ok = size >= 20
	case protoUDP:
		l.Payload = l.Transport + 8
		if l.Payload > len(head) {
			return l, false
		}
		// What is behind the datagram in its packet is not summed up.
		size := int(be.Uint16(head[l.Transport+4:]))
		ok = size >= 8 && l.Transport+size <= l.End && l.End <= n
		l.End = l.Transport + size
	default:
		return l, false
	}
	return l, ok && l.Payload <= len(head) && l.Payload <= l.End && l.End <= n
}

// extensions passes over the extension headers at head[at:].
func extensions(head []byte, next uint8, at int) (proto uint8, transport int, ok bool) {
	for {
		switch next {
		case extHopByHop, extDestination, extRouting, extAuth:
		default:
			return next, at, true
		}
		if at+8 > len(head) {
			return 0, 0, false
		}
		h := head[at:]
		size := (int(h[1]) + 1) * 8
		if next == extAuth {
			size = (int(h[1]) + 2) * 4
		}
		if next == extRouting && h[3] != 0 {
			return 0, 0, false
		}
		next, at = h[0], at+size
		if at > len(head) {
			return 0, 0, false
		}
	}
}
