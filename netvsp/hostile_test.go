package netvsp

import (
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"hvnet/internal/packets"
	"hvnet/nvsp"
	"hvnet/ring"
	"hvnet/rndis"
	"hvnet/vmbus"
)

// patched returns a good packet message with a u32 changed.
func patched(at int, v uint32) []byte {
	b := packet(ether(otherMAC, guestMAC, 60, 0), &rndis.Info{Has: rndis.HasHash, Hash: 1})
	binary.LittleEndian.PutUint32(b[at:], v)
	return b
}

// TestHostileFrames: each bad message is answered with failure, counted and
// dropped, and the next good one goes through.
func TestHostileFrames(t *testing.T) {
	g := newGuest(t, "ws2022")
	g.up(nvsp.V61)
	good := packet(ether(otherMAC, guestMAC, 60, 0), nil)
	const huge = 0xffffffff
	for what, msg := range map[string][]byte{
		"no whole header":         good[:7],
		"no whole packet header":  good[:43],
		"length beyond the end":   patched(4, uint32(len(good)+17)),
		"length below the header": patched(4, 43),
		"length that wraps":       patched(4, huge),
		"frame empty":             patched(12, 0),
		"frame beyond the end":    patched(12, 200),
		"frame length wraps":      patched(12, huge),
		"frame offset wraps":      patched(8, huge-3),
		"frame in the header":     patched(8, 4),
		"out-of-band data":        patched(16, 36),
		"out-of-band length":      patched(20, 1),
		"out-of-band count":       patched(24, 1),
		"VC handle":               patched(36, 1),
		"PPI beyond the end":      patched(32, 400),
		"PPI length wraps":        patched(32, huge),
		"PPI offset wraps":        patched(28, huge-15),
		"PPI in the header":       patched(28, 0),
		"PPI of no size":          patched(44, 0),
		"PPI larger than area":    patched(44, 17),
		"PPI data outside":        patched(52, 16),
		"PPI data in its header":  patched(52, 8),
		"large send":              packet(ether(otherMAC, guestMAC, 60, 0), &rndis.Info{Has: rndis.HasLargeSend, LargeSend: rndis.NewLargeSend(1448, 34, false)}),
		"checksum":                packet(ether(otherMAC, guestMAC, 60, 0), &rndis.Info{Has: rndis.HasChecksum, Checksum: uint32(rndis.TxIPv4 | rndis.TxTCP)}),
		"a control message":       append(append([]byte(nil), good...), rndis.Halt{RequestID: 1}.Append(nil)...),
		"bytes behind":            append(append([]byte(nil), good...), 1, 2, 3),
	} {
		before := g.dev.Info().Failures
		if s := g.bySection(0, msg); s != nvsp.StatusFail {
			t.Errorf("%s: %v", what, s)
		}
		if n := g.dev.Info().Failures - before; n != 1 {
			t.Errorf("%s: counted %d times", what, n)
		}
	}
	g.port.mu.Lock()
	g.port.frames = nil // the good part of packets with a bad end
	g.port.mu.Unlock()
	for range 1000 {
		if s := g.bySection(0, good); s != nvsp.StatusSuccess {
			t.Fatal(s)
		}
	}
	g.port.take(t, 1000)
}

func TestHostilePackets(t *testing.T) {
	g := newGuest(t, "ws2022")
	g.up(nvsp.V61)
	frame := ether(otherMAC, guestMAC, 1514, 0)
	msg := packet(frame, &rndis.Info{Has: rndis.HasHash, Hash: 1})
	none := nvsp.RNDISPacket{Section: nvsp.NoSection}
	copy(g.page.Bytes[4096-20:], msg)
	copy(g.page.Bytes[8192+4096-50:], msg)
	outside := vmbus.PageRange{Count: 100, PFNs: []uint64{1 << 40}}
	many := make([]vmbus.PageRange, 33)
	for i := range many {
		many[i] = g.span(0, 8)
	}
	tests := map[string]func() nvsp.Status{
		"section of none": func() nvsp.Status { return g.byPages(nvsp.RNDISPacket{Section: 10, SectionBytes: 8}, g.span(0, 100)) },
		"section huge": func() nvsp.Status {
			return g.byPages(nvsp.RNDISPacket{Section: 0xfffffffe, SectionBytes: 100}, g.span(0, 100))
		},
		"section overrun": func() nvsp.Status { return g.byPages(nvsp.RNDISPacket{Section: 9, SectionBytes: 6145}, g.span(0, 100)) },
		"section wraps": func() nvsp.Status {
			return g.byPages(nvsp.RNDISPacket{Section: 1, SectionBytes: 0xffffffff}, g.span(0, 100))
		},
		"pages outside memory":  func() nvsp.Status { return g.byPages(none, outside) },
		"good, then outside":    func() nvsp.Status { return g.byPages(none, g.span(0, 100), outside) },
		"too many ranges":       func() nvsp.Status { return g.byPages(none, many...) },
		"range of nothing":      func() nvsp.Status { return g.byPages(none, vmbus.PageRange{PFNs: pfns(g.page)[:1]}) },
		"more bytes than pages": func() nvsp.Status { return g.byPages(none, vmbus.PageRange{Count: 4097, PFNs: pfns(g.page)[:1]}) },
		"offset beyond page": func() nvsp.Status {
			return g.byPages(none, vmbus.PageRange{Count: 10, Offset: 4096, PFNs: pfns(g.page)[:2]})
		},
		// A header that crosses a page edge inside one run of pages is fine; one
		// that is split over two ranges that do not follow each other is not.
		"header split": func() nvsp.Status {
			return g.byPages(none, g.span(4096-20, 20), g.span(20480, len(msg)-20))
		},
		"PPI split": func() nvsp.Status {
			return g.byPages(none, g.span(8192+4096-50, 50), g.span(20480, len(msg)-50))
		},
	}
	for what, f := range tests {
		if s := f(); s != nvsp.StatusFail {
			t.Errorf("%s: %v", what, s)
		}
	}
	if s := g.byPages(none, g.span(4096-20, len(msg))); s != nvsp.StatusSuccess {
		t.Errorf("header over a page edge in one range: %v", s)
	}
	g.port.take(t, 1)
	// Other packets are answered too, so that nobody waits.
	for what, head := range map[string][]byte{
		"another type":          {8, 0, 2, 0, 0, 0, 1, 0, 77, 0, 0, 0, 0, 0, 0, 0},
		"transfer pages":        {7, 0, 2, 0, 0, 0, 1, 0, 77, 0, 0, 0, 0, 0, 0, 0},
		"no NVSP message":       {6, 0, 2, 0, 0, 0, 1, 0, 77, 0, 0, 0, 0, 0, 0, 0},
		"GPA-direct of nothing": {9, 0, 2, 0, 0, 0, 1, 0, 77, 0, 0, 0, 0, 0, 0, 0},
	} {
		g.put(g.ch, head, nil)
		if b := g.completion(g.ch, 77); len(b) != 0 {
			t.Errorf("%s: answered with %x", what, b)
		}
	}
	// A packet that is too long for the device is skipped, and the next one isn't.
	g.put(g.ch, vmbus.AppendInBand(nil, 0, 1), make([]byte, 9000))
	if s := g.bySection(0, msg); s != nvsp.StatusSuccess {
		t.Errorf("after a packet that is too long: %v", s)
	}
}

// TestEarlyFrames: frames before RNDIS is up are refused. Those behind HALT go nowhere, and
// that is no fault: Linux may have one under way.
func TestEarlyFrames(t *testing.T) {
	g := newGuest(t, "ws2022")
	good := packet(ether(otherMAC, guestMAC, 60, 0), nil)
	if s := g.bySection(0, good); s != nvsp.StatusFail {
		t.Errorf("before INIT: %v", s)
	}
	if s := g.control(rndis.Initialize{RequestID: 1, Major: 1}.Append(nil)); s != nvsp.StatusFail {
		t.Errorf("INITIALIZE before INIT: %v", s)
	}
	g.connect(nvsp.V61)
	if s := g.bySection(0, good); s != nvsp.StatusFail {
		t.Errorf("before INITIALIZE: %v", s)
	}
	g.control(rndis.Initialize{RequestID: 1, Major: 1}.Append(nil))
	g.answer()
	if s := g.bySection(0, good); s != nvsp.StatusSuccess {
		t.Errorf("in order: %v", s)
	}
	before := g.dev.Info()
	g.control(rndis.Halt{RequestID: 2}.Append(nil))
	if s := g.bySection(0, good); s != nvsp.StatusSuccess {
		t.Errorf("after HALT: %v", s)
	}
	if after := g.dev.Info(); after.Faults != before.Faults || after.Stats.TxFrames != before.Stats.TxFrames {
		t.Errorf("after HALT: %d faults, %d frames more", after.Faults-before.Faults, after.Stats.TxFrames-before.Stats.TxFrames)
	}
	big := make([]byte, maxControl+1)
	binary.LittleEndian.PutUint32(big, 4)
	if s := g.control(big); s != nvsp.StatusFail {
		t.Errorf("a control message that is too long: %v", s)
	}
}

// TestRepliesAreBounded: a guest that leaves answers lying is refused, not served
// for ever, and gets those that were promised.
func TestRepliesAreBounded(t *testing.T) {
	g := newGuest(t, "ws2022")
	g.up(nvsp.V61)
	g.settle()
	msg := rndis.Query{RequestID: 9, OID: rndis.OIDLinkSpeed}.Append(nil)
	copy(g.page.Bytes, msg)
	m := nvsp.Pad(nvsp.RNDISPacket{Channel: nvsp.ChannelControl, Section: nvsp.NoSection}.Append(nil), 0, nvsp.MaxSize)
	const asked = 200
	good, sections := 0, []uint64{}
	for i := range asked {
		g.put(g.ch, vmbus.AppendGPADirect(nil, uint64(1000+i), []vmbus.PageRange{g.span(0, len(msg))}), m)
		for {
			p := g.next(g.ch)
			if p.Type == vmbus.PacketTransferPages {
				sections = append(sections, p.TID)
				continue
			}
			if g.status(p.Payload) == nvsp.StatusSuccess {
				good++
			}
			break
		}
	}
	for len(sections) < 16 {
		sections = append(sections, g.next(g.ch).TID)
	}
	if good != 16+maxReplies {
		t.Errorf("%d requests were accepted, want %d", good, 16+maxReplies)
	}
	got := len(sections)
	for _, id := range sections {
		g.complete(g.ch, id)
	}
	for ; got < good; got++ {
		g.complete(g.ch, g.next(g.ch).TID)
	}
	g.query(rndis.OIDLinkSpeed, nil)
}

// TestRevokeUnderTraffic takes the buffers away while frames go both ways; nothing
// is touched afterwards.
func TestRevokeUnderTraffic(t *testing.T) {
	for _, by := range []string{"message", "teardown", "close"} {
		t.Run(by, func(t *testing.T) {
			g := newGuest(t, "ws2022")
			g.up(nvsp.V61)
			stop := make(chan struct{})
			var traffic sync.WaitGroup
			for range 2 {
				traffic.Go(func() {
					batch := batchOf(8, 1514)
					for {
						select {
						case <-stop:
							return
						default:
							g.dev.WriteFrames(batch)
						}
					}
				})
			}
			good := packet(ether(otherMAC, guestMAC, 1514, 0), nil)
			for range 50 {
				g.bySection(0, good)
			}
			switch by {
			case "message":
				g.tell(nvsp.RevokeReceiveBuffer{ID: nvsp.ReceiveBufferID}.Append(nil))
				g.tell(nvsp.RevokeSendBuffer{}.Append(nil))
				g.settle()
			case "teardown":
				g.backend.Revoke(recvGPADL)
				g.backend.Revoke(sendGPADL)
			case "close":
				g.backend.Close(g.host)
			}
			clear(g.recv.Bytes)
			mark := g.dev.Info().RxDropped
			seen := mark[DropNoBuffer] + mark[DropNoGuest]
			for deadline := time.Now().Add(patience); ; { // until others have tried again
				now := g.dev.Info().RxDropped
				if now[DropNoBuffer]+now[DropNoGuest] > seen+100 {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("%+v", g.dev.Info())
				}
			}
			close(stop)
			traffic.Wait()
			for i, b := range g.recv.Bytes {
				if b != 0 {
					t.Fatalf("byte %d of the receive buffer was written after it was taken away", i)
				}
			}
			if by != "close" {
				if s := g.bySection(0, good); s != nvsp.StatusFail {
					t.Errorf("a frame in the send buffer that is gone: %v", s)
				}
			}
		})
	}
}

// TestRevokeWhileMapping: the GPADL goes away while the buffer is being mapped.
func TestRevokeWhileMapping(t *testing.T) {
	g := newGuest(t, "ws2022")
	v := nvsp.V61
	g.ask(nvsp.Init{Min: v, Max: v}.Append(nil))
	g.tell(nvsp.NDISConfig{MTU: 1514}.Append(nil))
	g.bus.onMap = func(gpadl uint32) { g.backend.Revoke(gpadl) }
	r, err := nvsp.ParseSendReceiveBufferComplete(g.ask(nvsp.SendReceiveBuffer{GPADL: recvGPADL, ID: nvsp.ReceiveBufferID}.Append(nil)))
	if err != nil || r.Status != nvsp.StatusFail {
		t.Errorf("receive buffer: %+v, %v", r, err)
	}
	if n := g.dev.Info().ReceiveSections; n != 0 {
		t.Errorf("%d sections of a buffer that is gone", n)
	}
}

// TestCorruptRing: a ring that breaks its rules stops this channel, and closing it
// still works.
func TestCorruptRing(t *testing.T) {
	g := newGuest(t, "ws2022")
	g.up(nvsp.V61)
	g.ch.Lock()
	if err := g.ch.Out.Put([]byte{6, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, nil); err != nil {
		t.Fatal(err)
	}
	g.ch.Flush()
	g.ch.Unlock()
	for deadline := time.Now().Add(patience); g.dev.Info().Faults == 0; {
		if time.Now().After(deadline) {
			t.Fatal("a corrupt ring goes unnoticed")
		}
	}
	g.backend.Close(g.host)
	g.open()
	g.up(nvsp.V61)
}

// account checks that every section is free or with the guest, and none is both.
func (g *fakeGuest) account() {
	g.t.Helper()
	s := g.backend.(*backend).s
	s.mu.Lock()
	defer s.mu.Unlock()
	where := map[int32]bool{}
	given := 0
	for _, q := range s.queues { // or sections go to the pool meanwhile
		if q != nil {
			q.ch.Lock()
			defer q.ch.Unlock()
		}
	}
	if s.pool == nil { // the guest has revoked the buffer
		for _, q := range s.queues {
			if q != nil && (q.data.given > 0 || q.control.given > 0 || len(q.data.free) > 0 || len(q.control.free) > 0) {
				g.t.Fatalf("channel %d has sections of a buffer that was revoked", q.index)
			}
		}
		return
	}
	s.pool.mu.Lock()
	for _, i := range s.pool.free {
		where[i] = true
	}
	free := len(s.pool.free)
	s.pool.mu.Unlock()
	if len(where) != free {
		g.t.Fatalf("%d sections free, %d of them different", free, len(where))
	}
	for _, q := range s.queues {
		if q == nil {
			continue // closed alone
		}
		if len(q.data.free) > 0 {
			g.t.Fatalf("channel %d has kept %d sections", q.index, len(q.data.free))
		}
		for _, x := range []*sections{&q.control, &q.data} {
			given += x.given
			for _, i := range x.free {
				if where[i] {
					g.t.Fatalf("section %d is free twice", i)
				}
				where[i] = true
			}
		}
	}
	if len(where)+given != s.receive.count {
		g.t.Fatalf("%d sections free and %d given of %d", len(where), given, s.receive.count)
	}
}

// FuzzDevice is a guest that puts anything into the ring, with real memory behind
// it. Nothing panics, no section is lost, and the device still works afterwards.
func FuzzDevice(f *testing.F) {
	for seed := range uint64(3) {
		f.Add(seed, []byte{6, 0, 107, 9, 1, 108, 11, 3, 101, 7})
	}
	f.Fuzz(func(t *testing.T, seed uint64, script []byte) {
		g := newGuest(t, "ws2022")
		g.up(nvsp.V61)
		r := rand.New(rand.NewPCG(seed, 1))
		good := packet(ether(otherMAC, guestMAC, 300, 0), &rndis.Info{Has: rndis.HasHash | rndis.HasVLAN})
		for i := range g.page.Bytes[:8192] {
			g.page.Bytes[i] = byte(r.Uint32())
		}
		large, info := sent(packets.Shapes[r.IntN(len(packets.Shapes))], 2000, 500)
		for _, m := range [][]byte{good, good, packet(large, info)} {
			copy(g.page.Bytes[r.IntN(8000-len(m)):], m)
			copy(g.send.Bytes[r.IntN(10)*6144:], m)
		}
		batch := batchOf(3, 100)
		out := make([]byte, 0, 512)
		for len(script) > 1 {
			op, arg := script[0], script[1]
			script = script[2:]
			types := []byte{6, 9, 11, 7, 8}
			out = append(out[:0], types[int(op)%len(types)], 0, 2, 0, 0, 0, arg&1, 0)
			out = binary.LittleEndian.AppendUint64(out, uint64(r.IntN(40)))
			switch {
			case out[0] == 9:
				spans := []vmbus.PageRange{g.span(r.IntN(4000), 1+r.IntN(4000)), g.span(r.IntN(4000), 1+r.IntN(400))}
				out = vmbus.AppendGPADirect(out[:0], uint64(arg), spans[:1+r.IntN(2)])
				fallthrough
			case out[0] == 6:
				out = binary.LittleEndian.AppendUint32(out, []uint32{107, 107, 107, uint32(arg), 100 + uint32(arg)%37}[r.IntN(5)])
				out = binary.LittleEndian.AppendUint32(out, uint32(r.IntN(2)))
				out = binary.LittleEndian.AppendUint32(out, []uint32{0xffffffff, uint32(r.IntN(12))}[r.IntN(2)])
				out = binary.LittleEndian.AppendUint32(out, uint32(r.IntN(7000)))
			case r.IntN(3) == 0:
				out = append(out, script[:min(len(script), 40)]...)
			}
			g.ch.Lock()
			if g.ch.Out.Put(out, nil) == nil {
				g.ch.Flush()
			}
			g.ch.Unlock()
			g.dev.WriteFrames(batch)
			for {
				if _, err := g.ch.In.Next(g.buf[:]); err != nil {
					if err == ring.ErrCorrupt {
						t.Fatal(g.ch.In.Err())
					}
					break
				}
			}
			g.ch.Release()
		}
		g.account()
		g.backend.Close(g.host)
		g.open()
		g.up(nvsp.V61)
		if st := g.bySection(0, packet(ether(otherMAC, guestMAC, 60, 0), nil)); st != nvsp.StatusSuccess {
			t.Fatal(st)
		}
	})
}

// TestMessagesAreBounded: a guest that opens a sub-channel again and again, and leaves what it
// is told about that lying in the ring of the primary channel, does not fill the host's memory.
func TestMessagesAreBounded(t *testing.T) {
	g := newGuest(t, "ws2022")
	g.up(nvsp.V61)
	_, hosts := g.widen(1)
	for range 1500 {
		g.backend.Close(hosts[1])
		if err := g.backend.Open(hosts[1]); err != nil {
			t.Fatal(err)
		}
	}
	q := g.dev.live.Load().primary()
	q.ch.Lock()
	n := len(q.pending)
	q.ch.Unlock()
	if n > maxPending {
		t.Errorf("%d messages wait for the guest, want %d at most", n, maxPending)
	}
	if g.dev.Info().Faults == 0 {
		t.Error("that the guest leaves them lying is not counted")
	}
}
