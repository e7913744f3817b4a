package netvsp

import (
	"hvnet/nic"
	"hvnet/nvsp"
	"hvnet/offload"
	"hvnet/rndis"
)

// hardwareOffload says what the device can do for frames. The guest names the
// revision of the structure that it knows; without a name it gets the newest.
func hardwareOffload(a *adapter, in []byte) ([]byte, rndis.Status) {
	revision := 3
	if h, err := rndis.ParseObjectHeader(in); err == nil && h.Type == rndis.ObjectOffload && h.Revision > 0 {
		revision = min(revision, int(h.Revision))
	}
	return a.ctl.profile.Offload.Append(nil, revision), rndis.StatusSuccess
}

// setOffload takes what the guest wants to use. Drivers ask for checksum "both"
// without looking at what is offered, and then do not use it, so only what no host
// has is refused. What is offered may be sent without asking; only what the guest
// is told of received frames waits for this.
func setOffload(a *adapter, in []byte) (change, rndis.Status) {
	p, err := rndis.ParseOffloadParameters(in)
	if err != nil {
		return 0, rndis.StatusInvalidData
	}
	if p.LSOv1 == rndis.OffloadOn || p.IPsecV1 > rndis.OffloadOff {
		return 0, rndis.StatusNotSupported
	}
	for _, c := range [...]rndis.OffloadChoice{p.IPv4, p.TCPv4, p.UDPv4, p.TCPv6, p.UDPv6} {
		if c > rndis.ChecksumBoth {
			return 0, rndis.StatusInvalidData
		}
	}
	for _, c := range [...]rndis.OffloadChoice{p.LSOv4, p.LSOv6, p.RSCv4, p.RSCv6} {
		if c > rndis.OffloadOn {
			return 0, rndis.StatusInvalidData
		}
	}
	v4, v6 := &a.ctl.profile.Offload.IPv4, &a.ctl.profile.Offload.IPv6
	for _, c := range [...]struct {
		choice  rndis.OffloadChoice
		offered uint32
		bit     rxSums
	}{
		{p.IPv4, v4.Rx & rndis.ChecksumIPHeader, rxIPv4},
		{p.TCPv4, v4.Rx & rndis.ChecksumTCP, rxTCPv4},
		{p.UDPv4, v4.Rx & rndis.ChecksumUDP, rxUDPv4},
		{p.TCPv6, v6.Rx & rndis.ChecksumTCP, rxTCPv6},
		{p.UDPv6, v6.Rx & rndis.ChecksumUDP, rxUDPv6},
	} {
		switch c.choice {
		case rndis.ChecksumOff, rndis.ChecksumTx:
			a.sums &^= c.bit
		case rndis.ChecksumRx, rndis.ChecksumBoth:
			if c.offered != 0 {
				a.sums |= c.bit
			}
		}
	}
	for _, c := range [...]struct {
		choice  rndis.OffloadChoice
		offered uint8
		bit     nic.Offloads
	}{{p.RSCv4, a.ctl.profile.Offload.RSCv4, nic.TakesTCPv4}, {p.RSCv6, a.ctl.profile.Offload.RSCv6, nic.TakesTCPv6}} {
		switch {
		case c.choice == rndis.OffloadOff:
			a.coalesced &^= c.bit
		case c.choice == rndis.OffloadOn && c.offered != 0 && a.ctl.config.Capabilities&nvsp.CapRSC != 0:
			a.coalesced |= c.bit
		}
	}
	return changedOffload, rndis.StatusSuccess
}

// coalescing is what a guest may take as coalesced packets.
const coalescing = nic.TakesTCPv4 | nic.TakesTCPv6

// takes makes the way of frames to the guest anew, which cuts what the guest does
// not coalesce. The caller holds mu, or is alone.
func (s *session) takes() {
	in := offload.NewSinkFor(steered{s}, s.rndis.coalesced)
	in.Malformed = &s.d.lost.rxDropped[DropOffload]
	s.in.Store(in)
}

// steered is the sink behind that.
type steered struct{ s *session }

// WriteFrames spreads frames over the guest's channels.
func (g steered) WriteFrames(frames []nic.Frame) { g.s.deliver(frames) }

// rxSums is a set of checksums that the guest wants to be told of.
type rxSums uint32

const (
	rxIPv4 rxSums = 1 << iota
	rxTCPv4
	rxUDPv4
	rxTCPv6
	rxUDPv6
)

// verify returns what the guest is told of a frame's checksums, 0 if nothing. What
// is not known of the frame is looked at.
func (want rxSums) verify(f *nic.Frame, n int) (sum rndis.RxChecksum) {
	at, ipv6 := offload.NetworkHeader(f.Head)
	if at == 0 {
		return 0
	}
	if !ipv6 && want&rxIPv4 != 0 {
		sum = rndis.RxIPFailed
		if offload.VerifyIPv4(f.Head[at:]) {
			sum = rndis.RxIPOK
		}
	}
	l, ok := offload.Parse(f.Head, n)
	if !ok {
		return sum
	}
	bit, good, bad := rxTCPv4, rndis.RxTCPOK, rndis.RxTCPFailed
	if l.UDP() {
		bit, good, bad = rxUDPv4, rndis.RxUDPOK, rndis.RxUDPFailed
	}
	if l.IPv6 {
		bit <<= 2
	}
	if want&bit == 0 {
		return sum
	}
	state := f.Offload.Checksum
	if state == nic.ChecksumUnknown {
		state = l.Verify(f)
	}
	switch state {
	case nic.ChecksumOK:
		sum |= good
	case nic.ChecksumBad:
		sum |= bad
	}
	return sum
}

// asked makes metadata of what the guest asks for a frame that is complete but for
// that. An error means that the message is to be refused: what it asks for was not
// offered, or is not what is in the frame. moved is by how much the frame is longer
// than the guest's, because of a tag.
func asked(f *nic.Frame, in *rndis.Info, offered *rndis.HardwareOffload, moved int) error {
	if in.Has&rndis.HasLargeSend != 0 {
		return askedLarge(f, in.LargeSend, offered, moved)
	}
	sum := rndis.TxChecksum(in.Checksum)
	if sum&rndis.TxIPHeader != 0 {
		at, ipv6 := offload.NetworkHeader(f.Head)
		if at == 0 || ipv6 || offered.IPv4.Tx&rndis.ChecksumIPHeader == 0 {
			return errOffload
		}
		offload.SumIPv4(f.Head[at:])
	}
	if sum&(rndis.TxTCP|rndis.TxUDP) == 0 {
		return nil
	}
	l, ok := offload.Parse(f.Head, f.Len())
	if !ok {
		return errOffload
	}
	caps, version := offered.IPv4.Tx, rndis.TxIPv4
	if l.IPv6 {
		caps, version = offered.IPv6.Tx, rndis.TxIPv6
	}
	proto, need := rndis.TxTCP, uint32(rndis.ChecksumTCP)
	if l.UDP() {
		proto, need = rndis.TxUDP, rndis.ChecksumUDP
	}
	if sum&proto == 0 || sum&(rndis.TxIPv4|rndis.TxIPv6) != version || caps&need == 0 ||
		sum.Header() != 0 && sum.Header()+moved != l.Transport {
		return errOffload
	}
	// The sum goes to the end of the frame, so there must be no padding.
	truncate(f, l.End)
	f.Offload = nic.Offload{Checksum: nic.ChecksumPartial, Start: uint16(l.Transport), Field: l.Field()}
	return nil
}

// askedLarge is asked for a large send. Lengths, IPv4 checksum and the sum of the
// pseudo header are the host's to fill in; only the head, which is private, changes.
func askedLarge(f *nic.Frame, large rndis.LargeSend, offered *rndis.HardwareOffload, moved int) error {
	n := f.Len()
	if !large.V2() || large.MSS() < offload.MinSegment || !offload.SetLengths(f.Head, n) {
		return errOffload
	}
	l, ok := offload.Parse(f.Head, n)
	if !ok || !l.TCP() || l.End != n || l.IPv6 != large.IPv6() || l.Transport != large.Header()+moved {
		return errOffload
	}
	limit, kind := offered.LSOv4, nic.SegmentTCPv4
	if l.IPv6 {
		limit, kind = offered.LSOv6, nic.SegmentTCPv6
	}
	payload := l.End - l.Payload
	if limit.Encap&rndis.EncapEthernet == 0 || payload > int(limit.MaxBytes) {
		return errOffload
	}
	l.Partial(f)
	if payload > large.MSS() {
		f.Offload.Segment, f.Offload.Size = kind, uint16(large.MSS())
	}
	return nil
}

// spoil leaves the checksum of a UDP packet as the guest has left it, if the packet is
// one of those that hosts with this fault get wrong; see profile.Profile.SpoiledUDP.
func spoil(f *nic.Frame, longest int) {
	const dontFragment, udp = 0x40, 17
	at, ipv6 := offload.NetworkHeader(f.Head)
	if at > 0 && !ipv6 && f.Head[at+9] == udp && f.Head[at+6]&dontFragment == 0 && f.Len()-at > longest {
		f.Offload = nic.Offload{}
	}
}

// truncate cuts a frame off after n bytes.
func truncate(f *nic.Frame, n int) {
	f.Head = f.Head[:min(n, len(f.Head))]
	n -= len(f.Head)
	for i, b := range f.Body {
		if n == 0 {
			f.Body = f.Body[:i]
			return
		}
		f.Body[i] = b[:min(n, len(b))]
		n -= len(f.Body[i])
	}
}

// wireLen returns the length of the longest frame that a frame becomes, of n bytes
// itself.
func wireLen(f *nic.Frame, n int) int {
	if f.Offload.Segment == nic.SegmentNone {
		return n
	}
	transport := int(f.Offload.Start)
	return transport + int(f.Head[transport+12]>>4)*4 + int(f.Offload.Size)
}
