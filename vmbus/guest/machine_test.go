package guest

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hvnet/hv"
	"hvnet/vmbus"
	"hvnet/vmbus/channel"
)

// A bench drives a machine and reads its actions as text.
type bench struct {
	t testing.TB
	m *machine
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

func (b *bench) skip() { b.m.out = nil }

func (b *bench) fine(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// connected returns a machine with a connection of the given version.
func connected(t testing.TB, v vmbus.Version) *bench {
	b := &bench{t, newMachine(newPlacement(4, 1))}
	b.m.contact(v)
	b.m.message(vmbus.VersionResponse{Supported: true, Version: v, ConnID: 1}.Append(nil, v))
	if b.m.version != v {
		t.Fatalf("connected with %v", b.m.version)
	}
	b.skip()
	return b
}

// offer offers a channel of device n.
func (b *bench) offer(relid uint32, n byte, index int) {
	o := vmbus.Offer{Class: vmbus.ClassNIC, Instance: vmbus.GUID{n}, Relid: relid, SubChannel: uint16(index), ConnID: 0x2000 + relid}
	b.m.message(o.Append(nil, b.m.version))
}

var region = hv.Region{GPA: 0x100000, Bytes: make([]byte, 4*hv.PageSize)}

// share makes a GPADL and has the host confirm it.
func (b *bench) share(relid uint32) (id uint32) {
	b.t.Helper()
	id, _, err := b.m.create(b.m.channels[relid], region)
	b.fine(err)
	b.m.message(vmbus.GPADLCreated{Relid: relid, ID: id}.Append(nil))
	b.skip()
	return id
}

// open opens a channel with rings in a new GPADL.
func (b *bench) open(relid uint32) (ring uint32) {
	b.t.Helper()
	ch := b.m.channels[relid]
	b.fine(b.m.beginOpen(ch))
	ring = b.share(relid)
	w, err := b.m.open(ch, ring, 2)
	b.fine(err)
	b.m.message(vmbus.OpenResult{Relid: relid, OpenID: w.id}.Append(nil))
	if ch.state != open {
		b.t.Fatalf("relid %d is %s", relid, ch.state)
	}
	b.skip()
	return ring
}

func (b *bench) rescind(relids ...uint32) {
	for _, relid := range relids {
		b.m.message(vmbus.RescindOffer{Relid: relid}.Append(nil))
	}
}

func describe(t testing.TB, a action) string {
	t.Helper()
	switch a := a.(type) {
	case post:
		typ, _ := vmbus.PeekType(a.message)
		return fmt.Sprintf("post %d %s %x", a.conn, typ, a.message[8:min(len(a.message), 24)])
	case answer:
		return fmt.Sprintf("answer %s %d %d: %v", a.wait.message, a.wait.relid, a.wait.id, a.err)
	case arrived:
		return "arrived"
	case lost:
		return fmt.Sprintf("lost %d", a.ch.offer.Relid)
	case free:
		return fmt.Sprintf("free %#x", uint64(a.region.GPA))
	case drop:
		return fmt.Sprintf("drop %s: %s", a.message, a.why)
	}
	t.Fatalf("unknown action %#v", a)
	return ""
}

func TestContact(t *testing.T) {
	b := &bench{t, newMachine(newPlacement(4, 1))}
	b.m.contact(vmbus.Version5_3)
	b.want("arrived", "post 4 INITIATE_CONTACT 03000500000000000200000000000000")
	b.m.message(vmbus.VersionResponse{}.Append(nil, vmbus.Version5_3))
	b.want("answer VERSION_RESPONSE 0 0: <nil>")
	b.m.contact(vmbus.Version4_1)
	b.want("arrived", "post 1 INITIATE_CONTACT 01000400000000000000000000000000")
	if b.m.version != 0 {
		t.Error("connected too early")
	}
	b.m.message(vmbus.VersionResponse{Supported: true, Version: vmbus.Version4_1}.Append(nil, vmbus.Version4_1))
	b.want("answer VERSION_RESPONSE 0 0: <nil>")
	b.m.message(vmbus.VersionResponse{Supported: true, Version: vmbus.Version4_1}.Append(nil, vmbus.Version4_1))
	b.want("drop VERSION_RESPONSE: nobody waits for it")
	b.m.requestOffers()
	b.want("post 1 REQUESTOFFERS ")
	b.m.message(vmbus.AllOffersDelivered{}.Append(nil))
	b.m.message(vmbus.AllOffersDelivered{}.Append(nil))
	b.want("answer ALLOFFERS_DELIVERED 0 0: <nil>", "drop ALLOFFERS_DELIVERED: nobody waits for it")
}

func TestVersionResponse(t *testing.T) {
	v := vmbus.Version5_3
	for name, c := range map[string]struct {
		asked    vmbus.Version
		response []byte
		version  vmbus.Version
		conn     uint32
		failed   bool
	}{
		"another connection": {v, vmbus.VersionResponse{Supported: true, ConnID: 0x800074}.Append(nil, v), v, 0x800074, false},
		"not supported":      {v, vmbus.VersionResponse{}.Append(nil, v), 0, 4, false},
		"no resources":       {v, vmbus.VersionResponse{Supported: true, State: 1, ConnID: 1}.Append(nil, v), 0, 4, true},
		"connection 0":       {v, vmbus.VersionResponse{Supported: true}.Append(nil, v), 0, 4, true},
		"reserved bits":      {v, vmbus.VersionResponse{Supported: true, ConnID: 1 << 24}.Append(nil, v), 0, 4, true},
		"6.0":                {vmbus.Version6_0, vmbus.VersionResponse{Supported: true, ConnID: 1}.Append(nil, vmbus.Version6_0), vmbus.Version6_0, 1, false},
		"features":           {vmbus.Version6_0, vmbus.VersionResponse{Supported: true, ConnID: 1, Features: 1}.Append(nil, vmbus.Version6_0), 0, 4, true},
	} {
		t.Run(name, func(t *testing.T) {
			b := &bench{t, newMachine(newPlacement(4, 1))}
			b.m.contact(c.asked)
			b.m.out = nil
			b.m.message(c.response)
			a, ok := b.m.out[0].(answer)
			if !ok || (a.err != nil) != c.failed {
				t.Errorf("got %+v", b.m.out)
			}
			if b.m.version != c.version || b.m.conn != c.conn {
				t.Errorf("version %v, connection %#x", b.m.version, b.m.conn)
			}
		})
	}
}

func TestOffersThatMakeNoSense(t *testing.T) {
	b := connected(t, vmbus.Version5_3)
	b.offer(1, 1, 0)
	b.offer(2, 1, 1)
	b.want("arrived", "arrived")
	for _, c := range []struct {
		relid uint32
		n     byte
		index int
		want  []string
	}{
		{0, 2, 0, []string{"drop OFFERCHANNEL: a relid that can't be"}},
		{2048, 2, 0, []string{"drop OFFERCHANNEL: a relid that can't be"}},
		{1, 2, 0, []string{"drop OFFERCHANNEL: the relid is in use"}},
		{3, 1, 0, []string{"post 1 RELID_RELEASED 03000000", "drop OFFERCHANNEL: the device is there already"}},
		{3, 2, 1, []string{"post 1 RELID_RELEASED 03000000", "drop OFFERCHANNEL: a sub-channel without a primary"}},
		{3, 1, 1, []string{"post 1 RELID_RELEASED 03000000", "drop OFFERCHANNEL: the sub-channel is there already"}},
	} {
		b.offer(c.relid, c.n, c.index)
		b.want(c.want...)
	}
	b.m.message(vmbus.Offer{Relid: 4}.Append(nil, vmbus.Version5_3)[:195])
	if got := b.got(); len(got) != 1 {
		t.Errorf("a short offer: %q", got)
	}
}

func TestClaim(t *testing.T) {
	b := connected(t, vmbus.Version5_3)
	if b.m.claim(vmbus.ClassNIC) != nil {
		t.Error("claimed before the offer")
	}
	b.offer(7, 1, 0)
	b.offer(8, 1, 1)
	b.offer(3, 2, 0)
	for _, relid := range []uint32{3, 7} {
		if ch := b.m.claim(vmbus.ClassNIC); ch == nil || ch.offer.Relid != relid {
			t.Errorf("want relid %d, got %+v", relid, ch)
		}
	}
	if ch := b.m.claim(vmbus.ClassNIC); ch != nil {
		t.Errorf("claimed %+v", ch)
	}
}

func TestShare(t *testing.T) {
	b := connected(t, vmbus.Version5_3)
	b.offer(1, 1, 0)
	b.skip()
	id, _, err := b.m.create(b.m.channels[1], region)
	b.fine(err)
	b.want("post 1 GPADL_HEADER 01000000101e0e002800010000400000")
	if err := b.m.teardown(id); err == nil {
		t.Error("torn down before it was created")
	}
	b.m.message(vmbus.GPADLCreated{Relid: 2, ID: id}.Append(nil))
	b.m.message(vmbus.GPADLCreated{Relid: 1, ID: id + 1}.Append(nil))
	b.m.message(vmbus.GPADLTorndown{ID: id}.Append(nil))
	b.want("drop GPADL_CREATED: nobody waits for it", "drop GPADL_CREATED: nobody waits for it", "drop GPADL_TORNDOWN: nobody waits for it")
	b.m.message(vmbus.GPADLCreated{Relid: 1, ID: id}.Append(nil))
	b.m.message(vmbus.GPADLCreated{Relid: 1, ID: id}.Append(nil))
	b.want("answer GPADL_CREATED 1 925200: <nil>", "drop GPADL_CREATED: nobody waits for it")
	if !b.m.freeLater(region) {
		t.Error("free although the host has it")
	}
	_, err = b.m.unshare(id)
	b.fine(err)
	b.want("post 1 GPADL_TEARDOWN 01000000101e0e00")
	if _, err := b.m.unshare(id); err == nil {
		t.Error("torn down twice")
	}
	b.m.message(vmbus.GPADLTorndown{ID: id}.Append(nil))
	b.m.message(vmbus.GPADLTorndown{ID: id}.Append(nil))
	b.want("free 0x100000", "answer GPADL_TORNDOWN 1 925200: <nil>", "drop GPADL_TORNDOWN: nobody waits for it")
	if b.m.freeLater(region) {
		t.Error("not free although the host has let go")
	}
}

func TestRefusedGPADL(t *testing.T) {
	b := connected(t, vmbus.Version5_3)
	b.offer(1, 1, 0)
	id, _, err := b.m.create(b.m.channels[1], region)
	b.fine(err)
	b.skip()
	b.m.message(vmbus.GPADLCreated{Relid: 1, ID: id, Status: vmbus.StatusUnsuccessful}.Append(nil))
	b.want("answer GPADL_CREATED 1 925200: the host refused: status 0x8000ffff")
	if b.m.freeLater(region) || len(b.m.gpadls) != 0 {
		t.Error("the machine keeps what the host refused")
	}
}

// A GPADL whose owner gave up is taken back when the host confirms it after all.
func TestAbandonedGPADL(t *testing.T) {
	b := connected(t, vmbus.Version5_3)
	b.offer(1, 1, 0)
	id, w, err := b.m.create(b.m.channels[1], region)
	b.fine(err)
	b.m.abandon(w)
	if !b.m.freeLater(region) {
		t.Fatal("free although the host may have it")
	}
	b.skip()
	b.m.message(vmbus.GPADLCreated{Relid: 1, ID: id}.Append(nil))
	b.want("post 1 GPADL_TEARDOWN 01000000101e0e00")
	b.m.message(vmbus.GPADLTorndown{ID: id}.Append(nil))
	b.want("free 0x100000")
}

func TestOpenAndClose(t *testing.T) {
	b := connected(t, vmbus.Version5_3)
	b.offer(1, 1, 0)
	ch := b.m.channels[1]
	b.fine(b.m.beginOpen(ch))
	if b.m.beginOpen(ch) == nil {
		t.Error("opened twice")
	}
	ring := b.share(1)
	ch.vp = 3
	w, err := b.m.open(ch, ring, 2)
	b.fine(err)
	b.want("post 1 OPENCHANNEL 0100000001000000101e0e0003000000")
	b.m.message(vmbus.OpenResult{Relid: 1, OpenID: w.id + 1}.Append(nil))
	b.m.message(vmbus.OpenResult{Relid: 2, OpenID: w.id}.Append(nil))
	b.want("drop OPENCHANNEL_RESULT: nobody waits for it", "drop OPENCHANNEL_RESULT: nobody waits for it")
	b.m.message(vmbus.OpenResult{Relid: 1, OpenID: w.id}.Append(nil))
	b.want("answer OPENCHANNEL_RESULT 1 1: <nil>")

	b.m.close(ch)
	b.want("post 1 CLOSECHANNEL 01000000")
	if b.m.beginOpen(ch) == nil {
		t.Error("opened while it closes")
	}
	b.m.closed(ch)
	b.want()
	b.fine(b.m.beginOpen(ch))
	w, err = b.m.open(ch, ring, 2)
	b.fine(err)
	if w.id != 2 {
		t.Errorf("open id %d was used before", w.id)
	}
}

func TestRefusedOpenIsNotClosed(t *testing.T) {
	b := connected(t, vmbus.Version5_3)
	b.offer(1, 1, 0)
	ch := b.m.channels[1]
	b.fine(b.m.beginOpen(ch))
	w, err := b.m.open(ch, b.share(1), 2)
	b.fine(err)
	b.skip()
	b.m.message(vmbus.OpenResult{Relid: 1, OpenID: w.id, Status: 1}.Append(nil))
	b.want("answer OPENCHANNEL_RESULT 1 1: the host refused: status 0x1")
	b.m.close(ch)
	b.m.closed(ch)
	b.want()
}

func TestClosedPrimaryMakesSubChannelsStale(t *testing.T) {
	b := connected(t, vmbus.Version5_3)
	b.offer(1, 1, 0)
	b.offer(2, 1, 1)
	b.open(1)
	primary := b.m.channels[1]
	b.m.close(primary)
	if b.m.sub(primary, 1) != nil {
		t.Error("the sub-channel can still be opened")
	}
	b.skip()
	b.offer(3, 1, 1) // the next one may come before the old one goes
	b.want("arrived")
	b.rescind(2)
	b.want("lost 2", "post 1 RELID_RELEASED 02000000")
	if ch := b.m.sub(primary, 1); ch == nil || ch.offer.Relid != 3 {
		t.Errorf("sub-channel %+v", ch)
	}
}

func TestRescindWakesWaiters(t *testing.T) {
	b := connected(t, vmbus.Version5_3)
	b.offer(1, 1, 0)
	ring := b.open(1)
	_, _, err := b.m.create(b.m.channels[1], region)
	b.fine(err)
	_, err = b.m.modify(b.m.channels[1], 1)
	b.fine(err)
	_, err = b.m.unshare(ring)
	b.fine(err)
	b.skip()
	b.rescind(1)
	// The end of the rings' GPADL is still waited for: the host answers that.
	b.want("lost 1",
		"answer GPADL_CREATED 1 925201: "+channel.ErrRescinded.Error(),
		"answer MODIFYCHANNEL_RESPONSE 1 0: "+channel.ErrRescinded.Error())
	b.rescind(1)
	b.rescind(2)
	b.want("drop RESCIND_CHANNELOFFER: rescinded already", "drop RESCIND_CHANNELOFFER: unknown relid")

	// Nothing new begins, what is held is let go, then the relid is released.
	ch := b.m.channels[1]
	if _, _, err := b.m.create(ch, region); !errors.Is(err, channel.ErrRescinded) {
		t.Errorf("create: %v", err)
	}
	if err := b.m.beginOpen(ch); !errors.Is(err, channel.ErrRescinded) {
		t.Errorf("open: %v", err)
	}
	b.m.close(ch)
	b.want() // no CLOSECHANNEL for what isn't there
	b.m.message(vmbus.GPADLTorndown{ID: ring}.Append(nil))
	b.want("answer GPADL_TORNDOWN 1 925200: <nil>")
	b.m.closed(ch)
	b.want() // a GPADL is left, which its owner has given up
	b.m.message(vmbus.GPADLCreated{Relid: 1, ID: ring + 1, Status: 1}.Append(nil))
	b.want("post 1 RELID_RELEASED 01000000")
}

func TestRescindOfTheUnused(t *testing.T) {
	b := connected(t, vmbus.Version5_3)
	b.offer(1, 1, 0)
	b.offer(2, 1, 1)
	b.skip()
	b.rescind(1) // a host that forgets the sub-channel
	b.want("lost 2", "post 1 RELID_RELEASED 02000000", "lost 1", "post 1 RELID_RELEASED 01000000")
	b.offer(1, 1, 0) // again
	b.want("arrived")
}

// An open sub-channel that is rescinded waits for its driver.
func TestRescindOfOpenSubChannel(t *testing.T) {
	b := connected(t, vmbus.Version5_3)
	b.offer(1, 1, 0)
	b.open(1)
	b.offer(2, 1, 1)
	ring := b.open(2)
	sub := b.m.channels[2]
	b.rescind(2)
	b.want("lost 2")
	b.m.close(sub)
	_, err := b.m.unshare(ring)
	b.fine(err)
	b.want("post 1 GPADL_TEARDOWN 02000000111e0e00")
	b.m.message(vmbus.GPADLTorndown{ID: ring}.Append(nil))
	b.skip()
	b.m.closed(sub)
	b.want("post 1 RELID_RELEASED 02000000")
	if b.m.channels[1].rescinded {
		t.Error("the primary went too")
	}
}

func TestUnload(t *testing.T) {
	b := connected(t, vmbus.Version5_3)
	b.m.message(vmbus.UnloadResponse{}.Append(nil))
	b.want("drop UNLOAD_RESPONSE: nobody waits for it")
	b.offer(1, 1, 0)
	b.open(1)
	if !b.m.freeLater(region) {
		t.Fatal("free although the host has it")
	}
	_, err := b.m.unload()
	b.fine(err)
	b.want("post 1 UNLOAD ")
	b.m.message(vmbus.UnloadResponse{}.Append(nil))
	b.want("answer UNLOAD_RESPONSE 0 0: <nil>", "lost 1", "free 0x100000", "arrived")
	b.offer(2, 2, 0)
	b.want("drop OFFERCHANNEL: no connection")
	if _, err := b.m.unload(); err == nil {
		t.Error("unloaded twice")
	}
}

func TestModify(t *testing.T) {
	for _, v := range []vmbus.Version{vmbus.Version4_0, vmbus.Version5_2, vmbus.Version5_3} {
		b := connected(t, v)
		b.offer(1, 1, 0)
		ch := b.m.channels[1]
		if _, err := b.m.modify(ch, 1); err == nil {
			t.Errorf("%v: moved before it was open", v)
		}
		b.open(1)
		w, err := b.m.modify(ch, 1)
		if (err == nil) != v.HasModifyChannel() {
			t.Errorf("%v: %v", v, err)
		}
		if err == nil {
			b.want("post 1 MODIFYCHANNEL 0100000001000000")
		}
		if b.m.waiting[w] != v.HasModifyChannelResponse() {
			t.Errorf("%v: waiting %v", v, b.m.waiting[w])
		}
		if v != vmbus.Version5_3 {
			continue
		}
		if _, err := b.m.modify(ch, 2); err == nil {
			t.Error("two at a time")
		}
		b.m.message(vmbus.ModifyChannelResponse{Relid: 1, Status: 1}.Append(nil))
		b.want("answer MODIFYCHANNEL_RESPONSE 1 0: the host refused: status 0x1")
	}
}

func TestMessagesNotForTheGuest(t *testing.T) {
	b := connected(t, vmbus.Version5_3)
	for _, typ := range []byte{0, 3, 5, 14, 20, 23, 27, 30, 200} {
		message := make([]byte, 64)
		message[0] = typ
		b.m.message(message)
		b.want(fmt.Sprintf("drop %s: not for the guest", vmbus.MessageType(typ)))
	}
	for _, message := range [][]byte{nil, make([]byte, 7), make([]byte, 241)} {
		b.m.message(message)
		if got := b.got(); len(got) != 1 {
			t.Errorf("%d bytes: %q", len(message), got)
		}
	}
}
