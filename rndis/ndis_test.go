package rndis

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// hardware and choice bring the structures with a choice of size into the form of
// the others.
type hardware struct {
	HardwareOffload
	revision int
}

func (h hardware) Append(b []byte) []byte { return h.HardwareOffload.Append(b, h.revision) }

func hardwareParser(revision int) func([]byte) (any, error) {
	return func(b []byte) (any, error) {
		o, err := ParseHardwareOffload(b)
		switch revision { // what the revision cannot say
		case 1:
			o.IPsecV2 = [8]uint32{}
			fallthrough
		case 2:
			o.RSCv4, o.RSCv6, o.EncapFlags, o.EncapMax = 0, 0, 0, 0
		}
		return hardware{o, revision}, err
	}
}

type choice struct {
	OffloadParameters
	size int
}

func (c choice) Append(b []byte) []byte { return c.OffloadParameters.Append(b, c.size) }

func choiceParser(b []byte) (any, error) {
	p, err := ParseOffloadParameters(b)
	return choice{p, OffloadParametersSize}, err
}

const key = `6d5a56da 255b0ec2 4167253d 43a38fb0 d0ca2bcb ae7b30b4 77cb2da3 8030f20c 6a42b73b beac01fa`

var everyOther = slices.Repeat([]uint32{0, 1}, 64)

// Structures as Linux 6.1 and a host exchanged them; the config parameter, the link
// state and the offload revisions below 3 are from the layouts.
var structures = []sample{
	{"RSS capabilities", "88021200 0007003d 08000000 08000000 8000", RSSCapabilities{0x3d000700, 8, 8, 128}, parser(ParseRSSCapabilities)},
	{"RSS parameters", "89022800 0000 0000 01170000 00020000 28000000 28000000 28020000 00000000 00000000 00000000" +
		strings.Repeat("00000000 01000000", 64) + key,
		RSSParameters{HashInfo: HashDefault, Table: everyOther, Key: bytesOf(key)}, parser(ParseRSSParameters)},
	{"hardware offload", "a7039c00 02000000 55010000 02000000 55010000 02000000 55000000 02000000 55000000" +
		strings.Repeat("00", 80-36) + "02000000 00f00000 02000000 02000000 00f00000 02000000 05000000" +
		strings.Repeat("00", 144-108) + "0101 0000 00000000 00000000",
		hardware{HardwareOffload{
			IPv4:  ChecksumOffload{EncapEthernet, 0x155, EncapEthernet, 0x155},
			IPv6:  ChecksumOffload{EncapEthernet, 0x55, EncapEthernet, 0x55},
			LSOv4: LSOOffload{EncapEthernet, 0xf000, 2}, LSOv6: LSOOffload{EncapEthernet, 0xf000, 2},
			LSOv6Opts: LSO6Extensions | LSO6TCPOptions, RSCv4: 1, RSCv6: 1}, 3}, hardwareParser(3)},
	{"hardware offload, revision 2", "a7029000" + strings.Repeat("00", 112-4) + "07000000" + strings.Repeat("00", 28),
		hardware{HardwareOffload{IPsecV2: [8]uint32{7}}, 2}, hardwareParser(2)},
	{"hardware offload, revision 1", "a7017000" + strings.Repeat("00", 104) + "07000000",
		hardware{HardwareOffload{Flags: 7}, 1}, hardwareParser(1)},
	{"offload parameters", "80031c00 01040404 04000002 02000000 00000000 00000202 00000000",
		choice{OffloadParameters{IPv4: ChecksumOff, TCPv4: ChecksumBoth, UDPv4: ChecksumBoth, TCPv6: ChecksumBoth, UDPv6: ChecksumBoth,
			LSOv4: OffloadOn, LSOv6: OffloadOn, RSCv4: OffloadOn, RSCv6: OffloadOn}, OffloadParametersSize}, choiceParser},
	{"config parameter", `14000000 1c000000 02000000 30000000 18000000
		4e006500740077006f0072006b004100640064007200650073007300 300030003100350035006400300031003000320030006600`,
		NewNetworkAddress([6]byte{0, 0x15, 0x5d, 1, 2, 15}), parser(ParseConfigParameter)},
	{"link state", "80012800 01000000 02000000 00000000 00e40b5402000000 00e40b5402000000 01000000 00000000",
		LinkState{LinkConnected, DuplexFull, 10e9, 10e9, 1, 0}, parser(ParseLinkState)},
}

func TestStructures(t *testing.T) {
	for _, g := range structures {
		t.Run(g.name, func(t *testing.T) {
			want := unhex(t, g.bytes)
			if got := g.value.Append([]byte("prefix"))[6:]; !reflect.DeepEqual(got, want) {
				t.Errorf("Append:\n got %x\nwant %x", got, want)
			}
			if got, err := g.parse(want); err != nil || !reflect.DeepEqual(got, g.value) {
				t.Errorf("Parse: %+v, %v; want %+v", got, err, g.value)
			}
			for n := range want {
				if got, err := g.parse(want[:n]); !errors.Is(err, ErrMalformed) {
					t.Fatalf("Parse of %d bytes of %d: %+v, %v; want ErrMalformed", n, len(want), got, err)
				}
			}
		})
	}
}

func TestStructureRoundTrip(t *testing.T) {
	roundTrip(t, ParseRSSCapabilities, nil)
	roundTrip(t, ParseLinkState, nil)
	roundTrip(t, func(b []byte) (choice, error) { m, err := choiceParser(b); return m.(choice), err },
		func(c *choice) { c.size = OffloadParametersSize })
	for revision := 1; revision <= 3; revision++ {
		parse := hardwareParser(revision)
		rapid.Check(t, func(t *rapid.T) {
			o := hardware{rapid.Make[HardwareOffload]().Draw(t, "offload"), revision}
			long, _ := hardwareParser(revision)(hardware{o.HardwareOffload, 3}.Append(nil))
			got, err := parse(o.Append(nil))
			if err != nil || !reflect.DeepEqual(got, long) {
				t.Fatalf("revision %d of %+v: %+v, %v", revision, o, got, err)
			}
		})
	}
	rapid.Check(t, func(t *rapid.T) {
		p := RSSParameters{
			BaseCPU: rapid.Uint16().Draw(t, "cpu"), HashInfo: HashInfo(rapid.Uint32().Draw(t, "hash")) | HashToeplitz,
			Table: rapid.SliceOfN(rapid.Uint32(), 1, 300).Draw(t, "table"), Key: rapid.SliceOfN(rapid.Byte(), KeySize, KeySize).Draw(t, "key"),
		}
		if got, err := ParseRSSParameters(p.Append(nil)); err != nil || !reflect.DeepEqual(got, p) {
			t.Fatalf("round trip of %+v: %+v, %v", p, got, err)
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		p := ConfigParameter{Name: rapid.StringMatching(`[*A-Za-z0-9é😀]{0,40}`).Draw(t, "name"), Type: rapid.Uint32().Draw(t, "type"),
			Value: rapid.SliceOfN(rapid.Byte(), 0, configMax).Draw(t, "value")}
		if got, err := ParseConfigParameter(p.Append(nil)); err != nil || !reflect.DeepEqual(got, p) {
			t.Fatalf("round trip of %+v: %+v, %v", p, got, err)
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.StringMatching(`[ -~é😀]*`).Draw(t, "string")
		if got, err := ParseUTF16(AppendUTF16(nil, s)); err != nil || got != s {
			t.Fatalf("round trip of %q: %q, %v", s, got, err)
		}
	})
}

func TestRSSParametersChecks(t *testing.T) {
	valid := RSSParameters{HashInfo: HashDefault, Table: []uint32{0, 1, 2}, Key: make([]byte, KeySize)}
	for _, c := range []struct {
		name   string
		change func(b []byte)
		ok     bool
	}{
		{"valid", func(b []byte) {}, true},
		{"header is not looked at", func(b []byte) { clear(b[:4]) }, true},
		{"no table", func(b []byte) { le.PutUint16(b[12:], 0) }, false},
		{"half an entry", func(b []byte) { le.PutUint16(b[12:], 10) }, false},
		{"table over the header", func(b []byte) { le.PutUint32(b[16:], 36) }, false},
		{"table beyond the end", func(b []byte) { le.PutUint32(b[16:], uint32(len(b)-8)) }, false},
		{"table offset wraps", func(b []byte) { le.PutUint32(b[16:], 0xfffffffc) }, false},
		{"short key", func(b []byte) { le.PutUint16(b[20:], 39) }, false},
		{"no key", func(b []byte) { le.PutUint16(b[20:], 0) }, false},
		{"key beyond the end", func(b []byte) { le.PutUint32(b[24:], uint32(len(b)-39)) }, false},
		{"key offset wraps", func(b []byte) { le.PutUint32(b[24:], 0xfffffff0) }, false},
		{"disabled by flag: neither matters", func(b []byte) { b[4] = RSSDisable; clear(b[12:28]) }, true},
		{"disabled by hash function", func(b []byte) { b[8] = 0; clear(b[12:28]) }, true},
		{"no hash function, but unchanged: not disabled, and without a key", func(b []byte) { b[4] = RSSHashInfoUnchanged; b[8] = 0; b[20] = 0 }, false},
		{"table and key unchanged", func(b []byte) { b[4] = RSSTableUnchanged | RSSKeyUnchanged; clear(b[12:28]) }, true},
	} {
		b := valid.Append(nil)
		c.change(b)
		if p, err := ParseRSSParameters(b); c.ok != (err == nil) || !c.ok && !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %+v, %v", c.name, p, err)
		}
	}
}

// Table and key may come in either order, and fill the structure to its end.
func TestRSSParametersOrder(t *testing.T) {
	b := RSSParameters{HashInfo: HashDefault, Table: []uint32{1}, Key: make([]byte, KeySize)}.Append(nil)
	le.PutUint32(b[24:], rssParametersSize)
	le.PutUint32(b[16:], rssParametersSize+KeySize)
	b[len(b)-4] = 3
	if p, err := ParseRSSParameters(b); err != nil || !slices.Equal(p.Table, []uint32{3}) || p.Key[0] != 1 {
		t.Errorf("key first: %+v, %v", p, err)
	}
}

func TestFillTable(t *testing.T) {
	p := RSSParameters{Table: []uint32{0, 1, 2}}
	dst := make([]uint32, 7)
	if err := p.FillTable(dst, 3); err != nil || !slices.Equal(dst, []uint32{0, 1, 2, 0, 1, 2, 0}) {
		t.Errorf("repeated: %v, %v", dst, err)
	}
	if err := p.FillTable(dst, 2); !errors.Is(err, ErrMalformed) || dst[2] != 2 {
		t.Errorf("channel beyond: %v, %v", dst, err)
	}
	short := make([]uint32, 2)
	if err := p.FillTable(short, 2); err != nil || !slices.Equal(short, []uint32{0, 1}) {
		t.Errorf("cut, the entry beyond is not used: %v, %v", short, err)
	}
	if err := (RSSParameters{}).FillTable(dst, 1); err != nil || dst[1] != 1 {
		t.Errorf("absent table: %v, %v", dst, err)
	}
}

func TestObjectChecks(t *testing.T) {
	valid := hardware{revision: 3}.Append(nil)
	for _, c := range []struct {
		name   string
		change func(b []byte)
		ok     bool
	}{
		{"later revision, same size", func(b []byte) { b[1] = 9 }, true},
		{"another type", func(b []byte) { b[0] = 0xa6 }, false},
		{"revision 0", func(b []byte) { b[1] = 0 }, false},
		{"size beyond the end", func(b []byte) { le.PutUint16(b[2:], 157) }, false},
		{"size below the first revision", func(b []byte) { le.PutUint16(b[2:], 111) }, false},
		{"size of the first revision", func(b []byte) { le.PutUint16(b[2:], 112) }, true},
	} {
		b := slices.Clone(valid)
		c.change(b)
		if _, err := ParseHardwareOffload(b); c.ok != (err == nil) || !c.ok && !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if h, err := ParseObjectHeader(valid[:4]); err != nil || h != HardwareOffloadQuery(3) {
		t.Errorf("bare header: %+v, %v", h, err)
	}
	// Fields beyond the size that the header states are not read.
	b := hardware{HardwareOffload{RSCv4: 1, IPsecV2: [8]uint32{1}}, 3}.Append(nil)
	le.PutUint16(b[2:], 112)
	if o, err := ParseHardwareOffload(b); err != nil || o != (HardwareOffload{}) {
		t.Errorf("fields beyond the size: %+v, %v", o, err)
	}
	// The first revision of the RSS capabilities has no entries.
	c, err := ParseRSSCapabilities(unhex(t, "88011000 01030000 00000000 04000000"))
	if err != nil || c.Entries != 0 || c.Queues != 4 || c.TableEntries() != DefaultTableEntries {
		t.Errorf("RSS capabilities, revision 1: %+v, %v", c, err)
	}
	for entries, want := range map[uint16]int{0: 128, 1: 1, 64: 64, 256: 256, 257: 128} {
		if got := (RSSCapabilities{Entries: entries}).TableEntries(); got != want {
			t.Errorf("%d entries: %d, want %d", entries, got, want)
		}
	}
}

func TestShortOffloadParameters(t *testing.T) {
	p := OffloadParameters{IPv4: ChecksumOff, TCPv4: ChecksumBoth, IPsecV2IPv4: 1, RSCv4: OffloadOn}
	b := p.Append(nil, OffloadParametersShort)
	if len(b) != 22 || le.Uint16(b[2:]) != 22 {
		t.Errorf("short form: %x", b)
	}
	p.RSCv4 = OffloadNoChange
	if got, err := ParseOffloadParameters(b); err != nil || got != p {
		t.Errorf("short form: %+v, %v", got, err)
	}
}

func TestConfigParameterChecks(t *testing.T) {
	for _, c := range []struct {
		name      string
		at, value int
	}{
		{"name over the header", 0, 16}, {"name beyond the end", 0, 60}, {"name offset wraps", 0, -8}, {"name of an odd length", 4, 27},
		{"name too long", 4, 256}, {"value over the header", 12, 0}, {"value beyond the end", 12, 49}, {"value too long", 16, -1},
	} {
		b := NewNetworkAddress([6]byte{1: 1}).Append(nil)
		le.PutUint32(b[c.at:], uint32(c.value))
		if p, err := ParseConfigParameter(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %+v, %v", c.name, p, err)
		}
	}
}

func TestNetworkAddress(t *testing.T) {
	str := func(s string) ConfigParameter {
		return ConfigParameter{NetworkAddress, ConfigString, AppendUTF16(nil, s)}
	}
	for _, c := range []struct {
		p  ConfigParameter
		ok bool
	}{
		{NewNetworkAddress([6]byte{0, 0x15, 0x5d, 0xaa, 0xbb, 0xcc}), true},
		{str("00155dAAbbCC"), true},
		{str("00155daabbc"), false},
		{str("00155daabbccdd"), false},
		{str("00155daabbcg"), false},
		{str("00 15 5d aa "), false},
		{str("00155daabbé"), false},
		{ConfigParameter{NetworkAddress, ConfigInteger, AppendUTF16(nil, "00155daabbcc")}, false},
		{ConfigParameter{"networkAddress", ConfigString, AppendUTF16(nil, "00155daabbcc")}, false},
		{ConfigParameter{NetworkAddress, ConfigString, []byte{1}}, false},
	} {
		mac, err := c.p.MAC()
		if c.ok != (err == nil) || c.ok && mac != [6]byte{0, 0x15, 0x5d, 0xaa, 0xbb, 0xcc} || !c.ok && !errors.Is(err, ErrMalformed) {
			t.Errorf("%+v: %x, %v", c.p, mac, err)
		}
	}
}

func TestValues(t *testing.T) {
	if v, err := ParseUint32(AppendUint32(nil, 1500)); v != 1500 || err != nil {
		t.Error(v, err)
	}
	if v, err := ParseUint32([]byte{1, 2, 3}); !errors.Is(err, ErrMalformed) {
		t.Error(v, err)
	}
	if v, err := ParseMAC([]byte{1, 2, 3, 4, 5, 6, 7}); v != [6]byte{1, 2, 3, 4, 5, 6} || err != nil {
		t.Error(v, err)
	}
	if v, err := ParseMAC([]byte{1, 2, 3, 4, 5}); !errors.Is(err, ErrMalformed) {
		t.Error(v, err)
	}
	for mbps, want := range map[uint32]uint32{0: 0, 10000: 100000000, 429496: 4294960000, 429497: 0xffffffff, 800000: 0xffffffff} {
		if got := LinkSpeed(mbps); got != want {
			t.Errorf("LinkSpeed(%d) = %d, want %d", mbps, got, want)
		}
	}
	if got := LinkMbps(100000000); got != 10000 {
		t.Errorf("LinkMbps = %d", got)
	}
	// As a host sent it.
	s, err := ParseUTF16(unhex(t, "6c00 6700 7600 2000 7300 7400 7500 6200 2000 4e00 4900 4300"))
	if s != "lgv stub NIC" || err != nil {
		t.Errorf("friendly name %q, %v", s, err)
	}
	if s, err := ParseUTF16([]byte{'a', 0, 0, 0, 'b', 0}); s != "a" || err != nil {
		t.Errorf("terminated: %q, %v", s, err)
	}
	if s, err := ParseUTF16([]byte{0, 0xd8}); s != "\ufffd" || err != nil {
		t.Errorf("half a pair: %q, %v", s, err)
	}
	if s, err := ParseUTF16([]byte{'a'}); !errors.Is(err, ErrMalformed) {
		t.Errorf("odd: %q, %v", s, err)
	}
}
