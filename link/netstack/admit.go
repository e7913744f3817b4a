package netstack

import (
	"encoding/binary"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// verdict says what becomes of a frame that reached the gateway.
type verdict int

const (
	ignore  verdict = iota // for somebody else, or of a kind that is not carried
	deliver                // to the stack
	lease                  // to the DHCP server
	solicit                // a router solicitation
)

// router is what the gateway knows of its network: its addresses with the length of
// their prefix (zero: none), and whether it carries packets onwards.
//
// Its stack has to take packets for any address, or NAT could not work. Such a
// stack would also answer ARP and echo for any address, so everything that comes in
// passes judge first.
type router struct {
	v4, v6    netip.Prefix
	linkLocal netip.Addr
	nat       bool
}

// own reports whether a is one of the gateway's addresses.
func (r *router) own(a netip.Addr) bool {
	return a.IsValid() && (a == r.v4.Addr() || a == r.v6.Addr() || a == r.linkLocal)
}

// judge looks at the head of a frame, at least an Ethernet header.
func (r *router) judge(head []byte) verdict {
	payload := head[header.EthernetMinimumSize:]
	switch header.Ethernet(head).Type() {
	case header.ARPProtocolNumber:
		return r.judgeARP(payload)
	case header.IPv4ProtocolNumber:
		return r.judgeIPv4(payload)
	case header.IPv6ProtocolNumber:
		return r.judgeIPv6(payload)
	}
	return ignore
}

func (r *router) judgeARP(b []byte) verdict {
	if len(b) < header.ARPSize || !r.v4.IsValid() {
		return ignore
	}
	a := header.ARP(b)
	if a.IsValid() && addrOf(a.ProtocolAddressTarget()) == r.v4.Addr() {
		return deliver
	}
	return ignore
}

func (r *router) judgeIPv4(b []byte) verdict {
	if len(b) < header.IPv4MinimumSize || !r.v4.IsValid() {
		return ignore
	}
	ip := header.IPv4(b)
	size := int(ip.HeaderLength())
	if size < header.IPv4MinimumSize || size > len(b) {
		return ignore
	}
	src, dst := fromAddress(ip.SourceAddress()), fromAddress(ip.DestinationAddress())
	first := ip.FragmentOffset() == 0
	payload := b[size:]
	if ip.TransportProtocol() == header.UDPProtocolNumber && first && len(payload) >= header.UDPMinimumSize &&
		header.UDP(payload).DestinationPort() == dhcpServerPort && (dst == broadcast4 || dst == r.v4.Addr()) {
		return lease
	}
	if !r.v4.Contains(src) || src == r.v4.Addr() {
		return ignore
	}
	if dst == r.v4.Addr() {
		return deliver
	}
	if r.v4.Contains(dst) || !r.outside(dst) {
		return ignore
	}
	switch ip.TransportProtocol() {
	case header.TCPProtocolNumber, header.UDPProtocolNumber:
		return deliver
	case header.ICMPv4ProtocolNumber:
		// Errors belong to a flow that NAT carries. An echo request would be
		// answered in the name of a station that was never asked.
		if first && len(payload) >= header.ICMPv4MinimumSize {
			switch header.ICMPv4(payload).Type() {
			case header.ICMPv4DstUnreachable, header.ICMPv4TimeExceeded, header.ICMPv4ParamProblem:
				return deliver
			}
		}
	}
	return ignore
}

func (r *router) judgeIPv6(b []byte) verdict {
	if len(b) < header.IPv6MinimumSize {
		return ignore
	}
	ip := header.IPv6(b)
	src, dst := fromAddress(ip.SourceAddress()), fromAddress(ip.DestinationAddress())
	next := tcpip.TransportProtocolNumber(ip.NextHeader())
	payload := b[header.IPv6MinimumSize:]
	fragment := uint8(next) == uint8(header.IPv6FragmentHeader)
	if fragment && len(payload) > 0 {
		next = tcpip.TransportProtocolNumber(payload[0])
	}
	if r.own(src) || src.IsMulticast() {
		return ignore
	}
	if next == header.ICMPv6ProtocolNumber && !fragment && len(payload) >= header.ICMPv6MinimumSize {
		return r.judgeICMPv6(src, dst, header.ICMPv6(payload), ip.HopLimit())
	}
	local := src.IsLinkLocalUnicast() || r.v6.Contains(src)
	if !local || dst.IsMulticast() {
		return ignore
	}
	if r.own(dst) {
		return deliver
	}
	if r.v6.Contains(src) && r.outside(dst) && (next == header.TCPProtocolNumber || next == header.UDPProtocolNumber) {
		return deliver
	}
	return ignore
}

func (r *router) judgeICMPv6(src, dst netip.Addr, m header.ICMPv6, hops uint8) verdict {
	local := src.IsUnspecified() || src.IsLinkLocalUnicast() || r.v6.Contains(src)
	if !local {
		return ignore
	}
	switch m.Type() {
	case header.ICMPv6RouterSolicit:
		if hops == header.NDPHopLimit && r.v6.IsValid() {
			return solicit
		}
	case header.ICMPv6NeighborSolicit:
		body := m.MessageBody()
		if len(body) >= header.NDPNSMinimumSize && r.own(fromAddress(header.NDPNeighborSolicit(body).TargetAddress())) {
			return deliver
		}
	case header.ICMPv6RouterAdvert, header.ICMPv6RedirectMsg:
		// There is no other router.
	default:
		if r.own(dst) || dst == allNodes {
			return deliver
		}
		if m.Type() <= header.ICMPv6ParamProblem && r.outside(dst) {
			return deliver // errors of a flow that NAT carries
		}
	}
	return ignore
}

// outside reports whether NAT carries packets for a.
func (r *router) outside(a netip.Addr) bool {
	switch {
	case !r.nat, r.v4.Contains(a), r.v6.Contains(a):
		return false
	case a.IsUnspecified(), a.IsLoopback(), a.IsMulticast(), a.Is4In6():
		return false
	case a.Is4():
		b := a.As4()
		return b[0] != 0 && b[0] < 224 // neither "this network" nor reserved
	default:
		return !a.IsLinkLocalUnicast()
	}
}

var (
	broadcast4 = netip.AddrFrom4([4]byte{255, 255, 255, 255})
	allNodes   = netip.MustParseAddr("ff02::1")
)

// addrOf returns the IPv4 or IPv6 address in b, or the zero Addr.
func addrOf(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	return a
}

// lastAddr returns the highest address of an IPv4 prefix: its broadcast address.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	host := uint32(1)<<(32-p.Bits()) - 1
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])|host)
	return netip.AddrFrom4(b)
}
