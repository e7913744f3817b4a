package netvsc

import (
	"bytes"
	"fmt"
	"testing"

	"hvnet/counter"
	"hvnet/internal/packets"
	"hvnet/nic"
	"hvnet/rndis"
)

// TestSendTag has the RNDIS header and the frame, byte by byte, of frames with tags: by Send, and
// from a source, which has put them into the section before it is known that they have one.
func TestSendTag(t *testing.T) {
	const addrs = "00155d000002 00155d000001 "
	const data = "01020304 05060708 090a0b0c 0d0e0f10 11121314 15161718 191a1b1c 1d1e1f20 21222324"
	// Type, length, where the frame is from byte 8, its length, no out-of-band data, where the
	// per-packet information is and how long, no VC handle.
	const with = "01000000 %s 44000000 %s 00000000 00000000 00000000 24000000 10000000 00000000 00000000 "
	const tag = "10000000 06000000 0c000000 " // size, type, where the word is
	for _, c := range []struct{ name, frame, length, dataLen, word, sent string }{
		// id 10 in bits 4 to 15
		{"id", addrs + "8100 000a 0800" + data, "7e000000", "32000000", "a0000000", addrs + "0800" + data},
		// priority 5 in bits 0 to 2, drop eligible in bit 3, id 4094
		{"priority", addrs + "8100 bffe 0800" + data, "7e000000", "32000000", "edff0000", addrs + "0800" + data},
		{"priority alone", addrs + "8100 e000 0800" + data, "7e000000", "32000000", "07000000", addrs + "0800" + data},
		{"two tags", addrs + "8100 0001 8100 0002 0800" + data, "82000000", "36000000", "10000000", addrs + "8100 0002 0800" + data},
		{"no more than a tag", addrs + "8100 0001 0800", "5a000000", "0e000000", "10000000", addrs + "0800"},
		{"none", addrs + "0800" + data, "", "", "", addrs + "0800" + data},
		{"of a provider", addrs + "88a8 000a 0800" + data, "", "", "", addrs + "88a8 000a 0800" + data},
	} {
		for _, way := range []string{"send", "pump"} {
			t.Run(c.name+"/"+way, func(t *testing.T) {
				h := newFakeHost()
				n := open(t, h, Config{Queues: 2})
				up(t, n)
				b, want := packets.Hex(c.frame), packets.Hex(c.sent)
				if way == "send" {
					n.Send(0, []nic.Frame{packets.Split(b)})
				} else {
					pumping(t, n, newSource(b))
				}
				h.until(t, "the frame arrives", func() bool { return len(h.frames) == 1 })
				sameFrames(t, h.frames, [][]byte{want})
				head := h.heads[0]
				if c.word == "" {
					if p, err := rndis.ParsePacket(head[:headroom], 1000); err != nil || len(p.PPI) != 0 {
						t.Errorf("information %x, %v", p.PPI, err)
					}
				} else if wantHead := packets.Hex(fmt.Sprintf(with, c.length, c.dataLen) + tag + c.word); !bytes.Equal(head[:60], wantHead) {
					t.Errorf("header\n%x, want\n%x", head[:60], wantHead)
				}
			})
		}
	}
}

// TestSendDamagedTag sends frames that end in their tag: they are dropped and counted, and what
// comes behind them is sent.
func TestSendDamagedTag(t *testing.T) {
	h := newFakeHost()
	n := open(t, h, Config{Queues: 1})
	up(t, n)
	cut := packets.Hex("00155d000002 00155d000001 8100 00")
	good := frame(1, 60)
	if got := n.Send(0, []nic.Frame{asFrame(cut), asFrame(cut[:14]), asFrame(good)}); got != 3 {
		t.Fatalf("took %d", got)
	}
	pumping(t, n, newSource(cut, good))
	h.until(t, "the good ones arrive", func() bool { return len(h.frames) == 2 })
	sameFrames(t, h.frames, [][]byte{good, good})
	if got := n.count.Load(counter.VLANError); got != 3 {
		t.Errorf("vlan_error is %d, want 3", got)
	}
}

// TestAskTag has what the host is asked for frames with tags: offsets are those without.
func TestAskTag(t *testing.T) {
	o := offloads{tcp4: true, tcp6: true, udp4: true, udp6: true, lso4: largeSend{60000, 2}, lso6: largeSend{60000, 2}}
	for _, s := range packets.Shapes {
		bare := s
		bare.Tag = false
		s.Tag = true
		for _, size := range []int{0, 1000} {
			if size > 0 && s.UDP {
				continue
			}
			seg := nic.SegmentNone
			if size > 0 {
				seg = s.Segment()
			}
			var got, want rndis.Info
			f := packets.Partial(s.Frame(packets.Random(3000)), seg, size)
			g := packets.Partial(bare.Frame(packets.Random(3000)), seg, size)
			if !o.ask(&got, f.Head, f.Len(), f.Offload) || !o.ask(&want, g.Head, g.Len(), g.Offload) {
				t.Fatalf("%s, segments of %d: not asked", s.Name, size)
			}
			want.Has, want.VLAN = want.Has|rndis.HasVLAN, 0xa005
			if got != want {
				t.Errorf("%s, segments of %d: %+v, want %+v", s.Name, size, got, want)
			}
		}
	}
	// The longest frame for the host is one without its tag.
	for extra, want := range []bool{true, false} {
		f := packets.Partial(packets.Shape{Tag: true}.Frame(packets.Random(60000-54+extra)), nic.SegmentTCPv4, 1000)
		var in rndis.Info
		if got := o.ask(&in, f.Head, f.Len(), f.Offload); got != want || in.Has&rndis.HasVLAN == 0 {
			t.Errorf("%d bytes too long: asked %v, %+v", extra, got, in)
		}
	}
	// What is behind two tags is not the host's to look for; the outer one it is told.
	b := packets.Shape{Tag: true}.Frame(nil)
	f := packets.Partial(b, nic.SegmentNone, 0)
	f.Head = append(append(bytes.Clone(f.Head[:12]), 0x81, 0, 0, 9), f.Head[12:]...)
	f.Offload.Start += nic.TagLen
	var in rndis.Info
	if o.ask(&in, f.Head, f.Len(), f.Offload) || in.Has != rndis.HasVLAN || in.VLAN != 9 {
		t.Errorf("two tags: %+v", in)
	}
}

// TestSendTagShortSections has sections that hold little more than a header: a tag is found and
// taken out wherever the frame with it lands.
func TestSendTagShortSections(t *testing.T) {
	for section := 140; section < 260; section += 8 {
		h := newFakeHost()
		h.txSection = section
		n := open(t, h, Config{Queues: 1})
		up(t, n)
		short, bare := frame(1, 14), frame(2, 200)
		tagged := append(append(bytes.Clone(bare[:12]), 0x81, 0, 0, 9), bare[12:]...)
		pumping(t, n, newSource(short, tagged, short, tagged[:40]))
		h.until(t, "all frames arrive", func() bool { return len(h.frames) == 4 })
		sameFrames(t, h.frames, [][]byte{short, bare, short, bare[:36]})
	}
}
