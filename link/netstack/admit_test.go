package netstack

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"hvnet/nic"
)

// Headers that the cases below put together.
const (
	toGateway = "00155d000001 00155d000102 "
	toAll     = "ffffffffffff 00155d000102 "
	toNodes   = "333300000001 00155d000102 "
	toSolicit = "3333ff000001 00155d000102 "
	udp67     = " 0044 0043 0008 0000"
	udp53     = " 8000 0035 0008 0000"
)

// ip4 returns an Ethernet type and IPv4 header in hexadecimal.
func ip4(proto, src, dst string) string {
	return "0800 4500 001c 0000 0000 40 " + proto + " 0000 " + addrHex(src) + addrHex(dst)
}

// ip6 returns an Ethernet type and IPv6 header in hexadecimal.
func ip6(next, src, dst string) string {
	return "86dd 60000000 0008 " + next + " ff " + addrHex(src) + addrHex(dst)
}

func addrHex(a string) string { return hex.EncodeToString(netip.MustParseAddr(a).AsSlice()) + " " }

func TestJudge(t *testing.T) {
	r := router{v4: gateway4, v6: gateway6, linkLocal: netip.MustParseAddr("fe80::215:5dff:fe00:1"), nat: true}
	const (
		guest4, guest6, guestLL = "198.18.0.2", "fd00:5d::2", "fe80::2"
		gw4, gw6, gwLL          = "198.18.0.1", "fd00:5d::1", "fe80::215:5dff:fe00:1"
		arp                     = "0806 0001 0800 06 04 0001 00155d000102 c6120002 000000000000 "
		ns                      = " 87 00 0000 00000000 "
	)
	for _, tt := range []struct {
		name  string
		frame string
		want  verdict
	}{
		{"ARP for the gateway", toAll + arp + addrHex(gw4), deliver},
		{"ARP for another", toAll + arp + addrHex("198.18.0.3"), ignore},
		{"ARP probe of one's own address", toAll + arp + addrHex(guest4), ignore},
		{"ARP cut", toAll + "0806 0001 0800 06 04", ignore},
		{"ARP of another kind", toAll + strings.Replace(arp, "0800", "86dd", 1) + addrHex(gw4), ignore},

		{"UDP to the gateway", toGateway + ip4("11", guest4, gw4) + udp53, deliver},
		{"UDP to the outside", toGateway + ip4("11", guest4, "203.0.113.1") + udp53, deliver},
		{"TCP to the outside", toGateway + ip4("06", guest4, "203.0.113.1"), deliver},
		{"echo to the gateway", toGateway + ip4("01", guest4, gw4) + " 08000000 00000000", deliver},
		{"echo to the outside", toGateway + ip4("01", guest4, "203.0.113.1") + " 08000000 00000000", ignore},
		{"echo reply to the outside", toGateway + ip4("01", guest4, "203.0.113.1") + " 00000000 00000000", ignore},
		{"error to the outside", toGateway + ip4("01", guest4, "203.0.113.1") + " 03030000 00000000", deliver},
		{"ICMP cut", toGateway + ip4("01", guest4, "203.0.113.1"), ignore},
		{"other protocol to the outside", toGateway + ip4("2f", guest4, "203.0.113.1"), ignore},
		{"to another guest", toGateway + ip4("11", guest4, "198.18.0.3") + udp53, ignore},
		{"to the subnet's broadcast", toAll + ip4("11", guest4, "198.18.0.255") + udp53, ignore},
		{"to broadcast", toAll + ip4("11", guest4, "255.255.255.255") + udp53, ignore},
		{"to multicast", toGateway + ip4("11", guest4, "224.0.0.251") + udp53, ignore},
		{"to loopback", toGateway + ip4("06", guest4, "127.0.0.1"), ignore},
		{"to nowhere", toGateway + ip4("06", guest4, "0.0.0.0"), ignore},
		{"to reserved", toGateway + ip4("06", guest4, "240.0.0.1"), ignore},
		{"from outside the subnet", toGateway + ip4("06", "10.0.0.1", gw4), ignore},
		{"in the gateway's name", toGateway + ip4("06", gw4, gw4), ignore},
		{"IPv4 cut", toGateway + "0800 4500 001c", ignore},
		{"IPv4 with impossible header", toGateway + strings.Replace(ip4("06", guest4, gw4), "4500", "4f00", 1), ignore},

		{"DHCP by broadcast", toAll + ip4("11", "0.0.0.0", "255.255.255.255") + udp67, lease},
		{"DHCP renewal", toGateway + ip4("11", guest4, gw4) + udp67, lease},
		{"DHCP to another server", toGateway + ip4("11", guest4, "203.0.113.1") + udp67, deliver},

		{"IPv6 UDP to the gateway", toGateway + ip6("11", guest6, gw6) + udp53, deliver},
		{"IPv6 UDP to its link-local address", toGateway + ip6("11", guestLL, gwLL) + udp53, deliver},
		{"IPv6 TCP to the outside", toGateway + ip6("06", guest6, "2001:db8::1"), deliver},
		{"IPv6 TCP to the outside from link-local", toGateway + ip6("06", guestLL, "2001:db8::1"), ignore},
		{"IPv6 UDP fragment to the outside", toGateway + ip6("2c", guest6, "2001:db8::1") + "11 00 0001 00000000", deliver},
		{"IPv6 ICMP fragment to the outside", toGateway + ip6("2c", guest6, "2001:db8::1") + "3a 00 0001 00000000", ignore},
		{"IPv6 echo to the gateway", toGateway + ip6("3a", guest6, gw6) + " 80 00 0000 00000000", deliver},
		{"IPv6 echo to all nodes", toNodes + ip6("3a", guestLL, "ff02::1") + " 80 00 0000 00000000", deliver},
		{"IPv6 echo to the outside", toGateway + ip6("3a", guest6, "2001:db8::1") + " 80 00 0000 00000000", ignore},
		{"IPv6 error to the outside", toGateway + ip6("3a", guest6, "2001:db8::1") + " 02 00 0000 00000000", deliver},
		{"IPv6 to another guest", toGateway + ip6("11", guest6, "fd00:5d::3") + udp53, ignore},
		{"IPv6 multicast DNS", toNodes + ip6("11", guestLL, "ff02::fb") + udp53, ignore},
		{"IPv6 to loopback", toGateway + ip6("06", guest6, "::1"), ignore},
		{"IPv6 to IPv4-mapped", toGateway + ip6("06", guest6, "::ffff:127.0.0.1"), ignore},
		{"IPv6 from elsewhere", toGateway + ip6("06", "2001:db8::2", gw6), ignore},
		{"IPv6 from multicast", toGateway + ip6("06", "ff02::1", gw6), ignore},
		{"IPv6 in the gateway's name", toGateway + ip6("3a", gw6, gw6) + " 80 00 0000 00000000", ignore},
		{"IPv6 cut", toGateway + "86dd 60000000", ignore},

		{"router solicitation", toNodes + ip6("3a", guestLL, "ff02::2") + " 85 00 0000 00000000", solicit},
		{"router solicitation without address", toNodes + ip6("3a", "::", "ff02::2") + " 85 00 0000 00000000", solicit},
		{"router advertisement", toNodes + ip6("3a", guestLL, "ff02::1") + " 86 00 0000 00000000", ignore},
		{"redirect", toGateway + ip6("3a", guestLL, gw6) + " 89 00 0000 00000000", ignore},
		{"solicitation of the gateway", toSolicit + ip6("3a", guestLL, "ff02::1:ff00:1") + ns + addrHex(gw6), deliver},
		{"solicitation of its link-local address", toSolicit + ip6("3a", guestLL, "ff02::1:ff00:1") + ns + addrHex(gwLL), deliver},
		{"solicitation of another", toSolicit + ip6("3a", guestLL, "ff02::1:ff00:1") + ns + addrHex("fd00:5d::3"), ignore},
		{"duplicate address detection of another", toSolicit + ip6("3a", "::", "ff02::1:ff00:1") + ns + addrHex(guest6), ignore},
		{"solicitation cut", toSolicit + ip6("3a", guestLL, "ff02::1:ff00:1") + ns, ignore},

		{"other Ethernet type", toAll + "88cc 0000", ignore},
		{"header alone", toGateway + "0800", ignore},
	} {
		if got := r.judge(golden(t, tt.frame)); got != tt.want {
			t.Errorf("%s: verdict %d, want %d", tt.name, got, tt.want)
		}
	}

	r.nat = false
	if got := r.judge(golden(t, toGateway+ip4("06", guest4, "203.0.113.1"))); got != ignore {
		t.Errorf("to the outside without NAT: verdict %d", got)
	}
	if got := (&router{v6: gateway6}).judge(golden(t, toAll+ip4("11", "0.0.0.0", "255.255.255.255")+udp67)); got != ignore {
		t.Errorf("DHCP without IPv4: verdict %d", got)
	}
	if got := (&router{v4: gateway4}).judge(golden(t, toNodes+ip6("3a", guestLL, "ff02::2")+" 85 00 0000 00000000")); got != ignore {
		t.Errorf("router solicitation without IPv6: verdict %d", got)
	}
}

// fixChecksums returns a copy of an Ethernet frame whose checksums are right, so
// that what is wrong with it otherwise gets deeper into the stack.
func fixChecksums(frame []byte) []byte {
	b := bytes.Clone(frame)
	payload := b[nic.HeaderLen:]
	var next tcpip.TransportProtocolNumber
	var src, dst tcpip.Address
	switch header.Ethernet(b).Type() {
	case header.IPv4ProtocolNumber:
		ip := header.IPv4(payload)
		if !ip.IsValid(len(payload)) {
			return b
		}
		ip.SetChecksum(0)
		ip.SetChecksum(^ip.CalculateChecksum())
		next, src, dst, payload = ip.TransportProtocol(), ip.SourceAddress(), ip.DestinationAddress(), ip.Payload()
	case header.IPv6ProtocolNumber:
		ip := header.IPv6(payload)
		if !ip.IsValid(len(payload)) {
			return b
		}
		next, src, dst, payload = tcpip.TransportProtocolNumber(ip.NextHeader()), ip.SourceAddress(), ip.DestinationAddress(), ip.Payload()
	}
	sum := func() uint16 {
		return ^checksum.Checksum(payload, header.PseudoHeaderChecksum(next, src, dst, uint16(len(payload))))
	}
	switch {
	case next == header.TCPProtocolNumber && len(payload) >= header.TCPMinimumSize:
		header.TCP(payload).SetChecksum(0)
		header.TCP(payload).SetChecksum(sum())
	case next == header.UDPProtocolNumber && len(payload) >= header.UDPMinimumSize:
		header.UDP(payload).SetChecksum(0)
		header.UDP(payload).SetChecksum(sum())
	case next == header.ICMPv4ProtocolNumber && len(payload) >= header.ICMPv4MinimumSize:
		header.ICMPv4(payload).SetChecksum(0)
		header.ICMPv4(payload).SetChecksum(^checksum.Checksum(payload, 0))
	case next == header.ICMPv6ProtocolNumber && len(payload) >= header.ICMPv6MinimumSize:
		header.ICMPv6(payload).SetChecksum(0)
		header.ICMPv6(payload).SetChecksum(sum())
	}
	return b
}

// FuzzGateway gives the gateway, and a host, whatever a hostile guest can send.
func FuzzGateway(f *testing.F) {
	for _, s := range []string{
		toAll + "0806 0001 0800 06 04 0001 00155d000102 c6120002 000000000000 c6120001",
		toGateway + ip4("01", "198.18.0.2", "198.18.0.1") + " 0800f7ff 00000000",
		toGateway + ip4("11", "198.18.0.2", "198.18.0.1") + " 8000 0007 0008 0000",
		toGateway + ip4("06", "198.18.0.2", "198.18.0.1") + " 8000 0007 00000000 00000000 5002 ffff 0000 0000",
		toNodes + ip6("3a", "fe80::2", "ff02::2") + " 85 00 0000 00000000",
	} {
		b, _ := hex.DecodeString(strings.Join(strings.Fields(s), ""))
		f.Add(b, 128)
	}
	gw, err := NewGateway(GatewayConfig{MAC: gatewayMAC, IPv4: gateway4, IPv6: gateway6})
	if err != nil {
		f.Fatal(err)
	}
	h, err := NewHost(HostConfig{MAC: gatewayMAC, Addrs: []netip.Prefix{gateway4, gateway6}, AcceptRA: true})
	if err != nil {
		f.Fatal(err)
	}
	drain := sinkFunc(func([]nic.Frame) {})
	gw.Start(drain)
	h.Start(drain)
	f.Cleanup(func() {
		gw.Close()
		h.Close()
	})
	f.Fuzz(func(t *testing.T, b []byte, head int) {
		if len(b) < nic.MinFrame || len(b) > nic.MaxFrame {
			return
		}
		head = min(max(head, nic.HeadLen), len(b))
		b = fixChecksums(b)
		frame := nic.Frame{Head: b[:head:head], Body: [][]byte{b[head:]}}
		gw.WriteFrames([]nic.Frame{frame, frame})
		h.WriteFrames([]nic.Frame{frame, frame})
	})
}
