package netstack

import (
	"errors"
	"fmt"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"hvnet/nic"
)

// nicID names the one interface of each stack.
const nicID = 1

// maxWindow bounds the receive window of a TCP connection in bytes, sendBuffer what
// it may have waiting to be sent.
//
// A window that needs no scaling is enough for a link as short as this one. And it
// is safe: with scaling, gVisor's receiver refuses what is left of a window that
// is smaller than the scale's unit, also plain acknowledgements behind it, so two
// ends that both have full buffers wait for each other for ever.
const (
	maxWindow  = 65535
	sendBuffer = 4 << 20
)

// newStack returns a stack with TCP, UDP, ICMP over IPv4 and IPv6 on w, without
// addresses other than the IPv6 link-local one.
func newStack(w *wire, v6 ipv6.Options) (*stack.Stack, error) {
	s := stack.New(stack.Options{
		NetworkProtocols: []stack.NetworkProtocolFactory{
			arp.NewProtocol, ipv4.NewProtocol, ipv6.NewProtocolWithOptions(v6),
		},
		TransportProtocols: []stack.TransportProtocolFactory{
			tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6,
		},
	})
	if err := tuneTCP(s); err != nil {
		s.Destroy()
		return nil, err
	}
	if err := s.CreateNIC(nicID, w); err != nil {
		s.Destroy()
		return nil, fmt.Errorf("create the interface of the stack: %s", err)
	}
	linkLocal := netip.PrefixFrom(linkLocalAddr(w.mac), 64)
	if err := addAddress(s, linkLocal); err != nil {
		s.Destroy()
		return nil, err
	}
	return s, nil
}

// tuneTCP sets what throughput over a fast, short link asks for.
func tuneTCP(s *stack.Stack) error {
	sack := tcpip.TCPSACKEnabled(true)
	moderate := tcpip.TCPModerateReceiveBufferOption(true)
	cubic := tcpip.CongestionControlOption("cubic")
	// RACK's reordering timer needs the acknowledgements of a batch one by one.
	// Behind receive coalescing it takes delay for loss and shrinks the window,
	// so recovery is left to SACK.
	recovery := tcpip.TCPRecovery(0)
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: 4 << 10, Default: maxWindow, Max: maxWindow}
	send := tcpip.TCPSendBufferSizeRangeOption{Min: 4 << 10, Default: 1 << 20, Max: sendBuffer}
	for _, o := range []tcpip.SettableTransportProtocolOption{&sack, &moderate, &cubic, &recovery, &receive, &send} {
		if err := s.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return fmt.Errorf("set TCP option %T: %s", o, err)
		}
	}
	return nil
}

// addAddress gives the interface an address and the route to its subnet.
func addAddress(s *stack.Stack, p netip.Prefix) error {
	a := tcpip.ProtocolAddress{
		Protocol:          protocolOf(p.Addr()),
		AddressWithPrefix: tcpip.AddressWithPrefix{Address: toAddress(p.Addr()), PrefixLen: p.Bits()},
	}
	if err := s.AddProtocolAddress(nicID, a, stack.AddressProperties{}); err != nil {
		if _, dup := err.(*tcpip.ErrDuplicateAddress); !dup {
			return fmt.Errorf("add address %s: %s", p, err)
		}
	}
	addRoute(s, p.Masked(), netip.Addr{})
	return nil
}

// addRoute sends what is for dst to the gateway via, or to the link if via is not
// valid. The route takes the place of an earlier one to dst.
func addRoute(s *stack.Stack, dst netip.Prefix, via netip.Addr) {
	removeRoute(s, dst)
	r := tcpip.Route{Destination: toSubnet(dst), NIC: nicID}
	if via.IsValid() {
		r.Gateway = toAddress(via)
	}
	s.AddRoute(r)
}

// removeRoute forgets how to reach dst.
func removeRoute(s *stack.Stack, dst netip.Prefix) {
	subnet := toSubnet(dst)
	s.RemoveRoutes(func(r tcpip.Route) bool { return r.Destination == subnet })
}

// toSubnet converts a masked prefix.
func toSubnet(p netip.Prefix) tcpip.Subnet {
	return tcpip.AddressWithPrefix{Address: toAddress(p.Addr()), PrefixLen: p.Bits()}.Subnet()
}

// fromSubnet converts a subnet.
func fromSubnet(s tcpip.Subnet) netip.Prefix {
	return netip.PrefixFrom(fromAddress(s.ID()), s.Prefix())
}

// toAddress converts an address; the zero Addr becomes the zero Address.
func toAddress(a netip.Addr) tcpip.Address {
	if !a.IsValid() {
		return tcpip.Address{}
	}
	return tcpip.AddrFromSlice(a.Unmap().AsSlice())
}

// fromAddress converts an address; an IPv4 address is four bytes there.
func fromAddress(a tcpip.Address) netip.Addr {
	addr, _ := netip.AddrFromSlice(a.AsSlice())
	return addr
}

// toFull converts address and port to where a socket of the stack is or goes.
// Link-local addresses need the interface named.
func toFull(ap netip.AddrPort) tcpip.FullAddress {
	f := tcpip.FullAddress{Port: ap.Port()}
	if a := ap.Addr(); a.IsValid() && !a.IsUnspecified() {
		f.NIC = nicID
		f.Addr = toAddress(a)
	}
	return f
}

// protocolOf returns the protocol number of IPv4 or IPv6.
func protocolOf(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is6() && !a.Is4In6() {
		return ipv6.ProtocolNumber
	}
	return ipv4.ProtocolNumber
}

// linkLocalAddr returns the IPv6 link-local address made from the MAC (RFC 4291
// appendix A).
func linkLocalAddr(mac tcpip.LinkAddress) netip.Addr {
	return fromAddress(header.LinkLocalAddr(mac))
}

// checkLink checks what Gateway and Host have in common and returns the MTU to use.
func checkLink(mac nic.MAC, mtu int) (int, error) {
	if mac.IsZero() || mac.Multicast() {
		return 0, fmt.Errorf("MAC address %s: not the address of one station", mac)
	}
	if mtu == 0 {
		mtu = defaultMTU
	}
	if mtu < header.IPv6MinimumMTU || mtu > nic.MaxFrame-nic.HeaderLen {
		return 0, fmt.Errorf("MTU %d: want %d to %d", mtu, header.IPv6MinimumMTU, nic.MaxFrame-nic.HeaderLen)
	}
	return mtu, nil
}

// errNoAddress refuses a gateway without any address.
var errNoAddress = errors.New("neither an IPv4 nor an IPv6 address given")
