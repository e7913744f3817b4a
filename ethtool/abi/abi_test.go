package abi

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hvnet/nic"
)

// fake is a device; refuse is what all settings are refused with.
type fake struct {
	channels nic.Channels
	rings    nic.Rings
	stats    []nic.Stat
	levels   nic.HashLevels
	rss      nic.RSS
	features nic.Features
	link     nic.LinkSettings
	messages uint32
	refuse   error
	said     []string // settings
}

func newFake() *fake {
	return &fake{
		channels: nic.Channels{Max: 8, Combined: 4},
		rings:    nic.Rings{RxMax: 18811, TxMax: 2560, Rx: 9709, Tx: 170},
		stats:    []nic.Stat{{Name: "tx_busy", Value: 7}, {Name: "rx_queue_0_packets", Value: 1<<64 - 1}},
		levels:   nic.HashLevels{nic.HashL4, nic.HashL3, nic.HashL4, nic.HashL4},
		rss:      nic.RSS{Table: []uint32{0, 1, 2, 3}, Key: bytes.Repeat([]byte{0xab}, 40)},
		features: nic.Features{
			Available: nic.FeaturesOf(nic.FeatureTxIPv4, nic.FeatureTSO, nic.FeatureRxChecksum, nic.FeatureLRO),
			Wanted:    nic.FeaturesOf(nic.FeatureTxIPv4, nic.FeatureTSO, nic.FeatureRxChecksum),
			Active:    nic.FeaturesOf(nic.FeatureTxIPv4, nic.FeatureRxChecksum, nic.FeatureRxVLAN),
		},
		link:     nic.LinkSettings{Mbps: 0x12345, Duplex: nic.DuplexFull, Detected: true},
		messages: 0xf7,
	}
}

func (f *fake) set(format string, args ...any) error {
	f.said = append(f.said, fmt.Sprintf(format, args...))
	return f.refuse
}
func (f *fake) DriverInfo() nic.DriverInfo {
	return nic.DriverInfo{Driver: "hv_netvsc", Version: "1.2", Firmware: "N/A", Bus: strings.Repeat("b", 40), Stats: true, RegisterDump: true}
}
func (f *fake) Channels() nic.Channels         { return f.channels }
func (f *fake) Rings() nic.Rings               { return f.rings }
func (f *fake) Stats() []nic.Stat              { return f.stats }
func (f *fake) Features() nic.Features         { return f.features }
func (f *fake) HashLevels() nic.HashLevels     { return f.levels }
func (f *fake) RSS() nic.RSS                   { return f.rss }
func (f *fake) LinkSettings() nic.LinkSettings { return f.link }
func (f *fake) MessageLevel() uint32           { return f.messages }
func (f *fake) PermanentMAC() nic.MAC          { return nic.MAC{1: 0x15, 2: 0x5d, 5: 9} }
func (f *fake) Registers() nic.Registers       { return nic.Registers{0: 3, 15: 0x01020304} }

func (f *fake) SetChannels(_ context.Context, n int) error { return f.set("channels %d", n) }
func (f *fake) SetRings(_ context.Context, rx, tx int) error {
	return f.set("rings %d %d", rx, tx)
}
func (f *fake) SetFeatures(_ context.Context, c nic.FeatureChange) error {
	return f.set("features %#x of %#x", c.On, c.Change)
}
func (f *fake) SetHashLevel(_ context.Context, flow nic.Flow, l nic.HashKind) error {
	return f.set("%v level %d", flow, l)
}
func (f *fake) SetRSS(_ context.Context, c nic.RSSChange) error {
	return f.set("table %v default %v key %x", c.Table, c.Default, c.Key)
}
func (f *fake) SetLinkSettings(_ context.Context, mbps uint32, d nic.Duplex) error {
	return f.set("link %d %d", mbps, d)
}
func (f *fake) SetMessageLevel(_ context.Context, bits uint32) error {
	return f.set("messages %#x", bits)
}

// buffer is a process' memory: there is no more of it. It remembers how often a byte was
// read.
type buffer struct {
	b     []byte
	reads []int
}

var errNone = errors.New("no such memory")

func (m *buffer) Read(at uint64, b []byte) error {
	if at > uint64(len(m.b)) || uint64(len(b)) > uint64(len(m.b))-at {
		return errNone
	}
	if m.reads == nil {
		m.reads = make([]int, len(m.b))
	}
	for i := range b {
		m.reads[at+uint64(i)]++
	}
	copy(b, m.b[at:])
	return nil
}

func (m *buffer) Write(at uint64, b []byte) error {
	if at > uint64(len(m.b)) || uint64(len(b)) > uint64(len(m.b))-at {
		return errNone
	}
	copy(m.b[at:], b)
	return nil
}

// words returns a structure of 32-bit words; strings stand for their bytes, with zeros up
// to a multiple of 4.
func words(values ...any) []byte {
	var b []byte
	for _, v := range values {
		switch v := v.(type) {
		case int:
			b = binary.NativeEndian.AppendUint32(b, uint32(v))
		case uint32:
			b = binary.NativeEndian.AppendUint32(b, v)
		case string:
			b = append(b, v...)
			b = append(b, make([]byte, -len(b)&3)...)
		case []byte:
			b = append(b, v...)
		}
	}
	return b
}

func zeros(n int) []byte { return make([]byte, n) }

// name is one of 32 bytes.
func name(s string) []byte { return append([]byte(s), make([]byte, 32-len(s))...) }

func little(w ...uint32) []byte {
	var b []byte
	for _, v := range w {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}

const (
	efault, einval, eopnotsupp, eperm = -14, -22, -95, -1
)

func TestServe(t *testing.T) {
	key := bytes.Repeat([]byte{0xab}, 40)
	for _, x := range []struct {
		name string
		ask  []byte
		want int
		back []byte // nil: as it was
		said string
		to   func(*fake)
	}{
		{name: "GDRVINFO", ask: words(3, zeros(192)), back: words(3, name("hv_netvsc"), name("1.2"), name("N/A"), strings.Repeat("b", 31)+"\x00", name(""), zeros(12), 0, 2, 0, 0, 64)},
		{name: "too short", ask: words(3, zeros(188)), want: efault},
		{name: "unknown", ask: words(0x51), want: eopnotsupp},
		{name: "GCHANNELS", ask: words(0x3c, zeros(32)), back: words(0x3c, 0, 0, 0, 8, 0, 0, 0, 4)},
		{name: "SCHANNELS", ask: words(0x3d, zeros(16), 0, 0, 0, 2), said: "channels 2"},
		{name: "SCHANNELS same", ask: words(0x3d, zeros(16), 0, 0, 0, 4)},
		{name: "SCHANNELS too many", ask: words(0x3d, zeros(16), 0, 0, 0, 9), want: einval},
		{name: "SCHANNELS rx", ask: words(0x3d, zeros(16), 1, 0, 0, 4), want: einval},
		{name: "SCHANNELS none", ask: words(0x3d, zeros(16), 0, 0, 0, 0), want: einval, said: "channels 0", to: func(f *fake) { f.refuse = nic.ErrInvalid }},
		{name: "SCHANNELS gone", ask: words(0x3d, zeros(16), 0, 0, 0, 1), want: -19, said: "channels 1", to: func(f *fake) { f.refuse = nic.ErrNoDevice }},
		{name: "GRINGPARAM", ask: words(0x10, zeros(32)), back: words(0x10, 18811, 0, 0, 2560, 9709, 0, 0, 170)},
		{name: "SRINGPARAM", ask: words(0x11, zeros(16), 100, 0, 0, 20), said: "rings 100 20"},
		{name: "SRINGPARAM mini", ask: words(0x11, zeros(16), 100, 1, 0, 20), want: einval},
		{name: "SRINGPARAM max", ask: words(0x11, zeros(16), 18812, 0, 0, 20), want: einval},
		{name: "GSTATS", ask: words(0x1d, 2, zeros(16)), back: words(0x1d, 2, 7, 0, -1, -1)},
		{name: "GSTATS another number", ask: words(0x1d, 1, zeros(8)), back: words(0x1d, 0, zeros(8))},
		{name: "GSTRINGS", ask: words(0x1b, 1, 2, zeros(64)), back: words(0x1b, 1, 2, name("tx_busy"), name("rx_queue_0_packets"))},
		{name: "GSTRINGS another number", ask: words(0x1b, 1, 3, zeros(96)), back: words(0x1b, 1, 0, zeros(96))},
		{name: "GSTRINGS no set", ask: words(0x1b, 0, 0), want: einval},
		{name: "GSTRINGS no room", ask: words(0x1b, 1, 2, zeros(63)), want: efault},
		{name: "GSSET_INFO", ask: words(0x37, 9, 0b111011, 0, zeros(12)), back: words(0x37, 0, 0b110010, 0, 2, 64, 3)},
		{name: "GSSET_INFO nothing", ask: words(0x37, 9, 0, 0)},
		{name: "GRXFH tcp4", ask: words(0x29, 1, 0, 0), back: words(0x29, 1, 0xf0, 0)},
		{name: "GRXFH udp4", ask: words(0x29, 2, 0, 0), back: words(0x29, 2, 0x30, 0)},
		{name: "GRXFH ip6", ask: words(0x29, 17, 5, 5), back: words(0x29, 17, 0x30, 0)},
		{name: "GRXFH ether", ask: words(0x29, 18, 5, 5), back: words(0x29, 18, 0, 0)},
		{name: "GRXFH other context", ask: words(0x29, 0x20000001, 5, 5), back: words(0x29, 0x20000001, 0, 0)},
		{name: "SRXFH L3", ask: words(0x2a, 6, 0x30, 0), said: "udp6 level 1"},
		{name: "SRXFH L4", ask: words(0x2a, 5, 0xf0, 0), said: "tcp6 level 2"},
		{name: "SRXFH half", ask: words(0x2a, 5, 0x70, 0), want: eopnotsupp},
		{name: "SRXFH discard", ask: words(0x2a, 5, 0x30, 1), want: eopnotsupp},
		{name: "SRXFH sctp4", ask: words(0x2a, 3, 0x30, 0), want: eopnotsupp},
		{name: "GRXRINGS", ask: words(0x2d, 0, 0, 0), back: words(0x2d, 0, 4, 0)},
		{name: "GRXFHINDIR size", ask: words(0x38, 0), back: words(0x38, 4)},
		{name: "GRXFHINDIR small", ask: words(0x38, 3, zeros(12)), want: einval, back: words(0x38, 4, zeros(12))},
		{name: "GRXFHINDIR", ask: words(0x38, 4, zeros(16)), back: words(0x38, 4, 0, 1, 2, 3)},
		{name: "GRXFHINDIR none", ask: words(0x38, 0), want: eopnotsupp, to: func(f *fake) { f.rss.Table = nil }},
		{name: "SRXFHINDIR", ask: words(0x39, 4, 3, 2, 1, 0), said: "table [3 2 1 0] default false key "},
		{name: "SRXFHINDIR default", ask: words(0x39, 0), said: "table [] default true key "},
		{name: "SRXFHINDIR channel", ask: words(0x39, 4, 3, 2, 1, 4), want: einval},
		{name: "SRXFHINDIR short", ask: words(0x39, 4, 3, 2, 1), want: efault},
		{name: "GRSSH sizes", ask: words(0x46, 0, 0, 0, 0, 0), back: words(0x46, 0, 4, 40, 1, 0)},
		{name: "GRSSH", ask: words(0x46, 0, 4, 40, 0, 0, zeros(56)), back: words(0x46, 0, 4, 40, 1, 0, 0, 1, 2, 3, key)},
		{name: "GRSSH key alone", ask: words(0x46, 0, 0, 40, 0, 0, zeros(40)), back: words(0x46, 0, 4, 40, 1, 0, key)},
		{name: "GRSSH wrong size", ask: words(0x46, 0, 5, 40, 0, 0, zeros(60)), want: einval, back: words(0x46, 0, 4, 40, 0, 0, zeros(60))},
		{name: "GRSSH reserved", ask: words(0x46, 0, 0, 0, 0x100, 0), want: einval},
		{name: "GRSSH context", ask: words(0x46, 1, 0, 0, 0, 0), want: eopnotsupp},
		{name: "SRSSH table", ask: words(0x47, 0, 4, 0, 0, 0, 1, 1, 1, 1), said: "table [1 1 1 1] default false key "},
		{name: "SRSSH key", ask: words(0x47, 0, -1, 40, 0, 0, key), said: "table [] default false key " + strings.Repeat("ab", 40)},
		{name: "SRSSH default and key", ask: words(0x47, 0, 0, 40, 0, 0, 9, 9, 9, 9, key), said: "table [] default true key " + strings.Repeat("ab", 40)},
		{name: "SRSSH default, no room", ask: words(0x47, 0, 0, 0, 0, 0), said: "table [] default true key "},
		{name: "SRSSH nothing", ask: words(0x47, 0, -1, 0, 0, 0), want: einval},
		{name: "SRSSH toeplitz", ask: words(0x47, 0, -1, 0, 1, 0), said: "table [] default false key "},
		{name: "SRSSH xor", ask: words(0x47, 0, -1, 0, 2, 0), want: eopnotsupp},
		{name: "SRSSH short key", ask: words(0x47, 0, -1, 39, 0, 0, key), want: einval},
		{name: "GFEATURES", ask: words(0x3a, 2, zeros(32)), back: words(0x3a, 2, 1<<1|1<<15|1<<16, 1<<1|1<<16, 1<<1|1<<8, 1<<10|1<<12|1<<13, 1<<8, 1<<8, 1<<8, 0)},
		{name: "GFEATURES one word", ask: words(0x3a, 1, zeros(16)), back: words(0x3a, 2, 1<<1|1<<15|1<<16, 1<<1|1<<16, 1<<1|1<<8, 1<<10|1<<12|1<<13)},
		{name: "SFEATURES", ask: words(0x3b, 2, 1<<1, 0, 1<<8, 1<<8), said: "features 0x10000000000 of 0x10000000002"},
		{name: "SFEATURES fixed", ask: words(0x3b, 2, 1<<8, 0, 0, 0), want: 1, said: "features 0x0 of 0x0"},
		{name: "SFEATURES not granted", ask: words(0x3b, 2, 1<<16, 1<<16, 0, 0), want: 2, said: "features 0x10000 of 0x10000"},
		{name: "SFEATURES never", ask: words(0x3b, 2, 1<<10, 0, 0, 0), want: einval},
		{name: "SFEATURES one word", ask: words(0x3b, 1, 1<<1, 0), want: einval},
		{name: "GTXCSUM", ask: words(0x16, 9), back: words(0x16, 1)},
		{name: "GTSO", ask: words(0x1e, 9), back: words(0x1e, 0)},
		{name: "STSO", ask: words(0x1f, 5), said: "features 0x10000 of 0x10000"},
		{name: "SRXCSUM off", ask: words(0x15, 0), said: "features 0x0 of 0x10000000000"},
		{name: "SSG", ask: words(0x19, 1), want: eopnotsupp},
		{name: "GFLAGS", ask: words(0x25, 0), back: words(0x25, 1<<8)},
		{name: "SFLAGS lro", ask: words(0x26, 1<<8|1<<15), said: "features 0x8000 of 0x8000"},
		{name: "SFLAGS fixed", ask: words(0x26, 0), want: eopnotsupp},
		{name: "SFLAGS both", ask: words(0x26, 1<<15), want: einval},
		{name: "SFLAGS unknown", ask: words(0x26, 1<<8|1), want: einval},
		{name: "GLINK", ask: words(0x0a, 9), back: words(0x0a, 1)},
		{name: "GLINK down", ask: words(0x0a, 9), back: words(0x0a, 0), to: func(f *fake) { f.link.Detected = false }},
		{name: "GMSGLVL", ask: words(0x07, 9), back: words(0x07, 0xf7)},
		{name: "SMSGLVL", ask: words(0x08, 9), said: "messages 0x9"},
		{name: "GPERMADDR", ask: words(0x20, 32, zeros(8)), back: words(0x20, 6, "\x00\x15\x5d\x00\x00\x09")},
		{name: "GPERMADDR small", ask: words(0x20, 5, zeros(8)), want: -525},
		{name: "GREGS", ask: words(0x04, 0, 100, zeros(64)), back: append(words(0x04, 1, 64), words(3, zeros(56), 0x01020304)...)},
		{name: "GREGS less", ask: words(0x04, 0, 6, zeros(8)), back: append(words(0x04, 1, 6, 3), zeros(4)...)},
		{name: "GET_TS_INFO", ask: words(0x41, zeros(40)), back: words(0x41, 0x1a, -1, zeros(32))},
		{name: "GLINKSETTINGS size", ask: words(0x4c, 7, zeros(40)), back: words(0x4c, 0, 0, little(0xfd000000), zeros(32))},
		{name: "GLINKSETTINGS", ask: words(0x4c, 0, 0, little(3<<24), zeros(32+36)), back: words(0x4c, 0x12345, little(0x0000ff01, 3<<24), zeros(32+36))},
		{name: "SLINKSETTINGS", ask: words(0x4d, 1000, little(0x0000ff00, 3<<24), zeros(32+12), "advertising.", zeros(12)), said: "link 1000 0"},
		{name: "SLINKSETTINGS autoneg", ask: words(0x4d, 1000, little(0x0100ff01, 3<<24), zeros(32+36)), want: einval},
		{name: "SLINKSETTINGS autoneg byte", ask: words(0x4d, 1000, little(0x0000ff01, 3<<24|1), zeros(32+36)), want: einval},
		{name: "SLINKSETTINGS words", ask: words(0x4d, 1000, little(0x0000ff01, 4<<24), zeros(32+36)), want: einval},
		{name: "SLINKSETTINGS short", ask: words(0x4d, 1000, little(0x0000ff01, 3<<24), zeros(32)), want: efault},
		{name: "GSET", ask: words(0x01, zeros(40)), back: words(0x01, 0, 0, little(0xff012345, 0, 0, 0, 1, 0, 0, 0))},
		{name: "SSET", ask: words(0x02, 0, 9, little(0xff002345, 0, 0, 0, 1, 0, 0, 0)), said: "link 74565 0"},
		{name: "SSET autoneg", ask: words(0x02, 0, 9, little(0xff002345, 1<<16, 0, 0, 1, 0, 0, 0)), want: einval},
		{name: "FLASHDEV", ask: words(0x33, zeros(132))},
	} {
		t.Run(x.name, func(t *testing.T) {
			f := newFake()
			if x.to != nil {
				x.to(f)
			}
			m := &buffer{b: slices.Clone(x.ask)}
			if got := Serve(t.Context(), f, m, func() bool { return true }); got != x.want {
				t.Errorf("returns %d, want %d", got, x.want)
			}
			if x.back == nil {
				x.back = x.ask
			}
			if diff := cmp.Diff(x.back, m.b); diff != "" {
				t.Error(diff)
			}
			if said := strings.Join(f.said, "; "); said != x.said {
				t.Errorf("sets %q, want %q", said, x.said)
			}
			if i := slices.IndexFunc(m.reads, func(n int) bool { return n > 1 }); i >= 0 {
				t.Errorf("byte %d is read %d times", i, m.reads[i])
			}
		})
	}
}

// TestPrivileges: who is not an administrator may ask what the kernel lets anyone ask, and
// is told EPERM of all else, known or not.
func TestPrivileges(t *testing.T) {
	anyone := []uint32{
		0x01, 0x03, 0x07, 0x0a, 0x0e, 0x10, 0x12, 0x14, 0x16, 0x18, 0x1b, 0x1d, 0x1e, 0x20, 0x21, 0x23, 0x25, 0x27,
		0x29, 0x2b, 0x2d, 0x2e, 0x2f, 0x30, 0x37, 0x38, 0x3a, 0x3c, 0x41, 0x44, 0x46, 0x48, 0x4c, 0x4e, 0x50,
	}
	for command := range uint32(0x60) {
		f := newFake()
		m := &buffer{b: words(command, zeros(4096))}
		got := Serve(t.Context(), f, m, func() bool { return false })
		if may := slices.Contains(anyone, command); may == (got == eperm) {
			t.Errorf("command %#x returns %d", command, got)
		}
		if f.said != nil {
			t.Errorf("command %#x sets %q", command, f.said)
		}
	}
}

// room returns how many bytes the structure of a request has, by what it says itself, as
// the headers of Linux define it.
func room(b []byte) int {
	w := func(at int) int {
		if at+4 > len(b) {
			return 0
		}
		return int(min(binary.NativeEndian.Uint32(b[at:]), 1<<20))
	}
	switch w(0) {
	case 0x01:
		return 44
	case 0x03:
		return 196
	case 0x04:
		return 12 + w(8)
	case 0x10, 0x3c:
		return 36
	case 0x1b:
		if w(8) == 0 { // "all of them": who asks so has to have the room
			return 1 << 20
		}
		return 12 + 32*w(8)
	case 0x1d:
		if w(4) == 0 {
			return 1 << 20
		}
		return 8 + 8*w(4)
	case 0x20:
		return 8 + w(4)
	case 0x29, 0x2d:
		return 16
	case 0x37:
		n := 16
		for i := range 64 {
			if i/8+8 < len(b) && binary.NativeEndian.Uint64(append(slices.Clone(b[min(8, len(b)):]), zeros(8)...))>>i&1 != 0 {
				n += 4
			}
		}
		return n
	case 0x38:
		return 8 + 4*w(4)
	case 0x3a:
		return 8 + 16*w(4)
	case 0x41:
		return 44
	case 0x46:
		return 24 + 4*w(8) + w(12)
	case 0x4c:
		if len(b) > 15 && b[15] == 3 {
			return 84
		}
		return 48
	}
	return 8
}

// FuzzServe: whatever a process asks, nothing is written but in its structure, no byte is
// read twice, and what is returned is what the system call may return.
func FuzzServe(f *testing.F) {
	for command := range uint32(0x60) {
		f.Add(words(command, 2, 4, 40, zeros(200)), true)
		f.Add(words(command, 0, 0, 0, zeros(20)), false)
	}
	f.Add(words(0x47, 0, -1, 40, 0, 0, zeros(40)), true)
	f.Fuzz(func(t *testing.T, ask []byte, admin bool) {
		m := &buffer{b: slices.Clone(ask)}
		d := newFake()
		got := Serve(t.Context(), d, m, func() bool { return admin })
		if got > 3 || got < -525 {
			t.Errorf("returns %d", got)
		}
		if n := min(room(ask), len(ask)); !bytes.Equal(m.b[n:], ask[n:]) {
			t.Errorf("%x becomes %x, and has room for %d", ask, m.b, n)
		}
		if i := slices.IndexFunc(m.reads, func(n int) bool { return n > 1 }); i >= 0 {
			t.Errorf("byte %d is read %d times", i, m.reads[i])
		}
		if d.said != nil && !admin {
			t.Errorf("sets %q without a right", d.said)
		}
	})
}
