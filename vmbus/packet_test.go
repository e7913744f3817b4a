package vmbus

import (
	"bytes"
	"errors"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// finish sets the length field of a packet as ring.Producer.Put does.
func finish(b []byte) []byte {
	b = append(b, make([]byte, -len(b)&7)...)
	le.PutUint16(b[4:], uint16(len(b)/8))
	return b
}

// Packets as Linux 6.1's hv_netvsc and a host exchanged them.
func TestPackets(t *testing.T) {
	initPayload := "01000000 01000600 01000600"
	for _, test := range []struct {
		name  string
		size  int
		bytes string
		head  []byte
		want  Packet
	}{
		{"in-band", 56, "06000200 07000100 01000000 00000000" + initPayload, AppendInBand(nil, FlagCompletionRequested, 1),
			Packet{Type: PacketInBand, Flags: 1, TID: 1, Payload: unhex(t, initPayload, 40)}},
		{"in-band without completion", 56, "06000200 07000000 fdffffff ffffffff 7d000000 ea050000 00000000 ac000000",
			AppendInBand(nil, 0, math.MaxUint64-2), Packet{Type: PacketInBand, TID: math.MaxUint64 - 2, Payload: unhex(t, "7d000000 ea050000 00000000 ac000000", 40)}},
		{"completion", 24, "0b000200 03000000 ec250000 00000000 6c000000 01000000", AppendCompletion(nil, 0x25ec),
			Packet{Type: PacketCompletion, TID: 0x25ec, Payload: unhex(t, "6c000000 01000000", 8)}},
		{"transfer pages", 72, "07000400 09000100 ec250000 00000000 feca0000 01000000 34000000 00f9ff00 6b000000 01000000 ffffffff",
			AppendTransferPages(nil, 0x25ec, 0xcafe, []ByteRange{{0x34, 0xfff900}}),
			Packet{Type: PacketTransferPages, Flags: 1, TID: 0x25ec, Ext: unhex(t, "feca0000 01000000 34000000 00f9ff00", 16),
				Payload: unhex(t, "6b000000 01000000 ffffffff", 40)}},
		{"GPA direct", 80, "09000500 0a000100 04000000 00000000 00000000 01000000 18000000 88000000 6d650000 00000000 6b000000 01000000 ffffffff",
			AppendGPADirect(nil, 4, []PageRange{{0x18, 0x88, []uint64{0x656d}}}),
			Packet{Type: PacketGPADirect, Flags: 1, TID: 4, Ext: unhex(t, "00000000 01000000 18000000 88000000 6d650000 00000000", 24),
				Payload: unhex(t, "6b000000 01000000 ffffffff", 40)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := unhex(t, test.bytes, test.size)
			got, err := ParsePacket(b)
			if err != nil {
				t.Fatal(err)
			}
			if len(got.Ext) == 0 {
				got.Ext = nil
			}
			if d := cmp.Diff(test.want, got); d != "" {
				t.Error(d)
			}
			if got.CompletionRequested() != (got.Flags == 1) {
				t.Error("CompletionRequested")
			}
			if made := finish(append(test.head, got.Payload...)); !bytes.Equal(made, b) {
				t.Errorf("appended\n%x, want\n%x", made, b)
			}
		})
	}
}

func TestRangesOfPackets(t *testing.T) {
	p, err := ParsePacket(unhex(t, "07000400 09000100 ec250000 00000000 feca0000 01000000 34000000 00f9ff00", 72))
	if err != nil {
		t.Fatal(err)
	}
	set, ranges, err := p.TransferPages(make([]ByteRange, 0, 4))
	if err != nil || set != 0xcafe || len(ranges) != 1 || ranges[0] != (ByteRange{0x34, 0xfff900}) {
		t.Errorf("%#x %v %v", set, ranges, err)
	}
	if _, _, err := p.GPASpans(make([]Span, 4), 1000); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}

	p, err = ParsePacket(unhex(t, "09000500 0a000100 04000000 00000000 00000000 01000000 18000000 88000000 6d650000", 80))
	if err != nil {
		t.Fatal(err)
	}
	spans, total, err := p.GPASpans(make([]Span, 0, 4), 1000)
	if err != nil || total != 0x18 || len(spans) != 1 || spans[0] != (Span{0x656d088, 0x18}) {
		t.Errorf("%v %d %v", spans, total, err)
	}
	if _, _, err := p.TransferPages(make([]ByteRange, 4)); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
}

func TestParsePacketRefuses(t *testing.T) {
	for name, b := range map[string][]byte{
		"nothing":                  nil,
		"part of a descriptor":     make([]byte, 15),
		"payload in descriptor":    unhex(t, "06000100 04000000", 32),
		"payload behind the end":   unhex(t, "06000500 04000000", 32),
		"longer than the bytes":    unhex(t, "06000200 05000000", 32),
		"as long as it can be":     unhex(t, "06000200 ffff0000", 32),
		"length 0 with offset 0":   unhex(t, "06000000 00000000", 32),
		"length left as appended":  append(AppendInBand(nil, 0, 1), 1, 2, 3),
		"extension behind the end": unhex(t, "0600ffff 04000000", 32),
	} {
		if p, err := ParsePacket(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
}

func TestTransferPagesChecks(t *testing.T) {
	two := unhex(t, "feca0000 02000000 01000000 02000000 03000000 04000000", 24)
	for _, test := range []struct {
		name string
		typ  uint16
		ext  []byte
		room int
		want []ByteRange
	}{
		{"two", PacketTransferPages, two, 2, []ByteRange{{1, 2}, {3, 4}}},
		{"more bytes than ranges", PacketTransferPages, append(bytes.Clone(two), make([]byte, 8)...), 2, []ByteRange{{1, 2}, {3, 4}}},
		{"none", PacketTransferPages, two[:0:0], 2, nil},
		{"no room", PacketTransferPages, two, 1, nil},
		{"claims more than it holds", PacketTransferPages, two[:16], 2, nil},
		{"claims as much as can be", PacketTransferPages, unhex(t, "feca0000 ffffffff", 24), 2, nil},
		{"other type", PacketGPADirect, two, 2, nil},
	} {
		p := Packet{Type: test.typ, Ext: test.ext}
		set, got, err := p.TransferPages(make([]ByteRange, 0, test.room))
		if (err == nil) != (test.want != nil) || err != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", test.name, err)
		}
		if d := cmp.Diff(test.want, got); d != "" || err == nil && set != 0xcafe {
			t.Errorf("%s: set %#x\n%s", test.name, set, d)
		}
	}
	for _, r := range []struct {
		ByteRange
		size int
		want bool
	}{
		{ByteRange{0, 0}, 0, true},
		{ByteRange{10, 90}, 100, true},
		{ByteRange{11, 90}, 100, false},
		{ByteRange{0, 101}, 100, false},
		{ByteRange{0xffffffff, 0xffffffff}, 100, false},
		{ByteRange{100, 0xffffffff}, 100, false},
	} {
		if r.Within(r.size) != r.want {
			t.Errorf("%+v within %d: %v", r.ByteRange, r.size, !r.want)
		}
	}
}

func TestGPASpansChecks(t *testing.T) {
	ext := func(n uint64, ws ...uint64) []byte { return append(list(n<<32), list(ws...)...) }
	for _, test := range []struct {
		name string
		ext  []byte
		want []Span
	}{
		{"pages apart", ext(1, rangeWord(5000, 4000), 5, 9, 2), []Span{{5*4096 + 4000, 96}, {9 * 4096, 4096}, {2 * 4096, 808}}},
		{"pages in a row", ext(1, rangeWord(5000, 4000), 5, 6, 7), []Span{{5*4096 + 4000, 5000}}},
		{"ranges in a row", ext(2, rangeWord(96, 4000), 5, rangeWord(10, 0), 6), []Span{{5*4096 + 4000, 106}}},
		{"ranges apart", ext(2, rangeWord(95, 4000), 5, rangeWord(10, 0), 6), []Span{{5*4096 + 4000, 95}, {6 * 4096, 10}}},
		{"pages that do not count", ext(1, rangeWord(1, 4095), 5, 6, 7), []Span{{5*4096 + 4095, 1}}},
		{"garbage in the reserved word", append(list(1<<32|0xabcd), list(rangeWord(1, 0), 5)...), []Span{{5 * 4096, 1}}},
		{"highest page", ext(1, rangeWord(1, 0), 1<<51-1), []Span{{(1<<51 - 1) * 4096, 1}}},

		{"no extension", nil, nil},
		{"no range", ext(0), nil},
		{"too many ranges", append(ext(33), bytes.Repeat(list(rangeWord(1, 0), 5), 33)...), nil},
		{"as many as can be", ext(0xffffffff, rangeWord(1, 0), 5), nil},
		{"claims more than it holds", ext(2, rangeWord(1, 0), 5), nil},
		{"range without page", ext(1, rangeWord(1, 0)), nil},
		{"empty range", ext(1, rangeWord(0, 0), 5), nil},
		{"offset of a page", ext(1, rangeWord(1, 4096), 5), nil},
		{"offset and count overflow", ext(1, rangeWord(0xffffffff, 0xffffffff), 5), nil},
		{"too few pages", ext(1, rangeWord(4097, 0), 5), nil},
		{"address overflows", ext(1, rangeWord(1, 0), 1<<52), nil},
		{"highest address", ext(1, rangeWord(1, 0), math.MaxUint64), nil},
		{"more bytes than the limit", ext(2, rangeWord(4096, 0), 5, rangeWord(4096, 0), 6), nil},
		{"more spans than the receiver takes", ext(5, rangeWord(1, 0), 1, rangeWord(1, 0), 1, rangeWord(1, 0), 1, rangeWord(1, 0), 1, rangeWord(1, 0), 1), nil},
	} {
		p := Packet{Type: PacketGPADirect, Ext: test.ext}
		got, total, err := p.GPASpans(make([]Span, 0, 4), 8191)
		if (err == nil) != (test.want != nil) || err != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", test.name, err)
		}
		if d := cmp.Diff(test.want, got); d != "" {
			t.Errorf("%s: %s", test.name, d)
		}
		for _, s := range got {
			total -= s.Len
		}
		if total != 0 {
			t.Errorf("%s: the sum is wrong by %d", test.name, total)
		}
	}
}

func TestGPASpansAreTheBytesOfTheRanges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var ranges []PageRange
		var want []uint64 // the address of each byte
		for range rapid.IntRange(1, 4).Draw(t, "ranges") {
			r := PageRange{Count: uint32(rapid.IntRange(1, 9000).Draw(t, "count")), Offset: uint32(rapid.IntRange(0, 4095).Draw(t, "offset"))}
			for range pageCount(r.Count, r.Offset) {
				r.PFNs = append(r.PFNs, rapid.Uint64Range(1, 4).Draw(t, "pfn"))
			}
			for i := r.Offset; i < r.Offset+r.Count; i++ {
				want = append(want, r.PFNs[i/4096]*4096+uint64(i%4096))
			}
			ranges = append(ranges, r)
		}
		p, err := ParsePacket(finish(AppendGPADirect(nil, 1, ranges)))
		if err != nil {
			t.Fatal(err)
		}
		spans, total, err := p.GPASpans(make([]Span, 0, 64), len(want))
		if err != nil || total != len(want) {
			t.Fatalf("%d bytes, want %d: %v", total, len(want), err)
		}
		var got []uint64
		for _, s := range spans {
			for i := range s.Len {
				got = append(got, s.GPA+uint64(i))
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatal(d)
		}
	})
}

func TestPacketsDoNotAllocate(t *testing.T) {
	buf := make([]byte, 0, 1024)
	bytesOf := []ByteRange{{1, 2}, {3, 4}}
	pagesOf := []PageRange{{4096, 0, []uint64{1}}, {8192, 0, []uint64{2, 3}}}
	ranges, spans := make([]ByteRange, 8), make([]Span, 8)
	var err error
	allocs := testing.AllocsPerRun(100, func() {
		b := AppendTransferPages(buf, 1, 2, bytesOf)
		le.PutUint16(b[4:], uint16(len(b)/8))
		p, _ := ParsePacket(b)
		_, _, e1 := p.TransferPages(ranges)
		b = AppendGPADirect(buf, 1, pagesOf)
		le.PutUint16(b[4:], uint16(len(b)/8))
		p, _ = ParsePacket(b)
		_, _, e2 := p.GPASpans(spans, 1<<20)
		_, _, e3 := p.TransferPages(ranges) // refused
		AppendInBand(buf, 1, 2)
		AppendCompletion(buf, 2)
		if e3 == nil {
			e2 = errors.New("not refused")
		}
		err = errors.Join(err, e1, e2)
	})
	if allocs != 0 || err != nil {
		t.Errorf("%v allocations, %v", allocs, err)
	}
}

func FuzzPacket(f *testing.F) {
	f.Add(finish(AppendTransferPages(nil, 1, 2, []ByteRange{{1, 2}, {3, 4}})))
	f.Add(finish(AppendGPADirect(nil, 1, []PageRange{{5000, 4000, []uint64{5, 6, 9}}, {1, 0, []uint64{2}}})))
	f.Add(finish(append(AppendInBand(nil, 1, 1), 1, 2, 3)))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParsePacket(b)
		if err != nil {
			return
		}
		if len(p.Ext)%8 != 0 || len(p.Payload)%8 != 0 || 16+len(p.Ext)+len(p.Payload) > len(b) {
			t.Fatalf("extension of %d and payload of %d bytes in %d", len(p.Ext), len(p.Payload), len(b))
		}
		if set, ranges, err := p.TransferPages(make([]ByteRange, 0, 16)); err == nil {
			again, err := ParsePacket(finish(AppendTransferPages(nil, p.TID, set, ranges)))
			if err != nil {
				t.Fatal(err)
			}
			set2, ranges2, err := again.TransferPages(make([]ByteRange, 16))
			if d := cmp.Diff(ranges, ranges2); err != nil || set2 != set || d != "" {
				t.Fatal(set, set2, err, d)
			}
		}
		const limit = 1 << 17
		if spans, total, err := p.GPASpans(make([]Span, 0, 16), limit); err == nil {
			sum := 0
			for _, s := range spans {
				if s.Len <= 0 || s.GPA+uint64(s.Len) < s.GPA {
					t.Fatalf("span %+v", s)
				}
				sum += s.Len
			}
			if sum != total || total > limit || total == 0 {
				t.Fatalf("%d bytes, said %d", sum, total)
			}
		}
	})
}

func TestFirstRange(t *testing.T) {
	b := finish(AppendGPADirect(nil, 1, []PageRange{{Count: 5000, Offset: 10, PFNs: []uint64{1, 7}}, {Count: 8, PFNs: []uint64{9}}}))
	for what, c := range map[string]struct {
		packet []byte
		want   int
	}{
		"two ranges": {b, 5000},
		"in-band":    {finish(append(AppendInBand(nil, 0, 1), make([]byte, 40)...)), 0},
		"no range":   {finish(AppendGPADirect(nil, 1, nil)), 0},
	} {
		p, err := ParsePacket(c.packet)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if got := p.FirstRange(); got != c.want {
			t.Errorf("%s: %d, want %d", what, got, c.want)
		}
	}
}

func TestParseDescriptor(t *testing.T) {
	b := finish(AppendTransferPages(nil, 0x1122334455667788, 1, make([]ByteRange, 100)))
	for _, n := range []int{0, 15} {
		if _, err := ParseDescriptor(b[:n]); !errors.Is(err, ErrMalformed) {
			t.Errorf("of %d bytes: %v", n, err)
		}
	}
	want := Packet{Type: PacketTransferPages, Flags: FlagCompletionRequested, TID: 0x1122334455667788}
	if p, err := ParseDescriptor(b[:16]); err != nil || !cmp.Equal(p, want) {
		t.Errorf("got %+v, %v", p, err)
	}
}
