package host

import (
	"slices"
	"strings"
	"testing"

	"hvnet/hv"
	"hvnet/vmbus"
)

func TestInitiateContact(t *testing.T) {
	const page = firstPage * hv.PageSize
	yes53 := "VERSION_RESPONSE 0100000001000000"
	for name, c := range map[string]struct {
		conn    uint32
		message vmbus.InitiateContact
		want    []string
	}{
		"5.3": {4, vmbus.InitiateContact{Version: vmbus.Version5_3, SINT: 2, TargetVP: 3},
			[]string{"contact 5.3", "vp3 " + yes53}},
		"5.3 with monitor pages": {4, vmbus.InitiateContact{Version: vmbus.Version5_3, SINT: 2, ParentToChild: page, ChildToParent: page + 4096},
			[]string{"contact 5.3", "vp0 " + yes53}},
		"5.3 on the old connection": {1, vmbus.InitiateContact{Version: vmbus.Version5_3, SINT: 9},
			[]string{"contact 5.3", "vp0 " + yes53}},
		"2.4 always to VP 0": {1, vmbus.InitiateContact{Version: vmbus.Version2_4, TargetVP: 3, InterruptPage: 1},
			[]string{"contact 2.4", "vp0 VERSION_RESPONSE 0100000004000200"}},
		"6.0": {4, vmbus.InitiateContact{Version: vmbus.Version6_0, SINT: 2, Features: 0xff},
			[]string{"contact 6.0", "vp0 VERSION_RESPONSE 010000000100000000000000"}},
		"not accepted": {4, vmbus.InitiateContact{Version: vmbus.Version5_2, SINT: 2, TargetVP: 1},
			[]string{"vp1 VERSION_RESPONSE 0000000000000000"}},
		"from the future": {4, vmbus.InitiateContact{Version: 0xffffffff, SINT: 2},
			[]string{"vp0 VERSION_RESPONSE 0000000000000000"}},
		"no such VP": {4, vmbus.InitiateContact{Version: vmbus.Version5_3, SINT: 2, TargetVP: 4},
			[]string{"vp0 VERSION_RESPONSE 0102000001000000"}},
		"one monitor page": {4, vmbus.InitiateContact{Version: vmbus.Version5_3, SINT: 2, ChildToParent: page},
			[]string{"vp0 VERSION_RESPONSE 0102000001000000"}},
		"unaligned monitor page": {4, vmbus.InitiateContact{Version: vmbus.Version5_3, SINT: 2, ParentToChild: page, ChildToParent: page + 8},
			[]string{"vp0 VERSION_RESPONSE 0102000001000000"}},
		"monitor page outside memory": {4, vmbus.InitiateContact{Version: vmbus.Version5_3, SINT: 2, ParentToChild: page, ChildToParent: 1 << 62},
			[]string{"vp0 VERSION_RESPONSE 0102000001000000"}},
		"another SINT": {4, vmbus.InitiateContact{Version: vmbus.Version5_3, SINT: 3},
			[]string{"vp0 VERSION_RESPONSE 0000000000000000"}},
		"another VTL": {4, vmbus.InitiateContact{Version: vmbus.Version5_3, SINT: 2, VTL: 2},
			[]string{"drop INITIATE_CONTACT: for another trust level"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, vmbus.Version2_4, vmbus.Version5_3, vmbus.Version6_0)
			b.m.message(c.conn, c.message.Append(nil))
			b.want(c.want...)
		})
	}
}

func TestConnections(t *testing.T) {
	old := []vmbus.Version{vmbus.Version2_4, vmbus.Version4_1}
	recent := append(old, vmbus.Version5_0)
	for _, c := range []struct {
		accepted []vmbus.Version
		conn     uint32
		want     bool
	}{
		{old, 1, true}, {old, 4, false}, {recent, 1, true}, {recent, 4, true},
		{recent, 0, false}, {recent, 2, false}, {recent, 3, false}, {recent, 0x2001, false},
	} {
		if got := takes(c.accepted, c.conn); got != c.want {
			t.Errorf("versions %v, connection %d: %v", c.accepted, c.conn, got)
		}
	}
}

// A contact in any state first takes everything down, then is answered.
func TestContactResets(t *testing.T) {
	b := newBench(t)
	b.in("open")
	b.gpadl(1, 11, 1)
	b.skip()
	b.connect(vmbus.Version2_4)
	b.want("close dev 1 relid 1")
	b.post(vmbus.RequestOffers{}.Append(nil))
	b.want("drop REQUESTOFFERS: the connection is ending")
	b.connect(vmbus.Version5_3) // replaces the one on its way
	b.want()
	b.m.closed(1)
	b.want("remove dev 1", "contact 5.3", "vp1 VERSION_RESPONSE 0100000001000000")
	b.post(vmbus.RequestOffers{}.Append(nil))
	b.want("vp1 OFFERCHANNEL relid 1 index 0 conn 0x2001", "vp1 ALLOFFERS_DELIVERED")
	b.post(open5(1, 10))
	b.want("drop OPENCHANNEL: the rings are no GPADL of the channel", "vp1 OPENCHANNEL_RESULT relid 1 id 5 status 8000ffff")
}

func TestContactWhileOpening(t *testing.T) {
	b := newBench(t)
	b.in("opening")
	b.connect(vmbus.Version5_3)
	b.want()
	b.m.opened(1, true) // no result: the guest has forgotten the question
	b.want("close dev 1 relid 1")
	b.m.closed(1)
	b.want("remove dev 1", "contact 5.3", "vp1 VERSION_RESPONSE 0100000001000000")
}

func TestUnload(t *testing.T) {
	b := newBench(t)
	b.in("open")
	b.post(vmbus.Unload{}.Append(nil))
	b.want("close dev 1 relid 1")
	b.m.closed(1)
	b.want("remove dev 1", "vp1 UNLOAD_RESPONSE")
	b.post(vmbus.Unload{}.Append(nil))
	b.want("drop UNLOAD: not part of version 0.0")
}

func TestGone(t *testing.T) {
	for _, state := range []string{"closed", "opening", "open", "closing", "revoked", "released"} {
		b := newBench(t)
		b.in(state)
		b.m.gone()
		b.m.opened(1, true)
		b.m.closed(1)
		removed := slices.Contains(b.got(), "remove dev 1")
		if was := state != "revoked" && state != "released"; removed != was {
			t.Errorf("%s: removed %v", state, removed)
		}
		if len(b.m.channels)+len(b.m.gpadls)+b.m.pages+b.m.partial != 0 {
			t.Errorf("%s: something is left", state)
		}
	}
}

func TestBeforeContact(t *testing.T) {
	b := newBench(t)
	b.m.add(1, vmbus.Offer{Class: vmbus.ClassNIC})
	for typ := vmbus.TypeOffer; typ <= vmbus.TypeResume+1; typ++ {
		if typ == vmbus.TypeInitiateContact || typ == vmbus.TypeCloseReserved {
			continue
		}
		message := make([]byte, vmbus.MaxMessage)
		message[0] = byte(typ)
		b.post(message)
		if got := b.got(); len(got) != 1 || !strings.HasPrefix(got[0], "drop "+typ.String()) {
			t.Errorf("%s: %q", typ, got)
		}
	}
	b.post(vmbus.CloseReserved{ID: 7, TargetVP: 1, SINT: 2}.Append(nil))
	b.want("vp1 CLOSE_RESERVED_RESPONSE 07000000")
}

// Messages that a version doesn't have, and messages for guests.
func TestVersionGates(t *testing.T) {
	for typ, since := range map[vmbus.MessageType]vmbus.Version{
		vmbus.TypeModifyChannel:    vmbus.Version4_1,
		vmbus.TypeOpenReserved:     vmbus.Version4_0,
		vmbus.TypeTLConnectRequest: vmbus.Version4_0,
	} {
		for _, v := range []vmbus.Version{vmbus.Version2_4, vmbus.Version3_0, vmbus.Version4_0, vmbus.Version4_1, vmbus.Version5_3} {
			b := newBench(t, v)
			b.connect(v)
			b.skip()
			message := make([]byte, vmbus.MaxMessage)
			message[0] = byte(typ)
			b.post(message)
			gated := slices.Contains(b.got(), "drop "+typ.String()+": not part of version "+v.String())
			if gated != (v < since) {
				t.Errorf("%s with version %s: gated %v", typ, v, gated)
			}
		}
	}
	b := newBench(t)
	b.connect(vmbus.Version5_3)
	b.skip()
	for _, typ := range []vmbus.MessageType{0, vmbus.TypeOffer, vmbus.TypeOpenResult, vmbus.TypeVersionResponse, vmbus.TypePause, 30, 1 << 31} {
		message := []byte{byte(typ), byte(typ >> 8), byte(typ >> 16), byte(typ >> 24), 0, 0, 0, 0}
		b.post(message)
		if got := b.got(); len(got) != 1 || !strings.HasPrefix(got[0], "drop ") {
			t.Errorf("%s: %q", typ, got)
		}
	}
	b.post([]byte{1, 2, 3})
	if got := b.got(); len(got) != 1 || !strings.HasPrefix(got[0], "drop ") {
		t.Errorf("three bytes: %q", got)
	}
}

func TestNoReservedChannelsAndNoSockets(t *testing.T) {
	b := newBench(t)
	b.connect(vmbus.Version5_3)
	b.skip()
	b.post(vmbus.OpenReserved{ID: 3, TargetVP: 2, SINT: 2}.Append(nil))
	b.want("vp2 OPENCHANNEL_RESULT relid 3 id 0 status 8000ffff")
	b.post(vmbus.OpenReserved{ID: 3, TargetVP: 9, SINT: 2}.Append(nil))
	b.want("drop OPEN_RESERVED_CHANNEL: nowhere to send the result")
	b.post(vmbus.CloseReserved{ID: 3, TargetVP: 0, SINT: 5}.Append(nil))
	b.want("drop CLOSE_RESERVED_CHANNEL: nowhere to send the response")
	b.post(vmbus.TLConnectRequest{Endpoint: vmbus.GUID{1}, Service: vmbus.GUID{2}}.Append(nil, vmbus.Version5_3))
	b.want("vp1 TL_CONNECT_RESULT 0100000000000000000000000000000002000000000000000000000000000000360200c0")
}
