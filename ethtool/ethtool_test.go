package ethtool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hvnet/internal/need"
	"hvnet/nic"
)

// fake is the device of the transcripts.
type fake struct {
	channels nic.Channels
	rings    nic.Rings
	stats    []nic.Stat
	levels   nic.HashLevels
	rss      nic.RSS
	user     bool // has set the table
	features nic.Features
	link     nic.LinkSettings
	messages uint32
	refuse   error
}

func newFake() *fake {
	return &fake{
		channels: nic.Channels{Max: 64, Combined: 1},
		rings:    nic.Rings{RxMax: 18811, TxMax: 2560, Rx: 9709, Tx: 170},
		stats:    []nic.Stat{{Name: "tx_scattered", Value: 7}, {Name: "rx_queue_0_packets", Value: 1<<64 - 1}},
		levels:   nic.HashLevels{nic.HashL4, nic.HashL4, nic.HashL4, nic.HashL4},
		link:     nic.LinkSettings{Mbps: 40000, Duplex: nic.DuplexFull, Detected: true},
		messages: 0xf7,
		rss:      nic.RSS{Table: make([]uint32, 128), Key: testKey()},
	}
}

func (f *fake) DriverInfo() nic.DriverInfo {
	return nic.DriverInfo{Driver: "hv_netvsc", Version: "6.18.0", Firmware: "N/A", Stats: true, RegisterDump: true}
}
func (f *fake) LinkSettings() nic.LinkSettings { return f.link }
func (f *fake) MessageLevel() uint32           { return f.messages }
func (f *fake) PermanentMAC() nic.MAC          { return nic.MAC{0, 0x15, 0x5d, 1, 2, 3} }
func (f *fake) Registers() nic.Registers       { return nic.Registers{1: 1, 15: 0x01020304} }
func (f *fake) SetLinkSettings(_ context.Context, mbps uint32, d nic.Duplex) error {
	if mbps > 1<<31-1 && mbps != nic.SpeedUnknown {
		return nic.ErrInvalid
	}
	f.link.Mbps, f.link.Duplex = mbps, d
	return f.refuse
}
func (f *fake) SetMessageLevel(_ context.Context, bits uint32) error {
	f.messages = bits
	return f.refuse
}
func (f *fake) Channels() nic.Channels { return f.channels }
func (f *fake) Rings() nic.Rings       { return f.rings }
func (f *fake) Stats() []nic.Stat      { return f.stats }
func (f *fake) SetRings(_ context.Context, rx, tx int) error {
	if f.refuse != nil {
		return f.refuse
	}
	if rx < 0 || rx > f.rings.RxMax || tx < 0 || tx > f.rings.TxMax {
		return fmt.Errorf("set rings: %d and %d: %w", rx, tx, nic.ErrInvalid)
	}
	f.rings.Rx, f.rings.Tx = max(rx, 10), max(tx, 10)
	return nil
}
func (f *fake) SetChannels(_ context.Context, n int) error {
	if f.refuse != nil {
		return f.refuse
	}
	if n < 1 || n > f.channels.Max {
		return fmt.Errorf("set channels: %d: %w", n, nic.ErrInvalid)
	}
	f.channels.Combined = n
	return nil
}

// run runs a command line on the device, which is eth0, and returns a transcript.
func (f *fake) run(t *testing.T, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	exit := Run(t.Context(), args, func(name string) (Device, error) {
		if name != "eth0" {
			return nil, fmt.Errorf("find %s: %w", name, nic.ErrNoDevice)
		}
		return f, nil
	}, &stdout, &stderr)
	return transcript(stdout.String(), stderr.String(), exit)
}

// transcript marks the lines of stdout with |, those of stderr with ! and the exit
// status with =.
func transcript(stdout, stderr string, exit int) string {
	var b strings.Builder
	for l := range strings.Lines(stdout) {
		b.WriteString("| " + l)
	}
	for l := range strings.Lines(stderr) {
		b.WriteString("! " + l)
	}
	fmt.Fprintf(&b, "= %d\n", exit)
	return b.String()
}

// words splits a command line at blanks; a word in quotes is Go's.
func words(t *testing.T, line string) []string {
	t.Helper()
	var w []string
	for line != "" {
		if line[0] == '"' {
			q, err := strconv.QuotedPrefix(line)
			if err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			s, _ := strconv.Unquote(q)
			w, line = append(w, s), strings.TrimPrefix(line[len(q):], " ")
			continue
		}
		word, rest, _ := strings.Cut(line, " ")
		w, line = append(w, word), rest
	}
	return w
}

// transcripts compares what commands say with a file of what they shall say. prepare
// takes off the words in front of a command that say of what device.
func transcripts(t *testing.T, file string, least int, prepare func(f *fake, words []string)) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for c := range strings.SplitSeq(string(text), "\n\n") {
		line, want, _ := strings.Cut(strings.TrimLeft(c, "\n"), "\n")
		if line == "" || line[0] == '#' {
			continue
		}
		before, args, _ := strings.Cut(line, "ethtool ")
		f := newFake()
		prepare(f, strings.Fields(before)[1:])
		if got := f.run(t, words(t, args)...); strings.TrimSpace(got) != strings.TrimSpace(want) {
			t.Errorf("%s\n%s", line, cmp.Diff(want, got))
		}
		n++
	}
	if n < least {
		t.Errorf("only %d commands tested", n)
	}
}

// TestTranscripts compares with what ethtool 6.1 says of a device like the fake
// one, except that -L without effect is as in its older releases.
func TestTranscripts(t *testing.T) {
	transcripts(t, "testdata/commands.txt", 90, func(*fake, []string) {})
}

// TestPoster is a session that a published student poster shows, with the last
// number as the driver has it.
func TestPoster(t *testing.T) {
	show := func(combined int) string {
		return fmt.Sprintf("| Channel parameters for eth0:\n| Pre-set maximums:\n| RX:\t\t0\n| TX:\t\t0\n| Other:\t\t0\n| Combined:\t64\n"+
			"| Current hardware settings:\n| RX:\t\t0\n| TX:\t\t0\n| Other:\t\t0\n| Combined:\t%d\n| \n= 0\n", combined)
	}
	f := newFake()
	f.channels.Combined = 4
	for _, step := range []struct{ args, want string }{
		{"--show-channels eth0", show(4)},
		{"--set-channels eth0 combined 1", "= 0\n"},
		{"--show-channels eth0", show(1)},
		{"--set-channels eth0 combined 1", "! combined unmodified, ignoring\n! no channel parameters changed, aborting\n" +
			"! current values: tx 0 rx 0 other 0 combined 1\n= 1\n"},
		{"--set-channels eth0 combined 0", "! Cannot set device channel parameters: Invalid argument\n= 1\n"},
		{"--show-channels eth0", show(1)},
	} {
		if got := f.run(t, strings.Fields(step.args)...); got != step.want {
			t.Errorf("%s\n%s", step.args, cmp.Diff(step.want, got))
		}
	}
}

// TestSetRings shows what a change has done; the host grants its own number.
func TestSetRings(t *testing.T) {
	f := newFake()
	for _, step := range []struct {
		args   string
		rx, tx int
	}{
		{"-G eth0 rx 100", 100, 170},
		{"-G eth0 tx 171", 100, 171},
		{"--set-ring eth0 rx 5 tx 0x20", 10, 32},
		{"-G eth0 rx 18811 rx-mini 0 rx-jumbo 0 tx 2560", 18811, 2560},
	} {
		got := f.run(t, strings.Fields(step.args)...)
		if !strings.HasSuffix(got, "= 0\n") || f.rings.Rx != step.rx || f.rings.Tx != step.tx {
			t.Errorf("%s: %+v\n%s", step.args, f.rings, got)
		}
	}
	f.refuse = nic.ErrNoDevice
	if got, want := f.run(t, "-G", "eth0", "rx", "50"), "! Cannot set device ring parameters: No such device\n= 81\n"; got != want {
		t.Error(cmp.Diff(want, got))
	}
}

func TestErrors(t *testing.T) {
	for _, c := range []struct {
		err  error
		text string
	}{
		{nic.ErrInvalid, "Invalid argument"},
		{nic.ErrNotSupported, "Operation not supported"},
		{nic.ErrNoDevice, "No such device"},
		{nic.ErrBusy, "Device or resource busy"},
		{nic.ErrTimeout, "Connection timed out (the host does not answer)"},
		{fmt.Errorf("%w: %w", nic.ErrNoDevice, nic.ErrTimeout), "Connection timed out (the host does not answer)"},
		{nic.ErrIO, "Input/output error"},
		{fs.ErrPermission, "Operation not permitted"},
		{context.DeadlineExceeded, "Connection timed out"},
		{context.Canceled, "Interrupted system call"},
		{errors.New("the moon is full"), "the moon is full"},
	} {
		f := newFake()
		f.refuse = fmt.Errorf("set channels: %w", c.err)
		want := "! Cannot set device channel parameters: " + c.text + "\n= 1\n"
		if got := f.run(t, "-L", "eth0", "combined", "2"); got != want && c.text != "the moon is full" {
			t.Errorf("%v: %s", c.err, cmp.Diff(want, got))
		}
		if got := errText(c.err); got != c.text {
			t.Errorf("%v: %q, want %q", c.err, got, c.text)
		}
	}
}

func TestNoStats(t *testing.T) {
	f := newFake()
	f.stats = nil
	if got, want := f.run(t, "-S", "eth0"), "! no stats available\n= 94\n"; got != want {
		t.Error(cmp.Diff(want, got))
	}
}

// TestOrder: who reads both streams as one sees errors first, as from a pipe.
func TestOrder(t *testing.T) {
	var both bytes.Buffer
	none := func(string) (Device, error) { return nil, nic.ErrNoDevice }
	Run(t.Context(), []string{"-l", "eth0"}, none, &both, &both)
	want := "Cannot get device channel parameters: No such device\nChannel parameters for eth0:\n"
	if both.String() != want {
		t.Error(cmp.Diff(want, both.String()))
	}
}

// TestHelp: each line of ours is one of ethtool's.
func TestHelp(t *testing.T) {
	got := newFake().run(t, "-h")
	if !strings.HasPrefix(got, "| ethtool version 6.1\n| Usage:\n") || !strings.HasSuffix(got, "= 0\n") {
		t.Errorf("help is\n%s", got)
	}
	if got != newFake().run(t, "--help") {
		t.Error("--help differs from -h")
	}
	out, err := exec.Command(need.Tool(t, "ethtool"), "-h").Output()
	if err != nil {
		t.Fatal(err)
	}
	theirs := strings.Split(string(out), "\n")
	if theirs[0] != "ethtool version "+Version {
		t.Skipf("the installed one is %q", theirs[0])
	}
	for l := range strings.Lines(got) {
		l = strings.TrimSuffix(l, "\n")
		if text, ok := strings.CutPrefix(l, "| "); ok && !slices.Contains(theirs, text) {
			t.Errorf("%q is not a line of ethtool's", text)
		}
	}
}

func TestScanInt(t *testing.T) {
	const lo, hi = -1 << 63, 1<<63 - 1
	for _, c := range []struct {
		s  string
		n  int64
		ok bool
	}{
		{"", 0, true}, {"0", 0, true}, {"-0", 0, true}, {"00", 0, true}, {"7", 7, true}, {"+7", 7, true}, {" \t-7", -7, true},
		{"010", 8, true}, {"0x1f", 31, true}, {"0XfF", 255, true}, {"-0x10", -16, true},
		{"9223372036854775807", hi, true}, {"9223372036854775808", hi, true}, {"-9223372036854775808", lo, true}, {"-9223372036854775809", lo, true},
		{"0x7fffffffffffffff", hi, true}, {"0x8000000000000000", hi, true}, {"-0x8000000000000000", lo, true}, {"99999999999999999999999", hi, true},
		{" ", 0, false}, {"-", 0, false}, {"+", 0, false}, {"--1", 0, false}, {"- 1", 0, false}, {"x", 0, false}, {"1x", 0, false}, {"1 ", 0, false},
		{"0x", 0, false}, {"0xg", 0, false}, {"08", 0, false}, {"0b1", 0, false}, {"1_0", 0, false}, {"1.", 0, false}, {"٣", 0, false},
	} {
		if n, ok := scanInt(c.s); ok != c.ok || ok && n != c.n {
			t.Errorf("%q: %d %v, want %d %v", c.s, n, ok, c.n, c.ok)
		}
	}
}

func FuzzScanInt(f *testing.F) {
	for _, s := range []string{"", "010", "0x1f", "-9223372036854775808", "1_0", "0b1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, ok := scanInt(s)
		// Go's syntax is C's and more.
		want, err := strconv.ParseInt(strings.TrimLeft(s, " \t\n\v\f\r"), 0, 64)
		if err == nil && !strings.ContainsAny(s, "_bBoO") && (!ok || n != want) {
			t.Errorf("%q: %d %v, want %d", s, n, ok, want)
		}
		if err != nil && !errors.Is(err, strconv.ErrRange) && ok && s != "" {
			t.Errorf("%q: %d, Go refuses it: %v", s, n, err)
		}
	})
}

// FuzzRun: whatever the command line, there is an answer, and the device has a
// number of channels that it can have.
func FuzzRun(f *testing.F) {
	for _, s := range []string{"-i eth0", "-L eth0 combined 0x2", "--debug 1 -S eth0", "--json -l eth0", "-g eth1", "-L * rx -1", "-G eth0 rx 5 tx 0x10"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		d := newFake()
		got := d.run(t, strings.Split(line, " ")...)
		if !strings.HasSuffix(got, "= 0\n") && !strings.Contains(got, "! ") {
			t.Errorf("%q fails and does not say why:\n%s", line, got)
		}
		if n := d.channels.Combined; n < 1 || n > d.channels.Max {
			t.Errorf("%q: %d channels", line, n)
		}
		if r := d.rings; r.Rx < 10 || r.Rx > r.RxMax || r.Tx < 10 || r.Tx > r.TxMax {
			t.Errorf("%q: %+v", line, r)
		}
	})
}

func ExampleRun() {
	lookup := func(name string) (Device, error) { return newFake(), nil }
	exit := Run(context.Background(), []string{"-L", "eth0", "combined", "1"}, lookup, os.Stdout, os.Stdout)
	fmt.Println("status", exit)
	// Output:
	// combined unmodified, ignoring
	// no channel parameters changed, aborting
	// current values: tx 0 rx 0 other 0 combined 1
	// status 1
}
