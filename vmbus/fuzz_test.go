package vmbus

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// codec parses a message of one type and appends what it parsed.
type codec func(b []byte, v Version, f Features) (m any, again []byte, err error)

func plain[T interface{ Append([]byte) []byte }](parse func([]byte) (T, error)) codec {
	return func(b []byte, _ Version, _ Features) (any, []byte, error) {
		m, err := parse(b)
		if err != nil {
			return m, nil, err
		}
		return m, m.Append(nil), nil
	}
}

func versioned[T interface{ Append([]byte, Version) []byte }](parse func([]byte, Version) (T, error)) codec {
	return func(b []byte, v Version, _ Features) (any, []byte, error) {
		m, err := parse(b, v)
		if err != nil {
			return m, nil, err
		}
		return m, m.Append(nil, v), nil
	}
}

var codecs = map[MessageType]codec{
	TypeOffer:              versioned(ParseOffer),
	TypeRescindOffer:       plain(ParseRescindOffer),
	TypeRequestOffers:      plain(ParseRequestOffers),
	TypeAllOffersDelivered: plain(ParseAllOffersDelivered),
	TypeOpenChannel: func(b []byte, _ Version, f Features) (any, []byte, error) {
		m, err := ParseOpenChannel(b, f)
		if err != nil {
			return m, nil, err
		}
		return m, m.Append(nil, f), nil
	},
	TypeOpenResult:               plain(ParseOpenResult),
	TypeCloseChannel:             plain(ParseCloseChannel),
	TypeGPADLHeader:              plain(ParseGPADLHeader),
	TypeGPADLBody:                plain(ParseGPADLBody),
	TypeGPADLCreated:             plain(ParseGPADLCreated),
	TypeGPADLTeardown:            plain(ParseGPADLTeardown),
	TypeGPADLTorndown:            plain(ParseGPADLTorndown),
	TypeRelidReleased:            plain(ParseRelidReleased),
	TypeInitiateContact:          plain(ParseInitiateContact),
	TypeVersionResponse:          versioned(ParseVersionResponse),
	TypeUnload:                   plain(ParseUnload),
	TypeUnloadResponse:           plain(ParseUnloadResponse),
	TypeOpenReserved:             plain(ParseOpenReserved),
	TypeCloseReserved:            plain(ParseCloseReserved),
	TypeCloseReservedResponse:    plain(ParseCloseReservedResponse),
	TypeTLConnectRequest:         versioned(ParseTLConnectRequest),
	TypeModifyChannel:            plain(ParseModifyChannel),
	TypeTLConnectResult:          plain(ParseTLConnectResult),
	TypeModifyChannelResponse:    plain(ParseModifyChannelResponse),
	TypeModifyConnection:         plain(ParseModifyConnection),
	TypeModifyConnectionResponse: plain(ParseModifyConnectionResponse),
	TypePause:                    plain(ParsePause),
	TypePauseResponse:            plain(ParsePauseResponse),
	TypeResume:                   plain(ParseResume),
}

// FuzzMessage parses any bytes as a message of the type that they begin with, in any
// version and with any features. What can be parsed can be appended, is no longer
// than it was unless a shorter form was read, and parses to the same again.
func FuzzMessage(f *testing.F) {
	for _, g := range goldens() {
		for _, v := range []Version{VersionWS2008, Version5_3, Version6_0} {
			f.Add(unhex(f, g.bytes, g.size), uint32(v), uint32(0))
		}
		f.Add(unhex(f, g.bytes, g.size), uint32(Version6_0), ^uint32(0))
	}
	f.Fuzz(func(t *testing.T, b []byte, version, features uint32) {
		typ, err := PeekType(b)
		if err != nil {
			return
		}
		parse, ok := codecs[typ]
		if ok != typ.known() {
			t.Fatalf("%v is in one table only", typ)
		}
		if !ok {
			return
		}
		before := bytes.Clone(b)
		m, again, err := parse(b, Version(version), Features(features))
		if !bytes.Equal(b, before) {
			t.Fatal("parsing changed the message")
		}
		if err != nil {
			return
		}
		if len(again) > len(b) && typ != TypeTLConnectRequest {
			t.Fatalf("%v of %d bytes became %d", typ, len(b), len(again))
		}
		m2, third, err := parse(again, Version(version), Features(features))
		if d := cmp.Diff(m, m2); err != nil || d != "" {
			t.Fatalf("%v: %v\n%s", typ, err, d)
		}
		if !bytes.Equal(again, third) {
			t.Fatalf("%v:\n%x became\n%x", typ, again, third)
		}
	})
}
