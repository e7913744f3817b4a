package netvsp

import (
	"bytes"
	"encoding/binary"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"hvnet/nic"
	"hvnet/nvsp"
	"hvnet/rndis"
	"hvnet/vmbus"
)

// Traps that drivers and devices of netvsc are known to fall into, each by its
// name. docs/traps.md says which test is about which.

// TestTrapHeaderOverPageEdge moves the RNDIS header over the edge of a page, byte
// by byte, and splits it over two ranges at every place. In one run of pages it is
// good wherever it lies, and in one range of scattered pages too. In two ranges that
// do not follow each other it is refused when the edge is in the header or its
// per-packet information, as on Hyper-V, and good when it is in the frame.
func TestTrapHeaderOverPageEdge(t *testing.T) {
	g := newGuest(t, "ws2022")
	g.up(nvsp.V61)
	frame := ether(otherMAC, guestMAC, 300, 7)
	msg := packet(frame, &rndis.Info{Has: rndis.HasHash, Hash: 5})
	header := len(msg) - len(frame)
	none := nvsp.RNDISPacket{Section: nvsp.NoSection}
	arrived := func(what string, at int) {
		t.Helper()
		if got := g.port.take(t, 1)[0]; !bytes.Equal(got, frame) {
			t.Errorf("%s at %d: another frame arrived", what, at)
		}
	}
	for at := 1; at <= header+nic.HeadLen+8; at++ {
		copy(g.page.Bytes[4096-at:], msg)
		if s := g.byPages(none, g.span(4096-at, len(msg))); s != nvsp.StatusSuccess {
			t.Errorf("page edge at %d: %v", at, s)
			continue
		}
		arrived("page edge", at)

		copy(g.page.Bytes[12288:], msg[at:])
		scattered := g.span(4096-at, len(msg))
		scattered.PFNs = []uint64{scattered.PFNs[0], g.page.PFN(3)}
		clear(g.page.Bytes[4096 : 4096+len(msg)]) // what must not be taken instead
		if s := g.byPages(none, scattered); s != nvsp.StatusSuccess {
			t.Errorf("edge of scattered pages at %d: %v", at, s)
		} else {
			arrived("edge of scattered pages", at)
		}

		want := nvsp.StatusFail
		if at >= header {
			want = nvsp.StatusSuccess
		}
		if s := g.byPages(none, g.span(4096-at, at), g.span(12288, len(msg)-at)); s != want {
			t.Errorf("split at %d: %v, want %v", at, s, want)
		} else if want == nvsp.StatusSuccess {
			arrived("split", at)
		}
	}
}

// TestTrapSectionThenPages splits a message between a send section and pages at
// every place: the header has to be in the section whole.
func TestTrapSectionThenPages(t *testing.T) {
	g := newGuest(t, "ws2022")
	g.up(nvsp.V61)
	frame := ether(otherMAC, guestMAC, 100, 3)
	msg := packet(frame, nil)
	copy(g.send.Bytes, msg)
	for at := 1; at < len(msg); at++ {
		copy(g.page.Bytes, msg[at:])
		s := g.byPages(nvsp.RNDISPacket{SectionBytes: uint32(at)}, g.span(0, len(msg)-at))
		if good := s == nvsp.StatusSuccess; good != (at >= 44) {
			t.Errorf("split at %d: %v", at, s)
		} else if good {
			if got := g.port.take(t, 1)[0]; !bytes.Equal(got, frame) {
				t.Errorf("split at %d: another frame arrived", at)
			}
		}
	}
}

// TestTrapCheckedBytesTravel has the guest change the source address after the
// device has checked it, and the rest of the frame's head with it. What arrives is
// what was checked.
func TestTrapCheckedBytesTravel(t *testing.T) {
	g := newGuest(t, "ws2022")
	g.up(nvsp.V61)
	frame := ether(otherMAC, guestMAC, 1514, 1)
	none := nvsp.RNDISPacket{Section: nvsp.NoSection}
	msg := packet(frame, nil)
	for _, c := range []struct {
		name string
		mem  []byte
		send func() nvsp.Status
	}{
		{"section", g.send.Bytes, func() nvsp.Status { return g.bySection(0, msg) }},
		{"section, with a tag", g.send.Bytes, func() nvsp.Status {
			return g.bySection(0, packet(frame, &rndis.Info{Has: rndis.HasVLAN, VLAN: 5}))
		}},
		{"pages", g.page.Bytes, func() nvsp.Status {
			copy(g.page.Bytes, msg)
			return g.byPages(none, g.span(0, len(msg)))
		}},
		{"header alone in a page", g.page.Bytes, func() nvsp.Status {
			copy(g.page.Bytes, msg[:44])
			copy(g.page.Bytes[8000:], frame)
			return g.byPages(none, g.span(0, 44), g.span(8000, len(frame)))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var head []byte
			g.port.mu.Lock()
			g.port.hook = func(frames []nic.Frame) { // the device has checked; nobody has copied
				clear(c.mem[:10000])
				head = make([]byte, frames[0].Len())
				frames[0].CopyTo(head)
			}
			g.port.mu.Unlock()
			if s := c.send(); s != nvsp.StatusSuccess {
				t.Fatal(s)
			}
			g.port.take(t, 1)
			if !bytes.Equal(head[:12], frame[:12]) {
				t.Errorf("addresses after the check: % x", head[:12])
			}
			if tag := len(head) - len(frame); !bytes.Equal(head[14+tag:nic.HeadLen], frame[14:nic.HeadLen-tag]) {
				t.Error("bytes of the head have changed after the check")
			}
		})
	}
}

// TestTrapFlippingSource has another processor of the guest flip the source address
// all the time. A frame is dropped for it, or arrives with the guest's own.
func TestTrapFlippingSource(t *testing.T) {
	g := newGuest(t, "ws2022")
	g.up(nvsp.V61)
	msg := packet(ether(otherMAC, guestMAC, 200, 1), nil)
	// The last four bytes of the address, in one store, as a processor does it.
	const at = 44 + 6 + 2
	if at%4 != 0 {
		t.Fatal("not aligned")
	}
	word := (*uint32)(unsafe.Pointer(&g.send.Bytes[at]))
	own, forged := binary.NativeEndian.Uint32(guestMAC[2:]), binary.NativeEndian.Uint32(otherMAC[2:])
	var stop atomic.Bool
	var flipping sync.WaitGroup
	copy(g.send.Bytes, msg)
	flipping.Go(func() {
		for !stop.Load() {
			atomic.StoreUint32(word, forged)
			atomic.StoreUint32(word, own)
		}
	})
	m := nvsp.Pad(nvsp.RNDISPacket{SectionBytes: uint32(len(msg))}.Append(nil), 0, nvsp.MaxSize)
	const total = 2000
	for range total {
		g.tid++
		g.put(g.ch, vmbus.AppendInBand(nil, vmbus.FlagCompletionRequested, g.tid), m)
		g.completion(g.ch, g.tid)
	}
	stop.Store(true)
	flipping.Wait()
	info := g.dev.Info()
	arrived := g.port.take(t, total-int(info.TxDropped[DropSource]))
	for _, f := range arrived {
		if src := nic.MAC(f[6:12]); src != guestMAC {
			t.Fatalf("a frame from %v has got through", src)
		}
	}
	t.Logf("%d arrived, %d dropped for their source", len(arrived), info.TxDropped[DropSource])
}

// TestTrapLongestFrames sends frames as long as a length field can say, and one
// byte more: all are dropped under their name.
func TestTrapLongestFrames(t *testing.T) {
	g := newGuest(t, "ws2022")
	g.up(nvsp.V61)
	lengths := []int{65521, 65535, 65536, 65537}
	for _, n := range lengths {
		msg := packet(ether(otherMAC, guestMAC, n, 0), nil)
		copy(g.page.Bytes, msg)
		if s := g.byPages(nvsp.RNDISPacket{Section: nvsp.NoSection}, g.span(0, len(msg))); s != nvsp.StatusSuccess {
			t.Errorf("%d bytes from the guest: %v", n, s) // the message is good
		}
		g.dev.WriteFrames(frames(ether(guestMAC, otherMAC, n, 0)))
	}
	info := g.dev.Info()
	if want := uint64(len(lengths)); info.TxDropped[DropTooLong] != want || info.RxDropped[DropTooLong] != want {
		t.Errorf("dropped as too long: %d from and %d for the guest, want %d", info.TxDropped[DropTooLong], info.RxDropped[DropTooLong], want)
	}
	if info.Receive.InFlight != 0 || info.Stats.TxFrames != 0 || info.Stats.RxFrames != 0 {
		t.Errorf("info: %+v", info)
	}
	g.bySection(0, packet(ether(otherMAC, guestMAC, 60, 0), nil))
	g.port.take(t, 1)
}

// TestTrapFilterZero sets the packet filter to zero under traffic: once that is
// answered, no frame follows.
func TestTrapFilterZero(t *testing.T) {
	g := newGuest(t, "ws2022")
	g.up(nvsp.V61)
	stop := make(chan struct{})
	var traffic sync.WaitGroup
	batch := batchOf(4, 300)
	for range 2 {
		traffic.Go(func() {
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
	defer traffic.Wait()
	defer close(stop)
	for range 20 {
		// Frames are in the backlog with the answer; what is behind it is wrong.
		g.request++
		g.control(rndis.Set{RequestID: g.request, OID: rndis.OIDCurrentPacketFilter, Info: rndis.AppendUint32(nil, 0)}.Append(nil))
		for {
			if c, err := rndis.ParseSetComplete(g.answer()); err == nil {
				if c.RequestID != g.request || c.Status != rndis.StatusSuccess {
					t.Fatalf("%+v", c)
				}
				break
			}
		}
		dropped := func() uint64 { return g.dev.Info().RxDropped[DropFilter] }
		for from, deadline := dropped(), time.Now().Add(patience); dropped() < from+100; {
			if time.Now().After(deadline) {
				t.Fatal("waiting for frames to be dropped by the filter")
			}
		}
		g.settle()
		for _, m := range g.backlog {
			if _, err := rndis.ParsePacket(m, len(m)); err == nil {
				t.Fatal("a frame was indicated after the filter was zero")
			}
		}
		g.backlog = nil
		g.request++
		g.control(rndis.Set{RequestID: g.request, OID: rndis.OIDCurrentPacketFilter, Info: rndis.AppendUint32(nil, 0x0d)}.Append(nil))
		for {
			if _, err := rndis.ParseSetComplete(g.answer()); err == nil {
				break
			}
		}
	}
}

// TestTrapShortCompletions: Linux up to 6.5 takes no completion of fewer than 28
// bytes, whatever it is about.
func TestTrapShortCompletions(t *testing.T) {
	for _, v := range []nvsp.Version{nvsp.V1, nvsp.V2, nvsp.V4, nvsp.V5, nvsp.V6, nvsp.V61} {
		g := newGuest(t, "ws2022")
		ask := func(what string, msg []byte) {
			t.Helper()
			if n := len(g.ask(msg)); n < 28 {
				t.Errorf("%v: %s is answered with %d bytes", v, what, n)
			}
		}
		ask("a version that does not exist", nvsp.Init{Min: 0x70000, Max: 0x70000}.Append(nil))
		ask("INIT", nvsp.Init{Min: v, Max: v}.Append(nil))
		if v >= nvsp.V2 {
			g.tell(nvsp.NDISConfig{MTU: 1514}.Append(nil))
		}
		g.tell(v.NDIS().Append(nil))
		ask("the receive buffer", nvsp.SendReceiveBuffer{GPADL: recvGPADL, ID: nvsp.ReceiveBufferID}.Append(nil))
		ask("the send buffer", nvsp.SendSendBuffer{GPADL: sendGPADL}.Append(nil))
	}
}

// TestTrapUnknownOIDs sets and queries OIDs of the switch and of nobody with bytes
// that would do harm as an address: they are refused and passed to nobody
// (CVE-2021-28476).
func TestTrapUnknownOIDs(t *testing.T) {
	g := newGuest(t, "ws2022")
	g.up(nvsp.V61)
	harm := bytes.Repeat([]byte{0xff}, 64)
	for _, oid := range []rndis.OID{0, 0x00010263, 0x00010264, 0x00010290, 0x7fffffff, 0xffffffff} {
		if s := g.set(oid, harm); s == rndis.StatusSuccess {
			t.Errorf("OID %#x was set", uint32(oid))
		}
		if c := g.query(oid, harm); c.Status == rndis.StatusSuccess || len(c.Info) > 0 {
			t.Errorf("OID %#x was answered: %+v", uint32(oid), c)
		}
	}
	g.bySection(0, packet(ether(otherMAC, guestMAC, 60, 0), nil))
	g.port.take(t, 1)
}
