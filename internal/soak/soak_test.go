package main

import (
	"os"
	"strings"
	"testing"
	"time"

	"hvnet/host"
	"hvnet/nic"
)

func TestMain(m *testing.M) {
	if what := os.Getenv(environment); what != "" {
		os.Exit(stationMain(what))
	}
	os.Exit(m.Run())
}

// TestSoak is a short one.
func TestSoak(t *testing.T) {
	var out strings.Builder
	if err := soak(t.Context(), 1, 3*time.Second, true, &out); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
}

// TestChecks: what the soak is to find, it finds.
func TestChecks(t *testing.T) {
	frame := func(n int, l label) []byte {
		b := make([]byte, n)
		l.mark = markTraffic
		l.write(b, host.PortMAC(names[1]), host.PortMAC(names[l.sender]), 1)
		return b
	}
	good := frame(100, label{seq: 5, life: 2})
	if l, err := read(good); err != nil || l != (label{mark: markTraffic, seq: 5, life: 2}) {
		t.Errorf("%+v, %v", l, err)
	}
	for bit := 8 * nic.HeaderLen; bit < 8*len(good); bit++ {
		bad := append([]byte(nil), good...)
		bad[bit/8] ^= 1 << (bit % 8)
		if _, err := read(bad); err == nil {
			t.Errorf("bit %d is changed, and nobody notices", bit)
		}
	}
	if _, err := read(good[:99]); err == nil {
		t.Error("a byte is missing, and nobody notices")
	}
}

// TestFlat: memory that grows is noticed, memory that does not is not.
func TestFlat(t *testing.T) {
	for _, c := range []struct {
		what    string
		samples int
		grow    func(i int) usage
		flat    bool
	}{
		{"nothing grows", 40, func(i int) usage { return usage{heap: 20<<20 + i%3<<20, private: 90 << 20} }, true},
		{"growth at first alone", 40, func(i int) usage { return usage{heap: min(i, 5) << 24} }, true},
		{"the heap grows", 40, func(i int) usage { return usage{heap: i << 20} }, false},
		{"the process grows", 40, func(i int) usage { return usage{private: i << 20} }, false},
		{"files are left open", 40, func(i int) usage { return usage{files: 50 + i} }, false},
		{"mappings stay", 40, func(i int) usage { return usage{shared: 90 + 2*i} }, false},
		{"files come and go", 40, func(i int) usage { return usage{files: 50 + i%9, shared: 90 + i%7} }, true},
		{"too short to tell", 15, func(i int) usage { return usage{heap: i << 30} }, true},
	} {
		var list []usage
		for i := range c.samples {
			list = append(list, c.grow(i))
		}
		if err := flat(list); (err == nil) != c.flat {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}

// TestFaults: a station tells what it should not have received, and tolerates on a
// bad line what is no fault there.
func TestFaults(t *testing.T) {
	g := &station{number: 1}
	for _, c := range []struct {
		what   string
		change func(b []byte)
		from   int
		seq    uint64
		fault  string
	}{
		{"the first", nil, 0, 7, ""},
		{"the next but one", nil, 0, 9, ""},
		{"doubled", nil, 0, 9, "number 9 of flow 0 came twice"},
		{"overtaken", nil, 0, 8, "number 8 of flow 0 was overtaken"},
		{"overtaken and doubled", nil, 0, 8, "number 8 of flow 0 came twice"},
		{"damaged", func(b []byte) { b[90]++ }, 0, 10, "the sum is"},
		{"of another sender", func(b []byte) { copy(b[6:], []byte{2, 2, 2, 2, 2, 2}) }, 0, 11, "addresses"},
		{"doubled on a bad line", nil, 4, 3, ""},
		{"doubled on a bad line", nil, 4, 3, ""},
		{"damaged on a bad line", func(b []byte) { b[90]++ }, 4, 4, ""},
	} {
		b := make([]byte, 100)
		label{mark: markTraffic, sender: uint16(c.from), life: 1, seq: c.seq}.write(b, host.PortMAC(names[1]), host.PortMAC(names[c.from]), 1)
		if c.change != nil {
			c.change(b)
		}
		g.count.Faults = nil
		g.check(b)
		got := strings.Join(g.count.Faults, "; ")
		if (got == "") != (c.fault == "") || !strings.Contains(got, c.fault) {
			t.Errorf("%s: %q, want %q", c.what, got, c.fault)
		}
	}
	if c := g.count; c.Late != 4 || c.Damaged != 2 || c.Received != 10 {
		t.Errorf("%+v", c)
	}
}
