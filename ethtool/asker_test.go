package ethtool

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hvnet/ethtool/layout"
	"hvnet/nic"
)

// hardware is a kernel's device that answers from a file, and has no features.
type hardware struct {
	Device
	answers map[uint32][]byte // by commands; from the offset of the first four bytes on
	offsets map[uint32]int
	set     [][]byte // what was asked for by SLINKSETTINGS
}

func (h *hardware) FeatureNames() ([]string, error) { return nil, nil }

func (h *hardware) Ask(b []byte) (int, error) {
	cmd := word(b, 0)
	if cmd == layout.SLINKSETTINGS {
		h.set = append(h.set, bytes.Clone(b))
	}
	answer, ok := h.answers[cmd]
	switch {
	case !ok:
		return 0, nic.ErrNotSupported
	case cmd == layout.GLINKSETTINGS && b[layout.LinkWords] == 0:
		words := answer[layout.LinkWords-h.offsets[cmd]]
		b[layout.LinkWords] = -words
	default:
		copy(b[h.offsets[cmd]:], answer)
	}
	return 0, nil
}

func newHardware(t *testing.T) *hardware {
	t.Helper()
	text, err := os.ReadFile("testdata/hardware/answers")
	if err != nil {
		t.Fatal(err)
	}
	h := &hardware{answers: map[uint32][]byte{}, offsets: map[uint32]int{}}
	for l := range strings.Lines(string(text)) {
		if l[0] == '#' {
			continue
		}
		f := strings.Fields(l)
		cmd, err := strconv.ParseUint(f[0], 16, 32)
		if err != nil {
			t.Fatal(err)
		}
		at, bytes, _ := strings.Cut(f[1], ":")
		if h.offsets[uint32(cmd)], err = strconv.Atoi(at); err != nil {
			t.Fatal(err)
		}
		if h.answers[uint32(cmd)], err = hex.DecodeString(bytes); err != nil {
			t.Fatal(err)
		}
	}
	// What the kernel's device is, it is asked for by its getters, too.
	h.Device = &fakeOf{fake: newFake(), h: h}
	return h
}

// fakeOf has those getters.
type fakeOf struct {
	*fake
	h *hardware
}

func (f *fakeOf) DriverInfo() nic.DriverInfo {
	b := request(driverLen, layout.GDRVINFO)
	f.h.Ask(b)
	text := func(at int) string { return layout.Text(b[at:][:layout.NameLen]) }
	return nic.DriverInfo{
		Driver: text(4), Version: text(36), Firmware: text(68), Bus: text(100), ExpansionROM: text(132),
		Stats: word(b, 180) > 0, Test: word(b, 184) > 0, EEPROM: word(b, 188) > 0, RegisterDump: word(b, 192) > 0, PrivateFlags: word(b, 176) > 0,
	}
}

// TestHardware: of a NIC that has everything, each command has the text that ethtool 6.1 was
// seen to have for the same answers. Both are little-endian machines'.
func TestHardware(t *testing.T) {
	text, err := os.ReadFile("testdata/hardware/texts")
	if err != nil {
		t.Fatal(err)
	}
	if order.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the answers are those of another kind of machine")
	}
	n := 0
	for l := range strings.SplitSeq("\n"+string(text), "\nethtool ") {
		line, want, ok := strings.Cut(l, "\n")
		if !ok || strings.HasPrefix(line, "#") || line == "" {
			continue
		}
		n++
		h := newHardware(t)
		var stdout, stderr bytes.Buffer
		status := Run(t.Context(), strings.Fields(line), func(string) (Device, error) { return h, nil }, &stdout, &stderr)
		if d := cmp.Diff(strings.TrimSpace(want), strings.TrimSpace(transcript(stdout.String(), stderr.String(), status))); d != "" {
			t.Errorf("ethtool %s: -want +got:\n%s", line, d)
		}
	}
	if n < 35 {
		t.Errorf("only %d commands", n)
	}
}

// TestLinkRequest: what is asked for of a link is the wish, and else what it has.
func TestLinkRequest(t *testing.T) {
	for _, x := range []struct{ args, base, advertised string }{
		{"autoneg on", "10270000010001010002030301000000", "ffffffffffffffffffffff1f"},
		{"phyad 2", "10270000010002010002030301000000", "dfffffffffffffffffffff1f"},
		{"speed 100 duplex full autoneg on", "64000000010001010002030301000000", "c86f01000000" + "0e0000040000"},
		{"speed 1000 duplex half", "e8030000000001010002030301000000", "d06f01000000" + "0e0000040000"},
		{"speed 7 autoneg on", "07000000010001010002030301000000", "ffffffffffffffffffffff1f"},
		{"advertise 0xff00000001", "10270000010001010002030301000000", "01000000ff000000" + "00000000"},
		{"mdix on", "10270000010001010002020301000000", "dfffffffffffffffffffff1f"},
	} {
		h := newHardware(t)
		var out bytes.Buffer
		Run(t.Context(), append([]string{"-s", "fake0"}, strings.Fields(x.args)...), func(string) (Device, error) { return h, nil }, &out, &out)
		if len(h.set) != 1 {
			t.Errorf("%s: %d requests\n%s", x.args, len(h.set), &out)
			continue
		}
		b := h.set[0]
		if got, want := fmt.Sprintf("%x %x", b[4:20], b[60:72]), x.base+" "+x.advertised; got != want {
			t.Errorf("%s: %s, want %s", x.args, got, want)
		}
	}
}
