package netstack

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"hvnet/nic"
)

// Ports of DHCP (RFC 2131 section 4.1).
const (
	dhcpServerPort = dhcpv4.ServerPort
	dhcpClientPort = dhcpv4.ClientPort
)

// errNotDHCP says that a frame is not a DHCP message for the port.
var errNotDHCP = errors.New("not a DHCP message")

// A dhcpFrame is a DHCP message with the addresses that it travels by. A client
// that has no address yet sends and receives it below its IP stack.
type dhcpFrame struct {
	srcMAC, dstMAC   nic.MAC
	src, dst         netip.Addr
	srcPort, dstPort uint16
	msg              *dhcpv4.DHCPv4
}

// marshal returns the Ethernet frame.
func (f *dhcpFrame) marshal() []byte { return f.wrap(f.msg.ToBytes()) }

// wrap returns an Ethernet frame with the payload in place of the message.
func (f *dhcpFrame) wrap(payload []byte) []byte {
	const headers = header.EthernetMinimumSize + header.IPv4MinimumSize + header.UDPMinimumSize
	b := make([]byte, headers, headers+len(payload))
	src, dst := toAddress(f.src), toAddress(f.dst)
	header.Ethernet(b).Encode(&header.EthernetFields{
		SrcAddr: tcpip.LinkAddress(f.srcMAC[:]),
		DstAddr: tcpip.LinkAddress(f.dstMAC[:]),
		Type:    header.IPv4ProtocolNumber,
	})
	ip := header.IPv4(b[header.EthernetMinimumSize:])
	ip.Encode(&header.IPv4Fields{
		TotalLength: uint16(header.IPv4MinimumSize + header.UDPMinimumSize + len(payload)),
		TTL:         64,
		Protocol:    uint8(header.UDPProtocolNumber),
		SrcAddr:     src,
		DstAddr:     dst,
	})
	ip.SetChecksum(^ip.CalculateChecksum())
	u := header.UDP(b[header.EthernetMinimumSize+header.IPv4MinimumSize:])
	length := uint16(header.UDPMinimumSize + len(payload))
	u.Encode(&header.UDPFields{SrcPort: f.srcPort, DstPort: f.dstPort, Length: length})
	sum := header.PseudoHeaderChecksum(header.UDPProtocolNumber, src, dst, length)
	u.SetChecksum(^u.CalculateChecksum(checksum.Checksum(payload, sum)))
	return append(b, payload...)
}

// parseDHCPFrame reads a DHCP message for the port from an Ethernet frame.
func parseDHCPFrame(b []byte, port uint16) (*dhcpFrame, error) {
	if len(b) < header.EthernetMinimumSize {
		return nil, errNotDHCP
	}
	eth := header.Ethernet(b)
	ip := header.IPv4(b[header.EthernetMinimumSize:])
	if eth.Type() != header.IPv4ProtocolNumber || !ip.IsValid(len(ip)) ||
		ip.TransportProtocol() != header.UDPProtocolNumber ||
		ip.FragmentOffset() != 0 || ip.Flags()&header.IPv4FlagMoreFragments != 0 {
		return nil, errNotDHCP
	}
	if !ip.IsChecksumValid() {
		return nil, fmt.Errorf("%w: bad IPv4 checksum", errNotDHCP)
	}
	payload := ip.Payload()
	if len(payload) < header.UDPMinimumSize {
		return nil, errNotDHCP
	}
	u := header.UDP(payload)
	length := int(u.Length())
	if u.DestinationPort() != port || length < header.UDPMinimumSize || length > len(payload) {
		return nil, errNotDHCP
	}
	data := payload[header.UDPMinimumSize:length]
	if u.Checksum() != 0 && !u.IsChecksumValid(ip.SourceAddress(), ip.DestinationAddress(), checksum.Checksum(data, 0)) {
		return nil, fmt.Errorf("%w: bad UDP checksum", errNotDHCP)
	}
	msg, err := dhcpv4.FromBytes(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", errNotDHCP, err)
	}
	return &dhcpFrame{
		srcMAC: nic.MAC(b[6:12]), dstMAC: nic.MAC(b[0:6]),
		src: fromAddress(ip.SourceAddress()), dst: fromAddress(ip.DestinationAddress()),
		srcPort: u.SourcePort(), dstPort: u.DestinationPort(),
		msg: msg,
	}, nil
}
