package vmbus

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// unhex decodes hexadecimal bytes with any space between them and pads them with
// zeros to size bytes.
func unhex(t testing.TB, s string, size int) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > size {
		t.Fatalf("%d bytes, more than %d", len(b), size)
	}
	return append(b, make([]byte, size-len(b))...)
}

// A golden is a message as a value and as bytes. The rest of the bytes is zero.
type golden struct {
	name  string
	size  int
	bytes string
	want  any
	enc   func(b []byte) []byte
	parse func(b []byte) (any, error)
}

// msg makes a golden of a message whose form depends on nothing.
func msg[T interface{ Append([]byte) []byte }](name string, m T, parse func([]byte) (T, error), size int, bytes string) golden {
	return golden{name, size, bytes, m, m.Append, func(b []byte) (any, error) { return parse(b) }}
}

// msgIn makes a golden of a message whose form depends on in, a version or features.
func msgIn[T interface{ Append([]byte, V) []byte }, V any](name string, m T, in V, parse func([]byte, V) (T, error), size int, bytes string) golden {
	return golden{name, size, bytes, m,
		func(b []byte) []byte { return m.Append(b, in) },
		func(b []byte) (any, error) { return parse(b, in) }}
}

var nicInstance = GUID{0, 0, 0, 0, 0x34, 0x12, 0x78, 0x56, 0x9a, 0xbc, 0xde, 0xf0, 0x12, 0x34, 0x56, 0x78}

func testGUID(first byte) (g GUID) {
	for i := range g {
		g[i] = first + byte(i)
	}
	return g
}

const guid10 = "10111213 14151617 18191a1b 1c1d1e1f "
const guid20 = "20212223 24252627 28292a2b 2c2d2e2f "
const guid30 = "30313233 34353637 38393a3b 3c3d3e3f "

// goldens are at least one of each message. Those marked "Linux" were seen between
// Linux 6.1's hv_vmbus and a host.
func goldens() []golden {
	var user [120]byte
	user[0], user[119] = 0xaa, 0xbb
	return []golden{
		msgIn("Linux offer", Offer{Class: ClassNIC, Instance: nicInstance, MMIO: 0, Flags: 0x0403,
			Relid: 1, MonitorID: 1, Monitored: true, Dedicated: true, ConnID: 0x2001}, Version5_3, ParseOffer, 196, `
			01000000 00000000 635161f8 3edfc546 913ff2d2 f965ed0e 00000000 34127856
			9abcdef0 12345678 00000000 00000000 00000000 00000000 03040000 00000000
			00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000
			00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000
			00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000
			00000000 00000000 00000000 00000000 00000000 00000000 01000000 01010100
			01200000`),
		msgIn("Linux sub-channel offer", Offer{Class: ClassNIC, Instance: nicInstance, Flags: 0x0403, SubChannel: 1,
			Relid: 2, MonitorID: 2, Monitored: true, Dedicated: true, ConnID: 0x2002}, Version5_3, ParseOffer, 196, `
			01000000 00000000 635161f8 3edfc546 913ff2d2 f965ed0e 00000000 34127856
			9abcdef0 12345678 00000000 00000000 00000000 00000000 03040000 00000000
			00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000
			00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000
			00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000
			00000000 00000000 00000000 00000000 00000000 01000000 02000000 02010100
			02200000`),
		msgIn("offer before 1.1", Offer{Class: testGUID(0x10), Instance: testGUID(0x20), Flags: ChannelEnumerate | ChannelNamedPipe,
			MMIO: 8, UserData: user, Relid: 0x7ff, MonitorID: 0xff}, VersionWS2008, ParseOffer, 190, `
			01000000 00000000`+guid10+guid20+`00000000 00000000 00000000 00000000 11000800 aa000000
			00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000
			00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000
			00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000
			00000000 00000000 00000000 00000000 000000bb 00000000 ff070000 ff00`),
		msg("Linux rescind", RescindOffer{2}, ParseRescindOffer, 12, "02000000 00000000 02000000"),
		msg("Linux request offers", RequestOffers{}, ParseRequestOffers, 8, "03"),
		msg("Linux all offers delivered", AllOffersDelivered{}, ParseAllOffersDelivered, 8, "04"),
		msgIn("Linux open", OpenChannel{Relid: 1, OpenID: 1, GPADL: 0xe1e10, DownOffset: 0x80}, 0, ParseOpenChannel, 148, `
			05000000 00000000 01000000 01000000 101e0e00 00000000 80000000`),
		msgIn("long open", OpenChannel{Relid: 3, OpenID: 4, GPADL: 5, TargetVP: NoVP, DownOffset: 7, UserData: user,
			ConnID: 0x01020304, EventFlag: 0x506, Redirect: true}, FeatureInterruptRedirection, ParseOpenChannel, 156, `
			05000000 00000000 03000000 04000000 05000000 ffffffff 07000000 aa000000
			00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000
			00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000
			00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000
			00000000 00000000 00000000 00000000 000000bb 04030201 06050100`),
		msg("Linux open result", OpenResult{Relid: 1, OpenID: 1}, ParseOpenResult, 20, "06000000 00000000 01000000 01000000"),
		msg("open result", OpenResult{2, 3, StatusUnsuccessful}, ParseOpenResult, 20, "06000000 00000000 02000000 03000000 ffff0080"),
		msg("Linux close", CloseChannel{2}, ParseCloseChannel, 12, "07000000 00000000 02000000"),
		msg("GPADL header", GPADLHeader{Relid: 1, ID: 0xe1e10, RangeLen: 16, Ranges: 1, Data: []byte{0, 16, 0, 0, 0, 0, 0, 0, 9, 8, 7, 6, 5, 4, 3, 2}},
			ParseGPADLHeader, 36, "08000000 00000000 01000000 101e0e00 10000100 00100000 00000000 09080706 05040302"),
		msg("GPADL body", GPADLBody{Number: 1, ID: 0xe1e10, Data: []byte{9, 8, 7, 6, 5, 4, 3, 2}},
			ParseGPADLBody, 24, "09000000 00000000 01000000 101e0e00 09080706 05040302"),
		msg("Linux GPADL created", GPADLCreated{Relid: 1, ID: 0xe1e10}, ParseGPADLCreated, 20, "0a000000 00000000 01000000 101e0e00"),
		msg("GPADL not created", GPADLCreated{1, 2, StatusUnsuccessful}, ParseGPADLCreated, 20, "0a000000 00000000 01000000 02000000 ffff0080"),
		msg("Linux GPADL teardown", GPADLTeardown{2, 0xe1e13}, ParseGPADLTeardown, 16, "0b000000 00000000 02000000 131e0e00"),
		msg("Linux GPADL torn down", GPADLTorndown{0xe1e13}, ParseGPADLTorndown, 12, "0c000000 00000000 131e0e00"),
		msg("Linux relid released", RelidReleased{2}, ParseRelidReleased, 12, "0d000000 00000000 02000000"),
		msg("Linux contact 5.3", InitiateContact{Version: Version5_3, SINT: 2, ParentToChild: 0x27ef6000, ChildToParent: 0x27edc000},
			ParseInitiateContact, 40, `
			0e000000 00000000 03000500 00000000 02000000 00000000 0060ef27 00000000 00c0ed27 00000000`),
		msg("contact 2.4", InitiateContact{Version: Version2_4, TargetVP: 3, InterruptPage: 0x123456789000}, ParseInitiateContact, 40,
			"0e000000 00000000 04000200 03000000 00907856 34120000"),
		msg("contact 5.0", InitiateContact{Version: Version5_0, SINT: 2}, ParseInitiateContact, 40,
			"0e000000 00000000 00000500 00000000 02"),
		msg("contact 5.1", InitiateContact{Version: Version5_1, SINT: 2, VTL: 2}, ParseInitiateContact, 40,
			"0e000000 00000000 01000500 00000000 0202"),
		msg("contact 6.0", InitiateContact{Version: Version6_0, TargetVP: 1, SINT: 2, Features: FeatureConfidentialChannels}, ParseInitiateContact, 40,
			"0e000000 00000000 00000600 01000000 02000000 10000000"),
		msg("contact 6.0 with client id", InitiateContact{Version: Version6_0, SINT: 2, Features: FeatureClientID, ParentToChild: 0x1000,
			ChildToParent: 0x2000, ClientID: testGUID(0x10)}, ParseInitiateContact, 56,
			"0e000000 00000000 00000600 00000000 02000000 08000000 00100000 00000000 00200000 00000000"+guid10),
		msgIn("Linux version response", VersionResponse{Supported: true, ConnID: 1}, Version5_3, ParseVersionResponse, 16,
			"0f000000 00000000 01000000 01000000"),
		msgIn("version not supported", VersionResponse{}, Version6_0, ParseVersionResponse, 16, "0f"),
		msgIn("version response 4.0", VersionResponse{Supported: true, State: ConnectionUnknownFailure, Version: Version4_0}, Version4_0,
			ParseVersionResponse, 16, "0f000000 00000000 01020000 00000400"),
		msgIn("version response 6.0", VersionResponse{Supported: true, ConnID: 1, Features: FeaturePauseResume}, Version6_0,
			ParseVersionResponse, 20, "0f000000 00000000 01000000 01000000 20000000"),
		msgIn("version response 6.0 with pages", VersionResponse{Supported: true, ConnID: 1, Features: FeatureServerMonitor, ParentToChild: 0x1000,
			ChildToParent: 0x2000}, Version6_0, ParseVersionResponse, 40,
			"0f000000 00000000 01000000 01000000 40000000 00000000 00100000 00000000 00200000 00000000"),
		msg("Linux unload", Unload{}, ParseUnload, 8, "10"),
		msg("Linux unload response", UnloadResponse{}, ParseUnloadResponse, 8, "11"),
		msg("open reserved", OpenReserved{1, 2, 3, 4, 5}, ParseOpenReserved, 28,
			"12000000 00000000 01000000 02000000 03000000 04000000 05000000"),
		msg("close reserved", CloseReserved{1, 2, 3}, ParseCloseReserved, 20, "13000000 00000000 01000000 02000000 03000000"),
		msg("close reserved response", CloseReservedResponse{1}, ParseCloseReservedResponse, 12, "14000000 00000000 01000000"),
		msgIn("connect 4.0", TLConnectRequest{Endpoint: testGUID(0x10), Service: testGUID(0x20)}, Version4_0, ParseTLConnectRequest, 40,
			"15000000 00000000"+guid10+guid20),
		msgIn("connect 5.2", TLConnectRequest{testGUID(0x10), testGUID(0x20), testGUID(0x30)}, Version5_2, ParseTLConnectRequest, 56,
			"15000000 00000000"+guid10+guid20+guid30),
		msg("modify channel", ModifyChannel{2, 1}, ParseModifyChannel, 16, "16000000 00000000 02000000 01000000"),
		msg("connect result", TLConnectResult{testGUID(0x10), testGUID(0x20), StatusConnectionRefused}, ParseTLConnectResult, 44,
			"17000000 00000000"+guid10+guid20+"360200c0"),
		msg("modify channel response", ModifyChannelResponse{2, StatusUnsuccessful}, ParseModifyChannelResponse, 16,
			"18000000 00000000 02000000 ffff0080"),
		msg("modify connection", ModifyConnection{0x1000, 0x2000}, ParseModifyConnection, 24,
			"19000000 00000000 00100000 00000000 00200000 00000000"),
		msg("modify connection response", ModifyConnectionResponse{ConnectionLowResources}, ParseModifyConnectionResponse, 9,
			"1a000000 00000000 01"),
		msg("pause", Pause{}, ParsePause, 8, "1b"),
		msg("pause response", PauseResponse{}, ParsePauseResponse, 8, "1c"),
		msg("resume", Resume{}, ParseResume, 8, "1d"),
	}
}

func TestMessages(t *testing.T) {
	seen := map[MessageType]bool{}
	for _, g := range goldens() {
		t.Run(g.name, func(t *testing.T) {
			want := unhex(t, g.bytes, g.size)
			typ, err := PeekType(want)
			if err != nil || !typ.known() {
				t.Fatal(typ, err)
			}
			seen[typ] = true

			if got := g.enc([]byte{1, 2, 3}); !bytes.Equal(got[:3], []byte{1, 2, 3}) || !bytes.Equal(got[3:], want) {
				t.Errorf("Append:\n%x, want\n%x", got[3:], want)
			}
			got, err := g.parse(want)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(g.want, got); d != "" {
				t.Errorf("Parse:\n%s", d)
			}

			// Whole messages of 240 bytes are usual in some guests.
			switch typ {
			case TypeGPADLHeader, TypeGPADLBody: // have as much data as there is
			default:
				got, err = g.parse(append(bytes.Clone(want), make([]byte, MaxMessage-g.size)...))
				if d := cmp.Diff(g.want, got); err != nil || d != "" {
					t.Errorf("Parse of the padded message: %v\n%s", err, d)
				}
				for n := range g.size {
					if short, err := g.parse(want[:n]); !errors.Is(err, ErrMalformed) && !shorterForm(typ, n) {
						t.Errorf("Parse of %d bytes: %v, %v", n, short, err)
					}
				}
			}
			if _, err := g.parse(make([]byte, MaxMessage+1)); !errors.Is(err, ErrMalformed) {
				t.Errorf("Parse of too long a message: %v", err)
			}
			other := bytes.Clone(want)
			other[0] ^= 0x40
			if _, err := g.parse(other); !errors.Is(err, ErrMalformed) {
				t.Errorf("Parse of another type: %v", err)
			}
		})
	}
	for typ := TypeOffer; typ <= TypeResume; typ++ {
		if !seen[typ] {
			t.Errorf("no golden message of type %v", typ)
		}
	}
}

// shorterForm reports whether n bytes of a message are another form of it.
func shorterForm(t MessageType, n int) bool {
	return t == TypeTLConnectRequest && n >= tlConnectRequestSize
}

func TestVersionResponseWithoutMonitorAddress(t *testing.T) {
	b := VersionResponse{Supported: true, Features: FeatureServerMonitor}.Append(nil, Version6_0)
	if m, err := ParseVersionResponse(b, Version6_0); !errors.Is(err, ErrMalformed) {
		t.Errorf("%+v, %v", m, err)
	}
}

// Before 2.4 the offer's sub-channel index and before 1.1 its interrupt fields may
// hold anything.
func TestOfferIgnoresWhatItsVersionHasNot(t *testing.T) {
	b := Offer{Relid: 1, SubChannel: 9, Dedicated: true, ConnID: 7}.Append(nil, Version6_0)
	for v, want := range map[Version]Offer{
		VersionWS2008: {Relid: 1},
		Version1_1:    {Relid: 1, Dedicated: true, ConnID: 7},
		Version2_4:    {Relid: 1, Dedicated: true, ConnID: 7, SubChannel: 9},
	} {
		got, err := ParseOffer(b, v)
		if err != nil || got != want {
			t.Errorf("version %v: %+v, %v", v, got, err)
		}
	}
}
