package netstack

import (
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"hvnet/nic"
)

// upper records what reaches the stack.
type upper struct{ sizes []int }

func (u *upper) DeliverNetworkPacket(_ tcpip.NetworkProtocolNumber, pkt *stack.PacketBuffer) {
	u.sizes = append(u.sizes, pkt.Size())
}

func (u *upper) DeliverLinkPacket(tcpip.NetworkProtocolNumber, *stack.PacketBuffer) {}

// segment returns a TCP segment of 100 bytes of a flow, which port names.
func segment(port uint16, seq uint32, v6 bool) []byte {
	size, proto := header.IPv4MinimumSize, header.IPv4ProtocolNumber
	if v6 {
		size, proto = header.IPv6MinimumSize, header.IPv6ProtocolNumber
	}
	const length = header.TCPMinimumSize + 100
	b := make([]byte, nic.HeaderLen+size+length)
	header.Ethernet(b).Encode(&header.EthernetFields{
		SrcAddr: "\x00\x15\x5d\x00\x00\x09", DstAddr: tcpip.LinkAddress(gatewayMAC[:]), Type: proto,
	})
	if v6 {
		header.IPv6(b[nic.HeaderLen:]).Encode(&header.IPv6Fields{
			PayloadLength: length, TransportProtocol: header.TCPProtocolNumber, HopLimit: 64,
			SrcAddr: toAddress(host6(2)), DstAddr: toAddress(host6(1)),
		})
	} else {
		header.IPv4(b[nic.HeaderLen:]).Encode(&header.IPv4Fields{
			TotalLength: uint16(size + length), TTL: 64, Protocol: uint8(header.TCPProtocolNumber),
			SrcAddr: toAddress(host4(2)), DstAddr: toAddress(host4(1)),
		})
	}
	header.TCP(b[nic.HeaderLen+size:]).Encode(&header.TCPFields{
		SrcPort: port, DstPort: 9, SeqNum: seq, DataOffset: header.TCPMinimumSize, Flags: header.TCPFlagAck, WindowSize: 1000,
	})
	return fixChecksums(b)
}

// TestCoalesce gives a batch of interleaved flows, more than the coalescer has
// buckets: each flow becomes one packet and none stays behind.
func TestCoalesce(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		w := newWire(gatewayMAC, 1500)
		var up upper
		w.Attach(&up)
		var frames []nic.Frame
		const flows, segments = 20, 3
		for i := range segments {
			for port := range flows {
				frames = append(frames, nic.Frame{Head: segment(uint16(port), uint32(i*100), v6)})
			}
		}
		w.deliver(frames, nil)
		var total, whole int
		for _, n := range up.sizes {
			headers := frames[0].Len() - nic.HeaderLen - 100
			total += n - headers
			if n == headers+segments*100 {
				whole++
			}
		}
		if total != flows*segments*100 || whole < flows/2 {
			t.Errorf("IPv6 %v: %d bytes in packets of %v", v6, total, up.sizes)
		}
	}
}

func TestChecksums(t *testing.T) {
	const v4, v6 = nic.HeaderLen + header.IPv4MinimumSize, nic.HeaderLen + header.IPv6MinimumSize
	udp := golden(t, "00155d000001 00155d000102 0800 45000021 00000000 40110000 c6120002 c6120001 8000 0007 000d 0000 68656c6c6f 000000000000")
	udp6 := golden(t, "00155d000001 00155d000102 86dd 60000000 000d 1140 fd00005d000000000000000000000002 fd00005d000000000000000000000001 8000 0007 000d 0000 68656c6c6f")
	change := func(b []byte, i int) []byte { b[i] ^= 0x10; return b }
	without := func(b []byte, i int) []byte { b[i], b[i+1] = 0, 0; return b }
	for _, tt := range []struct {
		name  string
		frame []byte
		good  bool
	}{
		{"TCP", segment(1, 0, false), true},
		{"TCP over IPv6", segment(1, 0, true), true},
		{"UDP, padded", fixChecksums(udp), true},
		{"UDP over IPv6", fixChecksums(udp6), true},
		{"UDP without checksum", without(fixChecksums(udp), v4+6), true},
		{"UDP over IPv6 without checksum", without(fixChecksums(udp6), v6+6), false},
		{"IPv4 header", change(segment(1, 0, false), nic.HeaderLen+8), false},
		{"TCP data", change(segment(1, 0, false), v4+50), false},
		{"TCP data over IPv6", change(segment(1, 0, true), v6+50), false},
		{"UDP data", change(fixChecksums(udp), v4+9), false},
		{"UDP data over IPv6", change(fixChecksums(udp6), v6+9), false},
		{"UDP padding", change(fixChecksums(udp), len(udp)-1), true},
	} {
		w := newWire(gatewayMAC, 1500)
		var up upper
		w.Attach(&up)
		w.deliver([]nic.Frame{{Head: tt.frame}}, nil)
		if good := len(up.sizes) == 1; good != tt.good || w.rxChecksum.Load() != uint64(1-len(up.sizes)) {
			t.Errorf("%s: delivered %v, %d counted", tt.name, up.sizes, w.rxChecksum.Load())
		}
	}
}

// TestForeignFrames: a switch may flood; what is for another station is not taken.
func TestForeignFrames(t *testing.T) {
	w := newWire(gatewayMAC, 1500)
	var up upper
	w.Attach(&up)
	other := segment(1, 0, false)
	copy(other, "\x00\x15\x5d\x77\x77\x77")
	w.deliver([]nic.Frame{
		{Head: other},
		{Head: []byte("short")},
		{Head: make([]byte, 128), Body: [][]byte{make([]byte, 1500)}},
	}, nil)
	if len(up.sizes) != 0 || w.rxForeign.Load() != 1 || w.rxBad.Load() != 2 {
		t.Errorf("delivered %v, %d foreign, %d malformed", up.sizes, w.rxForeign.Load(), w.rxBad.Load())
	}
}
