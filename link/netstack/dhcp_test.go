package netstack

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/insomniacslk/dhcp/dhcpv4"

	"hvnet/nic"
)

func TestDHCP(t *testing.T) {
	n := newTestNet(t, GatewayConfig{MTU: 1400})
	a := n.add(HostConfig{MAC: hostMAC(2)})
	l, err := a.DHCP(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	if !gateway4.Masked().Contains(l.Addr.Addr()) || l.Addr.Addr().As4()[3] < 128 {
		t.Errorf("leased %s: not in the upper half of %s", l.Addr, gateway4)
	}
	want := Lease{
		Addr: l.Addr, Router: gateway4.Addr(), DNS: []netip.Addr{gateway4.Addr()},
		MTU: 1400, Server: gateway4.Addr(), Time: 24 * time.Hour,
	}
	if diff := cmp.Diff(want, l, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	if _, err := a.Ping(soon(t), gateway4.Addr()); err != nil {
		t.Error(err)
	}
	again, err := a.DHCP(soon(t))
	if err != nil || again.Addr != l.Addr {
		t.Errorf("asked again: %s, %v; had %s", again.Addr, err, l.Addr)
	}
	b := n.add(HostConfig{MAC: hostMAC(3)})
	other, err := b.DHCP(soon(t))
	if err != nil || other.Addr == l.Addr {
		t.Errorf("second host: %s, %v; the first has %s", other.Addr, err, l.Addr)
	}
}

// dhcpClient speaks to a leaseTable message by message.
type dhcpClient struct {
	t   *testing.T
	srv *leaseTable
	now time.Time
	mac nic.MAC
}

// send returns the reply as a frame, or nil.
func (c *dhcpClient) send(kind dhcpv4.MessageType, mods ...dhcpv4.Modifier) *dhcpFrame {
	c.t.Helper()
	m, err := dhcpv4.New(append([]dhcpv4.Modifier{
		dhcpv4.WithHwAddr(c.mac[:]), dhcpv4.WithMessageType(kind),
	}, mods...)...)
	if err != nil {
		c.t.Fatal(err)
	}
	f := dhcpFrame{
		srcMAC: c.mac, dstMAC: nic.Broadcast,
		src: netip.IPv4Unspecified(), dst: broadcast4,
		srcPort: dhcpClientPort, dstPort: dhcpServerPort, msg: m,
	}
	b, err := c.srv.serve(f.marshal(), c.now)
	if err != nil {
		return nil
	}
	reply, err := parseDHCPFrame(b, dhcpClientPort)
	if err != nil {
		c.t.Fatal(err)
	}
	return reply
}

func (c *dhcpClient) as(no byte) *dhcpClient {
	d := *c
	d.mac = hostMAC(no)
	return &d
}

func newDHCPClient(t *testing.T, prefix string) *dhcpClient {
	return &dhcpClient{
		t: t, srv: newLeaseTable(gatewayMAC, netip.MustParsePrefix(prefix), 1500),
		now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), mac: hostMAC(1),
	}
}

func wanting(a netip.Addr) dhcpv4.Modifier {
	return dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(a.AsSlice()))
}

// TestDHCPReplyAddress follows RFC 2131 section 4.1.
func TestDHCPReplyAddress(t *testing.T) {
	c := newDHCPClient(t, "198.18.0.1/24")
	offer := c.send(dhcpv4.MessageTypeDiscover)
	addr := addrOf(offer.msg.YourIPAddr.To4())
	if offer.dstMAC != c.mac || offer.dst != addr || offer.srcMAC != gatewayMAC || offer.src != gateway4.Addr() {
		t.Errorf("offer to a client that takes unicast: from %s %s to %s %s", offer.srcMAC, offer.src, offer.dstMAC, offer.dst)
	}
	offer = c.send(dhcpv4.MessageTypeDiscover, dhcpv4.WithBroadcast(true))
	if offer.dstMAC != nic.Broadcast || offer.dst != broadcast4 {
		t.Errorf("offer to a client that asks for broadcast: to %s %s", offer.dstMAC, offer.dst)
	}
	ack := c.send(dhcpv4.MessageTypeRequest, dhcpv4.WithClientIP(addr.AsSlice()))
	if ack.msg.MessageType() != dhcpv4.MessageTypeAck || ack.dst != addr || ack.dstMAC != c.mac {
		t.Errorf("renewal: %s to %s %s", ack.msg.MessageType(), ack.dstMAC, ack.dst)
	}
	nak := c.send(dhcpv4.MessageTypeRequest, wanting(netip.MustParseAddr("10.0.0.1")))
	if nak.msg.MessageType() != dhcpv4.MessageTypeNak || nak.dst != broadcast4 || nak.dstMAC != nic.Broadcast || !nak.msg.YourIPAddr.IsUnspecified() {
		t.Errorf("address of another network: %s to %s %s", nak.msg.MessageType(), nak.dstMAC, nak.dst)
	}
	inform := c.send(dhcpv4.MessageTypeInform, dhcpv4.WithClientIP(net.IP{198, 18, 0, 9}))
	if inform.msg.MessageType() != dhcpv4.MessageTypeAck || inform.dst != netip.MustParseAddr("198.18.0.9") ||
		inform.msg.Options.Has(dhcpv4.OptionIPAddressLeaseTime) || !inform.msg.YourIPAddr.IsUnspecified() {
		t.Errorf("inform: %s", inform.msg.Summary())
	}
}

func TestDHCPLeases(t *testing.T) {
	c := newDHCPClient(t, "198.18.0.1/29") // .2 to .6
	taken := map[netip.Addr]byte{}
	for no := range byte(5) {
		d := c.as(no)
		offer := d.send(dhcpv4.MessageTypeDiscover)
		addr := addrOf(offer.msg.YourIPAddr.To4())
		if who, dup := taken[addr]; dup || !gateway4.Contains(addr) {
			t.Fatalf("client %d is offered %s, which client %d has", no, addr, who)
		}
		taken[addr] = no
		ack := d.send(dhcpv4.MessageTypeRequest, wanting(addr), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IP{198, 18, 0, 1})))
		if ack.msg.MessageType() != dhcpv4.MessageTypeAck || addrOf(ack.msg.YourIPAddr.To4()) != addr {
			t.Fatalf("client %d: %s", no, ack.msg.Summary())
		}
	}
	late := c.as(9)
	if r := late.send(dhcpv4.MessageTypeDiscover); r != nil {
		t.Errorf("the pool is empty: %s", r.msg.Summary())
	}
	if r := late.send(dhcpv4.MessageTypeRequest, wanting(host4(2))); r.msg.MessageType() != dhcpv4.MessageTypeNak {
		t.Errorf("request for another's address: %s", r.msg.Summary())
	}
	// A client that goes makes room, the one that left first first.
	c.as(3).send(dhcpv4.MessageTypeRelease)
	late.now = late.now.Add(time.Second)
	offer := late.send(dhcpv4.MessageTypeDiscover)
	if offer == nil || taken[addrOf(offer.msg.YourIPAddr.To4())] != 3 {
		t.Fatalf("after a release: %v", offer)
	}
	// A client that took another server's offer does not hold the address.
	late.send(dhcpv4.MessageTypeRequest, wanting(host4(2)), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IP{10, 0, 0, 1})))
	if r := c.as(3).send(dhcpv4.MessageTypeDiscover); r == nil || taken[addrOf(r.msg.YourIPAddr.To4())] != 3 {
		t.Errorf("the first owner is back: %v", r)
	}
	// A day later all leases have expired.
	c.now = c.now.Add(25 * time.Hour)
	if r := c.as(10).send(dhcpv4.MessageTypeDiscover); r == nil {
		t.Error("no offer though all leases expired")
	}
}

func TestDHCPDecline(t *testing.T) {
	c := newDHCPClient(t, "198.18.0.1/24")
	first := addrOf(c.send(dhcpv4.MessageTypeDiscover).msg.YourIPAddr.To4())
	if r := c.send(dhcpv4.MessageTypeDecline, wanting(first)); r != nil {
		t.Errorf("decline answered: %s", r.msg.Summary())
	}
	second := addrOf(c.send(dhcpv4.MessageTypeDiscover, wanting(first)).msg.YourIPAddr.To4())
	if second == first {
		t.Errorf("offered %s again, which the client found taken", first)
	}
	if r := c.send(dhcpv4.MessageTypeDiscover, dhcpv4.WithRelay(net.IP{10, 0, 0, 1})); r != nil {
		t.Errorf("relay answered: %s", r.msg.Summary())
	}
	// After a restart of the gateway clients ask for what they had.
	fresh := newDHCPClient(t, "198.18.0.1/24")
	if r := fresh.send(dhcpv4.MessageTypeRequest, wanting(second)); r.msg.MessageType() != dhcpv4.MessageTypeAck {
		t.Errorf("request for the former address: %s", r.msg.Summary())
	}
}

// TestLeaseClientRetries loses what the client sends, and cancels.
func TestLeaseClientRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := newLeaseTable(gatewayMAC, gateway4, 1500)
		var c *LeaseClient
		sent, start := 0, time.Now()
		c = NewLeaseClient(fixed(hostMAC(2)), sinkFunc(func(frames []nic.Frame) {
			sent++
			if sent == 1 || sent == 2 || sent == 4 {
				return // lost
			}
			reply, err := srv.serve(frames[0].Head, time.Now())
			if err != nil {
				t.Error(err)
			}
			c.WriteFrames([]nic.Frame{{Head: []byte{1}}, {Head: reply[:64], Body: [][]byte{reply[64:]}}})
		}))
		l, err := c.Obtain(t.Context())
		if err != nil || !gateway4.Contains(l.Addr.Addr()) || sent != 5 {
			t.Errorf("%+v, %v after %d messages", l, err, sent)
		}
		if took, want := time.Since(start), firstRetry+2*firstRetry+firstRetry; took != want {
			t.Errorf("took %v, want %v", took, want)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		c := NewLeaseClient(fixed(hostMAC(2)), sinkFunc(func([]nic.Frame) {}))
		if _, err := c.Obtain(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("nobody answers: %v", err)
		}
	})
}

func fixed(mac nic.MAC) func() nic.MAC { return func() nic.MAC { return mac } }

// TestLeaseClientMoves gives the interface another MAC while its client asks, and
// when it asks again. The host takes frames from the present one alone.
func TestLeaseClientMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := newLeaseTable(gatewayMAC, gateway4, 1500)
		mac, sent := hostMAC(2), 0
		var c *LeaseClient
		c = NewLeaseClient(func() nic.MAC { return mac }, sinkFunc(func(frames []nic.Frame) {
			if sent++; sent == 2 { // the request: the offer is for nobody now
				mac = hostMAC(3)
			}
			if frames[0].Src() != mac {
				return
			}
			reply, err := srv.serve(frames[0].Head, time.Now())
			if err != nil {
				t.Error(err)
			}
			c.WriteFrames([]nic.Frame{{Head: reply}})
		}))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for i, want := range []int{2 + 2, 2 + 2 + 2} {
			l, err := c.Obtain(ctx)
			if err != nil || sent != want {
				t.Errorf("%+v, %v after %d messages", l, err, sent)
			}
			mac = hostMAC(byte(4 + i))
		}
	})
}

type sinkFunc func([]nic.Frame)

func (f sinkFunc) WriteFrames(frames []nic.Frame) { f(frames) }

// TestDHCPFrameGolden builds a discover message byte by byte.
func TestDHCPFrameGolden(t *testing.T) {
	m, err := dhcpv4.New(dhcpv4.WithHwAddr(net.HardwareAddr{0, 0x15, 0x5d, 0, 1, 2}),
		dhcpv4.WithTransactionID(dhcpv4.TransactionID{1, 2, 3, 4}), dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover))
	if err != nil {
		t.Fatal(err)
	}
	f := dhcpFrame{
		srcMAC: hostMAC(2), dstMAC: nic.Broadcast, src: netip.IPv4Unspecified(), dst: broadcast4,
		srcPort: dhcpClientPort, dstPort: dhcpServerPort, msg: m,
	}
	b := f.marshal()
	head := golden(t, `ffffffffffff 00155d000102 0800
		45000148 00000000 401179a6 00000000 ffffffff
		0044 0043 0134 a5fb
		01010600 01020304 00000000 00000000 00000000 00000000 00000000 00155d000102`)
	if diff := cmp.Diff(head, b[:len(head)]); diff != "" {
		t.Errorf("head: %s", diff)
	}
	// Options after 236 bytes: magic cookie, message type, end, padding.
	options := b[14+20+8+236:]
	if diff := cmp.Diff(golden(t, "63825363 350101 ff"), options[:8]); diff != "" {
		t.Errorf("options: %s", diff)
	}
	back, err := parseDHCPFrame(b, dhcpServerPort)
	if err != nil {
		t.Fatal(err)
	}
	if back.srcMAC != f.srcMAC || back.dstMAC != f.dstMAC || back.src != f.src || back.dst != f.dst || back.msg.TransactionID != m.TransactionID {
		t.Errorf("read back: %+v", back)
	}
	for name, i := range map[string]int{"IPv4 checksum": 24, "UDP checksum": 40, "payload": 60, "UDP length": 38, "protocol": 23, "type": 12} {
		bad := append([]byte(nil), b...)
		bad[i] ^= 0xff
		if _, err := parseDHCPFrame(bad, dhcpServerPort); !errors.Is(err, errNotDHCP) {
			t.Errorf("%s changed: %v", name, err)
		}
	}
}

// FuzzDHCP gives server and client any message in an intact frame.
func FuzzDHCP(f *testing.F) {
	m, err := dhcpv4.NewDiscovery(net.HardwareAddr{0, 0x15, 0x5d, 0, 1, 2})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(m.ToBytes())
	m, err = dhcpv4.New(dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), wanting(host4(200)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(m.ToBytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1400 {
			return
		}
		frame := dhcpFrame{
			srcMAC: hostMAC(2), dstMAC: nic.Broadcast, src: netip.IPv4Unspecified(), dst: broadcast4,
			srcPort: dhcpClientPort, dstPort: dhcpServerPort,
		}
		srv := newLeaseTable(gatewayMAC, gateway4, 1500)
		reply, err := srv.serve(frame.wrap(b), time.Now())
		if err == nil {
			if _, err := parseDHCPFrame(reply, dhcpClientPort); err != nil {
				t.Fatalf("request %x: reply %x: %v", b, reply, err)
			}
		}
		frame.dstPort = dhcpClientPort
		c := NewLeaseClient(fixed(hostMAC(2)), sinkFunc(func([]nic.Frame) {}))
		c.WriteFrames([]nic.Frame{{Head: frame.wrap(b)}})
		if m, err := dhcpv4.FromBytes(b); err == nil {
			leaseOf(m)
		}
	})
}
