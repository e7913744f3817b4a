package netstack

import (
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/stack/gro"
)

// receiver coalesces the TCP segments of one batch and hands packets up. It
// verifies checksums on the way, because the stack cannot: a coalesced segment has
// none that is right. Therefore wire declares CapabilityRXChecksumOffload.
//
// Only the transport checksum of a fragmented packet is not verified; the IPv4
// header's is.
type receiver struct {
	gro gro.GRO
	up  stack.NetworkDispatcher
	bad int // packets dropped for their checksum
}

func newReceiver() *receiver {
	r := new(receiver)
	r.gro.Init(true)
	r.gro.Dispatcher = r
	return r
}

// add takes one packet that begins with its network header.
func (r *receiver) add(pkt *stack.PacketBuffer) { r.gro.Enqueue(pkt) }

// flush hands up what add held back. A flush of the coalescer leaves all but the
// oldest packet of each of its buckets, which hold up to eight.
func (r *receiver) flush() {
	for range 8 {
		r.gro.Flush()
	}
}

// DeliverNetworkPacket implements stack.NetworkDispatcher for the coalescer, which
// has verified those that it marked.
func (r *receiver) DeliverNetworkPacket(proto tcpip.NetworkProtocolNumber, pkt *stack.PacketBuffer) {
	if !pkt.RXChecksumValidated && !checksumsRight(proto, pkt) {
		r.bad++
		return
	}
	r.up.DeliverNetworkPacket(proto, pkt)
}

// DeliverLinkPacket implements stack.NetworkDispatcher. The coalescer has no use
// for it.
func (r *receiver) DeliverLinkPacket(tcpip.NetworkProtocolNumber, *stack.PacketBuffer) {}

// checksumsRight verifies what the stack does not. What it cannot read is left to
// the stack to refuse.
func checksumsRight(proto tcpip.NetworkProtocolNumber, pkt *stack.PacketBuffer) bool {
	data := pkt.Data()
	var src, dst tcpip.Address
	var next tcpip.TransportProtocolNumber
	var start, end int
	switch proto {
	case header.IPv4ProtocolNumber:
		b, ok := data.PullUp(header.IPv4MinimumSize)
		if !ok {
			return true
		}
		ip := header.IPv4(b)
		start, end = int(ip.HeaderLength()), int(ip.TotalLength())
		if b, ok = data.PullUp(start); !ok || !ip.IsValid(data.Size()) {
			return true
		}
		if ip = header.IPv4(b); !ip.IsChecksumValid() {
			return false
		}
		if ip.More() || ip.FragmentOffset() != 0 {
			return true
		}
		src, dst, next = ip.SourceAddress(), ip.DestinationAddress(), ip.TransportProtocol()
	case header.IPv6ProtocolNumber:
		b, ok := data.PullUp(header.IPv6MinimumSize)
		if !ok || !header.IPv6(b).IsValid(data.Size()) {
			return true
		}
		ip := header.IPv6(b)
		start, end = header.IPv6MinimumSize, header.IPv6MinimumSize+int(ip.PayloadLength())
		src, dst, next = ip.SourceAddress(), ip.DestinationAddress(), tcpip.TransportProtocolNumber(ip.NextHeader())
	default:
		return true
	}
	switch next {
	case header.TCPProtocolNumber:
	case header.UDPProtocolNumber:
		b, ok := data.PullUp(start + header.UDPMinimumSize)
		if !ok {
			return true
		}
		// No checksum was sent. Over IPv6 that is not allowed (RFC 8200 8.1).
		if u := header.UDP(b[start:]); u.Checksum() == 0 {
			return proto == header.IPv4ProtocolNumber
		} else if end-start > int(u.Length()) && int(u.Length()) >= header.UDPMinimumSize {
			end = start + int(u.Length())
		}
	default:
		return true // the stack verifies ICMP itself
	}
	segment := data.AsRange().SubRange(start).Capped(end - start).ToSlice()
	sum := header.PseudoHeaderChecksum(next, src, dst, uint16(len(segment)))
	return checksum.Checksum(segment, sum) == 0xffff
}
