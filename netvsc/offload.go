package netvsc

import (
	"hvnet/counter"
	"hvnet/nic"
	"hvnet/offload"
	"hvnet/rndis"
)

// offloads is what the host does for frames that are sent. What it does not do, or
// not for a particular frame, the driver does: a source may leave to it whatever it
// likes.
type offloads struct {
	tcp4, tcp6, udp4, udp6 bool // checksums
	lso4, lso6             largeSend
}

// largeSend is what the host cuts into segments: frames of at most max bytes, 0 for
// none, and of no fewer segments than min.
type largeSend struct{ max, min int }

// The bits that a host must have for an offload to be of use: a stack sends TCP
// options as it likes.
const (
	needTCPv4 = rndis.ChecksumTCP | rndis.ChecksumTCPOptions
	needTCPv6 = needTCPv4 | rndis.ChecksumIPOptions
	needLSOv6 = rndis.LSO6Extensions | rndis.LSO6TCPOptions
)

// newOffloads reads what the host offers, as hv_netvsc does: UDP counts only with
// TCP, and large sends only with the checksum that they imply.
func newOffloads(h *rndis.HardwareOffload) (o offloads) {
	o.tcp4 = h.IPv4.Tx&needTCPv4 == needTCPv4
	o.tcp6 = h.IPv6.Tx&needTCPv6 == needTCPv6
	o.udp4 = o.tcp4 && h.IPv4.Tx&rndis.ChecksumUDP != 0
	o.udp6 = o.tcp6 && h.IPv6.Tx&rndis.ChecksumUDP != 0
	if o.tcp4 && h.LSOv4.Encap&rndis.EncapEthernet != 0 {
		o.lso4 = newLargeSend(h.LSOv4)
	}
	if o.tcp6 && h.LSOv6.Encap&rndis.EncapEthernet != 0 && h.LSOv6Opts&needLSOv6 == needLSOv6 {
		o.lso6 = newLargeSend(h.LSOv6)
	}
	return o
}

func newLargeSend(l rndis.LSOOffload) largeSend {
	return largeSend{int(min(l.MaxBytes, maxLarge)), int(min(l.MinSegs, 1<<16))}
}

// parameters is what to ask of the host: both ways of what it offers.
func (o *offloads) parameters() rndis.OffloadParameters {
	sum := func(on bool) rndis.OffloadChoice {
		if on {
			return rndis.ChecksumBoth
		}
		return rndis.ChecksumOff
	}
	large := func(l largeSend) rndis.OffloadChoice {
		if l.max > 0 {
			return rndis.OffloadOn
		}
		return rndis.OffloadOff
	}
	return rndis.OffloadParameters{IPv4: rndis.ChecksumOff,
		TCPv4: sum(o.tcp4), TCPv6: sum(o.tcp6), UDPv4: sum(o.udp4), UDPv6: sum(o.udp6),
		LSOv4: large(o.lso4), LSOv6: large(o.lso6)}
}

// vfLargeSend is the longest frame in bytes for a VF that takes frames to be cut: what
// Linux has for devices with no limit of their own (GSO_LEGACY_MAX_SIZE). With more the
// kernel makes IPv6 packets that have no length (BIG TCP).
const vfLargeSend = 65536

// LargeSend returns the longest frame in bytes that is cut into TCP segments, of both IP
// versions, on the path in use: by the host or by the VF; 0 if none is. The driver takes
// longer ones too, but cuts them itself, which costs a copy.
func (n *NIC) LargeSend() int {
	if p := n.vf.active.Load(); p != nil {
		const tcp = nic.TakesTCPv4 | nic.TakesTCPv6
		if t, ok := p.dev.(nic.Taker); ok && t.Takes()&tcp == tcp {
			return vfLargeSend
		}
	}
	o := &n.session.Load().granted
	switch {
	case o.lso6.max == 0:
		return o.lso4.max
	case o.lso4.max == 0:
		return o.lso6.max
	}
	return min(o.lso4.max, o.lso6.max)
}

// checksum reports whether the host computes the checksum of such a packet.
func (o *offloads) checksum(l *offload.Layout) bool {
	switch {
	case l.TCP():
		return o.tcp4 && !l.IPv6 || o.tcp6 && l.IPv6
	default:
		return o.udp4 && !l.IPv6 || o.udp6 && l.IPv6
	}
}

// large returns what the host cuts of a kind of segments.
func (o *offloads) large(k nic.Segment) largeSend {
	switch k {
	case nic.SegmentTCPv4:
		return o.lso4
	case nic.SegmentTCPv6:
		return o.lso6
	}
	return largeSend{}
}

// maxUDPSum is the longest IPv4 packet in bytes, headers included, for which a host can
// be trusted with the checksum of UDP unless the packet may not be fragmented: Azure's
// get that of longer ones wrong. Hosts don't say whether they do, so it is done here for
// all of them, as FreeBSD's hn does.
const maxUDPSum = 1420

// spoilsUDP reports whether a host may spoil the checksum of such a packet.
func spoilsUDP(l *offload.Layout, head []byte) bool {
	const dontFragment = 0x40
	return l.UDP() && !l.IPv6 && l.End-l.IP > maxUDPSum && head[l.IP+6]&dontFragment == 0
}

// maxTransport is the last place of a transport header that per-packet information
// can tell.
const maxTransport = 1<<10 - 1

// ask makes the per-packet information that has the host do what a frame of n bytes
// leaves to be done, and tells it the frame's tag. head is a private copy of its first bytes; for
// a large send it becomes what goes to the host, with the lengths left out. It returns false if
// this host does not do it for this frame: one with another tag behind the first too, for hosts
// look for the IP header behind an Ethernet header. Then the information is of the tag alone.
func (o *offloads) ask(in *rndis.Info, head []byte, n int, m nic.Offload) bool {
	if !newInfo(in, head) {
		return false
	}
	l, ok := offload.Parse(head, n)
	// Offsets in the information are those of the frame without tag.
	transport := l.Transport - tagBytes(in)
	if !ok || l.IP != nic.HeaderLen+tagBytes(in) || int(m.Start) != l.Transport || m.Field != l.Field() || l.End != n ||
		transport > maxTransport || !o.checksum(&l) || spoilsUDP(&l, head) {
		return false
	}
	if m.Segment == nic.SegmentNone {
		sum := rndis.TxIPv4
		if l.IPv6 {
			sum = rndis.TxIPv6
		}
		if l.TCP() {
			sum |= rndis.TxTCP
		} else {
			sum |= rndis.TxUDP
		}
		in.Has, in.Checksum = in.Has|rndis.HasChecksum, uint32(sum.WithHeader(transport))
		return true
	}
	large := o.large(m.Segment)
	size := max(int(m.Size), 1)
	if n-tagBytes(in) > large.max || (l.End-l.Payload+size-1)/size < large.min {
		return false
	}
	in.Has, in.LargeSend = in.Has|rndis.HasLargeSend, rndis.NewLargeSend(size, transport, l.IPv6)
	l.ClearLengths(head)
	return true
}

// unit is how many bytes of payload the pieces of a frame have that the driver has
// to cut: as many segments as the host takes at once, or just one.
func (o *offloads) unit(m nic.Offload) int {
	size := int(m.Size)
	if l := o.large(m.Segment); l.max > nic.HeadLen+size*max(l.min, 2) {
		return (l.max - nic.HeadLen) / size * size
	}
	return size
}

// addOffload is put for a frame that leaves something to be done.
func (t *sender) addOffload(l *lane, e entrySet, f *nic.Frame) bool {
	o, m := t.offloads, f.Offload
	head := t.head[:copy(t.head[:], f.Head)]
	n := f.Len()
	switch {
	case o.ask(&t.info, head, n, m):
		return t.put(l, e, f, n, head)
	case m.Segment == nic.SegmentNone:
		return !t.tell(head) || t.put(l, e, f, n, nil) // which completes it
	}
	return t.cut(l, e, f, o.unit(m))
}

// asks reports whether the host takes a frame as it is.
func (t *sender) asks(f *nic.Frame) bool {
	head := t.head[:copy(t.head[:], f.Head)]
	return t.offloads.ask(&t.info, head, f.Len(), f.Offload)
}

// complete computes the checksum of a frame that is in guest memory in one piece.
func complete(mem []byte, m nic.Offload) {
	f := nic.Frame{Head: mem, Offload: m}
	offload.Complete(&f)
}

// verified puts what the host says about checksums into the metadata of a received
// frame. Where a checksum was right but the bytes are no longer it, as after
// coalescing, the frame gets what belongs there: an IPv4 header its checksum, TCP a
// partial one. A wrong checksum is counted, and the stack's to judge. A stack that
// wants to look itself (rx-checksum off) is told nothing.
func (q *queue) verified(f *nic.Frame, sum rndis.RxChecksum) {
	told := q.s.features.Load().checksum
	if told && sum&(rndis.RxTCPFailed|rndis.RxUDPFailed) != 0 {
		q.s.n.count.Add(counter.RxChecksumBad, 1)
		f.Offload.Checksum = nic.ChecksumBad
		return
	}
	if told && sum&(rndis.RxTCPOK|rndis.RxUDPOK) != 0 {
		f.Offload.Checksum = nic.ChecksumOK
	}
	if sum&rndis.RxIPOK != 0 && sum&rndis.RxIPValueInvalid != 0 {
		if at, ipv6 := offload.NetworkHeader(f.Head); at > 0 && !ipv6 {
			offload.SumIPv4(f.Head[at:])
		}
	}
	if sum&rndis.RxTCPOK != 0 && sum&rndis.RxTCPValueInvalid != 0 {
		if l, ok := offload.Parse(f.Head, f.Len()); ok && l.TCP() {
			l.Partial(f)
		}
	}
}
