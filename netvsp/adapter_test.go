package netvsp

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"hvnet/nic"
	"hvnet/nvsp"
	"hvnet/rndis"
)

// newAdapter returns an adapter that is initialized, for a guest of the version.
func newAdapter(t *testing.T, v nvsp.Version) *adapter {
	t.Helper()
	c := ready(t, v)
	a := &adapter{ctl: c, name: "port", permanent: guestMAC, mac: guestMAC, link: nic.LinkState{Up: true, Mbps: 10000},
		total: func() *counters { return &counters{} }}
	reply, _, err := a.handle(rndis.Initialize{RequestID: 1, Major: 1, MaxTransfer: 0x4000}.Append(nil))
	m, perr := rndis.ParseInitializeComplete(reply)
	if err != nil || perr != nil || m.Status != rndis.StatusSuccess || m.MaxPackets != 8 || m.AlignmentFactor != 3 {
		t.Fatalf("INITIALIZE: %+v, %v, %v", m, err, perr)
	}
	return a
}

func query(t *testing.T, a *adapter, o rndis.OID, in []byte) ([]byte, rndis.Status) {
	t.Helper()
	reply, ch, err := a.handle(rndis.Query{RequestID: 7, OID: o, Info: in}.Append(nil))
	c, perr := rndis.ParseQueryComplete(reply)
	if err != nil || perr != nil || c.RequestID != 7 || ch != 0 {
		t.Fatalf("query %v: %+v, %v, %v", o, c, err, perr)
	}
	return c.Info, c.Status
}

func set(t *testing.T, a *adapter, o rndis.OID, in []byte) (rndis.Status, change) {
	t.Helper()
	reply, ch, err := a.handle(rndis.Set{RequestID: 9, OID: o, Info: in}.Append(nil))
	c, perr := rndis.ParseSetComplete(reply)
	if err != nil || perr != nil || c.RequestID != 9 {
		t.Fatalf("set %v: %+v, %v, %v", o, c, err, perr)
	}
	return c.Status, ch
}

func words(list ...uint32) (b []byte) {
	for _, w := range list {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return b
}

func TestQueries(t *testing.T) {
	a := newAdapter(t, nvsp.V61)
	state := words(0x00280180, 1, 2, 0, 1410065408, 2, 1410065408, 2, 1, 0) // 10 Gbit/s both ways
	for o, want := range map[rndis.OID][]byte{
		rndis.OIDHardwareStatus:       words(0),
		rndis.OIDMediaSupported:       words(0),
		rndis.OIDMediaInUse:           words(0),
		rndis.OIDMaximumFrameSize:     words(1500),
		rndis.OIDMaximumLookahead:     words(1500),
		rndis.OIDMaximumTotalSize:     words(1514),
		rndis.OIDTransmitBlockSize:    words(1514),
		rndis.OIDLinkSpeed:            words(100_000_000),
		rndis.OIDMaxLinkSpeed:         words(1410065408, 2, 1410065408, 2),
		rndis.OIDLinkState:            state,
		rndis.OIDMediaConnectStatus:   words(0),
		rndis.OIDVendorID:             words(0x155d),
		rndis.OIDVendorDescription:    []byte("Microsoft Corporation\x00"),
		rndis.OIDDriverVersion:        {0, 1},
		rndis.OIDMACOptions:           words(0x24d),
		rndis.OIDMaximumSendPackets:   words(0xffffffff),
		rndis.OIDTransmitBufferSpace:  words(262144),
		rndis.OIDPermanentAddress:     guestMAC[:],
		rndis.OIDCurrentAddress:       guestMAC[:],
		rndis.OIDMaximumListSize:      words(0),
		rndis.OIDCurrentPacketFilter:  words(0),
		rndis.OIDFriendlyName:         []byte("p\x00o\x00r\x00t\x00\x00\x00"),
		rndis.OIDReceiveScaleCaps:     append(words(0x00120288, 0x301, 1, 8), 128, 0),
		rndis.OIDOffloadCurrentConfig: a.ctl.profile.Offload.Append(nil, 3),
	} {
		if got, s := query(t, a, o, nil); s != rndis.StatusSuccess || !bytes.Equal(got, want) {
			t.Errorf("%v: %v\n%x, want\n%x", o, s, got, want)
		}
	}
	for _, o := range []rndis.OID{0x00010112, 0x00020106, 0xff010203, 0, rndis.OIDReceiveScaleParameters, rndis.OIDConfigParameter} {
		if got, s := query(t, a, o, words(1, 2, 3)); s != rndis.StatusNotSupported || len(got) != 0 {
			t.Errorf("query %v: %v, %x", o, s, got)
		}
		if o == rndis.OIDReceiveScaleParameters || o == rndis.OIDConfigParameter {
			continue
		}
		if s, _ := set(t, a, o, words(0x41414141, 0x41414141)); s != rndis.StatusNotSupported {
			t.Errorf("set %v: %v", o, s)
		}
	}
	list, _ := query(t, a, rndis.OIDSupportedList, nil)
	if len(list) != 4*len(oids) {
		t.Errorf("supported list has %d bytes, want %d", len(list), 4*len(oids))
	}
	a.link.Up = false
	if got, _ := query(t, a, rndis.OIDMediaConnectStatus, nil); !bytes.Equal(got, words(1)) {
		t.Errorf("media status of a link that is down: %x", got)
	}
}

// TestOffloadCaps: what the profile has is offered, in the structure that the guest
// knows.
func TestOffloadCaps(t *testing.T) {
	a := newAdapter(t, nvsp.V61)
	for revision, size := range map[int]int{1: 112, 2: 144, 3: 156} {
		in := make([]byte, size)
		copy(in, rndis.HardwareOffloadQuery(revision).Append(nil))
		got, s := query(t, a, rndis.OIDOffloadHardwareCaps, in)
		o, err := rndis.ParseHardwareOffload(got)
		if s != rndis.StatusSuccess || err != nil || len(got) != size || int(got[1]) != revision ||
			o.IPv4 != a.ctl.profile.Offload.IPv4 || o.LSOv6 != a.ctl.profile.Offload.LSOv6 || (o.RSCv4 == 1) != (revision == 3) {
			t.Errorf("revision %d: %v, %d bytes, %+v, %v", revision, s, len(got), o, err)
		}
	}
	all := rndis.OffloadParameters{IPv4: 1, TCPv4: 4, UDPv4: 4, TCPv6: 4, UDPv6: 4, LSOv4: 2, LSOv6: 2, RSCv4: 2, RSCv6: 2}
	bad := all
	bad.TCPv4 = 5
	lso1 := all
	lso1.LSOv1 = 2
	short := all.Append(nil, rndis.OffloadParametersSize)
	for what, tt := range map[string]struct {
		in   []byte
		want rndis.Status
	}{
		"as Linux sends it":     {all.Append(nil, rndis.OffloadParametersSize), rndis.StatusSuccess},
		"as old Linux sends it": {all.Append(nil, rndis.OffloadParametersShort), rndis.StatusSuccess},
		"a choice of 5":         {bad.Append(nil, rndis.OffloadParametersSize), rndis.StatusInvalidData},
		"LSO version 1":         {lso1.Append(nil, rndis.OffloadParametersSize), rndis.StatusNotSupported},
		"cut":                   {short[:19], rndis.StatusInvalidData},
		"empty":                 {nil, rndis.StatusInvalidData},
	} {
		if s, _ := set(t, a, rndis.OIDOffloadParameters, tt.in); s != tt.want {
			t.Errorf("%s: %v, want %v", what, s, tt.want)
		}
	}
}

func TestRSSParameters(t *testing.T) {
	key := bytes.Repeat([]byte{1, 2, 3, 4}, 10)
	good := rndis.RSSParameters{HashInfo: rndis.HashDefault, Table: []uint32{0, 1, 2, 3}, Key: key}
	with := func(f func(p *rndis.RSSParameters)) []byte {
		p := good
		f(&p)
		return p.Append(nil)
	}
	patched := func(at int, v byte) []byte {
		b := good.Append(nil)
		b[at] = v
		return b
	}
	for what, tt := range map[string]struct {
		in      []byte
		want    rndis.Status
		enabled bool
	}{
		"good":            {good.Append(nil), rndis.StatusSuccess, true},
		"disabled":        {with(func(p *rndis.RSSParameters) { p.Flags = rndis.RSSDisable }), rndis.StatusSuccess, false},
		"no function":     {with(func(p *rndis.RSSParameters) { p.HashInfo = 0 }), rndis.StatusSuccess, false},
		"channel 7 of 8":  {with(func(p *rndis.RSSParameters) { p.Table = []uint32{7} }), rndis.StatusSuccess, true},
		"channel 8 of 8":  {with(func(p *rndis.RSSParameters) { p.Table = []uint32{0, 8} }), rndis.StatusInvalidData, false},
		"no table":        {with(func(p *rndis.RSSParameters) { p.Table = nil }), rndis.StatusInvalidData, false},
		"short key":       {with(func(p *rndis.RSSParameters) { p.Key = key[:39] }), rndis.StatusInvalidData, false},
		"odd table":       {patched(12, 15), rndis.StatusInvalidData, false},
		"table outside":   {patched(17, 0xff), rndis.StatusInvalidData, false},
		"key outside":     {patched(25, 0xff), rndis.StatusInvalidData, false},
		"key in header":   {patched(24, 4), rndis.StatusInvalidData, false},
		"nothing":         {nil, rndis.StatusInvalidData, false},
		"unchanged first": {with(func(p *rndis.RSSParameters) { p.Flags = rndis.RSSTableUnchanged | rndis.RSSKeyUnchanged }), rndis.StatusInvalidData, false},
	} {
		a := newAdapter(t, nvsp.V61)
		s, ch := set(t, a, rndis.OIDReceiveScaleParameters, tt.in)
		if s != tt.want || a.rss.enabled != tt.enabled || (ch == changedRSS) != (s == rndis.StatusSuccess) {
			t.Errorf("%s: %v, enabled %v, change %d", what, s, a.rss.enabled, ch)
		}
	}
	a := newAdapter(t, nvsp.V61)
	set(t, a, rndis.OIDReceiveScaleParameters, good.Append(nil))
	if len(a.rss.table) != 128 || !slices.Equal(a.rss.table[:5], []uint32{0, 1, 2, 3, 0}) {
		t.Errorf("table: %v", a.rss.table)
	}
	old := a.rss.table
	set(t, a, rndis.OIDReceiveScaleParameters, with(func(p *rndis.RSSParameters) { p.Table = []uint32{5} }))
	if old[0] != 0 || a.rss.table[0] != 5 {
		t.Error("the table that others may look at was written to")
	}
	set(t, a, rndis.OIDReceiveScaleParameters, with(func(p *rndis.RSSParameters) { p.Flags, p.Table = rndis.RSSTableUnchanged, []uint32{1} }))
	if a.rss.table[0] != 5 {
		t.Error("a table that is unchanged has changed")
	}
}

func TestNetworkAddress(t *testing.T) {
	a := newAdapter(t, nvsp.V61)
	parameter := func(m nic.MAC) []byte { return rndis.NewNetworkAddress(m).Append(nil) }
	for _, tt := range []struct {
		mac  nic.MAC
		free bool
		want rndis.Status
	}{
		{guestMAC, false, rndis.StatusSuccess},
		{otherMAC, false, rndis.StatusNotSupported},
		{otherMAC, true, rndis.StatusSuccess},
		{guestMAC, false, rndis.StatusSuccess}, // back to its own
		{nic.Broadcast, true, rndis.StatusInvalidData},
		{nic.MAC{}, true, rndis.StatusInvalidData},
	} {
		a.freeMAC = tt.free
		before := a.mac
		s, ch := set(t, a, rndis.OIDConfigParameter, parameter(tt.mac))
		changed := s == rndis.StatusSuccess && tt.mac != before
		if s != tt.want || (ch == changedMAC) != changed || changed && a.mac != tt.mac || !changed && a.mac != before {
			t.Errorf("%+v: %v, address %v, change %d", tt, s, a.mac, ch)
		}
	}
	other := rndis.ConfigParameter{Name: "*LsoV2IPv4", Type: rndis.ConfigString, Value: []byte{'1', 0}}
	if s, ch := set(t, a, rndis.OIDConfigParameter, other.Append(nil)); s != rndis.StatusSuccess || ch != 0 {
		t.Errorf("another parameter: %v", s)
	}
	if s, _ := set(t, a, rndis.OIDConfigParameter, parameter(otherMAC)[:30]); s != rndis.StatusInvalidData {
		t.Errorf("cut: %v", s)
	}
}

// TestControlOrder says how RNDIS messages out of order are answered.
func TestControlOrder(t *testing.T) {
	a := newAdapter(t, nvsp.V61)
	a.initialized = false
	for _, m := range [][]byte{
		rndis.Query{RequestID: 3, OID: rndis.OIDLinkSpeed}.Append(nil),
		rndis.Set{RequestID: 3, OID: rndis.OIDCurrentPacketFilter, Info: words(13)}.Append(nil),
	} {
		reply, ch, err := a.handle(m)
		if id, _ := rndis.RequestID(reply); err == nil || ch != 0 || id != 3 || rndis.Status(binary.LittleEndian.Uint32(reply[12:])) != rndis.StatusFailure {
			t.Errorf("before INITIALIZE: %x, %v", reply, err)
		}
	}
	bad := rndis.Initialize{RequestID: 4, Major: 2}
	reply, _, err := a.handle(bad.Append(nil))
	if c, _ := rndis.ParseInitializeComplete(reply); err == nil || c.Status != rndis.StatusBadVersion || a.initialized {
		t.Errorf("RNDIS 2.0: %+v, %v", c, err)
	}
	good := rndis.Initialize{RequestID: 5, Major: 1}.Append(nil)
	if _, _, err = a.handle(good); err != nil || !a.initialized {
		t.Errorf("INITIALIZE: %v", err)
	}
	reply, _, err = a.handle(good)
	if c, _ := rndis.ParseInitializeComplete(reply); err == nil || c.Status != rndis.StatusFailure || !a.initialized {
		t.Errorf("second INITIALIZE: %+v, %v", c, err)
	}
	set(t, a, rndis.OIDCurrentPacketFilter, words(13))
	if s, ch := set(t, a, rndis.OIDCurrentPacketFilter, []byte{1, 2}); s != rndis.StatusFailure || ch != 0 || a.filter != 13 {
		t.Errorf("a filter of two bytes: %v, now %#x", s, a.filter)
	}
	reply, _, err = a.handle(rndis.Keepalive{RequestID: 6}.Append(nil))
	if c, perr := rndis.ParseKeepaliveComplete(reply); err != nil || perr != nil || c != (rndis.KeepaliveComplete{RequestID: 6}) {
		t.Errorf("KEEPALIVE: %+v", c)
	}
	reply, ch, err := a.handle(rndis.Reset{}.Append(nil))
	if c, perr := rndis.ParseResetComplete(reply); err != nil || perr != nil || c.AddressingReset != 1 || ch != changedFilter || a.filter != 0 {
		t.Errorf("RESET: %+v", c)
	}
	reply, _, err = a.handle(rndis.SetEx{RequestID: 8, OID: rndis.OIDCurrentPacketFilter}.Append(nil))
	if c, perr := rndis.ParseSetExComplete(reply); err == nil || perr != nil || c.Status != rndis.StatusNotSupported {
		t.Errorf("SET_EX: %+v, %v", c, err)
	}
	for _, m := range [][]byte{nil, {4, 0, 0}, words(4, 200, 1), words(0x80000004, 12, 1), words(0x77, 12, 1), words(4, 12, 9)} {
		if _, ch, err := a.handle(m); err == nil || ch != 0 {
			t.Errorf("%x is accepted", m)
		}
	}
	if reply, ch, err := a.handle(rndis.Halt{RequestID: 7}.Append(nil)); reply != nil || err != nil || ch != changedFilter || a.initialized {
		t.Errorf("HALT: %x, %v", reply, err)
	}
}

func FuzzAdapter(f *testing.F) {
	f.Add(rndis.Query{RequestID: 1, OID: rndis.OIDOffloadHardwareCaps, Info: rndis.HardwareOffloadQuery(3).Append(nil)}.Append(nil))
	f.Add(rndis.Set{RequestID: 1, OID: rndis.OIDReceiveScaleParameters, Info: rndis.RSSParameters{HashInfo: rndis.HashDefault, Table: []uint32{1, 2}, Key: make([]byte, 40)}.Append(nil)}.Append(nil))
	f.Add(rndis.Set{RequestID: 1, OID: rndis.OIDConfigParameter, Info: rndis.NewNetworkAddress(otherMAC).Append(nil)}.Append(nil))
	f.Add(rndis.Set{RequestID: 1, OID: rndis.OIDOffloadParameters, Info: rndis.OffloadParameters{TCPv4: 4}.Append(nil, 28)}.Append(nil))
	f.Add(rndis.Halt{RequestID: 2}.Append(nil))
	f.Fuzz(func(t *testing.T, msg []byte) {
		a := newAdapter(t, nvsp.V61)
		a.freeMAC = true
		reply, _, _ := a.handle(msg)
		if len(reply) > 1806 {
			t.Fatalf("an answer of %d bytes fits no section", len(reply))
		}
		for _, c := range a.rss.table {
			if int(c) >= a.ctl.maxChannels() {
				t.Fatalf("the table names channel %d", c)
			}
		}
		if a.mac.Multicast() || a.mac.IsZero() {
			t.Fatalf("address %v", a.mac)
		}
		if len(msg) >= 12 && reply != nil {
			want, hasWant := rndis.RequestID(msg)
			got, ok := rndis.RequestID(reply)
			if hasWant && ok && got != want {
				t.Fatalf("request %d is answered as %d", want, got)
			}
		}
	})
}
