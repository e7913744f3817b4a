package netstack

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"hvnet/nic"
)

// A Lease is what a DHCPv4 server gave.
type Lease struct {
	// Addr is the address with the length of its subnet's prefix.
	Addr netip.Prefix
	// Router is the default gateway; not valid if there is none.
	Router netip.Addr
	// DNS are the name servers.
	DNS []netip.Addr
	// MTU in bytes; 0 if the server does not say.
	MTU int
	// Server is the server's identifier.
	Server netip.Addr
	// Time is how long the lease is good for, from when it was obtained.
	Time time.Duration
}

// ErrRefused is returned when a DHCP server refuses the address that it offered.
var ErrRefused = errors.New("the DHCP server refused the address")

// A LeaseClient is a DHCPv4 client (RFC 2131) for an interface that may have no
// address yet: it speaks in Ethernet frames. It is a nic.Sink for what the interface
// received; frames that are not for it are ignored, so it can be given all.
type LeaseClient struct {
	mac     func() nic.MAC
	out     nic.Sink
	replies chan *dhcpv4.DHCPv4
}

// NewLeaseClient returns a client for the interface whose MAC is what mac returns, now
// and whenever it has changed, that sends its frames to out.
func NewLeaseClient(mac func() nic.MAC, out nic.Sink) *LeaseClient {
	return &LeaseClient{mac: mac, out: out, replies: make(chan *dhcpv4.DHCPv4, 16)}
}

// WriteFrames takes frames that the interface received. Nothing of them is kept.
func (c *LeaseClient) WriteFrames(frames []nic.Frame) {
	for i := range frames {
		f := &frames[i]
		if !maybeDHCP(f.Head) {
			continue
		}
		b := make([]byte, f.Len())
		f.CopyTo(b)
		reply, err := parseDHCPFrame(b, dhcpClientPort)
		if err != nil {
			continue
		}
		select {
		case c.replies <- reply.msg:
		default: // nobody asked for that many
		}
	}
}

// maybeDHCP tells, without parsing, most frames that are not for a DHCP client.
func maybeDHCP(head []byte) bool {
	const udpDst = nic.HeaderLen + 20 + 2
	return len(head) >= udpDst+2 && head[12] == 8 && head[13] == 0 && head[nic.HeaderLen+9] == 17 &&
		// Options move the ports; those of DHCP servers have none, but let the parser say.
		(head[nic.HeaderLen] != 0x45 || binary.BigEndian.Uint16(head[udpDst:]) == dhcpClientPort)
}

// firstRetry is the wait before the first repetition; it doubles up to maxRetry
// (RFC 2131 section 4.1, which starts at 4 s, because Ethernets of its day were
// slow; a virtual switch is not).
const (
	firstRetry = 500 * time.Millisecond
	maxRetry   = 8 * time.Second
)

// errMoved says that the interface has another MAC than at first.
var errMoved = errors.New("the interface has another MAC now")

// Obtain asks for a lease until it has one or ctx ends.
func (c *LeaseClient) Obtain(ctx context.Context) (Lease, error) {
	for {
		lease, err := c.try(ctx, c.mac())
		if !errors.Is(err, ErrRefused) && !errors.Is(err, errMoved) {
			return lease, err
		}
	}
}

// try goes once through discover, offer, request and acknowledgement.
func (c *LeaseClient) try(ctx context.Context, mac nic.MAC) (Lease, error) {
	discover, err := dhcpv4.NewDiscovery(net.HardwareAddr(mac[:]), dhcpv4.WithRequestedOptions(
		dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer, dhcpv4.OptionInterfaceMTU))
	if err != nil {
		return Lease{}, fmt.Errorf("make a DHCP discover message: %w", err)
	}
	offer, err := c.exchange(ctx, mac, discover, dhcpv4.MessageTypeOffer)
	if err != nil {
		return Lease{}, fmt.Errorf("wait for a DHCP offer: %w", err)
	}
	request, err := dhcpv4.NewRequestFromOffer(offer)
	if err != nil {
		return Lease{}, fmt.Errorf("make a DHCP request: %w", err)
	}
	ack, err := c.exchange(ctx, mac, request, dhcpv4.MessageTypeAck, dhcpv4.MessageTypeNak)
	if err != nil {
		return Lease{}, fmt.Errorf("wait for the DHCP acknowledgement: %w", err)
	}
	if ack.MessageType() == dhcpv4.MessageTypeNak {
		return Lease{}, ErrRefused
	}
	return leaseOf(ack)
}

// exchange sends m, again and again, until a reply of one of the kinds comes. The error
// is errMoved when the host would not take it any more.
func (c *LeaseClient) exchange(ctx context.Context, mac nic.MAC, m *dhcpv4.DHCPv4, kinds ...dhcpv4.MessageType) (*dhcpv4.DHCPv4, error) {
	f := dhcpFrame{
		srcMAC: mac, dstMAC: nic.Broadcast,
		src: netip.IPv4Unspecified(), dst: broadcast4,
		srcPort: dhcpClientPort, dstPort: dhcpServerPort,
		msg: m,
	}
	frame := f.marshal()
	wait := firstRetry
	for {
		c.out.WriteFrames([]nic.Frame{{Head: frame}})
		t := time.NewTimer(wait)
		reply, err := c.await(ctx, t.C, m, kinds)
		t.Stop()
		if reply != nil || err != nil {
			return reply, err
		}
		if c.mac() != mac {
			return nil, errMoved
		}
		wait = min(2*wait, maxRetry)
	}
}

// await returns the reply, or nil when it is time to send again.
func (c *LeaseClient) await(ctx context.Context, again <-chan time.Time, asked *dhcpv4.DHCPv4, kinds []dhcpv4.MessageType) (*dhcpv4.DHCPv4, error) {
	for {
		select {
		case m := <-c.replies:
			if m.OpCode != dhcpv4.OpcodeBootReply || m.TransactionID != asked.TransactionID || !bytes.Equal(m.ClientHWAddr, asked.ClientHWAddr) {
				continue
			}
			for _, k := range kinds {
				if m.MessageType() == k {
					return m, nil
				}
			}
		case <-again:
			return nil, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// leaseOf reads the lease from an acknowledgement.
func leaseOf(m *dhcpv4.DHCPv4) (Lease, error) {
	addr := addrOf(m.YourIPAddr.To4())
	ones, bits := m.SubnetMask().Size()
	if !addr.IsValid() || addr.IsUnspecified() || addr.IsMulticast() || addr.IsLoopback() || bits != 32 || ones == 0 {
		return Lease{}, fmt.Errorf("read a DHCP acknowledgement: address %v with mask %v", m.YourIPAddr, m.SubnetMask())
	}
	l := Lease{
		Addr:   netip.PrefixFrom(addr, ones),
		Server: addrOf(m.ServerIdentifier().To4()),
		Time:   m.IPAddressLeaseTime(0),
	}
	if r := m.Router(); len(r) > 0 {
		l.Router = addrOf(r[0].To4())
	}
	for _, a := range m.DNS() {
		if a := addrOf(a.To4()); a.IsValid() {
			l.DNS = append(l.DNS, a)
		}
	}
	// RFC 2132 section 5.1: the least legal value is 68.
	if b := m.Options.Get(dhcpv4.OptionInterfaceMTU); len(b) == 2 {
		if mtu := int(binary.BigEndian.Uint16(b)); mtu >= 68 {
			l.MTU = mtu
		}
	}
	return l, nil
}
