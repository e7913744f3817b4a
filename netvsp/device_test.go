package netvsp

import (
	"bytes"
	"encoding/binary"
	"testing"

	"hvnet/nic"
	"hvnet/nvsp"
	"hvnet/rndis"
	"hvnet/vmbus"
)

func TestFramesFromGuest(t *testing.T) {
	g := newGuest(t, "ws2022")
	g.up(nvsp.V61)
	small := ether(otherMAC, guestMAC, 60, 1)
	big := ether(otherMAC, guestMAC, 1514, 2)
	pad := func(b []byte) []byte { // a packet with another one behind it
		for len(b)%8 != 0 {
			b = append(b, 0)
		}
		rndis.SetPacketLength(b, len(b))
		return b
	}
	want := func(what string, status nvsp.Status, list ...[]byte) {
		t.Helper()
		if status != nvsp.StatusSuccess {
			t.Errorf("%s: %v", what, status)
		}
		for i, b := range g.port.take(t, len(list)) {
			if !bytes.Equal(b, list[i]) {
				t.Errorf("%s: frame %d is\n%x, want\n%x", what, i, b, list[i])
			}
		}
	}
	want("one in a section", g.bySection(3, packet(small, nil)), small)
	want("with a hash", g.bySection(0, packet(small, &rndis.Info{Has: rndis.HasHash, Hash: 77})), small)
	want("three in a section", g.bySection(1, pad(packet(small, nil)), pad(packet(big, nil)), packet(small, nil)), small, big, small)

	// The page path: the header alone, then the frame in two ranges of which one
	// crosses a page.
	head := packet(big, nil)[:44]
	copy(g.page.Bytes[100:], head)
	copy(g.page.Bytes[4000:], big[:1000])
	copy(g.page.Bytes[9000:], big[1000:])
	pages := []vmbus.PageRange{g.span(100, 44), g.span(4000, 1000), g.span(9000, 514)}
	none := nvsp.RNDISPacket{Section: nvsp.NoSection}
	want("by pages", g.byPages(none, pages...), big)

	// Partial copy: a whole packet and a header in the section, the frame in pages.
	b := pad(packet(small, nil))
	copy(g.send.Bytes[2*6144:], append(b, head...))
	m := nvsp.RNDISPacket{Section: 2, SectionBytes: uint32(len(b) + 44)}
	want("partly copied", g.byPages(m, pages[1:]...), small, big)

	// The VLAN tag comes beside the frame and goes into it.
	tagged := append(append(append([]byte(nil), big[:12]...), 0x81, 0, 0x60, 7), big[12:]...)
	want("tagged", g.bySection(0, packet(big, &rndis.Info{Has: rndis.HasVLAN, VLAN: 0x6007})), tagged)
	want("tagged, short", g.bySection(0, packet(small, &rndis.Info{Has: rndis.HasVLAN, VLAN: 1})),
		append(append(append([]byte(nil), small[:12]...), 0x81, 0, 0, 1), small[12:]...))

	info := g.dev.Info()
	if info.Stats.TxFrames != 10 || info.Stage != StageUp || info.Faults != 0 {
		t.Errorf("info: %+v", info)
	}
}

func TestFramesToGuest(t *testing.T) {
	g := newGuest(t, "ws2022")
	g.up(nvsp.V61)
	var list [][]byte
	for _, n := range []int{60, 127, 128, 129, 1514} {
		list = append(list, ether(guestMAC, otherMAC, n, byte(n)))
	}
	g.settle()
	g.dev.WriteFrames(frames(list...))
	p := g.next(g.ch)
	got := g.received(p)
	if len(got) != len(list) {
		t.Fatalf("got %d frames in one packet, want %d", len(got), len(list))
	}
	for i := range list {
		if !bytes.Equal(got[i], list[i]) {
			t.Errorf("frame %d is\n%x, want\n%x", i, got[i], list[i])
		}
	}
	if n := g.dev.Info().Receive.InFlight; n != len(list) {
		t.Errorf("%d sections in use, want %d", n, len(list))
	}
	g.complete(g.ch, p.TID)
	g.settle()
	if n := g.dev.Info().Receive.InFlight; n != 0 {
		t.Errorf("%d sections in use after the completion", n)
	}

	// A tag in the frame goes beside it.
	tagged := ether(guestMAC, otherMAC, 1518, 9)
	binary.BigEndian.PutUint32(tagged[12:], 0x81006007)
	g.dev.WriteFrames(frames(tagged))
	m := g.messages(g.next(g.ch))[0]
	h, err := rndis.ParsePacket(m, len(m))
	var in rndis.Info
	if err != nil || h.Info(&in) != nil || in.Has != rndis.HasVLAN || in.VLAN != 0x6007 {
		t.Errorf("tagged: %+v, %+v, %v", h, in, err)
	}
	if want := append(append([]byte(nil), tagged[:12]...), tagged[16:]...); !bytes.Equal(m[h.DataOffset:][:h.DataLen], want) {
		t.Error("the frame without its tag is another")
	}

	g.dev.WriteFrames(frames(ether(guestMAC, otherMAC, 1515, 0)))
	g.filter(0)
	g.dev.WriteFrames(frames(list[0]))
	info := g.dev.Info()
	if info.RxDropped[DropTooLong] != 1 || info.RxDropped[DropFilter] != 1 || info.Stats.RxFrames != 6 {
		t.Errorf("info: %+v", info)
	}
}

func TestSource(t *testing.T) {
	g := newGuest(t, "ws2022")
	g.up(nvsp.V61)
	g.bySection(0, packet(ether(guestMAC, otherMAC, 60, 0), nil))
	g.bySection(0, packet(ether(otherMAC, guestMAC, 13, 0), nil))
	g.bySection(0, packet(ether(otherMAC, guestMAC, 1519, 0), nil))
	info := g.dev.Info()
	for d, n := range map[Drop]uint64{DropSource: 1, DropRunt: 1, DropTooLong: 1} {
		if info.TxDropped[d] != n {
			t.Errorf("dropped as %v: %d, want %d", d, info.TxDropped[d], n)
		}
	}
	free := newGuest(t, "ws2022", func(c *Config) { c.AllowSpoofing = true })
	free.up(nvsp.V61)
	free.bySection(0, packet(ether(guestMAC, otherMAC, 60, 0), nil))
	free.port.take(t, 1)
}

func TestSections(t *testing.T) {
	g := newGuest(t, "ws2022")
	g.up(nvsp.V61)
	one := frames(ether(guestMAC, otherMAC, 60, 0))
	g.settle()
	data := g.sections - 16
	var tids []uint64
	for range data {
		g.dev.WriteFrames(one)
		tids = append(tids, g.next(g.ch).TID)
	}
	g.dev.WriteFrames(one)
	if info := g.dev.Info(); info.Receive.InFlight != data || info.RxDropped[DropNoSection] != 1 {
		t.Fatalf("all sections used: %+v", info)
	}
	// Control messages have sections of their own.
	g.query(rndis.OIDMaximumFrameSize, nil)
	g.settle()
	// What the guest does not have it can't return, nor return it twice.
	g.complete(g.ch, tids[0])
	g.complete(g.ch, tids[0])
	for _, id := range []uint64{3, uint64(g.sections), 1 << 40, 0xffffffffffffffff} {
		g.complete(g.ch, id)
	}
	g.settle()
	if info := g.dev.Info(); info.Receive.InFlight != data-1 || info.Faults != 5 {
		t.Errorf("after bad completions: %d in use, want %d; %d faults, want 5", info.Receive.InFlight, data-1, info.Faults)
	}
	for _, id := range tids[1:] {
		g.complete(g.ch, id)
	}
	g.settle()
	if info := g.dev.Info(); info.Receive.InFlight != 0 {
		t.Errorf("%d sections in use at the end", info.Receive.InFlight)
	}
}

func TestRingFull(t *testing.T) {
	g := newGuest(t, "ws2022")
	g.up(nvsp.V61)
	one := frames(ether(guestMAC, otherMAC, 60, 0))
	// The guest completes without reading: sections come back, the ring does not.
	for i := range 4 * 64 << 10 / 80 {
		g.dev.WriteFrames(one)
		if i%16 == 15 {
			g.dev.WriteFrames(nil)
		}
	}
	info := g.dev.Info()
	if info.RxDropped[DropRingFull]+info.RxDropped[DropNoSection] == 0 {
		t.Fatalf("a guest that reads nothing lost nothing: %+v", info)
	}
	// Its own sends and requests are still answered: there is room for them.
	g.put(g.ch, vmbus.AppendInBand(nil, vmbus.FlagCompletionRequested, 4711), nvsp.Pad(nvsp.RNDISPacket{Section: nvsp.NoSection}.Append(nil), 0, 40))
	for {
		p := g.next(g.ch)
		if p.Type == vmbus.PacketTransferPages {
			g.complete(g.ch, p.TID)
		} else if p.TID == 4711 {
			break
		}
	}
	g.dev.WriteFrames(one)
	if got := g.received(g.next(g.ch)); !bytes.Equal(got[0], one[0].Head) {
		t.Error("the frame after the jam is another")
	}
}

// Answers are never lost: a guest that does not read for a while gets them all.
func TestAnswersWait(t *testing.T) {
	g := newGuest(t, "ws2022")
	g.up(nvsp.V61)
	small := packet(ether(otherMAC, guestMAC, 60, 0), nil)
	copy(g.send.Bytes, small)
	m := nvsp.Pad(nvsp.RNDISPacket{SectionBytes: uint32(len(small))}.Append(nil), 0, nvsp.MaxSize)
	const total = 3000 // answers are 64 bytes each, the ring has 60 KiB
	sent, seen := 0, 0
	for seen < total {
		g.ch.Lock()
		for sent < total && g.ch.Out.Put(vmbus.AppendInBand(nil, 1, uint64(1000+sent)), m) == nil {
			sent++
		}
		g.ch.Flush()
		g.ch.Unlock()
		p := g.next(g.ch)
		if p.Type != vmbus.PacketCompletion || p.TID != uint64(1000+seen) {
			t.Fatalf("answer %d: type %d, id %d", seen, p.Type, p.TID)
		}
		seen++
	}
	g.port.take(t, total)
}

func TestReopen(t *testing.T) {
	g := newGuest(t, "ws2022")
	for i, v := range []nvsp.Version{nvsp.V61, nvsp.V5, nvsp.V2, nvsp.V1} {
		if i > 0 {
			g.open()
		}
		g.up(v)
		g.bySection(0, packet(ether(otherMAC, guestMAC, 60, 0), nil))
		g.port.take(t, 1)
		g.backend.Close(g.host)
		g.dev.WriteFrames(frames(ether(guestMAC, otherMAC, 60, 0)))
		if info := g.dev.Info(); info.Stage != StageClosed || info.Opened != uint64(i+1) || info.RxDropped[DropNoGuest] != uint64(i+1) {
			t.Errorf("after close %d: %+v", i, info)
		}
		g.backend.Revoke(recvGPADL)
		g.backend.Revoke(sendGPADL)
	}
	if g.port.closed {
		t.Error("the port was closed before the guest left")
	}
	g.backend.Removed()
	if !g.port.closed {
		t.Error("the port is open after the guest left")
	}
	if n := g.dev.Stats().TxFrames; n != 4 {
		t.Errorf("%d frames in all, want 4", n)
	}
}

func TestSecondGuestIsRefused(t *testing.T) {
	g := newGuest(t, "ws2022")
	other := g.dev.Backend(g.bus)
	_, host := g.pair(0)
	if err := other.Open(host); err == nil {
		t.Error("two guests have the device")
	}
	if err := g.backend.Open(host); err == nil {
		t.Error("the primary channel is open twice")
	}
	_, sub := g.pair(1)
	if err := g.backend.Open(sub); err == nil {
		t.Error("a sub-channel that was not granted is open")
	}
	other.Removed()
}

var _ nic.Sink = (*Device)(nil)
