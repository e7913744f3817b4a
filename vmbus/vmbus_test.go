package vmbus

import (
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

func TestMessageTypes(t *testing.T) {
	for typ, want := range map[MessageType]string{
		TypeOffer:                    "OFFERCHANNEL",
		TypeOpenResult:               "OPENCHANNEL_RESULT",
		TypeModifyConnectionResponse: "MODIFY_CONNECTION_RESPONSE",
		0:                            "message type 0",
		30:                           "message type 30",
		0x80000010:                   "message type 2147483664",
	} {
		if got := typ.String(); got != want {
			t.Errorf("%d is %q, want %q", uint32(typ), got, want)
		}
	}
	guest := 0
	for typ := TypeOffer; typ <= TypeResume; typ++ {
		if typ.FromGuest() {
			guest++
		}
	}
	if guest != 16 || TypeOffer.FromGuest() || !TypeResume.FromGuest() || MessageType(30).FromGuest() {
		t.Errorf("%d types from the guest", guest)
	}
}

func TestMessageTypeExistsIn(t *testing.T) {
	for _, test := range []struct {
		t    MessageType
		v    Version
		f    Features
		want bool
	}{
		{TypeInitiateContact, 0, 0, true},
		{TypeVersionResponse, 0, 0, true},
		{TypeCloseReserved, 0, 0, true},
		{TypeRequestOffers, 0, 0, false},
		{TypeRequestOffers, VersionWS2008, 0, true},
		{TypeUnloadResponse, VersionWS2008, 0, false},
		{TypeUnloadResponse, Version1_1, 0, true},
		{TypeModifyChannel, Version4_0, 0, false},
		{TypeModifyChannel, Version4_1, 0, true},
		{TypeModifyChannelResponse, Version5_2, 0, false},
		{TypeModifyChannelResponse, Version5_3, 0, true},
		{TypePause, Version6_0, 0, false},
		{TypePause, Version6_0, FeatureModifyConnection, false},
		{TypePause, Version6_0, FeaturePauseResume, true},
		{TypePause, Version5_3, FeaturePauseResume, false},
		{0, Version6_0, ^Features(0), false},
		{30, Version6_0, ^Features(0), false},
	} {
		if got := test.t.ExistsIn(test.v, test.f); got != test.want {
			t.Errorf("%v in %v with features %#x: %v", test.t, test.v, test.f, got)
		}
	}
}

func TestPeekType(t *testing.T) {
	for _, n := range []int{0, 7, 241} {
		if _, err := PeekType(make([]byte, n)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	if typ, err := PeekType([]byte{0x10, 0, 0, 0x80, 0, 0, 0, 0}); err != nil || typ != 0x80000010 {
		t.Errorf("%v, %v", typ, err)
	}
}

func TestVersions(t *testing.T) {
	all := Versions()
	text := ""
	for i, v := range all {
		if i > 0 && v >= all[i-1] {
			t.Errorf("%v follows %v", v, all[i-1])
		}
		text += v.String() + " "
	}
	if want := "6.0 5.3 5.2 5.1 5.0 4.1 4.0 3.0 2.4 1.1 0.13 "; text != want {
		t.Errorf("%q, want %q", text, want)
	}
	if VersionWS2008 != 0xd || Version5_3 != 0x50003 {
		t.Errorf("%#x %#x", VersionWS2008, Version5_3)
	}
	for _, gate := range []struct {
		name  string
		has   func(Version) bool
		since Version
	}{
		{"connection id", Version.HasConnectionID, Version1_1},
		{"unload response", Version.HasUnloadResponse, Version1_1},
		{"event flags", Version.HasEventFlags, Version2_4},
		{"sub-channels", Version.HasSubChannels, Version2_4},
		{"target VP", Version.HasTargetVP, Version2_4},
		{"connection state", Version.HasConnectionState, Version2_4},
		{"message VP", Version.HasMessageVP, Version3_0},
		{"reconnect", Version.HasReconnect, Version3_0},
		{"modify channel", Version.HasModifyChannel, Version4_1},
		{"contact port", Version.HasContactPort, Version5_0},
		{"VTL", Version.HasVTL, Version5_1},
		{"silo", Version.HasSilo, Version5_2},
		{"modify channel response", Version.HasModifyChannelResponse, Version5_3},
		{"features", Version.HasFeatures, Version6_0},
	} {
		for _, v := range all {
			if gate.has(v) != (v >= gate.since) {
				t.Errorf("%s in %v: %v", gate.name, v, gate.has(v))
			}
		}
	}
}

func TestGUID(t *testing.T) {
	const text = "f8615163-df3e-46c5-913f-f2d2f965ed0e"
	if got := ClassNIC.String(); got != text {
		t.Errorf("%s, want %s", got, text)
	}
	for _, s := range []string{text, "{" + text + "}", "F8615163-DF3E-46C5-913F-F2D2F965ED0E"} {
		if g, err := ParseGUID(s); err != nil || g != ClassNIC {
			t.Errorf("ParseGUID(%q): %v, %v", s, g, err)
		}
	}
	for _, s := range []string{"", "{}", "{" + text, text + "0", text[:35], "f8615163-df3e-46c5-913f_f2d2f965ed0e",
		"g8615163-df3e-46c5-913f-f2d2f965ed0e", "f8615163ddf3e-46c5-913f-f2d2f965ed0e", "f8615163-df3e-46c5-913f-f2d2f965ed0é"} {
		if g, err := ParseGUID(s); err == nil {
			t.Errorf("ParseGUID(%q): %v", s, g)
		}
	}
	if !(GUID{}).IsZero() || ClassNIC.IsZero() {
		t.Error("IsZero")
	}
	rapid.Check(t, func(t *rapid.T) {
		g := GUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "guid"))
		if got, err := ParseGUID(g.String()); err != nil || got != g {
			t.Fatalf("%v, %v", got, err)
		}
	})
}

func FuzzParseGUID(f *testing.F) {
	f.Add("f8615163-df3e-46c5-913f-f2d2f965ed0e")
	f.Add("{00000000-0000-0000-0000-000000000000}")
	f.Fuzz(func(t *testing.T, s string) {
		g, err := ParseGUID(s)
		if err != nil {
			return
		}
		if again, err := ParseGUID(g.String()); err != nil || again != g {
			t.Fatalf("%q parses as %v, that as %v, %v", s, g, again, err)
		}
	})
}

func ExampleAppendGPADL() {
	msgs, err := AppendGPADL(nil, 1, 0xe1e10, 64, func(i int) uint64 { return 0x6700 + uint64(i) })
	if err != nil {
		fmt.Println(err)
		return
	}
	header, _ := ParseGPADLHeader(msgs[0])
	a, _ := NewAssembler(header)
	for _, m := range msgs[1:] {
		body, _ := ParseGPADLBody(m)
		a.Add(body.Data)
	}
	ranges, err := a.Ranges()
	fmt.Printf("%d messages, %d bytes, first page %#x, %v\n", len(msgs), ranges[0].Count, ranges[0].PFNs[0], err)
	// Output: 3 messages, 262144 bytes, first page 0x6700, <nil>
}
