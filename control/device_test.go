package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hvnet/ethtool"
	"hvnet/internal/need"
	"hvnet/nic"
)

const netns = 4026531840

type fake struct {
	channels nic.Channels
	rings    nic.Rings
	levels   nic.HashLevels
	rss      nic.RSS
	change   nic.RSSChange // the last one
	features nic.Features
	link     nic.LinkSettings
	messages uint32
}

func (f *fake) DriverInfo() nic.DriverInfo {
	return nic.DriverInfo{Driver: "hv_netvsc", Version: "1", Firmware: "N/A", Bus: "b", Stats: true, RegisterDump: true}
}
func (f *fake) Channels() nic.Channels { return f.channels }
func (f *fake) Rings() nic.Rings       { return f.rings }
func (f *fake) HashLevels() nic.HashLevels {
	return f.levels
}
func (f *fake) RSS() nic.RSS                   { return f.rss }
func (f *fake) Features() nic.Features         { return f.features }
func (f *fake) LinkSettings() nic.LinkSettings { return f.link }
func (f *fake) MessageLevel() uint32           { return f.messages }
func (f *fake) PermanentMAC() nic.MAC          { return nic.MAC{2, 3} }
func (f *fake) Registers() nic.Registers       { return nic.Registers{3: 7} }
func (f *fake) SetLinkSettings(_ context.Context, mbps uint32, d nic.Duplex) error {
	f.link.Mbps, f.link.Duplex = mbps, d
	return nil
}
func (f *fake) SetMessageLevel(_ context.Context, bits uint32) error {
	f.messages = bits
	return nil
}
func (f *fake) SetFeatures(_ context.Context, c nic.FeatureChange) error {
	if c.Change&nic.FeaturesNeverChanged != 0 {
		return fmt.Errorf("set features: %w", nic.ErrInvalid)
	}
	f.features.Active = f.features.Active&^c.Change | c.On&c.Change
	return nil
}
func (f *fake) SetRSS(_ context.Context, c nic.RSSChange) error {
	if f.change = c; len(f.rss.Table) == 0 {
		return fmt.Errorf("set RSS: %w", nic.ErrNotSupported)
	}
	f.rss = nic.RSS{Table: c.Table, Key: c.Key}
	return nil
}
func (f *fake) SetHashLevel(_ context.Context, flow nic.Flow, level nic.HashKind) error {
	if int(flow) >= len(f.levels) {
		return fmt.Errorf("set hash level: %v: %w", flow, nic.ErrNotSupported)
	}
	f.levels[flow] = level
	return nil
}
func (f *fake) Stats() []nic.Stat {
	return []nic.Stat{{Name: "tx_busy", Value: 1<<64 - 1}, {Name: "rx_queue_0_packets", Value: 2}}
}
func (f *fake) SetRings(_ context.Context, rx, tx int) error {
	if rx > f.rings.RxMax || tx > f.rings.TxMax {
		return fmt.Errorf("set rings: %d, %d: %w", rx, tx, nic.ErrInvalid)
	}
	f.rings.Rx, f.rings.Tx = rx, tx
	return nil
}
func (f *fake) SetChannels(_ context.Context, n int) error {
	if n < 1 || n > f.channels.Max {
		return fmt.Errorf("set channels: %d: %w", n, nic.ErrInvalid)
	}
	f.channels.Combined = n
	return nil
}

// runtimeIn makes the test's runtime directory a new one.
func runtimeIn(t *testing.T) string {
	t.Helper()
	d := filepath.Join(shortDir(t), "run")
	t.Setenv(runtimeEnv, d)
	return d
}

func TestDevice(t *testing.T) {
	dir := runtimeIn(t)
	f := &fake{channels: nic.Channels{Max: 64, Combined: 4}, rings: nic.Rings{RxMax: 18811, TxMax: 2560, Rx: 9709, Tx: 170}}
	s, err := ServeDevice(netns, "eth0", f)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if want := filepath.Join(dir, "net-4026531840", "eth0"); s.Path() != want {
		t.Errorf("path %s, want %s", s.Path(), want)
	}
	c, err := Device(t.Context(), netns, "eth0")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{
		cmp.Diff(f.DriverInfo(), c.DriverInfo()), cmp.Diff(f.Channels(), c.Channels()),
		cmp.Diff(f.Rings(), c.Rings()), cmp.Diff(f.Stats(), c.Stats()),
	} {
		if d != "" {
			t.Error(d)
		}
	}
	if err := c.SetChannels(t.Context(), 2); err != nil || f.channels.Combined != 2 || c.Channels().Combined != 2 {
		t.Errorf("%v, %d, %d", err, f.channels.Combined, c.Channels().Combined)
	}
	if err := c.SetChannels(t.Context(), 99); !errors.Is(err, nic.ErrInvalid) {
		t.Errorf("99 channels: %v", err)
	}

	if err := c.SetRings(t.Context(), 100, 20); err != nil || f.rings.Rx != 100 || f.rings.Tx != 20 || c.Rings() != f.rings {
		t.Errorf("%v, %+v, %+v", err, f.rings, c.Rings())
	}
	if err := c.SetRings(t.Context(), 100, 2561); !errors.Is(err, nic.ErrInvalid) {
		t.Errorf("2561 send sections: %v", err)
	}

	want := nic.HashLevels{nic.FlowUDPv6: nic.HashL3}
	if err := c.SetHashLevel(t.Context(), nic.FlowUDPv6, nic.HashL3); err != nil || f.levels != want || c.HashLevels() != want {
		t.Errorf("%v, %v, %v", err, f.levels, c.HashLevels())
	}
	if err := c.SetHashLevel(t.Context(), 4, nic.HashL3); !errors.Is(err, nic.ErrNotSupported) {
		t.Errorf("hash level of a fifth flow: %v", err)
	}

	if err := c.SetLinkSettings(t.Context(), nic.SpeedUnknown, nic.DuplexHalf); err != nil ||
		f.link != (nic.LinkSettings{Mbps: nic.SpeedUnknown}) || c.LinkSettings() != f.link {
		t.Errorf("%v, %+v, %+v", err, f.link, c.LinkSettings())
	}
	if err := c.SetMessageLevel(t.Context(), 1<<31); err != nil || f.messages != 1<<31 || c.MessageLevel() != 1<<31 {
		t.Errorf("%v, %#x, %#x", err, f.messages, c.MessageLevel())
	}
	if c.PermanentMAC() != (nic.MAC{2, 3}) || c.Registers() != (nic.Registers{3: 7}) {
		t.Errorf("%v, %v", c.PermanentMAC(), c.Registers())
	}

	f.features.Available = 1<<63 | 1
	if err := c.SetFeatures(t.Context(), nic.FeatureChange{Change: 1<<63 | 2, On: 1<<63 | 1<<62}); err != nil ||
		f.features.Active != 1<<63 || c.Features() != f.features {
		t.Errorf("%v, %+v, %+v", err, f.features, c.Features())
	}
	if err := c.SetFeatures(t.Context(), nic.FeatureChange{Change: nic.FeaturesNeverChanged}); !errors.Is(err, nic.ErrInvalid) {
		t.Errorf("features that never change: %v", err)
	}

	change := nic.RSSChange{Table: []uint32{}, Default: true, Key: bytes.Repeat([]byte{0xab}, 40)}
	if err := c.SetRSS(t.Context(), change); !errors.Is(err, nic.ErrNotSupported) || f.change.Table == nil || !f.change.Default {
		t.Errorf("RSS without a table: %v, %+v", err, f.change)
	}
	f.rss.Table = []uint32{0, 1}
	if err := c.SetRSS(t.Context(), nic.RSSChange{Table: []uint32{1, 0}, Key: change.Key}); err != nil {
		t.Error(err)
	}
	if d := cmp.Diff(nic.RSS{Table: []uint32{1, 0}, Key: change.Key}, c.RSS()) + cmp.Diff(f.rss, c.RSS()); d != "" || f.change.Default {
		t.Error(d)
	}
	if err := c.SetRSS(t.Context(), nic.RSSChange{Table: []uint32{0}}); err != nil || f.change.Key != nil {
		t.Errorf("%v, %+v", err, f.change)
	}

	// The whole way of a command line.
	var out bytes.Buffer
	lookup := func(name string) (ethtool.Device, error) { return Device(t.Context(), netns, name) }
	for _, step := range []struct {
		args []string
		exit int
		want string
	}{
		{[]string{"-L", "eth0", "combined", "2"}, 1, "combined unmodified, ignoring\nno channel parameters changed, aborting\ncurrent values: tx 0 rx 0 other 0 combined 2\n"},
		{[]string{"-L", "eth0", "combined", "0"}, 1, "Cannot set device channel parameters: Invalid argument\n"},
		{[]string{"-L", "eth0", "combined", "3"}, 0, ""},
		{[]string{"-L", "eth1", "combined", "3"}, 1, "Cannot get device channel parameters: No such device\n"},
		{[]string{"-i", "../eth0"}, 71, "Cannot get driver information: No such device\n"},
	} {
		out.Reset()
		if exit := ethtool.Run(t.Context(), step.args, lookup, &out, &out); exit != step.exit || out.String() != step.want {
			t.Errorf("%q: status %d, %q", step.args, exit, &out)
		}
	}

	s2, err := ServeDevice(netns, "eth1", f)
	if err != nil {
		t.Fatal(err)
	}
	if names, err := Interfaces(netns); err != nil || !slices.Equal(names, []string{"eth0", "eth1"}) {
		t.Errorf("interfaces %v, %v", names, err)
	}
	s2.Close()
	if names, err := Interfaces(netns); err != nil || !slices.Equal(names, []string{"eth0"}) {
		t.Errorf("interfaces %v, %v", names, err)
	}
	s.Close()
	if names, err := Interfaces(netns); err != nil || len(names) != 0 {
		t.Errorf("interfaces %v, %v", names, err)
	}
	if err := c.Refresh(t.Context()); !errors.Is(err, nic.ErrNoDevice) {
		t.Errorf("driver gone: %v", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("left in the runtime directory: %v, %v", entries, err)
	}
}

func TestBadNames(t *testing.T) {
	runtimeIn(t)
	for _, name := range []string{"", ".", "..", "../x", "a/b", "sixteen-bytes-xx", ".hidden"} {
		if _, err := ServeDevice(netns, name, &fake{}); !errors.Is(err, nic.ErrNoDevice) {
			t.Errorf("serve %q: %v", name, err)
		}
		if _, err := Device(t.Context(), netns, name); !errors.Is(err, nic.ErrNoDevice) {
			t.Errorf("find %q: %v", name, err)
		}
	}
	if _, err := Device(t.Context(), netns, "eth0"); !errors.Is(err, nic.ErrNoDevice) {
		t.Errorf("nothing runs: %v", err)
	}
}

func TestRuntimeDir(t *testing.T) {
	env := func(kv ...string) func(string) string {
		return func(k string) string {
			for i := 0; i < len(kv); i += 2 {
				if kv[i] == k {
					return kv[i+1]
				}
			}
			return ""
		}
	}
	for _, c := range []struct {
		env  func(string) string
		uid  int
		want string
	}{
		{env(), 0, "/run/hvnet"},
		{env("XDG_RUNTIME_DIR", "/run/user/0"), 0, "/run/hvnet"},
		{env("XDG_RUNTIME_DIR", "/run/user/1000"), 1000, "/run/user/1000/hvnet"},
		{env(), 1000, "/tmp/hvnet-1000"},
		{env("HVNET_RUNTIME_DIR", "/x", "XDG_RUNTIME_DIR", "/y"), 1000, "/x"},
		{env("HVNET_RUNTIME_DIR", "/x"), 0, "/x"},
	} {
		if got := runtimeDir(c.env, c.uid); got != c.want {
			t.Errorf("user %d: %s, want %s", c.uid, got, c.want)
		}
	}
	dir := runtimeIn(t)
	if got := Environment(); !slices.Equal(got, []string{"HVNET_RUNTIME_DIR=" + dir}) {
		t.Errorf("environment %v", got)
	}
}

// TestForeignDir: a runtime directory that others can write to, or made, is none.
func TestForeignDir(t *testing.T) {
	dir := runtimeIn(t)
	refused := func(what string, want error) {
		t.Helper()
		if _, err := ServeDevice(netns, "eth0", &fake{}); err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("%s: serve: %v", what, err)
		}
		if _, err := Device(t.Context(), netns, "eth0"); err == nil || errors.Is(err, nic.ErrNoDevice) {
			t.Errorf("%s: find: %v", what, err)
		}
		if _, err := Interfaces(netns); err == nil {
			t.Errorf("%s: list: no error", what)
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	os.Chmod(dir, 0o777)
	refused("mode 0777", fs.ErrPermission)
	os.Remove(dir)
	os.Symlink("/tmp", dir)
	refused("a link", nil)
	os.Remove(dir)
	os.WriteFile(dir, nil, 0o600)
	refused("a file", nil)

	need.Root(t)
	os.Remove(dir)
	os.Mkdir(dir, 0o700)
	os.Chown(dir, 65534, 65534)
	refused("another user's", fs.ErrPermission)
}

// TestSweep: sockets of killed drivers go, those of the living and of who has only
// begun stay.
func TestSweep(t *testing.T) {
	dir := runtimeIn(t)
	s, err := ServeDevice(1, "eth0", &fake{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	old := time.Now().Add(-time.Hour)
	os.Chtimes(s.Path(), old, old)
	for _, name := range []string{"net-2/eth0", "net-3/eth0", "net-1/eth1"} {
		path := filepath.Join(dir, name)
		os.MkdirAll(filepath.Dir(path), 0o700)
		leaveSocket(t, path)
		if name != "net-3/eth0" {
			os.Chtimes(path, old, old)
		}
	}
	s2, err := ServeDevice(4, "eth0", &fake{})
	if err != nil {
		t.Fatal(err)
	}
	defer s2.Close()
	left, _ := filepath.Glob(filepath.Join(dir, "*", "*"))
	var want []string
	for _, name := range []string{"net-1/eth0", "net-3/eth0", "net-4/eth0"} {
		want = append(want, filepath.Join(dir, name))
	}
	if !slices.Equal(left, want) {
		t.Errorf("left %q, want %q", left, want)
	}
	if _, err := os.Stat(filepath.Join(dir, "net-2")); err == nil {
		t.Error("the empty directory stays")
	}
}

func TestNetNSInode(t *testing.T) {
	n, err := NetNSInode()
	link, e := os.Readlink("/proc/self/ns/net")
	if err != nil || e != nil || link != fmt.Sprintf("net:[%d]", n) {
		t.Errorf("%d, %v; %s, %v", n, err, link, e)
	}
}
