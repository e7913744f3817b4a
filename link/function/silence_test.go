package function

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"hvnet/link/packet"
	"hvnet/link/rtnl"
	"hvnet/nic"
)

// Addresses of the guest, of its eth0's interface, and of somebody who talks to it.
var (
	us4, them4 = net.IP{10, 9, 0, 2}, net.IP{10, 9, 0, 1}
	us6, them6 = net.ParseIP("fd00::2"), net.ParseIP("fd00::1")
	ethernet   = nic.MAC{2, 0, 0, 0, 0, 2}
	theirs     = nic.MAC{2, 0, 0, 0, 0, 1}
)

// eth0 gives the namespace a NIC with addresses, and returns its wire.
func eth0(t testing.TB) *packet.Link {
	t.Helper()
	check(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "wire", PeerHardwareAddr: theirs[:]}))
	p, err := packet.Open("wire")
	check(t, err)
	l, err := netlink.LinkByName("eth0")
	check(t, err)
	check(t, netlink.LinkSetHardwareAddr(l, ethernet[:]))
	wire, err := netlink.LinkByName("wire")
	check(t, err)
	for _, l := range []netlink.Link{wire, l} {
		check(t, netlink.LinkSetIP6AddrGenMode(l, addrGenModeNone)) // an address of its own it would ask about
		check(t, netlink.LinkSetUp(l))
	}
	running(t, "eth0")
	running(t, "wire")
	for _, a := range []string{"10.9.0.2/24", "fd00::2/64"} {
		addr, err := netlink.ParseAddr(a)
		check(t, err)
		if addr.IP.To4() == nil {
			addr.Flags = unix.IFA_F_NODAD
		}
		check(t, netlink.AddrAdd(l, addr))
	}
	for _, ip := range []net.IP{them4, them6} {
		check(t, netlink.NeighSet(&netlink.Neigh{LinkIndex: l.Attrs().Index, State: netlink.NUD_PERMANENT, IP: ip, HardwareAddr: theirs[:]}))
	}
	return p
}

// running waits until frames pass an interface: some time after both ends are up.
func running(t testing.TB, name string) {
	t.Helper()
	control, err := rtnl.Open()
	check(t, err)
	defer control.Close()
	ctx, stop := context.WithTimeout(context.Background(), 10*time.Second)
	defer stop()
	_, err = rtnl.Find(ctx, control, func(s *rtnl.State) bool { return s.Name == name && s.Carrier })
	check(t, err)
}

// asking returns frames for a station, each of which makes Linux say something.
func asking(t testing.TB, to nic.MAC) (list []nic.Frame) {
	t.Helper()
	add := func(dst net.HardwareAddr, kind layers.EthernetType, more ...gopacket.SerializableLayer) {
		eth := &layers.Ethernet{SrcMAC: theirs[:], DstMAC: dst, EthernetType: kind}
		b := gopacket.NewSerializeBuffer()
		opt := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
		check(t, gopacket.SerializeLayers(b, opt, append([]gopacket.SerializableLayer{eth}, more...)...))
		list = append(list, nic.Frame{Head: slices.Clone(b.Bytes())})
	}
	ip4 := func(p layers.IPProtocol, src, dst net.IP) *layers.IPv4 {
		return &layers.IPv4{Version: 4, TTL: 64, Protocol: p, SrcIP: src, DstIP: dst}
	}
	ip6 := func(dst net.IP) *layers.IPv6 {
		return &layers.IPv6{Version: 6, HopLimit: 255, NextHeader: layers.IPProtocolICMPv6, SrcIP: them6, DstIP: dst}
	}
	icmp6 := func(ip *layers.IPv6, kind uint8) *layers.ICMPv6 {
		m := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(kind, 0)}
		check(t, m.SetNetworkLayerForChecksum(ip))
		return m
	}
	all := net.HardwareAddr(nic.Broadcast[:])
	add(all, layers.EthernetTypeARP, &layers.ARP{AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4,
		Operation: layers.ARPRequest, SourceHwAddress: theirs[:], SourceProtAddress: them4, DstHwAddress: make([]byte, 6), DstProtAddress: us4})
	add(to[:], layers.EthernetTypeIPv4, ip4(layers.IPProtocolICMPv4, them4, us4), &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(8, 0), Id: 1, Seq: 1}, gopacket.Payload("hello"))
	ip := ip4(layers.IPProtocolUDP, them4, us4)
	udp := &layers.UDP{SrcPort: 7, DstPort: 9} // where nobody listens
	check(t, udp.SetNetworkLayerForChecksum(ip))
	add(to[:], layers.EthernetTypeIPv4, ip, udp, gopacket.Payload("hello"))
	ip = ip4(layers.IPProtocolTCP, them4, us4)
	tcp := &layers.TCP{SrcPort: 7, DstPort: 9, SYN: true, Window: 1000}
	check(t, tcp.SetNetworkLayerForChecksum(ip))
	add(to[:], layers.EthernetTypeIPv4, ip, tcp)
	v6 := ip6(us6)
	add(to[:], layers.EthernetTypeIPv6, v6, icmp6(v6, layers.ICMPv6TypeEchoRequest), &layers.ICMPv6Echo{Identifier: 1, SeqNumber: 1})
	group := netip.MustParseAddr("ff02::1:ff00:2").AsSlice()
	v6 = ip6(group)
	add(net.HardwareAddr{0x33, 0x33, 0xff, 0, 0, 2}, layers.EthernetTypeIPv6, v6, icmp6(v6, layers.ICMPv6TypeNeighborSolicitation),
		&layers.ICMPv6NeighborSolicitation{TargetAddress: us6, Options: layers.ICMPv6Options{{Type: layers.ICMPv6OptSourceAddress, Data: theirs[:]}}})
	return list
}

func (a *tally) clear() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.frames = nil
}

// said returns in words what a station has said, but for what IPv6 says of groups, which it
// does when it likes.
func (a *tally) said() (said []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, f := range a.frames {
		p := gopacket.NewPacket(f.Head, layers.LayerTypeEthernet, gopacket.Default)
		switch l := p.Layers(); {
		case p.Layer(layers.LayerTypeARP) != nil:
			said = append(said, "ARP")
		case p.Layer(layers.LayerTypeIPv4) != nil:
			said = append(said, l[2].LayerType().String())
		case p.Layer(layers.LayerTypeICMPv6) != nil:
			t := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6).TypeCode.Type()
			if t != layers.ICMPv6TypeMLDv2MulticastListenerReportMessageV2 && t != layers.ICMPv6TypeRouterSolicitation {
				said = append(said, layers.CreateICMPv6TypeCode(t, 0).String())
			}
		default:
			said = append(said, p.String())
		}
	}
	return said
}

// datagram returns a datagram from them to port 4000 of a station.
func datagram(t testing.TB, to nic.MAC, text string) nic.Frame {
	t.Helper()
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: them4, DstIP: us4}
	udp := &layers.UDP{SrcPort: 5000, DstPort: 4000}
	check(t, udp.SetNetworkLayerForChecksum(ip))
	b := gopacket.NewSerializeBuffer()
	check(t, gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		&layers.Ethernet{SrcMAC: theirs[:], DstMAC: to[:], EthernetType: layers.EthernetTypeIPv4}, ip, udp, gopacket.Payload(text)))
	return nic.Frame{Head: slices.Clone(b.Bytes())}
}

// TestSilence: whatever comes by a function the namespace's own IP stack does not hear, nor
// does it say anything by the function.
func TestSilence(t *testing.T) {
	ns := enter(t)
	wire := eth0(t)
	defer wire.Close()
	fromEth0, fromVF := newTally(), newTally()
	received := make(chan error, 1)
	go func() { received <- wire.Receive(fromEth0) }()
	defer func() { wire.Close(); <-received }()

	control, err := rtnl.Open()
	check(t, err)
	defer control.Close()
	settle := func() { // until what was written has come, and the answers too
		t.Helper()
		check(t, wire.Sent(t.Context()))
		n, err := rtnl.Counts(rtnl.NewClient(control), wire.State().Index())
		check(t, err)
		check(t, wire.Arrived(t.Context(), n.Received))
		check(t, wire.Flush(t.Context()))
	}

	// All of it has answers.
	questions := asking(t, ethernet)
	again := time.NewTicker(50 * time.Millisecond) // an address is in use a moment after it is added
	defer again.Stop()
	late := time.After(10 * time.Second)
	for i := range questions {
		fromEth0.clear()
		wire.WriteFrames(questions[i : i+1])
		for len(fromEth0.said()) == 0 {
			select {
			case <-fromEth0.news:
			case <-again.C:
				wire.WriteFrames(questions[i : i+1])
			case <-late:
				t.Fatalf("eth0 does not answer question %d", i)
			}
		}
		settle()
	}
	server, err := net.DialUDP("udp4", &net.UDPAddr{IP: us4, Port: 4000}, &net.UDPAddr{IP: them4, Port: 5000})
	check(t, err)
	defer server.Close()
	check(t, server.SetReadDeadline(time.Now().Add(10*time.Second)))
	heard := func() string {
		b := make([]byte, 100)
		n, err := server.Read(b)
		check(t, err)
		return string(b[:n])
	}
	for _, s := range []string{"one", "two"} { // the second one takes the short way
		wire.WriteFrames([]nic.Frame{datagram(t, ethernet, s)})
		if got := heard(); got != s {
			t.Fatalf("heard %q, want %q", got, s)
		}
	}
	settle()
	fromEth0.clear()

	h, w := made(t, ns, 7), watch(t)
	h.Start(fromVF)
	p := w.up(t)
	to := append(asking(t, address), datagram(t, address, "by the VF"))
	h.WriteFrames(to)
	check(t, h.Drain(t.Context()))
	link, err := netlink.LinkByName(p.dev.Name())
	check(t, err)
	check(t, netlink.LinkSetName(link, "fast"))
	for p.dev.Name() != "fast" { // then the wall stands there again
		p.state(t, true, true)
	}
	h.WriteFrames(to)
	check(t, h.Drain(t.Context()))
	p.await(t, 2*len(to))
	wire.WriteFrames([]nic.Frame{datagram(t, ethernet, "three")})
	if got := heard(); got != "three" {
		t.Errorf("a program has heard %q a second time", got)
	}
	settle()
	check(t, h.Drain(t.Context()))
	if said := fromEth0.said(); len(said) > 0 {
		t.Errorf("eth0 says %q", said)
	}
	if fromVF.len() > 0 {
		t.Errorf("the function says %q, in %d frames", fromVF.said(), fromVF.len())
	}
	if list, err := netlink.AddrList(link, netlink.FAMILY_ALL); err != nil || len(list) > 0 {
		t.Errorf("addresses of the function: %v, %v", list, err)
	}
}

// TestUsersFilters: what users have put on an interface works, and stays.
func TestUsersFilters(t *testing.T) {
	ns := enter(t)
	h, w := made(t, ns, 7), watch(t)
	fromVF := newTally()
	h.Start(fromVF)
	p := w.up(t)
	link, err := netlink.LinkByName(p.dev.Name())
	check(t, err)
	queue := &netlink.Tbf{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT},
		Rate: 1e9, Limit: 1e6, Buffer: 1e6}
	check(t, netlink.QdiscAdd(queue))
	check(t, netlink.QdiscAdd(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}))
	sent := frames()
	p.dev.WriteFrames(sent)
	same(t, "through the queueing discipline", fromVF.await(t, len(sent)), sent)
	h.WriteFrames(sent)
	same(t, "past the filters", p.await(t, len(sent)), sent)
	list, err := netlink.QdiscList(link)
	check(t, err)
	var kinds []string
	for _, q := range list {
		kinds = append(kinds, q.Type())
		if c, ok := q.(*netlink.Tbf); ok && c.Statistics != nil && c.Statistics.Basic != nil && c.Statistics.Basic.Packets == 0 {
			t.Error("nothing went through the queueing discipline")
		}
	}
	if slices.Sort(kinds); !slices.Equal(kinds, []string{"clsact", "tbf"}) {
		t.Errorf("the queueing disciplines are %q", kinds)
	}
}
