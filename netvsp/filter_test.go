package netvsp

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"

	"hvnet/nic"
	"hvnet/nvsp"
	"hvnet/rndis"
)

// TestFilter is the table of what passes which packet filter.
func TestFilter(t *testing.T) {
	mine, other := nic.MAC{0, 0x15, 0x5d, 1, 2, 3}, nic.MAC{0, 0x15, 0x5d, 1, 2, 4}
	group := nic.MAC{0x33, 0x33, 0, 0, 0, 1}
	for _, c := range []struct {
		bits                          uint32
		mine, other, group, broadcast bool
	}{
		{0, false, false, false, false},
		{0x01, true, false, false, false},
		{0x02, false, false, true, false},
		{0x04, false, false, true, false},
		{0x08, false, false, false, true},
		{0x0d, true, false, true, true}, // what Linux has when it is up
		{0x20, true, true, true, true},  // and promiscuous
		{0x40, false, false, false, false},
	} {
		f := filter{c.bits, mine}
		for dst, want := range map[nic.MAC]bool{mine: c.mine, other: c.other, group: c.group, nic.Broadcast: c.broadcast} {
			b := make([]byte, 60)
			copy(b, dst[:])
			if got := f.frame(&nic.Frame{Head: b}); got != want {
				t.Errorf("filter %#x: a frame to %v passes: %v, want %v", c.bits, dst, got, want)
			}
		}
	}
	for n := range nic.MinFrame {
		if (&filter{0x0d, nic.MAC{}}).frame(&nic.Frame{Head: make([]byte, n)}) {
			t.Error(fmt.Sprint("a runt of ", n, " bytes passes"))
		}
	}
}

// TestPacketFilter is what a guest gets with one filter or the other, and after it has
// changed its address.
func TestPacketFilter(t *testing.T) {
	g := newGuest(t, "ws2022", func(c *Config) { c.AllowSpoofing = true })
	g.up(nvsp.V61)
	group := nic.MAC{0x33, 0x33, 0, 0, 0, 1}
	all := frames(ether(guestMAC, otherMAC, 60, 0), ether(otherMAC, guestMAC, 60, 1), ether(group, otherMAC, 60, 2), ether(nic.Broadcast, otherMAC, 60, 3))
	expect := func(what string, list []nic.Frame, pass uint64) {
		t.Helper()
		before := g.dev.Info()
		g.dev.WriteFrames(list)
		after := g.dev.Info()
		got, dropped := after.Stats.RxFrames-before.Stats.RxFrames, after.RxDropped[DropFilter]-before.RxDropped[DropFilter]
		if got != pass || got+dropped != uint64(len(list)) {
			t.Errorf("%s: %d frames indicated and %d dropped, want %d of %d", what, got, dropped, pass, len(list))
		}
		if got > 0 {
			g.complete(g.ch, g.next(g.ch).TID)
		}
	}
	expect("as Linux has it", all, 3)
	g.filter(rndis.FilterPromiscuous)
	expect("promiscuous", all, 4)
	g.filter(rndis.FilterDirected)
	expect("directed", all, 1)
	if s := g.set(rndis.OIDConfigParameter, rndis.NewNetworkAddress(otherMAC).Append(nil)); s != rndis.StatusSuccess {
		t.Fatal(s)
	}
	expect("to the old address", all[:1], 0)
	expect("to the new address", all[1:2], 1)
	if mac := g.dev.Info().MAC; mac != otherMAC {
		t.Errorf("address %v", mac)
	}
	g.filter(0)
	expect("down", all, 0)
}

// TestFilterSettles has a filter of 0 be set while somebody delivers: it is not
// answered before that delivery, which saw the old filter, is over.
func TestFilterSettles(t *testing.T) {
	g := newGuest(t, "ws2022")
	g.up(nvsp.V61)
	s := g.dev.live.Load()
	var answered atomic.Bool
	done := make(chan struct{})
	q := s.primary()
	q.ch.Lock() // as a delivery does
	go func() {
		defer close(done)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.rndis.filter = 0
		s.apply(changedFilter)
		answered.Store(true)
	}()
	for s.filter.Load() != 0 {
		runtime.Gosched()
	}
	for range 1000 {
		if runtime.Gosched(); answered.Load() {
			t.Error("the filter is in force, and a delivery under the old one is going on")
			break
		}
	}
	q.ch.Unlock()
	<-done
}

// TestUnplugged: a sender that has not heard yet that the port is closed gives the guest
// nothing any more, or it would have sections that it can't return when it is told that the
// NIC is gone.
func TestUnplugged(t *testing.T) {
	g := newGuest(t, "ws2022")
	g.up(nvsp.V61)
	g.dev.WriteFrames(batchOf(3, 100))
	g.dev.Unplug()
	g.dev.WriteFrames(batchOf(4, 100))
	for range 3 + 1 { // the frames, and that the link is down
		g.answer()
	}
	if s := g.set(rndis.OIDCurrentPacketFilter, rndis.AppendUint32(nil, rndis.FilterDirected)); s != rndis.StatusSuccess {
		t.Error(s)
	}
	g.dev.WriteFrames(batchOf(5, 100)) // a guest that was just about to set its filter
	if info := g.dev.Info(); info.Stats.RxFrames != 3 || info.RxDropped[DropFilter] != 9 {
		t.Errorf("%d frames are delivered, %d are not, want 3 and 9", info.Stats.RxFrames, info.RxDropped[DropFilter])
	}
}

// TestUnpluggedStays: a guest that opens its NIC anew in the moment before it is told that
// the NIC is taken away does not get the cable back, whatever it does; who is given the
// device next does.
func TestUnpluggedStays(t *testing.T) {
	g := newGuest(t, "ws2022")
	connects := 0
	g.dev.connect = func(nic.Sink) (Port, error) { connects++; return g.port, nil }
	g.up(nvsp.V61)
	g.dev.Unplug()
	again := []func(){
		func() { g.backend.Close(g.host) },
		func() { g.backend.Removed() }, // a new connection
	}
	for _, leave := range again {
		leave()
		g.open()
		g.up(nvsp.V61)
		before := g.dev.Info().Stats
		g.dev.WriteFrames(batchOf(3, 100))
		info := g.dev.Info()
		if connects != 0 || info.Stats.RxFrames != before.RxFrames || info.Link.Up {
			t.Errorf("connected %d times, %d frames came to the guest, link up: %v", connects, info.Stats.RxFrames-before.RxFrames, info.Link.Up)
		}
	}
	g.backend.Removed()
	g.backend = g.dev.Backend(g.bus)
	g.open()
	if connects != 1 || !g.dev.Info().Link.Up {
		t.Errorf("the device given anew: connected %d times, link %+v", connects, g.dev.Info().Link)
	}
}
