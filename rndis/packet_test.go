package rndis

import (
	"bytes"
	"errors"
	"testing"

	"pgregory.net/rapid"
)

// The first 60 bytes of a packet with a hash, and all 44 of one without PPIs, as
// Linux 6.1 sent them; the host's answer to the latter leaves the PPI offset 0.
const (
	sentWithHash = `01000000 96000000 34000000 5a000000 00000000 00000000 00000000 24000000 10000000 00000000 00000000
		10000000 08000000 0c000000 29660228`
	sentBare     = `01000000 56000000 24000000 2a000000 00000000 00000000 00000000 24000000 00000000 00000000 00000000`
	receivedBare = `01000000 56000000 24000000 2a000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000`
)

func TestPacketGolden(t *testing.T) {
	b := make([]byte, MaxPacketHeader)
	if n := PutPacket(b, 42, nil); !bytes.Equal(b[:n], unhex(t, sentBare)) {
		t.Errorf("without PPIs:\n got %x\nwant %x", b[:n], unhex(t, sentBare))
	}
	if n := PutPacket(b, 90, &Info{Has: HasHash, Hash: 0x28026629}); !bytes.Equal(b[:n], unhex(t, sentWithHash)) {
		t.Errorf("with a hash:\n got %x\nwant %x", b[:n], unhex(t, sentWithHash))
	}
	for _, s := range []string{sentBare, receivedBare} {
		p, err := ParsePacket(unhex(t, s), 86)
		if err != nil || p.Length != 86 || p.DataOffset != 44 || p.DataLen != 42 || len(p.PPI) != 0 || p.CheckSent() != nil {
			t.Errorf("without PPIs: %+v, %v", p, err)
		}
	}
	p, err := ParsePacket(unhex(t, sentWithHash), 150)
	var in Info
	if err != nil || p.Length != 150 || p.DataOffset != 60 || p.DataLen != 90 || len(p.PPI) != 16 || p.CheckSent() != nil {
		t.Errorf("with a hash: %+v, %v", p, err)
	}
	if err := p.Info(&in); err != nil || in != (Info{Has: HasHash, Hash: 0x28026629}) {
		t.Errorf("with a hash: %+v, %v", in, err)
	}
}

func TestPPIGolden(t *testing.T) {
	in := Info{Has: HasHash | HasVLAN | HasChecksum | HasPacketID, Hash: 1, VLAN: 5<<13 | 1<<12 | 0x123,
		Checksum: uint32((TxIPv4 | TxTCP | TxIPHeader).WithHeader(34)), PacketID: NewPacketID(PacketFragment|PacketLast, 0x55aa)}
	b := make([]byte, MaxPacketHeader)
	n := PutPacket(b, 100, &in)
	want := unhex(t, `10000000 08000000 0c000000 01000000  10000000 06000000 0c000000 3d120000
		10000000 00000000 0c000000 15002200  10000000 01000080 0c000000 0105aa55`)
	if !bytes.Equal(b[44:n], want) {
		t.Errorf("\n got %x\nwant %x", b[44:n], want)
	}
	in = Info{Has: HasHash | HasHashInfo, Hash: 0x51ccc178, HashInfo: HashToeplitz | HashTCPv4}
	n = PutPacket(b, 100, &in)
	if want := unhex(t, "10000000 08000000 0c000000 78c1cc51  10000000 09000000 0c000000 01020000"); !bytes.Equal(b[44:n], want) {
		t.Errorf("what the hash is over:\n got %x\nwant %x", b[44:n], want)
	}
	in = Info{Has: HasLargeSend | HasChecksum, LargeSend: NewLargeSend(1448, 54, true), Checksum: 1}
	n = PutPacket(b, 100, &in)
	if want := unhex(t, "10000000 02000000 0c000000 a80560c3"); !bytes.Equal(b[44:n], want) {
		t.Errorf("a large send is alone:\n got %x\nwant %x", b[44:n], want)
	}
	if l := in.LargeSend; l.MSS() != 1448 || l.Header() != 54 || !l.V2() || !l.IPv6() {
		t.Errorf("large send 0x%x", uint32(l))
	}
	if c := TxTCP.WithHeader(1000).WithHeader(34); c.Header() != 34 || c&0xffff != TxTCP {
		t.Errorf("checksum 0x%x", uint32(c))
	}
	if p := NewPacketID(PacketFirst, 77); p.Flags() != PacketFirst || p.ID() != 77 {
		t.Errorf("packet id 0x%x", uint32(p))
	}
	if RxIPValueInvalid != 0x100 || RxTCPOK != 8 {
		t.Error("RxChecksum bits are off")
	}
}

func TestPutPacketAt(t *testing.T) {
	b := bytes.Repeat([]byte{0xee}, 300)
	PutPacketAt(b, 256, 44, &Info{Has: HasVLAN, VLAN: 7})
	p, err := ParsePacket(b, len(b))
	var in Info
	if err != nil || p.DataOffset != 256 || p.DataLen != 44 || p.Length != 300 || p.Info(&in) != nil || in.VLAN != 7 {
		t.Errorf("%+v, %+v, %v", p, in, err)
	}
	if b[60] != 0xee {
		t.Error("the gap was written")
	}
	SetPacketLength(b, 296)
	if p, err := ParsePacket(b, len(b)); !errors.Is(err, ErrMalformed) {
		t.Errorf("frame beyond the message: %+v, %v", p, err)
	}
}

func TestPadding(t *testing.T) {
	b := make([]byte, 128)
	n := PutPacket(b, 41, nil)
	SetPacketLength(b, n+48)
	p, err := ParsePacket(b, len(b))
	if err != nil || p.Length != n+48 || p.DataLen != 41 {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestParsePacketChecks(t *testing.T) {
	const frame = 100
	for _, c := range []struct {
		name  string
		at    int
		v     uint32
		ok    bool
		avail int // 0: all
	}{
		{"valid", 0, 1, true, 0},
		{"another type", 0, 2, false, 0},
		{"message longer than what there is", 4, 161, false, 0},
		{"message as long as what there is not", 4, 160, false, 159},
		{"message shorter than the header", 4, 43, false, 0},
		{"message ends in the frame", 4, 159, false, 0},
		{"message length wraps", 4, 0xffffffff, false, 0},
		{"frame over the header", 8, 35, false, 0},
		{"frame begins too late", 8, 53, false, 0},
		{"frame offset wraps", 8, 0xffffffff, false, 0},
		{"frame too long", 12, frame + 1, false, 0},
		{"frame length wraps", 12, 0xffffffff, false, 0},
		{"frame empty", 12, 0, false, 0},
		{"PPIs over the header", 28, 35, false, 0},
		{"PPIs begin too late", 28, 145, false, 0},
		{"PPI offset wraps", 28, 0xfffffff0, false, 0},
		{"PPIs too long", 32, 150, false, 0},
		{"PPI length wraps", 32, 0xffffffff, false, 0},
		{"no PPIs: the offset does not count", 32, 0, true, 0},
		{"out-of-band offset", 16, 1, true, 0},
		{"out-of-band length", 20, 1, true, 0},
		{"out-of-band count", 24, 1, true, 0},
		{"VC handle", 36, 1, true, 0},
	} {
		b := make([]byte, MaxPacketHeader+frame)
		n := PutPacket(b, frame, &Info{Has: HasHash, Hash: 5}) + frame
		b = b[:n]
		le.PutUint32(b[c.at:], c.v)
		if c.avail == 0 {
			c.avail = n
		}
		p, err := ParsePacket(b, c.avail)
		if c.ok != (err == nil) || !c.ok && !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %+v, %v", c.name, p, err)
		}
		if oob := c.at >= 16 && c.at <= 24 || c.at == 36; c.ok && oob != (p.CheckSent() != nil) {
			t.Errorf("%s: CheckSent: %v", c.name, p.CheckSent())
		}
	}
	// The head ends before the PPIs do.
	b := make([]byte, 300)
	PutPacketAt(b, 200, 100, &Info{Has: HasHash})
	for _, n := range []int{0, 43, 44, 59} {
		if p, err := ParsePacket(b[:n], 300); !errors.Is(err, ErrMalformed) {
			t.Errorf("head of %d bytes: %+v, %v", n, p, err)
		}
	}
	if p, err := ParsePacket(b[:60], 300); err != nil || p.DataOffset != 200 {
		t.Errorf("head of header and PPIs: %+v, %v", p, err)
	}
	if p, err := ParsePacket(b, -1); !errors.Is(err, ErrMalformed) {
		t.Errorf("nothing available: %+v, %v", p, err)
	}
}

func TestBadPPIs(t *testing.T) {
	for _, c := range []struct {
		name string
		area string
		ok   bool
	}{
		{"none", "", true},
		{"unknown type is skipped", "10000000 07000000 0c000000 01000000 10000000 08000000 0c000000 05000000", true},
		{"bus-private type is not the public one", "10000000 08000080 0c000000 01000000 10000000 08000000 0c000000 05000000", true},
		{"the first of a type counts", "10000000 08000000 0c000000 05000000 10000000 08000000 0c000000 06000000", true},
		{"longer than its value", "14000000 08000000 0c000000 05000000 ffffffff", true},
		{"value further on", "14000000 08000000 10000000 ffffffff 05000000", true},
		{"size 0", "00000000 08000000 0c000000 05000000", false},
		{"size below the header", "0b000000 08000000 0c000000 05000000", false},
		{"size of the header only", "0c000000 08000000 0c000000", false},
		{"size beyond the area", "11000000 08000000 0c000000 05000000", false},
		{"size wraps", "f0ffffff 08000000 0c000000 05000000", false},
		{"value over the header", "10000000 08000000 08000000 05000000", false},
		{"value at the end", "10000000 08000000 10000000 05000000", false},
		{"unknown type without a value", "10000000 07000000 10000000 05000000", false},
		{"value offset wraps", "10000000 08000000 fcffffff 05000000", false},
		{"value too short", "0e000000 08000000 0c000000 0500", false},
		{"rest too short for a PPI", "10000000 08000000 0c000000 05000000 10000000", false},
		{"bad one behind a good one", "10000000 08000000 0c000000 05000000 00000000 00000000 00000000", false},
	} {
		p := Packet{PPI: unhex(t, c.area)}
		var in Info
		err := p.Info(&in)
		if c.ok != (err == nil) || !c.ok && !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %+v, %v", c.name, in, err)
		}
		if c.ok && c.area != "" && (in.Has != HasHash || in.Hash != 5) {
			t.Errorf("%s: %+v", c.name, in)
		}
	}
}

func TestPacketRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := Info{Has: InfoSet(rapid.IntRange(0, 63).Draw(t, "has"))}
		if in.Has&HasLargeSend != 0 {
			in.Has &^= HasChecksum
		}
		set := func(has InfoSet, v *uint32) {
			if in.Has&has != 0 {
				*v = rapid.Uint32().Draw(t, "value")
			}
		}
		set(HasHash, &in.Hash)
		set(HasHashInfo, (*uint32)(&in.HashInfo))
		set(HasChecksum, &in.Checksum)
		set(HasLargeSend, (*uint32)(&in.LargeSend))
		set(HasPacketID, (*uint32)(&in.PacketID))
		if in.Has&HasVLAN != 0 {
			in.VLAN = rapid.Uint16().Draw(t, "tag")
		}
		frame := rapid.IntRange(1, 1<<20).Draw(t, "frame")
		b := make([]byte, PacketHeadSize)
		n := PutPacket(b, frame, &in)
		p, err := ParsePacket(b[:n], n+frame)
		var got Info
		if err != nil || p.DataOffset != n || p.DataLen != frame || p.Length != n+frame {
			t.Fatalf("%+v, %v", p, err)
		}
		if err := p.Info(&got); err != nil || got != in {
			t.Fatalf("%+v, want %+v: %v", got, in, err)
		}
	})
}

// FuzzParsePacket: what is accepted lies inside, and the walk over the PPIs ends.
func FuzzParsePacket(f *testing.F) {
	f.Add(unhex(f, sentWithHash), 150)
	f.Add(unhex(f, sentBare), 86)
	f.Add(unhex(f, receivedBare), 86)
	full := make([]byte, MaxPacketHeader)
	PutPacket(full, 1000, &Info{Has: HasHash | HasVLAN | HasChecksum | HasPacketID})
	f.Add(full, 1108)
	full = make([]byte, PacketHeadSize)
	f.Add(full[:PutPacket(full, 1000, &Info{Has: HasHash | HasHashInfo | HasVLAN | HasChecksum | HasPacketID})], 1124)
	f.Fuzz(func(t *testing.T, head []byte, avail int) {
		p, err := ParsePacket(head, avail)
		var in Info
		if err == nil {
			if p.DataOffset < PacketHeaderSize || p.DataLen < 1 || p.DataOffset+p.DataLen > p.Length || p.Length > avail || len(p.PPI) > len(head) {
				t.Fatalf("%+v of %d bytes, head %d", p, avail, len(head))
			}
			err = p.Info(&in)
		}
		if err != nil && !errors.Is(err, ErrMalformed) {
			t.Fatalf("%v is not ErrMalformed", err)
		}
		p = Packet{PPI: head} // the walk, with more to find
		_ = p.Info(&in)
	})
}

func TestPacketDoesNotAllocate(t *testing.T) {
	b := make([]byte, 2048)
	bad := bytes.Clone(unhex(t, sentWithHash))
	le.PutUint32(bad[44:], 0)
	if n := testing.AllocsPerRun(100, func() {
		in := Info{Has: HasHash | HasVLAN | HasChecksum, Hash: 7}
		PutPacket(b, 1000, &in)
		PutPacketAt(b, 256, 1000, &in)
		p, err := ParsePacket(b[:PacketHeadSize], len(b))
		if err != nil || p.CheckSent() != nil || p.Info(&in) != nil {
			t.Fatal(err)
		}
		p, err = ParsePacket(bad, 150) // a hostile peer's
		if err != nil || p.Info(&in) == nil {
			t.Fatal("the bad PPI was taken")
		}
		if _, err := ParsePacket(bad, 100); err == nil {
			t.Fatal("the bad length was taken")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkPacket(b *testing.B) {
	buf := make([]byte, 2048)
	b.Run("bare", func(b *testing.B) {
		for b.Loop() {
			PutPacket(buf, 1000, nil)
			if _, err := ParsePacket(buf, len(buf)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("hash", func(b *testing.B) {
		in := Info{Has: HasHash, Hash: 7}
		for b.Loop() {
			PutPacket(buf, 1000, &in)
			p, err := ParsePacket(buf, len(buf))
			if err != nil {
				b.Fatal(err)
			}
			var got Info
			if err := p.Info(&got); err != nil {
				b.Fatal(err)
			}
		}
	})
}
