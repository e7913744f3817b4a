package netvsp

import (
	"bytes"
	"testing"

	"hvnet/internal/packets"
	"hvnet/netvsp/profile"
	"hvnet/nic"
	"hvnet/nvsp"
	"hvnet/offload"
	"hvnet/rndis"
)

// sent returns a packet of a shape as the guest sends it, with what it asks of the
// host, as hv_netvsc has it.
func sent(s packets.Shape, payload, mss int) (frame []byte, info *rndis.Info) {
	b := s.Frame(packets.Random(payload))
	copy(b, otherMAC[:])
	copy(b[6:], guestMAC[:])
	f := packets.Partial(b, nic.SegmentNone, 0)
	if mss > 0 {
		l, _ := offload.Parse(b, len(b))
		l.ClearLengths(b)
		return b, &rndis.Info{Has: rndis.HasLargeSend, LargeSend: rndis.NewLargeSend(mss, l.Transport, s.V6)}
	}
	sum := rndis.TxIPv4
	if s.V6 {
		sum = rndis.TxIPv6
	}
	if s.UDP {
		sum |= rndis.TxUDP
	} else {
		sum |= rndis.TxTCP
	}
	return b, &rndis.Info{Has: rndis.HasChecksum, Checksum: uint32(sum.WithHeader(int(f.Offload.Start)))}
}

// TestAsked has what a guest may ask, and what it gets.
func TestAsked(t *testing.T) {
	all, _ := profile.Lookup("ws2022")
	for _, s := range packets.Shapes {
		b, info := sent(s, 100, 0)
		f := packets.Split(bytes.Clone(b))
		if err := asked(&f, info, &all.Offload, 0); err != nil || !offload.Complete(&f) {
			t.Errorf("%s: %v, %+v", s.Name, err, f.Offload)
		}
		if packets.Correct(b); !bytes.Equal(packets.Bytes(&f), b) {
			t.Errorf("%s: completed to %x, want %x", s.Name, packets.Bytes(&f), b)
		}
		// Padding is no part of the sum, and does not travel.
		b, info = sent(s, 200, 0)
		f = packets.Split(append(bytes.Clone(b), 1, 2, 3), len(b)-nic.HeadLen+1)
		if err := asked(&f, info, &all.Offload, 0); err != nil || !bytes.Equal(packets.Bytes(&f), b) {
			t.Errorf("%s with padding: %v, %x, want %x", s.Name, err, packets.Bytes(&f), b)
		}
		if s.UDP {
			continue
		}
		want := s.Frame(packets.Random(3000))
		b, info = sent(s, 3000, 1000)
		f = packets.Split(b, 500)
		copy(want, b[:12])
		whole := packets.Partial(want, s.Segment(), 1000)
		if err := asked(&f, info, &all.Offload, 0); err != nil || f.Offload != whole.Offload || !bytes.Equal(packets.Bytes(&f), packets.Bytes(&whole)) {
			t.Errorf("%s to be cut: %v, %+v\n%x, want\n%x", s.Name, err, f.Offload, f.Head, whole.Head)
		}
		b, info = sent(s, 500, 1000)
		f = packets.Split(b)
		if err := asked(&f, info, &all.Offload, 0); err != nil || f.Offload.Segment != nic.SegmentNone || f.Offload.Checksum != nic.ChecksumPartial {
			t.Errorf("%s, one segment: %v, %+v", s.Name, err, f.Offload)
		}
	}
	// The checksum of the IP header.
	b := packets.Shape{}.Frame(nil)
	want := bytes.Clone(b)
	b[24], b[25] = 1, 2
	f := packets.Split(b)
	err := asked(&f, &rndis.Info{Has: rndis.HasChecksum, Checksum: uint32(rndis.TxIPv4 | rndis.TxIPHeader)}, &all.Offload, 0)
	if err != nil || !bytes.Equal(b, want) || f.Offload != (nic.Offload{}) {
		t.Errorf("IPv4 header: %v, %x, want %x", err, b, want)
	}
}

// TestAskedRefused has what is refused: by what the release offers, and by what the
// frame is.
func TestAskedRefused(t *testing.T) {
	tcp4, tcp6 := packets.Shape{}, packets.Shape{V6: true}
	udp4, udp6 := packets.Shape{UDP: true}, packets.Shape{UDP: true, V6: true}
	for _, tt := range []struct {
		release string
		shape   packets.Shape
		mss     int
		refused bool
	}{
		{"ws2008r2", tcp4, 0, false}, {"ws2008r2", tcp4, 1000, false},
		{"ws2008r2", tcp6, 0, true}, {"ws2008r2", tcp6, 1000, true}, {"ws2008r2", udp4, 0, true},
		{"ws2012", tcp6, 0, false}, {"ws2012", tcp6, 1000, false}, {"ws2012", udp4, 0, true}, {"ws2012", udp6, 0, true},
		{"ws2012r2", udp4, 0, false}, {"ws2012r2", udp6, 0, false}, {"ws2012r2", udp4, 1000, true},
	} {
		p, _ := profile.Lookup(tt.release)
		b, info := sent(tt.shape, 3000, tt.mss)
		f := packets.Split(b)
		if err := asked(&f, info, &p.Offload, 0); (err != nil) != tt.refused {
			t.Errorf("%s, %+v, segments of %d: %v", tt.release, tt.shape, tt.mss, err)
		}
	}

	all, _ := profile.Lookup("azure")
	for name, change := range map[string]func(b []byte, in *rndis.Info) []byte{
		"version 1":            func(b []byte, in *rndis.Info) []byte { in.LargeSend &^= 1 << 30; return b },
		"the other IP version": func(b []byte, in *rndis.Info) []byte { in.LargeSend |= 1 << 31; return b },
		"no segment size":      func(b []byte, in *rndis.Info) []byte { in.LargeSend = rndis.NewLargeSend(0, 34, false); return b },
		"tiny segments":        func(b []byte, in *rndis.Info) []byte { in.LargeSend = rndis.NewLargeSend(47, 34, false); return b },
		"header elsewhere":     func(b []byte, in *rndis.Info) []byte { in.LargeSend = rndis.NewLargeSend(1000, 38, false); return b },
		"too long":             func(b []byte, in *rndis.Info) []byte { return append(b, make([]byte, 62780)...) },
		"UDP":                  func(b []byte, in *rndis.Info) []byte { b[23] = 17; return b },
		"a fragment":           func(b []byte, in *rndis.Info) []byte { b[20] |= 0x20; return b },
		"TCP header too long":  func(b []byte, in *rndis.Info) []byte { return b[:50] },
		"no IP":                func(b []byte, in *rndis.Info) []byte { b[12] = 0x09; return b },
		"checksum of UDP":      func(b []byte, in *rndis.Info) []byte { return checksum(in, b, rndis.TxIPv4|rndis.TxUDP) },
		"checksum of IPv6":     func(b []byte, in *rndis.Info) []byte { return checksum(in, b, rndis.TxIPv6|rndis.TxTCP) },
		"checksum of neither":  func(b []byte, in *rndis.Info) []byte { return checksum(in, b, rndis.TxTCP) },
		"checksum elsewhere": func(b []byte, in *rndis.Info) []byte {
			return checksum(in, b, (rndis.TxIPv4 | rndis.TxTCP).WithHeader(35))
		},
		"checksum of a runt":    func(b []byte, in *rndis.Info) []byte { return checksum(in, b[:20], rndis.TxIPv4|rndis.TxTCP) },
		"IP header of a runt":   func(b []byte, in *rndis.Info) []byte { return checksum(in, b[:30], rndis.TxIPHeader) },
		"IP header of no IP":    func(b []byte, in *rndis.Info) []byte { b[13] = 6; return checksum(in, b, rndis.TxIPHeader) },
		"IP header of too much": func(b []byte, in *rndis.Info) []byte { b[14] = 0x4f; return checksum(in, b[:60], rndis.TxIPHeader) },
	} {
		b, info := sent(tcp4, 3000, 1000)
		b = change(b, info)
		f := packets.Split(b)
		if err := asked(&f, info, &all.Offload, 0); err == nil {
			t.Errorf("%s: not refused, became %+v", name, f.Offload)
		}
	}
}

// checksum changes what is asked to a checksum, for a packet that is right otherwise.
func checksum(in *rndis.Info, b []byte, sum rndis.TxChecksum) []byte {
	*in = rndis.Info{Has: rndis.HasChecksum, Checksum: uint32(sum)}
	offload.SetLengths(b, len(b))
	return b
}

func FuzzAsked(f *testing.F) {
	for _, s := range packets.Shapes {
		b, info := sent(s, 300, 100)
		f.Add(b, uint32(info.LargeSend), uint32(rndis.TxIPv4|rndis.TxTCP|rndis.TxIPHeader), true, 0)
		b, info = sent(s, 300, 0)
		f.Add(b, uint32(0), info.Checksum, false, 4)
	}
	p, _ := profile.Lookup("azure")
	f.Fuzz(func(t *testing.T, b []byte, large, sum uint32, isLarge bool, moved int) {
		info := &rndis.Info{Has: rndis.HasChecksum, Checksum: sum, LargeSend: rndis.LargeSend(large)}
		if isLarge {
			info.Has = rndis.HasLargeSend
		}
		fr := packets.Split(bytes.Clone(b), 100, 101)
		if asked(&fr, info, &p.Offload, moved) != nil {
			return
		}
		n := fr.Len()
		if wireLen(&fr, n) > n {
			t.Fatalf("pieces of %d bytes of a frame of %d", wireLen(&fr, n), n)
		}
		count := 0
		offload.NewSink(sinkFunc(func(frames []nic.Frame) {
			for i := range frames {
				if count++; frames[i].Offload.Needs() != 0 {
					t.Fatalf("%+v is left", frames[i].Offload)
				}
			}
		})).WriteFrames([]nic.Frame{fr})
		if count == 0 || count > len(b)/offload.MinSegment+1 {
			t.Fatalf("%d bytes became %d frames", len(b), count)
		}
	})
}

type sinkFunc func([]nic.Frame)

func (f sinkFunc) WriteFrames(frames []nic.Frame) { f(frames) }

// coalescingGuest returns a guest that takes coalesced packets.
func coalescingGuest(t testing.TB, opt ...func(*Config)) *fakeGuest {
	g := newGuest(t, "ws2022", opt...)
	g.caps = nvsp.CapRSC
	g.up(nvsp.V61)
	p := rndis.OffloadParameters{TCPv4: rndis.ChecksumBoth, RSCv4: rndis.OffloadOn, RSCv6: rndis.OffloadOn}
	if s := g.set(rndis.OIDOffloadParameters, p.Append(nil, rndis.OffloadParametersSize)); s != rndis.StatusSuccess {
		t.Fatal(s)
	}
	g.settle()
	return g
}

// TestCoalesced looks at the pieces of a coalesced packet as a guest sees them.
func TestCoalesced(t *testing.T) {
	for _, s := range []packets.Shape{{TCPOptions: 12}, {Tag: true}, {V6: true, Tag: true, TCPOptions: 12}} {
		g := coalescingGuest(t)
		b := s.Frame(packets.Random(3000))
		copy(b, guestMAC[:])
		copy(b[6:], otherMAC[:])
		f := packets.Partial(b, s.Segment(), 1000)
		g.dev.WriteFrames([]nic.Frame{f, packets.Split(ether(guestMAC, otherMAC, 60, 0))})
		p := g.next(g.ch)
		list := g.messages(p)
		if len(list) != 4 {
			t.Fatalf("%d ranges, want 3 pieces and a frame", len(list))
		}
		var got []byte
		for i, m := range list[:3] {
			h, err := rndis.ParsePacket(m, len(m))
			var in rndis.Info
			if err != nil || h.Info(&in) != nil {
				t.Fatalf("piece %d: %v", i, err)
			}
			flags := [...]uint8{rndis.PacketFragment | rndis.PacketFirst, rndis.PacketFragment, rndis.PacketFragment | rndis.PacketLast}
			if in.PacketID.Flags() != flags[i] || in.PacketID.ID() != 1 {
				t.Errorf("piece %d: packet id %#x", i, in.PacketID)
			}
			want := rndis.HasPacketID
			if i == 0 {
				want |= rndis.HasChecksum
				if s.Tag {
					want |= rndis.HasVLAN
				}
				if in.Checksum != uint32(rndis.RxTCPOK|rndis.RxTCPValueInvalid) {
					t.Errorf("checksum information %#x", in.Checksum)
				}
			}
			if in.Has != want || s.Tag && i == 0 && in.VLAN != 0xa005 {
				t.Errorf("piece %d: information %b, want %b, tag %#x", i, in.Has, want, in.VLAN)
			}
			got = append(got, m[h.DataOffset:][:h.DataLen]...)
			if i > 0 && h.DataLen != 1000 {
				t.Errorf("piece %d has %d bytes", i, h.DataLen)
			}
		}
		if s.Tag {
			b = append(b[:12:12], b[16:]...)
		}
		if !bytes.Equal(got, b) {
			t.Errorf("the pieces are\n%x, want\n%x", got, b)
		}
	}
}

// TestCoalescedDropped has packets that the guest has no room for: each is dropped as a
// whole, and nothing is lost.
func TestCoalescedDropped(t *testing.T) {
	g := coalescingGuest(t)
	big := func(payload, size int) nic.Frame {
		b := packets.Shape{}.Frame(packets.Random(payload))
		copy(b, guestMAC[:])
		return packets.Partial(b, nic.SegmentTCPv4, size)
	}
	g.dev.WriteFrames([]nic.Frame{big(4000, 1461)}) // segments longer than the MTU
	if n := g.dev.Info().RxDropped[DropTooLong]; n != 1 {
		t.Errorf("too long: %d", n)
	}
	for name, o := range map[string]nic.Offload{
		"header beyond":  {Start: 120, Size: 1000},
		"header nowhere": {Start: 65535, Size: 1000},
		"tiny segments":  {Start: 34},
	} {
		before := g.dev.Info().RxDropped[DropOffload]
		f := big(4000, 1000)
		o.Checksum, o.Segment = nic.ChecksumPartial, nic.SegmentTCPv4
		f.Offload = o
		g.dev.WriteFrames([]nic.Frame{f})
		if n := g.dev.Info().RxDropped[DropOffload] - before; n != 1 {
			t.Errorf("%s: dropped %d", name, n)
		}
	}
	sections := g.sections - controlSections(g.sections)
	fits := 0
	for used := 0; used+43 <= sections; used += 43 { // 62000 bytes are 43 segments
		fits++
	}
	for range fits + 2 {
		g.dev.WriteFrames([]nic.Frame{big(62000, 1460)})
	}
	if info := g.dev.Info(); info.RxDropped[DropNoSection] != 2 || info.Receive.InFlight != 43*fits {
		t.Errorf("%d dropped for want of sections, %d in use; want 2, %d", info.RxDropped[DropNoSection], info.Receive.InFlight, 43*fits)
	}
	// More segments than a packet of the ring has ranges: sections are filled.
	g = coalescingGuest(t)
	g.dev.WriteFrames([]nic.Frame{big(62000, 100)})
	if info := g.dev.Info(); info.Receive.InFlight != 43 || len(info.RxDropped) != 0 {
		t.Errorf("segments of 100 bytes take %d sections: %v", info.Receive.InFlight, info.RxDropped)
	}
}

// TestOffloadNoAllocation is TestNoAllocation for frames that leave something to do.
func TestOffloadNoAllocation(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes sync.Pool drop things at random")
	}
	for _, coalesce := range []bool{false, true} {
		g, q, port := quiet(t)
		if coalesce {
			q.s.rndis.coalesced = coalescing
			q.s.takes()
		}
		s := newSender(g, 8, 1, 300)
		b, info := sent(packets.Shape{TCPOptions: 12}, 4000, 1000)
		copy(g.send.Bytes[2*6144:], packet(b, info))
		s.heads, s.body = s.heads[2:3], s.body[2:3] // the one of that section
		s.body[0] = nvsp.Pad(nvsp.RNDISPacket{Section: 2, SectionBytes: uint32(len(packet(b, info)))}.Append(nil), 0, nvsp.MaxSize)
		s.packets, port.n = 1, 0
		if n := testing.AllocsPerRun(100, func() {
			s.put()
			q.take()
			s.reap()
		}); n != 0 || port.n != 101 {
			t.Errorf("from the guest: %v allocations a packet, %d frames", n, port.n)
		}
		in := packets.Shape{}.Frame(packets.Random(30000))
		copy(in, guestMAC[:])
		batch := []nic.Frame{packets.Partial(in, nic.SegmentTCPv4, 1460)}
		r := newReceiver(g)
		if n := testing.AllocsPerRun(100, func() {
			g.dev.WriteFrames(batch)
			if r.take() != 1 {
				t.Fatal("the packet is missing")
			}
			q.take()
		}); n != 0 {
			t.Errorf("to the guest, coalesced %v: %v allocations", coalesce, n)
		}
		if info := g.dev.Info(); info.Faults != 0 || len(info.RxDropped) != 0 || info.Receive.InFlight != 0 {
			t.Errorf("%+v", info)
		}
	}
}
