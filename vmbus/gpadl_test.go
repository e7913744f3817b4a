package vmbus

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// The first two of the messages with which Linux 6.1 makes the GPADL of its rings:
// 1 MiB in the pages from 0x6700 on.
const linuxGPADLHeader = `
	08000000 00000000 01000000 101e0e00 08080100 00001000 00000000
	0067000000000000 0167000000000000 0267000000000000 0367000000000000 0467000000000000
	0567000000000000 0667000000000000 0767000000000000 0867000000000000 0967000000000000
	0a67000000000000 0b67000000000000 0c67000000000000 0d67000000000000 0e67000000000000
	0f67000000000000 1067000000000000 1167000000000000 1267000000000000 1367000000000000
	1467000000000000 1567000000000000 1667000000000000 1767000000000000 1867000000000000
	1967000000000000`

const linuxGPADLBody = `
	09000000 00000000 00000000 101e0e00
	1a67000000000000 1b67000000000000 1c67000000000000 1d67000000000000 1e67000000000000
	1f67000000000000 2067000000000000 2167000000000000 2267000000000000 2367000000000000
	2467000000000000 2567000000000000 2667000000000000 2767000000000000 2867000000000000
	2967000000000000 2a67000000000000 2b67000000000000 2c67000000000000 2d67000000000000
	2e67000000000000 2f67000000000000 3067000000000000 3167000000000000 3267000000000000
	3367000000000000 3467000000000000 3567000000000000`

func from(first uint64) func(int) uint64 {
	return func(i int) uint64 { return first + uint64(i) }
}

// assemble parses messages as a host does.
func assemble(t testing.TB, msgs [][]byte) (*Assembler, error) {
	t.Helper()
	h, err := ParseGPADLHeader(msgs[0])
	if err != nil {
		t.Fatal(err)
	}
	a, err := NewAssembler(h)
	if err != nil {
		return nil, err
	}
	for i, m := range msgs[1:] {
		if a.Done() {
			t.Errorf("done before message %d", i+1)
		}
		body, err := ParseGPADLBody(m)
		if err != nil {
			t.Fatal(err)
		}
		if body.ID != a.ID() {
			t.Fatalf("body of %#x", body.ID)
		}
		a.Add(body.Data)
	}
	return a, nil
}

func TestAppendGPADLAsLinuxDoes(t *testing.T) {
	msgs, err := AppendGPADL(nil, 1, 0xe1e10, 256, from(0x6700))
	if err != nil {
		t.Fatal(err)
	}
	if header := unhex(t, linuxGPADLHeader, 236); !bytes.Equal(msgs[0], header) {
		t.Errorf("header\n%x, want\n%x", msgs[0], header)
	}
	if body := unhex(t, linuxGPADLBody, 240); !bytes.Equal(msgs[1], body) {
		t.Errorf("body\n%x, want\n%x", msgs[1], body)
	}
}

// The sizes of a GPADL: uio_hv_generic's receive buffer of 31 MiB, the largest that
// there is, and those around the ends of messages.
func TestAppendGPADLSizes(t *testing.T) {
	for _, test := range []struct {
		pages, rangeLen, messages, last int
	}{
		{1, 16, 1, 36},
		{26, 216, 1, 236},
		{27, 224, 2, 24},
		{54, 440, 2, 240},
		{55, 448, 3, 24},
		{7936, 63496, 284, 16 + 14*8},
		{8190, 65528, 293, 16 + 16*8},
	} {
		msgs, err := AppendGPADL(nil, 5, 9, test.pages, from(1000))
		if err != nil {
			t.Fatal(err)
		}
		h, err := ParseGPADLHeader(msgs[0])
		if err != nil || int(h.RangeLen) != test.rangeLen || h.Ranges != 1 {
			t.Errorf("%d pages: %d ranges in %d bytes, %v", test.pages, h.Ranges, h.RangeLen, err)
		}
		if last := len(msgs[len(msgs)-1]); len(msgs) != test.messages || last != test.last {
			t.Errorf("%d pages: %d messages, the last of %d bytes, want %d and %d", test.pages, len(msgs), last, test.messages, test.last)
		}
		a, err := assemble(t, msgs)
		if err != nil {
			t.Fatal(err)
		}
		ranges, err := a.Ranges()
		if err != nil || len(ranges) != 1 || ranges[0].Count != uint32(test.pages*PageSize) || len(ranges[0].PFNs) != test.pages ||
			ranges[0].PFNs[test.pages-1] != uint64(1000+test.pages-1) {
			t.Errorf("%d pages: %v", test.pages, err)
		}
		if a.Relid() != 5 || a.ID() != 9 || a.Held() > 1<<17 {
			t.Errorf("relid %d, id %d, %d bytes held", a.Relid(), a.ID(), a.Held())
		}
	}
}

func TestAppendGPADLRefuses(t *testing.T) {
	for _, pages := range []int{-1, 0, MaxGPADLPages + 1} {
		had := [][]byte{{1}}
		msgs, err := AppendGPADL(had, 1, 2, pages, from(0))
		if err == nil || len(msgs) != 1 {
			t.Errorf("%d pages: %d messages, %v", pages, len(msgs), err)
		}
	}
}

// list makes the words of a range list.
func list(ws ...uint64) (b []byte) {
	for _, w := range ws {
		b = le.AppendUint64(b, w)
	}
	return b
}

func rangeWord(count, offset uint32) uint64 { return uint64(count) | uint64(offset)<<32 }

func TestAssemblerChecks(t *testing.T) {
	for _, test := range []struct {
		name   string
		h      GPADLHeader
		begins bool
		want   []PageRange
	}{
		{"one page", GPADLHeader{ID: 1, RangeLen: 16, Ranges: 1, Data: list(rangeWord(4096, 0), 7)}, true,
			[]PageRange{{4096, 0, []uint64{7}}}},
		{"one byte at the end of a page", GPADLHeader{ID: 1, RangeLen: 16, Ranges: 1, Data: list(rangeWord(1, 4095), 7)}, true,
			[]PageRange{{1, 4095, []uint64{7}}}},
		{"two bytes around the end of a page", GPADLHeader{ID: 1, RangeLen: 24, Ranges: 1, Data: list(rangeWord(2, 4095), 7, 9)}, true,
			[]PageRange{{2, 4095, []uint64{7, 9}}}},
		{"two ranges", GPADLHeader{ID: 1, RangeLen: 40, Ranges: 2, Data: list(rangeWord(8192, 0), 7, 8, rangeWord(1, 1), 9)}, true,
			[]PageRange{{8192, 0, []uint64{7, 8}}, {1, 1, []uint64{9}}}},
		{"bytes behind the list", GPADLHeader{ID: 1, RangeLen: 16, Ranges: 1, Data: list(rangeWord(4096, 0), 7, 0, 0)}, true,
			[]PageRange{{4096, 0, []uint64{7}}}},

		{"id 0", GPADLHeader{RangeLen: 16, Ranges: 1}, false, nil},
		{"odd length", GPADLHeader{ID: 1, RangeLen: 65535, Ranges: 1}, false, nil},
		{"no range", GPADLHeader{ID: 1, RangeLen: 16}, false, nil},
		{"no length", GPADLHeader{ID: 1, Ranges: 1}, false, nil},
		{"range without pages", GPADLHeader{ID: 1, RangeLen: 8, Ranges: 1}, false, nil},
		{"more ranges than the list can hold", GPADLHeader{ID: 1, RangeLen: 16, Ranges: 65535}, false, nil},

		{"incomplete", GPADLHeader{ID: 1, RangeLen: 24, Ranges: 1, Data: list(rangeWord(8192, 0), 7)}, true, nil},
		{"empty range", GPADLHeader{ID: 1, RangeLen: 16, Ranges: 1, Data: list(rangeWord(0, 0), 7)}, true, nil},
		{"offset of a page", GPADLHeader{ID: 1, RangeLen: 16, Ranges: 1, Data: list(rangeWord(1, 4096), 7)}, true, nil},
		{"offset and count overflow", GPADLHeader{ID: 1, RangeLen: 16, Ranges: 1, Data: list(rangeWord(0xffffffff, 0xffffffff), 7)}, true, nil},
		{"too few pages", GPADLHeader{ID: 1, RangeLen: 16, Ranges: 1, Data: list(rangeWord(4097, 0), 7)}, true, nil},
		{"far too few pages", GPADLHeader{ID: 1, RangeLen: 16, Ranges: 1, Data: list(rangeWord(0xffffffff, 4095), 7)}, true, nil},
		{"pages behind the last range", GPADLHeader{ID: 1, RangeLen: 24, Ranges: 1, Data: list(rangeWord(4096, 0), 7, 8)}, true, nil},
		{"list ends before the second range", GPADLHeader{ID: 1, RangeLen: 32, Ranges: 2, Data: list(rangeWord(3*4096, 0), 7, 8, 9)}, true, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, err := NewAssembler(test.h)
			if !test.begins {
				if !errors.Is(err, ErrMalformed) {
					t.Errorf("NewAssembler: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got, err := a.Ranges()
			if (err == nil) != (test.want != nil) || err != nil && !errors.Is(err, ErrMalformed) {
				t.Fatalf("Ranges: %v", err)
			}
			if d := cmp.Diff(test.want, got); d != "" {
				t.Error(d)
			}
			before := a.Done()
			if a.Add(list(1, 2, 3)); before && len(a.list) != int(test.h.RangeLen)/8 {
				t.Error("a complete list took more")
			}
		})
	}
}

// Some guests post whole messages whatever is in them.
func TestAssemblerIgnoresPadding(t *testing.T) {
	msgs, err := AppendGPADL(nil, 1, 2, 30, from(50))
	if err != nil {
		t.Fatal(err)
	}
	for i := range msgs {
		msgs[i] = append(msgs[i], make([]byte, MaxMessage-len(msgs[i]))...)
	}
	// 240 bytes of a header have room for 27 words, the range and 26 PFNs, and a half;
	// the half must not shift the rest.
	a, err := assemble(t, msgs)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := a.Ranges(); err != nil || len(r[0].PFNs) != 30 || r[0].PFNs[29] != 79 {
		t.Errorf("%v, %v", r, err)
	}
}

// The bodies may be cut in any way.
func TestGPADLRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var want []PageRange
		var words []byte
		for range rapid.IntRange(1, 5).Draw(t, "ranges") {
			r := PageRange{Count: uint32(rapid.IntRange(1, 1<<18).Draw(t, "count")), Offset: uint32(rapid.IntRange(0, 4095).Draw(t, "offset"))}
			words = append(words, list(rangeWord(r.Count, r.Offset))...)
			for range pageCount(r.Count, r.Offset) {
				pfn := rapid.Uint64().Draw(t, "pfn")
				r.PFNs = append(r.PFNs, pfn)
				words = append(words, list(pfn)...)
			}
			want = append(want, r)
		}
		h := GPADLHeader{Relid: 1, ID: 2, RangeLen: uint16(len(words)), Ranges: uint16(len(want))}
		h.Data, words = cut(words, 8*rapid.IntRange(0, 27).Draw(t, "header words"))
		h, err := ParseGPADLHeader(h.Append(nil))
		if err != nil {
			t.Fatal(err)
		}
		a, err := NewAssembler(h)
		if err != nil {
			t.Fatal(err)
		}
		for len(words) > 0 {
			m := GPADLBody{ID: 2}
			m.Data, words = cut(words, 8*rapid.IntRange(1, 28).Draw(t, "body words"))
			m, err := ParseGPADLBody(m.Append(nil))
			if err != nil {
				t.Fatal(err)
			}
			a.Add(m.Data)
		}
		got, err := a.Ranges()
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatal(d)
		}
	})
}

// FuzzAssembler feeds a header and a row of bodies.
func FuzzAssembler(f *testing.F) {
	msgs, _ := AppendGPADL(nil, 1, 2, 60, from(7))
	f.Add(msgs[0], bytes.Join(msgs[1:], nil))
	f.Add(GPADLHeader{ID: 1, RangeLen: 32, Ranges: 2, Data: list(rangeWord(0xffffffff, 4095), 7, 8, 9)}.Append(nil), []byte{})
	f.Fuzz(func(t *testing.T, header, bodies []byte) {
		h, err := ParseGPADLHeader(header)
		if err != nil {
			return
		}
		a, err := NewAssembler(h)
		if err != nil {
			return
		}
		for len(bodies) >= 240 && !a.Done() {
			if m, err := ParseGPADLBody(bodies[:240]); err == nil {
				a.Add(m.Data)
			}
			bodies = bodies[240:]
		}
		if a.Held() > 1<<17 {
			t.Fatalf("%d bytes held", a.Held())
		}
		ranges, err := a.Ranges()
		if err != nil {
			return
		}
		words := 0
		for _, r := range ranges {
			if r.Count == 0 || r.Offset >= PageSize || uint64(len(r.PFNs)) != pageCount(r.Count, r.Offset) {
				t.Fatalf("range of %d bytes at %d with %d pages", r.Count, r.Offset, len(r.PFNs))
			}
			words += 1 + len(r.PFNs)
		}
		if words*8 != int(h.RangeLen) || len(ranges) != int(h.Ranges) {
			t.Fatalf("%d ranges in %d words, want %d in %d bytes", len(ranges), words, h.Ranges, h.RangeLen)
		}
	})
}
