package ethtool

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hvnet/nic"
)

// testKey is the key that hv_netvsc begins with.
func testKey() []byte {
	key, _ := hex.DecodeString("6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa")
	return key
}

func (f *fake) RSS() nic.RSS { return f.rss }
func (f *fake) SetRSS(_ context.Context, c nic.RSSChange) error {
	switch {
	case f.refuse != nil:
		return f.refuse
	case len(f.rss.Table) == 0:
		return nic.ErrNotSupported
	case c.Table != nil:
		if len(c.Table) != len(f.rss.Table) || int(slices.Max(c.Table)) >= f.channels.Combined {
			return nic.ErrInvalid
		}
		f.rss.Table, f.user = c.Table, true
	case c.Default:
		f.even(len(f.rss.Table))
		f.user = false
	}
	if c.Key != nil {
		f.rss.Key = c.Key
	}
	return nil
}

// even gives the fake a table of n entries.
func (f *fake) even(n int) {
	f.rss.Table = make([]uint32, n)
	for i := range f.rss.Table {
		f.rss.Table[i] = uint32(i % f.channels.Combined)
	}
}

// of makes the fake the device of CHANNELS=n and TABLE=n.
func (f *fake) of(t *testing.T, words []string) {
	f.channels.Combined = 4
	entries := 128
	for _, w := range words {
		var n int
		if _, err := fmt.Sscanf(w[strings.Index(w, "=")+1:], "%d", &n); err != nil {
			t.Fatalf("%q: %v", w, err)
		}
		if strings.HasPrefix(w, "TABLE=") {
			entries = n
		} else {
			f.channels.Combined = n
		}
	}
	f.even(entries)
}

// TestRSSTranscripts compares with what ethtool 6.1 says.
func TestRSSTranscripts(t *testing.T) {
	transcripts(t, "testdata/rss.txt", 138, func(f *fake, words []string) { f.of(t, words) })
}

// runs writes a table as its blocks: "42×0 43×1 43×2".
func runs(table []uint32) string {
	var b strings.Builder
	for len(table) > 0 {
		n := slices.IndexFunc(table, func(c uint32) bool { return c != table[0] })
		if n < 0 {
			n = len(table)
		}
		fmt.Fprintf(&b, "%d×%d ", n, table[0])
		table = table[n:]
	}
	return strings.TrimSuffix(b.String(), " ")
}

// TestSetRSS shows what a command has done to the device.
func TestSetRSS(t *testing.T) {
	f := newFake()
	f.of(t, nil)
	ascending := "01:02:03:04:05:06:07:08:09:0a:0b:0c:0d:0e:0f:10:11:12:13:14:15:16:17:18:19:1a:1b:1c:1d:1e:1f:20:21:22:23:24:25:26:27:28"
	for _, step := range []struct {
		args, table string
		user        bool
		key         byte // the last one
	}{
		{"-X eth0 equal 1", "128×0", true, 0xfa},
		{"-X eth0 weight 1 1 1", "42×0 43×1 43×2", true, 0xfa},
		{"-X eth0 weight 1 0 2 1", "32×0 64×2 32×3", true, 0xfa},
		{"-X eth0 weight 128", "128×0", true, 0xfa},
		{"-X eth0 equal 1 start 3", "128×3", true, 0xfa},
		{"-X eth0 weight 3 1 start 2", "96×2 32×3", true, 0xfa},
		{"-X eth0 hkey " + ascending, "96×2 32×3", true, 0x28},
		{"-X eth0 hfunc toeplitz", "96×2 32×3", true, 0x28},
		{"-X eth0 weight 1 hkey " + strings.Replace(ascending, ":28", ":ff", 1), "128×0", true, 0xff},
	} {
		got := f.run(t, strings.Fields(step.args)...)
		if got != "= 0\n" || runs(f.rss.Table) != step.table || f.user != step.user || f.rss.Key[39] != step.key {
			t.Errorf("%s: %s, user %v, key %x\n%s", step.args, runs(f.rss.Table), f.user, f.rss.Key, got)
		}
	}
	if got := f.run(t, "-X", "eth0", "default"); got != "= 0\n" || f.user || !slices.Equal(f.rss.Table[:6], []uint32{0, 1, 2, 3, 0, 1}) {
		t.Errorf("default: %v, user %v\n%s", f.rss.Table, f.user, got)
	}
	f.run(t, "-X", "eth0", "equal", "3")
	if !slices.Equal(f.rss.Table[:6], []uint32{0, 1, 2, 0, 1, 2}) {
		t.Errorf("equal 3: %v", f.rss.Table)
	}
	f.refuse = nic.ErrNoDevice
	if got, want := f.run(t, "-X", "eth0", "equal", "2"), "! Cannot set RX flow hash configuration: No such device\n= 1\n"; got != want {
		t.Error(cmp.Diff(want, got))
	}
}

// TestShowRSSAfterEqual is what a real hv_netvsc shows after -X equal 1.
func TestShowRSSAfterEqual(t *testing.T) {
	f := newFake()
	f.of(t, []string{"CHANNELS=2"})
	f.run(t, "-X", "eth0", "equal", "1")
	want := "| RX flow hash indirection table for eth0 with 2 RX ring(s):\n"
	for i := 0; i < 128; i += 8 {
		want += fmt.Sprintf("| %5d:      0     0     0     0     0     0     0     0\n", i)
	}
	want += "| RSS hash key:\n| 6d:5a:56:da:25:5b:0e:c2:41:67:25:3d:43:a3:8f:b0:d0:ca:2b:cb:ae:7b:30:b4:77:cb:2d:a3:80:30:f2:0c:6a:42:b7:3b:be:ac:01:fa\n" +
		"| RSS hash function:\n|     toeplitz: on\n|     xor: off\n|     crc32: off\n= 0\n"
	if got := f.run(t, "-x", "eth0"); got != want {
		t.Error(cmp.Diff(want, got))
	}
}

// FuzzSetRSS: whatever the command line, the table has its size and names channels
// that there are, and the key its length.
func FuzzSetRSS(f *testing.F) {
	for _, s := range []string{"equal 2 start 1", "weight 1 2 3", "weight 4294967295 1", "default", "hkey 6d:5a", "hfunc toeplitz weight 0x7 010", "context new", "equal 2147483647"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		d := newFake()
		d.of(t, nil)
		got := d.run(t, append([]string{"-X", "eth0"}, strings.Split(line, " ")...)...)
		if !strings.HasSuffix(got, "= 0\n") && !strings.Contains(got, "! ") {
			t.Errorf("%q fails and does not say why:\n%s", line, got)
		}
		if len(d.rss.Table) != 128 || slices.Max(d.rss.Table) > 3 || len(d.rss.Key) != 40 {
			t.Errorf("%q: %+v", line, d.rss)
		}
	})
}
