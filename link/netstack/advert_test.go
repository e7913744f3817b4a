package netstack

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hvnet/nic"
)

func TestRouterAdvertGolden(t *testing.T) {
	got := routerAdvert(gatewayMAC, linkLocalAddr("\x00\x15\x5d\x00\x00\x01"), gateway6, 1500)
	want := golden(t, `
		333300000001 00155d000001 86dd
		60000000 0058 3a ff fe80000000000000 02155dfffe000001 ff02000000000000 0000000000000001
		86 00 8587 40 00 0708 00000000 00000000
		01 01 00155d000001
		05 01 0000 000005dc
		03 04 40 c0 00015180 00003840 00000000 fd00005d000000000000000000000000
		19 03 0000 00000708 fd00005d000000000000000000000001`)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if long := routerAdvert(gatewayMAC, linkLocalAddr("\x00\x15\x5d\x00\x00\x01"), netip.MustParsePrefix("fd00::1/80"), 1500); long[14+40+16+8+8+3] != flagOnLink {
		t.Errorf("a /80 has flags %#x: no address can be made of it", long[14+40+16+8+8+3])
	}
}

// TestSLAAC has a host make its IPv6 address and default route from what the
// gateway advertises, when it starts and when it is asked.
func TestSLAAC(t *testing.T) {
	n := newTestNet(t, GatewayConfig{NAT: true})
	for no := range byte(2) {
		h := n.add(HostConfig{MAC: hostMAC(no), AcceptRA: true})
		addr, err := h.WaitAddr(soon(t), gateway6.Masked())
		if err != nil {
			t.Fatal(err)
		}
		if want := netip.MustParseAddr("fd00:5d::215:5dff:fe00:100").As16(); addr.As16() != [16]byte(append(want[:15:15], no)) {
			t.Errorf("host %d made itself %s", no, addr)
		}
		if _, err := h.Ping(soon(t), gateway6.Addr()); err != nil {
			t.Error(err)
		}
		routes := h.stack.GetRouteTable()
		var viaGateway bool
		for _, r := range routes {
			viaGateway = viaGateway || fromSubnet(r.Destination).Bits() == 0 && fromAddress(r.Gateway) == n.gw.router.linkLocal
		}
		if !viaGateway {
			t.Errorf("no default route by the gateway: %v", routes)
		}
	}
}

// TestSolicit sends a router solicitation as a Linux guest does.
func TestSolicit(t *testing.T) {
	gw, err := NewGateway(GatewayConfig{MAC: gatewayMAC, IPv6: gateway6})
	if err != nil {
		t.Fatal(err)
	}
	defer gw.Close()
	frame := golden(t, `333300000002 00155d000102 86dd
		60000000 0010 3a ff fe80000000000000 02155dfffe000102 ff02000000000000 0000000000000002
		85 00 0000 00000000 01 01 00155d000102`)
	gw.WriteFrames([]nic.Frame{{Head: frame}})
	reply := make([]byte, 1514)
	size, _, err := gw.wire.out.ReadFrame(reply, nil)
	if err != nil || !cmp.Equal(reply[:size], gw.advert) {
		t.Errorf("solicitation answered by %x, %v", reply[:size], err)
	}
	frame[21] = 64 // not from this link: RFC 4861 section 6.1.1
	gw.WriteFrames([]nic.Frame{{Head: frame}})
	if _, _, err := gw.wire.out.ReadFrame(reply, nil); err != nic.ErrNoFrame {
		t.Errorf("solicitation with hop limit 64 answered: %v", err)
	}
}
