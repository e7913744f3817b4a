package host

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hvnet/hv"
	"hvnet/rule"
	"hvnet/vmbus"
)

// A bench drives a machine and reads its actions as text.
type bench struct {
	t testing.TB
	m *machine
}

const firstPage, lastPage = 0x100, 0x20000 // what the guest has

func newBench(t testing.TB, accepted ...vmbus.Version) *bench {
	if accepted == nil {
		accepted = []vmbus.Version{vmbus.Version2_4, vmbus.Version5_3}
	}
	hasPage := func(pfn uint64) bool { return firstPage <= pfn && pfn <= lastPage }
	return &bench{t, newMachine(accepted, 4, hasPage)}
}

// got returns the actions since the last call.
func (b *bench) got() (actions []string) {
	for _, a := range b.m.out {
		actions = append(actions, describe(b.t, a))
	}
	b.m.out = nil
	return actions
}

func (b *bench) want(actions ...string) {
	b.t.Helper()
	if diff := cmp.Diff(actions, b.got()); diff != "" {
		b.t.Errorf("actions (-want +got):\n%s", diff)
	}
}

func (b *bench) post(message []byte) { b.m.message(vmbus.ConnMessage, message) }

// skip carries on without a look at the actions.
func (b *bench) skip() { b.m.out = nil }

func (b *bench) connect(v vmbus.Version) {
	b.post(vmbus.InitiateContact{Version: v, SINT: hv.SINT, TargetVP: 1}.Append(nil))
}

// offered connects with 5.3 and offers device 1 as relid 1.
func (b *bench) offered() {
	b.m.add(1, vmbus.Offer{Class: vmbus.ClassNIC})
	b.connect(vmbus.Version5_3)
	b.post(vmbus.RequestOffers{}.Append(nil))
	b.skip()
}

func (b *bench) gpadl(relid, id uint32, pages int) {
	b.t.Helper()
	msgs, err := vmbus.AppendGPADL(nil, relid, id, pages, func(i int) uint64 { return uint64(firstPage + i) })
	if err != nil {
		b.t.Fatal(err)
	}
	for _, m := range msgs {
		b.post(m)
	}
}

func open5(relid, gpadl uint32) []byte {
	return vmbus.OpenChannel{Relid: relid, OpenID: 5, GPADL: gpadl, TargetVP: 2, DownOffset: 2}.Append(nil, 0)
}

// in brings the channel with relid 1 into a state, with a GPADL 10 of rings.
func (b *bench) in(s string) {
	b.offered()
	b.gpadl(1, 10, 4)
	switch s {
	case "closed":
	case "opening", "open", "closing":
		b.post(open5(1, 10))
		if s == "opening" {
			break
		}
		b.m.opened(1, true)
		if s == "open" {
			break
		}
		b.post(vmbus.CloseChannel{Relid: 1}.Append(nil))
	case "revoked", "released":
		b.m.withdraw(1)
		if s == "released" {
			b.post(vmbus.RelidReleased{Relid: 1}.Append(nil))
		}
	}
	b.skip()
}

// describe writes an action in one line. Messages are parsed: what is compared is
// what a guest would read.
func describe(t testing.TB, a action) string {
	t.Helper()
	switch a := a.(type) {
	case send:
		return fmt.Sprintf("vp%d %s", a.vp, describeMessage(t, a.message))
	case contact:
		return "contact " + a.version.String()
	case share:
		return fmt.Sprintf("share dev %d gpadl %d pages %d", a.dev, a.gpadl, len(a.pfns))
	case revoke:
		return fmt.Sprintf("revoke dev %d gpadl %d", a.dev, a.gpadl)
	case openChannel:
		return fmt.Sprintf("open dev %d relid %d index %d vp %d up %x down %x", a.dev, a.relid, a.index, a.vp, a.up, a.down)
	case closeChannel:
		return fmt.Sprintf("close dev %d relid %d", a.dev, a.relid)
	case retarget:
		return fmt.Sprintf("retarget dev %d relid %d vp %d", a.dev, a.relid, a.vp)
	case remove:
		return fmt.Sprintf("remove dev %d", a.dev)
	case forget:
		return fmt.Sprintf("forget dev %d", a.dev)
	case drop:
		if rule.Of(a.why) == nil && a.message != vmbus.TypeRelidReleased {
			t.Errorf("dropped without a rule: %s: %s", a.message, a.why)
		}
		return fmt.Sprintf("drop %s: %s", a.message, a.why)
	}
	t.Fatalf("unknown action %#v", a)
	return ""
}

func describeMessage(t testing.TB, b []byte) string {
	t.Helper()
	typ, err := vmbus.PeekType(b)
	if err != nil {
		t.Fatal(err)
	}
	var fields string
	switch typ {
	case vmbus.TypeOffer:
		o, e := vmbus.ParseOffer(b, vmbus.Version5_3)
		fields, err = fmt.Sprintf("relid %d index %d conn %#x", o.Relid, o.SubChannel, o.ConnID), e
	case vmbus.TypeRescindOffer:
		r, e := vmbus.ParseRescindOffer(b)
		fields, err = fmt.Sprintf("relid %d", r.Relid), e
	case vmbus.TypeOpenResult:
		r, e := vmbus.ParseOpenResult(b)
		fields, err = fmt.Sprintf("relid %d id %d status %x", r.Relid, r.OpenID, r.Status), e
	case vmbus.TypeGPADLCreated:
		c, e := vmbus.ParseGPADLCreated(b)
		fields, err = fmt.Sprintf("relid %d gpadl %d status %x", c.Relid, c.ID, c.Status), e
	case vmbus.TypeGPADLTorndown:
		d, e := vmbus.ParseGPADLTorndown(b)
		fields, err = fmt.Sprintf("gpadl %d", d.ID), e
	case vmbus.TypeModifyChannelResponse:
		r, e := vmbus.ParseModifyChannelResponse(b)
		fields, err = fmt.Sprintf("relid %d status %x", r.Relid, r.Status), e
	default:
		fields = fmt.Sprintf("%x", b[8:])
	}
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(typ.String() + " " + fields)
}

// The state table: what each message of the guest does to a channel in each state.
func TestStateTable(t *testing.T) {
	const failed = "8000ffff"
	states := []string{"closed", "opening", "open", "closing", "revoked", "released"}
	type cells [6][]string
	does := func(actions ...string) []string { return actions }
	table := []struct {
		name    string
		message []byte
		cells   cells
	}{
		{"OPEN", open5(1, 10), cells{
			does("open dev 1 relid 1 index 0 vp 2 up [100 101] down [102 103]"),
			does("drop OPENCHANNEL: the channel is opening"),
			does("drop OPENCHANNEL: the channel is open"),
			nil, // opens after closing: see TestReopenWhileClosing
			nil, // the guest is about to see RESCIND
			does("drop OPENCHANNEL: unknown relid"),
		}},
		{"CLOSE", vmbus.CloseChannel{Relid: 1}.Append(nil), cells{
			does("drop CLOSECHANNEL: the channel is closed"),
			does("drop CLOSECHANNEL: the channel is opening"),
			does("close dev 1 relid 1"),
			does("drop CLOSECHANNEL: the channel is closing"),
			nil,
			does("drop CLOSECHANNEL: unknown relid"),
		}},
		{"GPADL", gpadlMessage(1, 11), cells{
			does("share dev 1 gpadl 11 pages 1", "vp1 GPADL_CREATED relid 1 gpadl 11 status 0"),
			does("share dev 1 gpadl 11 pages 1", "vp1 GPADL_CREATED relid 1 gpadl 11 status 0"),
			does("share dev 1 gpadl 11 pages 1", "vp1 GPADL_CREATED relid 1 gpadl 11 status 0"),
			does("share dev 1 gpadl 11 pages 1", "vp1 GPADL_CREATED relid 1 gpadl 11 status 0"),
			does("vp1 GPADL_CREATED relid 1 gpadl 11 status 0"),
			does("drop GPADL_HEADER: unknown relid", "vp1 GPADL_CREATED relid 1 gpadl 11 status "+failed),
		}},
		{"TEARDOWN of the rings", vmbus.GPADLTeardown{Relid: 1, ID: 10}.Append(nil), cells{
			does("revoke dev 1 gpadl 10"),
			does("drop GPADL_TEARDOWN: the GPADL holds the rings of an open channel"),
			does("drop GPADL_TEARDOWN: the GPADL holds the rings of an open channel"),
			nil, // when it is closed: see TestTeardownWhileClosing
			does("vp1 GPADL_TORNDOWN gpadl 10"),
			does("drop GPADL_TEARDOWN: no such GPADL of the channel"),
		}},
		{"RELID_RELEASED", vmbus.RelidReleased{Relid: 1}.Append(nil), cells{
			does("revoke dev 1 gpadl 10", "remove dev 1"),
			does("drop RELID_RELEASED: the channel is opening"),
			does("drop RELID_RELEASED: the channel is open"),
			nil, // when it is closed: see TestReleaseWhileClosing
			does("forget dev 1"),
			does("drop RELID_RELEASED: unknown relid"),
		}},
		{"MODIFYCHANNEL", vmbus.ModifyChannel{Relid: 1, TargetVP: 3}.Append(nil), cells{
			does("vp1 MODIFYCHANNEL_RESPONSE relid 1 status " + failed),
			does("vp1 MODIFYCHANNEL_RESPONSE relid 1 status " + failed),
			does("retarget dev 1 relid 1 vp 3", "vp1 MODIFYCHANNEL_RESPONSE relid 1 status 0"),
			does("vp1 MODIFYCHANNEL_RESPONSE relid 1 status " + failed),
			does("vp1 MODIFYCHANNEL_RESPONSE relid 1 status " + failed),
			does("vp1 MODIFYCHANNEL_RESPONSE relid 1 status " + failed),
		}},
	}
	for _, row := range table {
		for i, state := range states {
			t.Run(row.name+" "+state, func(t *testing.T) {
				b := newBench(t)
				b.in(state)
				b.post(row.message)
				b.want(row.cells[i]...)
			})
		}
	}
}

func gpadlMessage(relid, id uint32) []byte {
	msgs, _ := vmbus.AppendGPADL(nil, relid, id, 1, func(i int) uint64 { return firstPage })
	return msgs[0]
}

func TestReopenWhileClosing(t *testing.T) {
	b := newBench(t)
	b.in("closing")
	b.post(open5(1, 10))
	b.post(open5(1, 10))
	b.want("drop OPENCHANNEL: the channel is closing") // one is enough
	b.m.closed(1)
	b.want("open dev 1 relid 1 index 0 vp 2 up [100 101] down [102 103]")
	b.m.opened(1, true)
	b.want("vp1 OPENCHANNEL_RESULT relid 1 id 5 status 0")
}

func TestTeardownWhileClosing(t *testing.T) {
	b := newBench(t)
	b.in("closing")
	b.post(vmbus.GPADLTeardown{Relid: 1, ID: 10}.Append(nil))
	b.post(open5(1, 10)) // with rings that are about to go
	b.want()
	b.m.closed(1)
	b.want("revoke dev 1 gpadl 10",
		"drop OPENCHANNEL: the rings are no GPADL of the channel",
		"vp1 OPENCHANNEL_RESULT relid 1 id 5 status 8000ffff")
	b.m.revoked(10)
	b.want("vp1 GPADL_TORNDOWN gpadl 10")
}

func TestReleaseWhileClosing(t *testing.T) {
	b := newBench(t)
	b.in("closing")
	b.post(vmbus.RelidReleased{Relid: 1}.Append(nil))
	b.want()
	b.m.closed(1)
	b.want("revoke dev 1 gpadl 10", "remove dev 1")
	// Refused is refused, until the guest connects anew.
	b.m.add(2, vmbus.Offer{Class: vmbus.ClassNIC, Instance: vmbus.GUID{2}})
	b.want("vp1 OFFERCHANNEL relid 1 index 0 conn 0x2001")
	b.connect(vmbus.Version5_3)
	b.post(vmbus.RequestOffers{}.Append(nil))
	offers := slices.DeleteFunc(b.got(), func(s string) bool { return !strings.Contains(s, "OFFERCHANNEL") })
	if len(offers) != 2 {
		t.Errorf("after a new contact: %q", offers)
	}
}

func TestOpenIsRefused(t *testing.T) {
	const failure = "vp1 OPENCHANNEL_RESULT relid 1 id 5 status 8000ffff"
	change := func(f func(*vmbus.OpenChannel)) []byte {
		o := vmbus.OpenChannel{Relid: 1, OpenID: 5, GPADL: 10, TargetVP: 2, DownOffset: 2}
		f(&o)
		return o.Append(nil, 0)
	}
	for name, c := range map[string]struct {
		message []byte
		why     string
	}{
		"no GPADL":      {change(func(o *vmbus.OpenChannel) { o.GPADL = 77 }), "the rings are no GPADL of the channel"},
		"partial GPADL": {change(func(o *vmbus.OpenChannel) { o.GPADL = 12 }), "the rings are no GPADL of the channel"},
		"odd bytes":     {change(func(o *vmbus.OpenChannel) { o.GPADL = 13 }), "the rings are not one range of whole pages"},
		"two ranges":    {change(func(o *vmbus.OpenChannel) { o.GPADL = 14 }), "the rings are not one range of whole pages"},
		"other channel": {change(func(o *vmbus.OpenChannel) { o.GPADL = 20 }), "the rings are no GPADL of the channel"},
		"offset 0":      {change(func(o *vmbus.OpenChannel) { o.DownOffset = 0 }), "the rings are too small: downstream at page 0 of 4"},
		"offset 1":      {change(func(o *vmbus.OpenChannel) { o.DownOffset = 1 }), "the rings are too small: downstream at page 1 of 4"},
		"offset 3 of 4": {change(func(o *vmbus.OpenChannel) { o.DownOffset = 3 }), "the rings are too small: downstream at page 3 of 4"},
		"offset huge":   {change(func(o *vmbus.OpenChannel) { o.DownOffset = 0xffffffff }), "the rings are too small: downstream at page 4294967295 of 4"},
		"no such VP":    {change(func(o *vmbus.OpenChannel) { o.TargetVP = 4 }), "no such virtual processor"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.in("closed")
			b.m.add(2, vmbus.Offer{Class: vmbus.ClassNIC, Instance: vmbus.GUID{2}})
			b.gpadl(2, 20, 4)
			msgs, _ := vmbus.AppendGPADL(nil, 1, 12, 100, func(i int) uint64 { return firstPage })
			b.post(msgs[0]) // and not the rest
			b.post(rangeGPADL(13, 0x1001, firstPage, firstPage))
			b.post(vmbus.GPADLHeader{Relid: 1, ID: 14, Ranges: 2, RangeLen: 32, Data: words(0x1000, firstPage, 0x1000, firstPage)}.Append(nil))
			b.skip()
			b.post(c.message)
			b.want("drop OPENCHANNEL: "+c.why, failure)
			b.post(open5(1, 10)) // no harm was done
			b.want("open dev 1 relid 1 index 0 vp 2 up [100 101] down [102 103]")
		})
	}
}

func TestOpenWithoutInterrupts(t *testing.T) {
	b := newBench(t)
	b.in("closed")
	b.post(vmbus.OpenChannel{Relid: 1, OpenID: 1, GPADL: 10, TargetVP: vmbus.NoVP, DownOffset: 2}.Append(nil, 0))
	b.want("open dev 1 relid 1 index 0 vp -1 up [100 101] down [102 103]")
}

func TestBackendRefuses(t *testing.T) {
	b := newBench(t)
	b.in("opening")
	b.m.opened(1, false)
	b.want("vp1 OPENCHANNEL_RESULT relid 1 id 5 status 8000ffff")
	b.post(vmbus.GPADLTeardown{Relid: 1, ID: 10}.Append(nil))
	b.want("revoke dev 1 gpadl 10")
}

func words(ws ...uint64) (b []byte) {
	for _, w := range ws {
		for i := range 8 {
			b = append(b, byte(w>>(8*i)))
		}
	}
	return b
}

func rangeGPADL(id uint32, ws ...uint64) []byte {
	return vmbus.GPADLHeader{Relid: 1, ID: id, Ranges: 1, RangeLen: uint16(8 * len(ws)), Data: words(ws...)}.Append(nil)
}
