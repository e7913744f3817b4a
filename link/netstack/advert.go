package netstack

import (
	"encoding/binary"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"hvnet/nic"
)

// What a router advertisement promises: the defaults of RFC 4861 section 6.2.1, but
// the prefix for a day and not for a month, because the network goes with its host.
const (
	advertInterval    = 10 * time.Minute
	routerLifetime    = 30 * time.Minute
	prefixValid       = 24 * time.Hour
	prefixPreferred   = 4 * time.Hour
	advertHopLimit    = 64
	autonomousPrefix  = 64 // SLAAC needs 64 bits for the interface (RFC 4862 5.5.3)
	flagOnLink        = 0x80
	flagAutonomous    = 0x40
	optionSourceLink  = 1
	optionPrefix      = 3
	optionMTU         = 5
	optionDNS         = 25 // RFC 8106
	advertBodySize    = header.ICMPv6HeaderSize + header.NDPRAMinimumSize
	advertOptionsSize = 8 + 32 + 8 + 24
)

// routerAdvert returns the Ethernet frame that tells every node of the link: here
// is a router, this is the prefix, the MTU and the name server.
func routerAdvert(mac nic.MAC, linkLocal netip.Addr, prefix netip.Prefix, mtu int) []byte {
	const size = header.EthernetMinimumSize + header.IPv6MinimumSize + advertBodySize + advertOptionsSize
	b := make([]byte, 0, size)

	// Router advertisement (RFC 4861 section 4.2). The checksum comes last.
	icmp := []byte{byte(header.ICMPv6RouterAdvert), 0, 0, 0, advertHopLimit, 0}
	icmp = binary.BigEndian.AppendUint16(icmp, seconds16(routerLifetime))
	icmp = append(icmp, make([]byte, 8)...) // reachable time, retransmit timer: unspecified

	// Options; lengths are in units of eight bytes (section 4.6).
	icmp = append(icmp, optionSourceLink, 1)
	icmp = append(icmp, mac[:]...)
	icmp = append(icmp, optionMTU, 1, 0, 0)
	icmp = binary.BigEndian.AppendUint32(icmp, uint32(mtu))
	flags := byte(flagOnLink)
	if prefix.Bits() == autonomousPrefix {
		flags |= flagAutonomous
	}
	icmp = append(icmp, optionPrefix, 4, byte(prefix.Bits()), flags)
	icmp = binary.BigEndian.AppendUint32(icmp, seconds32(prefixValid))
	icmp = binary.BigEndian.AppendUint32(icmp, seconds32(prefixPreferred))
	icmp = append(icmp, 0, 0, 0, 0)
	icmp = append(icmp, prefix.Masked().Addr().AsSlice()...)
	icmp = append(icmp, optionDNS, 3, 0, 0)
	icmp = binary.BigEndian.AppendUint32(icmp, seconds32(routerLifetime))
	icmp = append(icmp, prefix.Addr().AsSlice()...)

	src, dst := toAddress(linkLocal), toAddress(allNodes)
	header.ICMPv6(icmp).SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{
		Header: icmp, Src: src, Dst: dst,
	}))

	b = b[:header.EthernetMinimumSize+header.IPv6MinimumSize]
	header.Ethernet(b).Encode(&header.EthernetFields{
		SrcAddr: tcpip.LinkAddress(mac[:]),
		DstAddr: header.EthernetAddressFromMulticastIPv6Address(dst),
		Type:    header.IPv6ProtocolNumber,
	})
	header.IPv6(b[header.EthernetMinimumSize:]).Encode(&header.IPv6Fields{
		PayloadLength:     uint16(len(icmp)),
		TransportProtocol: header.ICMPv6ProtocolNumber,
		HopLimit:          header.NDPHopLimit,
		SrcAddr:           src,
		DstAddr:           dst,
	})
	return append(b, icmp...)
}

func seconds16(d time.Duration) uint16 { return uint16(d / time.Second) }
func seconds32(d time.Duration) uint32 { return uint32(d / time.Second) }
