package netvsp

import (
	"runtime"
	"slices"
	"testing"
	"time"

	"hvnet/nic"
	"hvnet/nvsp"
	"hvnet/offload"
	"hvnet/rndis"
	"hvnet/vmbus"
	"hvnet/vmbus/channel"
)

// widen asks for sub-channels and opens them. It returns all channels.
func (g *fakeGuest) widen(n int) (guests, hosts []*channel.Channel) {
	g.t.Helper()
	a, err := nvsp.ParseSubChannelComplete(g.ask(nvsp.SubChannelRequest{Op: nvsp.SubChannelAllocate, Count: uint32(n)}.Append(nil)))
	if err != nil || a.Status != nvsp.StatusSuccess || a.Count != uint32(n) {
		g.t.Fatalf("sub-channels: %+v, %v", a, err)
	}
	select {
	case offered := <-g.bus.offered:
		if offered != n {
			g.t.Fatalf("%d sub-channels are offered, want %d", offered, n)
		}
	case <-time.After(patience):
		g.t.Fatal("waiting for the offer of sub-channels")
	}
	guests, hosts = []*channel.Channel{g.ch}, []*channel.Channel{g.host}
	for i := range n {
		guest, host := g.pair(i + 1)
		if err := g.backend.Open(host); err != nil {
			g.t.Fatal(err)
		}
		guests, hosts = append(guests, guest), append(hosts, host)
	}
	p := g.next(g.ch)
	m, err := nvsp.ParseIndirectionTable(p.Payload, g.version)
	if err != nil || p.Type != vmbus.PacketInBand || p.CompletionRequested() {
		g.t.Fatalf("table for sending: %+v, %v", p, err)
	}
	for i, c := range m.Table {
		if int(c) != i%(n+1) {
			g.t.Fatalf("table for sending: %v", m.Table)
		}
	}
	return guests, hosts
}

// inUse waits until the guest has a number of sections: what it returns is seen by the
// goroutines of the channels.
func (g *fakeGuest) inUse(want int) {
	g.t.Helper()
	for end := time.Now().Add(patience); ; runtime.Gosched() {
		got := g.dev.Info().Receive.InFlight
		if got == want {
			return
		}
		if time.Now().After(end) {
			g.t.Fatalf("%d sections are in use, want %d", got, want)
		}
	}
}

// tcp4 is a frame of flow i: its source port is i.
func tcp4(i int) []byte {
	b := ether(guestMAC, otherMAC, 60, 0)
	copy(b[14:], []byte{0x45, 0, 0, 46, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, byte(i >> 8), byte(i), 0, 80})
	return b
}

func TestSpread(t *testing.T) {
	g := newGuest(t, "ws2022")
	g.up(nvsp.V61)
	guests, hosts := g.widen(3)
	g.account()
	// 512 KiB are 290 sections, 274 of them for data.
	if p := g.backend.(*backend).s.pool; len(p.free) != 274 || len(p.members) != 4 || p.own != 274/16 || p.kept != 4*(274/16) {
		t.Errorf("%d sections free, %d channels with %d of their own, %d kept", len(p.free), len(p.members), p.own, p.kept)
	}
	deliver := func(list ...[]byte) (at [][]int) {
		t.Helper()
		g.dev.WriteFrames(frames(list...))
		for _, ch := range guests {
			var flows []int
			if b, err := ch.In.Next(g.buf[:]); err == nil {
				p, err := vmbus.ParsePacket(b)
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range g.received(p) {
					flows = append(flows, int(f[34])<<8|int(f[35]))
				}
				ch.Release()
				g.complete(ch, p.TID)
			}
			at = append(at, flows)
		}
		return at
	}
	var list [][]byte
	for i := range 64 {
		list = append(list, tcp4(i))
	}
	if at := deliver(list...); len(at[0]) != 64 {
		t.Errorf("before RSS is set: %v", at)
	}

	// With RSS, each frame comes where its hash says, in order.
	rss := rndis.RSSParameters{HashInfo: rndis.HashDefault, Table: []uint32{0, 1, 2, 3}, Key: offload.DefaultKey[:]}
	if s := g.set(rndis.OIDReceiveScaleParameters, rss.Append(nil)); s != rndis.StatusSuccess {
		t.Fatal(s)
	}
	want := make([][]int, 4)
	hash := offload.NewToeplitz(offload.DefaultKey)
	for i := range 64 {
		h, kind := hash.Flow(list[i], offload.HashTCPv4)
		if kind != nic.HashL4 {
			t.Fatal("not a TCP frame")
		}
		want[h%4] = append(want[h%4], i)
	}
	if at := deliver(list...); !slices.EqualFunc(at, want, slices.Equal) {
		t.Errorf("spread %v, want %v", at, want)
	}
	if at := deliver(ether(guestMAC, otherMAC, 60, 0)); len(at[0]) != 1 {
		t.Errorf("a frame without IP: %v", at)
	}

	// Frames from a sub-channel, and the answer there.
	b := packet(ether(otherMAC, guestMAC, 60, 0), nil)
	copy(g.send.Bytes, b)
	m := nvsp.RNDISPacket{SectionBytes: uint32(len(b))}
	g.put(guests[2], vmbus.AppendInBand(nil, vmbus.FlagCompletionRequested, 5), nvsp.Pad(m.Append(nil), 0, 40))
	if s := g.status(g.completion(guests[2], 5)); s != nvsp.StatusSuccess {
		t.Errorf("from a sub-channel: %v", s)
	}
	g.port.take(t, 1)
	// Control messages are for the primary channel only.
	g.put(guests[1], vmbus.AppendInBand(nil, vmbus.FlagCompletionRequested, 6), nvsp.Pad(nvsp.OIDQueryEx{}.Append(nil), 0, 40))
	if p := g.completion(guests[1], 6); len(p) != 0 {
		t.Errorf("NVSP on a sub-channel: %x", p)
	}
	halt := rndis.Halt{RequestID: 1}.Append(nil)
	copy(g.send.Bytes, halt)
	m.SectionBytes = uint32(len(halt))
	g.put(guests[1], vmbus.AppendInBand(nil, vmbus.FlagCompletionRequested, 7), nvsp.Pad(m.Append(nil), 0, 40))
	if s := g.status(g.completion(guests[1], 7)); s != nvsp.StatusFail {
		t.Errorf("RNDIS control on a sub-channel: %v", s)
	}

	// A channel that is closed alone leaves its flows and sections to the primary,
	// those too that the guest has not returned.
	g.inUse(0)
	g.dev.WriteFrames(frames(list...))
	g.inUse(len(list))
	g.backend.Close(hosts[3])
	g.inUse(len(list) - len(want[3]))
	g.account()
	for _, ch := range guests[:3] {
		g.complete(ch, g.next(ch).TID)
	}
	if at := deliver(list...); len(at[0]) != len(want[0])+len(want[3]) || len(at[1]) != len(want[1]) {
		t.Errorf("after closing channel 3: %v", at)
	}
	if info := g.dev.Info(); info.Channels != 3 || !info.RSS {
		t.Errorf("%+v", info)
	}
	rss.Flags = rndis.RSSDisable
	g.set(rndis.OIDReceiveScaleParameters, rss.Append(nil))
	if at := deliver(list...); len(at[0]) != 64 {
		t.Errorf("with RSS off: %v", at)
	}
	g.backend.Close(hosts[0]) // the others with it
	if info := g.dev.Info(); info.Stage != StageClosed {
		t.Errorf("%+v", info)
	}
}

func TestSubChannelOrder(t *testing.T) {
	g := newGuest(t, "ws2022")
	g.up(nvsp.V61)
	guests, _ := g.widen(2)
	_, twice := g.pair(2)
	if err := g.backend.Open(twice); err == nil {
		t.Error("channel 2 is open twice")
	}
	_, more := g.pair(3)
	if err := g.backend.Open(more); err == nil {
		t.Error("channel 3 of 2 is open")
	}
	// A section given on one channel can't be returned on another.
	rss := rndis.RSSParameters{HashInfo: rndis.HashDefault, Table: []uint32{1}, Key: offload.DefaultKey[:]}
	g.set(rndis.OIDReceiveScaleParameters, rss.Append(nil))
	g.dev.WriteFrames(frames(tcp4(1)))
	p := g.next(guests[1])
	g.settle()
	before := g.dev.Info()
	g.complete(guests[0], p.TID)
	g.settle()
	if info := g.dev.Info(); info.Receive.InFlight != before.Receive.InFlight || info.Faults != before.Faults+1 {
		t.Errorf("returned on another channel: %+v", info)
	}
	g.account()
}

func TestLink(t *testing.T) {
	g := newGuest(t, "ws2022")
	g.up(nvsp.V61)
	for _, up := range []bool{false, true} {
		g.dev.SetLink(nic.LinkState{Up: up, Mbps: 10000})
		m, err := rndis.ParseIndicateStatus(g.answer())
		want := rndis.StatusMediaDisconnect
		if up {
			want = rndis.StatusMediaConnect
		}
		if err != nil || m.Status != want {
			t.Errorf("link %v: %v, %v", up, m.Status, err)
		}
	}
	g.dev.SetLink(nic.LinkState{Up: true, Mbps: 10000}) // no news
	g.query(rndis.OIDMediaConnectStatus, nil)
}

// TestRevokeBeforeCompletion: what a guest has completed before it revoked the buffer may lie
// in the ring of another channel still. That is no fault; to complete it twice is one.
func TestRevokeBeforeCompletion(t *testing.T) {
	g := newGuest(t, "ws2022")
	g.up(nvsp.V61)
	guests, _ := g.widen(1)
	s := g.dev.live.Load()
	if !s.queues[1].deliver(s.steer.Load(), batchOf(2, 100), nil) {
		t.Fatal("not delivered")
	}
	p := g.next(guests[1])
	g.tell(nvsp.RevokeReceiveBuffer{ID: nvsp.ReceiveBufferID}.Append(nil))
	g.settle()
	for want := range uint64(2) {
		g.complete(guests[1], p.TID)
		g.ch = guests[1]
		g.bySection(1, packet(ether(otherMAC, guestMAC, 100, 1), nil)) // answered in order
		g.ch = guests[0]
		if n := g.dev.Info().Faults; n != want {
			t.Errorf("%d completions behind the revoke: %d faults, want %d", want+1, n, want)
		}
	}
}
