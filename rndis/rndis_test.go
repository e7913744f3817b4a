package rndis

import (
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

type appender interface{ Append([]byte) []byte }

// A sample is a golden message or structure with its parser.
type sample struct {
	name  string
	bytes string // in hexadecimal
	value appender
	parse func([]byte) (any, error)
}

func parser[T any](f func([]byte) (T, error)) func([]byte) (any, error) {
	return func(b []byte) (any, error) { return f(b) }
}

func unhex(t testing.TB, s string) []byte {
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func bytesOf(s string) []byte {
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		panic(err)
	}
	return b
}

// Messages as Linux 6.1 and a host exchanged them; those that were not seen, from
// RESET on, are from the layouts.
var messages = []sample{
	{"INITIALIZE", "02000000 18000000 01000000 01000000 00000000 00400000", Initialize{1, 1, 0, 0x4000}, parser(ParseInitialize)},
	{"INITIALIZE_COMPLETE", `02000080 34000000 01000000 00000000 01000000 00000000 01000000 00000000
		08000000 00400000 03000000 00000000 00000000`,
		InitializeComplete{1, StatusSuccess, 1, 0, FlagConnectionless, MediumEthernet, 8, 0x4000, 3}, parser(ParseInitializeComplete)},
	{"QUERY", "04000000 1c000000 02000000 06010100 00000000 14000000 00000000", Query{2, OIDMaximumFrameSize, nil}, parser(ParseQuery)},
	{"QUERY_COMPLETE", "04000080 1c000000 02000000 00000000 04000000 10000000 dc050000",
		QueryComplete{2, StatusSuccess, []byte{0xdc, 5, 0, 0}}, parser(ParseQueryComplete)},
	{"QUERY_COMPLETE of a MAC", "04000080 1e000000 03000000 00000000 06000000 10000000 00155d010203",
		QueryComplete{3, StatusSuccess, []byte{0, 0x15, 0x5d, 1, 2, 3}}, parser(ParseQueryComplete)},
	{"QUERY with information", `04000000 2e000000 09000000 03020100 12000000 14000000 00000000 88021200
		0000000000000000000000000000`,
		Query{9, OIDReceiveScaleCaps, append(RSSCapabilitiesQuery().Append(nil), make([]byte, 14)...)}, parser(ParseQuery)},
	{"SET", "05000000 20000000 0c000000 0e010100 04000000 14000000 00000000 0d000000",
		Set{12, OIDCurrentPacketFilter, []byte{FilterDirected | FilterAllMulticast | FilterBroadcast, 0, 0, 0}}, parser(ParseSet)},
	{"SET_COMPLETE", "05000080 10000000 0c000000 00000000", SetComplete{12, StatusSuccess}, parser(ParseSetComplete)},
	{"HALT", "03000000 0c000000 0f000000", Halt{15}, parser(ParseHalt)},
	{"RESET", "06000000 0c000000 00000000", Reset{}, parser(ParseReset)},
	{"RESET_COMPLETE", "06000080 10000000 00000000 01000000", ResetComplete{StatusSuccess, 1}, parser(ParseResetComplete)},
	{"INDICATE_STATUS", "07000000 14000000 0b000140 00000000 00000000", IndicateStatus{StatusMediaConnect, nil}, parser(ParseIndicateStatus)},
	{"INDICATE_STATUS with information", "07000000 18000000 13000140 04000000 0c000000 00e1f505",
		IndicateStatus{StatusLinkSpeedChange, []byte{0, 0xe1, 0xf5, 5}}, parser(ParseIndicateStatus)},
	{"KEEPALIVE", "08000000 0c000000 07000000", Keepalive{7}, parser(ParseKeepalive)},
	{"KEEPALIVE_COMPLETE", "08000080 10000000 07000000 00000000", KeepaliveComplete{7, StatusSuccess}, parser(ParseKeepaliveComplete)},
	{"SET_EX", "09000000 1d000000 08000000 0e010100 01000000 14000000 00000000 05", SetEx{8, OIDCurrentPacketFilter, []byte{5}}, parser(ParseSetEx)},
	{"SET_EX_COMPLETE", "09000080 19000000 08000000 bb0000c0 01000000 10000000 05",
		SetExComplete{8, StatusNotSupported, []byte{5}}, parser(ParseSetExComplete)},
}

func TestGolden(t *testing.T) {
	for _, g := range messages {
		t.Run(g.name, func(t *testing.T) {
			want := unhex(t, g.bytes)
			if got := g.value.Append([]byte("prefix"))[6:]; !reflect.DeepEqual(got, want) {
				t.Errorf("Append:\n got %x\nwant %x", got, want)
			}
			for _, extra := range []int{0, 7, 100} { // a range may be longer than its message
				if got, err := g.parse(append(want[:len(want):len(want)], make([]byte, extra)...)); err != nil || !reflect.DeepEqual(got, g.value) {
					t.Errorf("Parse with %d bytes behind: %+v, %v; want %+v", extra, got, err, g.value)
				}
			}
			for n := range want {
				if got, err := g.parse(want[:n]); !errors.Is(err, ErrMalformed) {
					t.Fatalf("Parse of %d bytes of %d: %+v, %v; want ErrMalformed", n, len(want), got, err)
				}
			}
			bad := func(what string, at int, v uint32) {
				b := append([]byte(nil), want...)
				le.PutUint32(b[at:], v)
				if got, err := g.parse(b); !errors.Is(err, ErrMalformed) {
					t.Errorf("Parse with %s: %+v, %v; want ErrMalformed", what, got, err)
				}
			}
			bad("another type", 0, 0x70)
			bad("a length beyond the end", 4, uint32(len(want)+1))
			bad("the largest length", 4, 0xffffffff)
			bad("length 8", 4, 8)
			bad("length 0", 4, 0)
		})
	}
}

// The information buffer of each message that has one, at byte 12 of its header:
// length and offset must lie behind the fixed part and inside the message.
func TestInformationBounds(t *testing.T) {
	for _, c := range []struct {
		name        string
		build       func(info []byte) []byte
		parse       func([]byte) (any, error)
		fixed       int // bytes of body
		length, off int // where in the message they are
	}{
		{"QUERY", func(i []byte) []byte { return Query{1, 1, i}.Append(nil) }, parser(ParseQuery), 20, 16, 20},
		{"SET", func(i []byte) []byte { return Set{1, 1, i}.Append(nil) }, parser(ParseSet), 20, 16, 20},
		{"SET_EX", func(i []byte) []byte { return SetEx{1, 1, i}.Append(nil) }, parser(ParseSetEx), 20, 16, 20},
		{"QUERY_COMPLETE", func(i []byte) []byte { return QueryComplete{1, 0, i}.Append(nil) }, parser(ParseQueryComplete), 16, 16, 20},
		{"SET_EX_COMPLETE", func(i []byte) []byte { return SetExComplete{1, 0, i}.Append(nil) }, parser(ParseSetExComplete), 16, 16, 20},
		{"INDICATE_STATUS", func(i []byte) []byte { return IndicateStatus{1, i}.Append(nil) }, parser(ParseIndicateStatus), 12, 12, 16},
	} {
		fixed := uint32(c.fixed)
		for _, v := range []struct {
			length, off uint32
			ok          bool
		}{
			{8, fixed, true}, {4, fixed + 4, true}, {0, 0, true}, {0, 0xffffffff, true},
			{8, fixed - 1, false}, {8, 0, false}, {9, fixed, false}, {8, fixed + 1, false}, {1, fixed + 8, false},
			{0xffffffff, fixed, false}, {8, 0xfffffff8, false}, {0xffffffff, 0xffffffff, false},
		} {
			b := c.build([]byte("12345678"))
			le.PutUint32(b[c.length:], v.length)
			le.PutUint32(b[c.off:], v.off)
			if m, err := c.parse(b); v.ok != (err == nil) || !v.ok && !errors.Is(err, ErrMalformed) {
				t.Errorf("%s, %d bytes at %d: %+v, %v", c.name, v.length, v.off, m, err)
			}
		}
	}
}

// Hosts before 2019 do not count the payload of an indication in its length.
func TestIndicationBehindMessage(t *testing.T) {
	b := IndicateStatus{StatusLinkSpeedChange, []byte{1, 2, 3, 4}}.Append(nil)
	le.PutUint32(b[4:], uint32(len(b)-4))
	m, err := ParseIndicateStatus(b)
	if err != nil || !reflect.DeepEqual(m.Info, []byte{1, 2, 3, 4}) {
		t.Errorf("payload behind the message: %v, %v", m, err)
	}
	if m, err := ParseIndicateStatus(b[:len(b)-1]); !errors.Is(err, ErrMalformed) {
		t.Errorf("payload beyond the range: %v, %v", m, err)
	}
}

func roundTrip[T appender](t *testing.T, parse func([]byte) (T, error), fix func(*T)) {
	t.Helper()
	rapid.Check(t, func(t *rapid.T) {
		m := rapid.Make[T]().Draw(t, "value")
		if fix != nil {
			fix(&m)
		}
		got, err := parse(m.Append(nil))
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Fatalf("round trip of %+v: %+v, %v", m, got, err)
		}
	})
}

// none makes an empty buffer what it is after parsing.
func none(b *[]byte) {
	if len(*b) == 0 {
		*b = nil
	}
}

func TestRoundTrip(t *testing.T) {
	roundTrip(t, ParseInitialize, nil)
	roundTrip(t, ParseInitializeComplete, nil)
	roundTrip(t, ParseHalt, nil)
	roundTrip(t, ParseReset, nil)
	roundTrip(t, ParseResetComplete, nil)
	roundTrip(t, ParseKeepalive, nil)
	roundTrip(t, ParseKeepaliveComplete, nil)
	roundTrip(t, ParseSetComplete, nil)
	roundTrip(t, ParseIndicateStatus, func(m *IndicateStatus) { none(&m.Info) })
	roundTrip(t, ParseQuery, func(m *Query) { none(&m.Info) })
	roundTrip(t, ParseQueryComplete, func(m *QueryComplete) { none(&m.Info) })
	roundTrip(t, ParseSet, func(m *Set) { none(&m.Info) })
	roundTrip(t, ParseSetEx, func(m *SetEx) { none(&m.Info) })
	roundTrip(t, ParseSetExComplete, func(m *SetExComplete) { none(&m.Info) })
}

func TestBatchIsClamped(t *testing.T) {
	for _, c := range []struct {
		packets, factor     uint32
		wantPackets, wantAl int
	}{
		{8, 3, 8, 8}, {0, 0, 1, 1}, {64, 7, 64, 128}, {65, 8, 64, 128}, {0xffffffff, 0xffffffff, 64, 128},
	} {
		p, a := InitializeComplete{MaxPackets: c.packets, AlignmentFactor: c.factor}.Batch()
		if p != c.wantPackets || a != c.wantAl {
			t.Errorf("%d packets, factor %d: %d, %d; want %d, %d", c.packets, c.factor, p, a, c.wantPackets, c.wantAl)
		}
	}
}

func TestParseHeader(t *testing.T) {
	b := []byte{7, 0, 0, 0, 8, 0, 0, 0}
	if h, err := ParseHeader(b, 8); err != nil || h != (Header{TypeIndicateStatus, 8}) {
		t.Errorf("smallest message: %+v, %v", h, err)
	}
	if h, err := ParseHeader(b, 7); !errors.Is(err, ErrMalformed) {
		t.Errorf("fewer bytes than its length: %+v, %v", h, err)
	}
}

func TestRequestID(t *testing.T) {
	for _, g := range messages {
		b := unhex(t, g.bytes)
		id, ok := RequestID(b)
		switch typ := MessageType(le.Uint32(b)); typ {
		case TypeReset, TypeResetComplete, TypeIndicateStatus:
			if ok {
				t.Errorf("%s: id %d, want none", g.name, id)
			}
		default:
			if !ok || id != le.Uint32(b[8:]) {
				t.Errorf("%s: id %d, %v", g.name, id, ok)
			}
		}
		if id, ok := RequestID(b[:11]); ok {
			t.Errorf("%s cut short: id %d", g.name, id)
		}
	}
}

func TestNames(t *testing.T) {
	for got, want := range map[string]string{
		TypeInitializeComplete.String():  "INITIALIZE_COMPLETE",
		MessageType(0x70).String():       "RNDIS type 0x70",
		OIDMaximumFrameSize.String():     "GEN_MAXIMUM_FRAME_SIZE",
		OID(0x00020199).String():         "OID 0x00020199",
		PPIHash.String():                 "hash",
		PPIPacketID.String():             "packet id",
		PPIType(12).String():             "PPI type 0xc",
		PPIInternal.String():             "PPI type 0x80000000",
		StatusNotSupported.Error():       "NDIS status not supported",
		Status(0xc0010099).String():      "unknown status 0xc0010099",
		IndicateStatus{}.Status.String(): "success",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	seen := map[string]OID{}
	for o, name := range oidNames {
		if other, ok := seen[name]; ok {
			t.Errorf("0x%08x and 0x%08x are both %s", uint32(o), uint32(other), name)
		}
		seen[name] = o
	}
}

// FuzzParse: no message and no structure can do harm, and what is accepted means
// the same when written again.
func FuzzParse(f *testing.F) {
	all := append(append([]sample(nil), messages...), structures...)
	for _, g := range all {
		f.Add(unhex(f, g.bytes))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, g := range all {
			m, err := g.parse(b)
			if err != nil {
				if !errors.Is(err, ErrMalformed) {
					t.Fatalf("%s: %v is not ErrMalformed", g.name, err)
				}
				continue
			}
			again, err := g.parse(m.(appender).Append(nil))
			if err != nil || !reflect.DeepEqual(again, m) {
				t.Fatalf("%s: %+v, again %+v, %v", g.name, m, again, err)
			}
		}
		RequestID(b)
	})
}
