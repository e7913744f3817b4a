package host

import (
	"fmt"
	"testing"

	"hvnet/vmbus"
)

func released(relid uint32) []byte { return vmbus.RelidReleased{Relid: relid}.Append(nil) }

func TestOffersAreSortedAndComeOnce(t *testing.T) {
	b := newBench(t)
	for _, n := range []byte{3, 1, 2} {
		b.m.add(deviceID(n), vmbus.Offer{Class: vmbus.ClassNIC, Instance: vmbus.GUID{n}})
	}
	b.want() // nobody asked
	b.connect(vmbus.Version5_3)
	b.skip()
	b.m.add(9, vmbus.Offer{Instance: vmbus.GUID{9}}) // of a lower class
	b.want()
	b.post(vmbus.RequestOffers{}.Append(nil))
	b.want(
		"vp1 OFFERCHANNEL relid 1 index 0 conn 0x2001",
		"vp1 OFFERCHANNEL relid 2 index 0 conn 0x2002",
		"vp1 OFFERCHANNEL relid 3 index 0 conn 0x2003",
		"vp1 OFFERCHANNEL relid 4 index 0 conn 0x2004",
		"vp1 ALLOFFERS_DELIVERED")
	for relid, id := range map[uint32]deviceID{1: 9, 2: 1, 3: 2, 4: 3} {
		if got := b.m.channels[relid].dev.id; got != id {
			t.Errorf("relid %d is device %d, want %d", relid, got, id)
		}
	}
	b.post(vmbus.RequestOffers{}.Append(nil))
	b.want("drop REQUESTOFFERS: offers were already requested")
	b.m.add(10, vmbus.Offer{Class: vmbus.ClassNIC, Instance: vmbus.GUID{4}}) // hot
	b.want("vp1 OFFERCHANNEL relid 5 index 0 conn 0x2005")
}

func TestOfferBytes(t *testing.T) {
	b := newBench(t)
	o := vmbus.Offer{
		Class: vmbus.ClassNIC, Instance: vmbus.GUID{7}, MMIO: 3, UserData: [120]byte{5},
		SubChannel: 9, Relid: 99, MonitorID: 4, Monitored: true, ConnID: 1,
	}
	b.m.add(1, o)
	b.connect(vmbus.Version2_4)
	b.skip()
	b.post(vmbus.RequestOffers{}.Append(nil))
	got, err := vmbus.ParseOffer(b.m.out[0].(send).message, vmbus.Version2_4)
	if err != nil {
		t.Fatal(err)
	}
	o.SubChannel, o.Relid, o.MonitorID, o.Monitored, o.Dedicated, o.ConnID = 0, 1, 0xff, false, true, 0x2001
	if got != o {
		t.Errorf("got %+v\nwant %+v", got, o)
	}
}

func TestSubChannels(t *testing.T) {
	b := newBench(t)
	b.in("closed")
	b.m.offerSubs(1, 2)
	b.want() // not before the primary is open
	b.post(open5(1, 10))
	b.m.opened(1, true)
	b.skip()
	b.m.offerSubs(1, 1)
	b.want("vp1 OFFERCHANNEL relid 2 index 1 conn 0x2002")
	b.m.offerSubs(1, 2)
	b.want("vp1 OFFERCHANNEL relid 3 index 2 conn 0x2003")
	b.gpadl(2, 20, 4)
	b.skip()
	b.post(open5(2, 20))
	b.want("open dev 1 relid 2 index 1 vp 2 up [100 101] down [102 103]")
	b.m.opened(2, true)
	b.skip()

	// Closing the primary takes the sub-channels away, the closed one at once.
	b.post(vmbus.CloseChannel{Relid: 1}.Append(nil))
	b.want("close dev 1 relid 2", "close dev 1 relid 1", "vp1 RESCIND_CHANNELOFFER relid 3")
	b.m.closed(2)
	b.want("vp1 RESCIND_CHANNELOFFER relid 2")
	b.m.closed(1)
	b.want()
	b.m.offerSubs(1, 2)
	b.want()

	// Open again: new sub-channels, with relids that nobody holds.
	b.post(released(2))
	b.post(open5(1, 10))
	b.m.opened(1, true)
	b.skip()
	b.m.offerSubs(1, 2)
	b.want("vp1 OFFERCHANNEL relid 2 index 1 conn 0x2002", "vp1 OFFERCHANNEL relid 4 index 2 conn 0x2004")
}

func TestSubChannelNeedsOpenPrimary(t *testing.T) {
	b := newBench(t)
	b.in("open")
	b.m.offerSubs(1, 1)
	b.gpadl(2, 20, 4)
	b.post(vmbus.CloseChannel{Relid: 1}.Append(nil))
	b.skip()
	b.post(open5(2, 20))
	b.want()
}

func TestRefusedSubChannel(t *testing.T) {
	b := newBench(t)
	b.in("open")
	b.m.offerSubs(1, 1)
	b.skip()
	b.post(released(2))
	b.want()
	b.m.offerSubs(1, 1)
	b.want("vp1 OFFERCHANNEL relid 2 index 1 conn 0x2002")
}

// TestEndClosesPrimaryFirst: a device whose guest is gone does not go on over what is
// left of its channels.
func TestEndClosesPrimaryFirst(t *testing.T) {
	b := newBench(t)
	b.in("open")
	b.m.offerSubs(1, 2)
	b.gpadl(2, 20, 4)
	b.post(open5(2, 20))
	b.m.opened(2, true)
	b.skip()
	b.m.gone()
	b.want("close dev 1 relid 1", "close dev 1 relid 2")
}

func TestWithdraw(t *testing.T) {
	b := newBench(t)
	b.in("open")
	b.gpadl(1, 11, 1)
	msgs, _ := vmbus.AppendGPADL(nil, 1, 12, 100, func(i int) uint64 { return firstPage })
	b.post(msgs[0]) // never complete
	b.m.offerSubs(1, 2)
	b.gpadl(2, 20, 4)
	b.post(open5(2, 20))
	b.m.opened(2, true)
	b.post(vmbus.GPADLTeardown{Relid: 1, ID: 11}.Append(nil))
	b.skip()

	b.m.withdraw(1)
	b.m.withdraw(1)
	b.want("vp1 RESCIND_CHANNELOFFER relid 2", "vp1 RESCIND_CHANNELOFFER relid 3",
		"vp1 GPADL_CREATED relid 1 gpadl 12 status 8000ffff", "vp1 RESCIND_CHANNELOFFER relid 1")
	b.m.offerSubs(1, 3)
	b.want()
	b.m.revoked(11) // the guest can still be answered
	b.want("vp1 GPADL_TORNDOWN gpadl 11")

	// The guest lets go, the sub-channels with the primary. Then it cleans up as it
	// likes; no backend is asked any more.
	b.post(vmbus.CloseChannel{Relid: 1}.Append(nil))
	b.want("close dev 1 relid 2", "close dev 1 relid 1")
	b.post(vmbus.CloseChannel{Relid: 1}.Append(nil))
	b.m.closed(1)
	b.want() // not before its sub-channel
	b.m.closed(2)
	b.want("remove dev 1")
	b.post(released(1))
	b.want("forget dev 1")
	b.post(vmbus.GPADLTeardown{Relid: 2, ID: 20}.Append(nil))
	b.want("vp1 GPADL_TORNDOWN gpadl 20")
	b.post(released(2))
	b.post(released(3))
	b.want()
	if len(b.m.channels)+len(b.m.gpadls)+b.m.pages+b.m.partial+len(b.m.devices) != 0 {
		t.Error("something is left")
	}
}

// A channel that is taken away while it is open stays open until the guest lets go of
// it, in whatever way: Linux waits for the completion of all that it has sent.
func TestWithdrawnChannelStaysOpen(t *testing.T) {
	for _, x := range []struct {
		name        string
		letGo       []byte
		then, after []string
	}{
		{"closed", vmbus.CloseChannel{Relid: 1}.Append(nil), []string{"remove dev 1"}, []string{"forget dev 1"}},
		{"rings torn down", vmbus.GPADLTeardown{Relid: 1, ID: 10}.Append(nil),
			[]string{"revoke dev 1 gpadl 10", "vp1 GPADL_TORNDOWN gpadl 10", "remove dev 1"}, []string{"forget dev 1"}},
		{"released", released(1), []string{"revoke dev 1 gpadl 10", "remove dev 1", "forget dev 1"}, nil},
	} {
		t.Run(x.name, func(t *testing.T) {
			b := newBench(t)
			b.in("open")
			b.m.withdraw(1)
			b.want("vp1 RESCIND_CHANNELOFFER relid 1")
			b.post(vmbus.ModifyChannel{Relid: 1, TargetVP: 3}.Append(nil))
			b.skip()
			b.post(x.letGo)
			b.want("close dev 1 relid 1")
			b.m.closed(1)
			b.m.revoked(10)
			b.want(x.then...)
			if x.after != nil {
				b.post(released(1))
				b.want(x.after...)
			}
		})
	}
}

func TestWithdrawWhileOpening(t *testing.T) {
	for _, ok := range []bool{true, false} {
		b := newBench(t)
		b.in("opening")
		b.m.withdraw(1)
		b.want()
		b.m.opened(1, ok)
		if ok {
			b.want("close dev 1 relid 1")
			b.m.closed(1)
		}
		b.want("vp1 RESCIND_CHANNELOFFER relid 1", "remove dev 1")
	}
}

func TestWithdrawBeforeOffer(t *testing.T) {
	b := newBench(t)
	b.m.add(1, vmbus.Offer{Class: vmbus.ClassNIC})
	b.m.withdraw(1)
	b.want("forget dev 1")
	b.connect(vmbus.Version5_3)
	b.skip()
	b.post(vmbus.RequestOffers{}.Append(nil))
	b.want("vp1 ALLOFFERS_DELIVERED")
}

// The same device comes again only when the guest has released the old one.
func TestOfferAgain(t *testing.T) {
	b := newBench(t)
	b.in("revoked")
	b.m.add(2, vmbus.Offer{Class: vmbus.ClassNIC})
	b.want()
	b.post(released(1))
	b.want("forget dev 1", "vp1 OFFERCHANNEL relid 1 index 0 conn 0x2001")
}

func TestRelidsRunOut(t *testing.T) {
	b := newBench(t)
	b.in("open")
	b.m.offerSubs(1, vmbus.RelidLimit)
	if n := len(b.m.channels); n != vmbus.RelidLimit-1 {
		t.Fatalf("%d relids in use", n)
	}
	actions := b.got()
	if last := actions[len(actions)-1]; last != "drop OFFERCHANNEL: all relids are in use" {
		t.Errorf("last action %q", last)
	}
	b.post(released(1000))
	b.m.offerSubs(1, 999)
	b.want(fmt.Sprintf("vp1 OFFERCHANNEL relid 1000 index 999 conn %#x", 0x2000+1000))
}
