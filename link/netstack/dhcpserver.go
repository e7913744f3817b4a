package netstack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"hvnet/nic"
)

const (
	leaseTime = 24 * time.Hour
	offerTime = time.Minute // an offer that nobody took up is free again
	maxPool   = 4096        // addresses leased, whatever the prefix has
)

// leaseTable is a DHCPv4 server (RFC 2131) without sockets: frame in, frame out. An
// address belongs to a MAC as long as the table lives, unless the pool runs out and
// its lease has expired.
type leaseTable struct {
	mac    nic.MAC
	prefix netip.Prefix // with the server's own address, which is router and DNS too
	mtu    int
	first  uint32 // the pool
	size   uint32

	mu     sync.Mutex
	byMAC  map[nic.MAC]*leaseEntry
	byAddr map[netip.Addr]*leaseEntry
}

type leaseEntry struct {
	mac     nic.MAC // zero: declined, somebody else uses it
	addr    netip.Addr
	expires time.Time
}

// newLeaseTable returns a server for the prefix. Where there are enough addresses
// it leases the upper half and leaves the lower to those who configure theirs.
func newLeaseTable(mac nic.MAC, prefix netip.Prefix, mtu int) *leaseTable {
	t := &leaseTable{
		mac: mac, prefix: prefix, mtu: mtu,
		byMAC:  make(map[nic.MAC]*leaseEntry),
		byAddr: make(map[netip.Addr]*leaseEntry),
	}
	network := prefix.Masked().Addr().As4()
	total := uint32(1) << (32 - prefix.Bits())
	skip := uint32(1) // the network's own address
	if total >= 128 {
		skip = total / 2
	}
	t.first = binary.BigEndian.Uint32(network[:]) + skip
	t.size = min(total-skip-1, maxPool) // the last is the broadcast address
	return t
}

var (
	errPoolEmpty = errors.New("no address left to lease")
	errNotForUs  = errors.New("for another server, or nothing to answer")
)

// serve answers one frame. An error says why there is no answer.
func (t *leaseTable) serve(frame []byte, now time.Time) ([]byte, error) {
	f, err := parseDHCPFrame(frame, dhcpServerPort)
	if err != nil {
		return nil, err
	}
	req := f.msg
	if req.OpCode != dhcpv4.OpcodeBootRequest || len(req.ClientHWAddr) != 6 || !req.GatewayIPAddr.IsUnspecified() {
		return nil, errNotForUs
	}
	client := nic.MAC(req.ClientHWAddr)
	if client.IsZero() || client.Multicast() {
		return nil, errNotForUs
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if id := addrOf(req.ServerIdentifier().To4()); id.IsValid() && id != t.prefix.Addr() {
		t.forgetOffer(client)
		return nil, errNotForUs
	}
	switch req.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		e, err := t.reserve(client, requested(req), now)
		if err != nil {
			return nil, err
		}
		if e.expires.Before(now.Add(offerTime)) {
			e.expires = now.Add(offerTime)
		}
		return t.reply(f, dhcpv4.MessageTypeOffer, e.addr)
	case dhcpv4.MessageTypeRequest:
		want := requested(req)
		if !want.IsValid() {
			want = addrOf(req.ClientIPAddr.To4()) // renewing
		}
		e, err := t.reserve(client, want, now)
		if err != nil || (want.IsValid() && e.addr != want) {
			return t.reply(f, dhcpv4.MessageTypeNak, netip.Addr{})
		}
		e.expires = now.Add(leaseTime)
		return t.reply(f, dhcpv4.MessageTypeAck, e.addr)
	case dhcpv4.MessageTypeDecline:
		t.decline(client, requested(req), now)
	case dhcpv4.MessageTypeRelease:
		if e := t.byMAC[client]; e != nil {
			e.expires = now // kept for its owner until somebody needs it
		}
	case dhcpv4.MessageTypeInform:
		return t.reply(f, dhcpv4.MessageTypeAck, netip.Addr{})
	}
	return nil, errNotForUs
}

// requested returns the address that the client asks for by option 50.
func requested(m *dhcpv4.DHCPv4) netip.Addr {
	a := addrOf(m.RequestedIPAddress().To4())
	if a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}

// reserve returns the client's entry, made if need be: the wanted address if it is
// free, else one that depends on the MAC, so that it is likely the same again after
// a restart.
func (t *leaseTable) reserve(client nic.MAC, want netip.Addr, now time.Time) (*leaseEntry, error) {
	if e := t.byMAC[client]; e != nil {
		return e, nil
	}
	if want.IsValid() && t.inPool(want) && t.byAddr[want] == nil {
		return t.insert(client, want), nil
	}
	h := fnv.New32a()
	h.Write(client[:])
	start := h.Sum32() % t.size
	var oldest *leaseEntry
	for i := range t.size {
		addr := t.at((start + i) % t.size)
		if addr == t.prefix.Addr() {
			continue
		}
		e := t.byAddr[addr]
		if e == nil {
			return t.insert(client, addr), nil
		}
		if !e.expires.After(now) && (oldest == nil || e.expires.Before(oldest.expires)) {
			oldest = e
		}
	}
	if oldest == nil {
		return nil, errPoolEmpty
	}
	delete(t.byMAC, oldest.mac)
	return t.insert(client, oldest.addr), nil
}

func (t *leaseTable) insert(client nic.MAC, addr netip.Addr) *leaseEntry {
	e := &leaseEntry{mac: client, addr: addr}
	t.byMAC[client], t.byAddr[addr] = e, e
	return e
}

// forgetOffer frees what was offered to a client that chose another server.
func (t *leaseTable) forgetOffer(client nic.MAC) {
	if e := t.byMAC[client]; e != nil {
		e.expires = time.Time{}
	}
}

// decline takes an address out of use that the client found taken.
func (t *leaseTable) decline(client nic.MAC, addr netip.Addr, now time.Time) {
	e := t.byMAC[client]
	if e == nil || e.addr != addr {
		return
	}
	delete(t.byMAC, client)
	e.mac, e.expires = nic.MAC{}, now.Add(leaseTime)
}

func (t *leaseTable) at(i uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], t.first+i)
	return netip.AddrFrom4(b)
}

func (t *leaseTable) inPool(a netip.Addr) bool {
	if !a.Is4() || a == t.prefix.Addr() {
		return false
	}
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])-t.first < t.size
}

// reply makes the answer to f. It goes where RFC 2131 section 4.1 says: to the
// address that the client has, or to everybody if it asks for that, or to the MAC
// with the address that it is about to have.
func (t *leaseTable) reply(f *dhcpFrame, kind dhcpv4.MessageType, addr netip.Addr) ([]byte, error) {
	self := t.prefix.Addr()
	mods := []dhcpv4.Modifier{
		dhcpv4.WithMessageType(kind),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(self.AsSlice())),
	}
	if kind != dhcpv4.MessageTypeNak {
		var mtu [2]byte
		binary.BigEndian.PutUint16(mtu[:], uint16(t.mtu))
		mods = append(mods,
			dhcpv4.WithServerIP(self.AsSlice()),
			dhcpv4.WithNetmask(net.CIDRMask(t.prefix.Bits(), 32)),
			dhcpv4.WithOption(dhcpv4.OptBroadcastAddress(lastAddr(t.prefix).AsSlice())),
			dhcpv4.WithOption(dhcpv4.OptRouter(self.AsSlice())),
			dhcpv4.WithOption(dhcpv4.OptDNS(self.AsSlice())),
			dhcpv4.WithGeneric(dhcpv4.OptionInterfaceMTU, mtu[:]),
		)
	}
	if addr.IsValid() {
		mods = append(mods,
			dhcpv4.WithYourIP(addr.AsSlice()),
			dhcpv4.WithOption(dhcpv4.OptIPAddressLeaseTime(leaseTime)),
		)
	}
	m, err := dhcpv4.NewReplyFromRequest(f.msg, mods...)
	if err != nil {
		return nil, fmt.Errorf("make a DHCP reply: %w", err)
	}
	out := dhcpFrame{
		srcMAC: t.mac, dstMAC: nic.MAC(f.msg.ClientHWAddr),
		src: self, dst: addr,
		srcPort: dhcpServerPort, dstPort: dhcpClientPort,
		msg: m,
	}
	switch current := addrOf(f.msg.ClientIPAddr.To4()); {
	case kind == dhcpv4.MessageTypeNak:
		out.dst, out.dstMAC = broadcast4, nic.Broadcast
	case current.IsValid() && !current.IsUnspecified():
		out.dst = current
	case f.msg.IsBroadcast() || !addr.IsValid():
		out.dst, out.dstMAC = broadcast4, nic.Broadcast
	}
	return out.marshal(), nil
}
