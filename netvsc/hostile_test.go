package netvsc

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"unsafe"

	"hvnet/counter"
	"hvnet/nic"
	"hvnet/nvsp"
	"hvnet/rndis"
	"hvnet/vmbus"
)

// alive checks that frames still flow both ways.
func alive(t testing.TB, h *fakeHost, n *NIC, r *recorder) {
	t.Helper()
	h.mu.Lock()
	sent := len(h.frames)
	h.mu.Unlock()
	r.mu.Lock()
	received := len(r.frames)
	r.mu.Unlock()
	if n.Send(0, []nic.Frame{asFrame(frame(1, 60))}) != 1 {
		t.Error("Send takes nothing any more")
	}
	h.until(t, "a frame arrives", func() bool { return len(h.frames) > sent })
	if err := h.queue(0).indicate(packetMessage(frame(2, 60), nil)); err != nil {
		t.Fatal(err)
	}
	r.wait(t, received+1)
}

// put32 changes one word of a message.
func put32(b []byte, at int, v uint32) []byte {
	binary.LittleEndian.PutUint32(b[at:], v)
	return b
}

// TestHostileCompletions has the host complete what it was not asked, or not so.
// Each is counted, and nothing else happens.
func TestHostileCompletions(t *testing.T) {
	sent := nvsp.RNDISPacketComplete{Status: nvsp.StatusSuccess}.Append(nil)
	for _, c := range []struct {
		name string
		tid  uint64
		m    []byte
	}{
		{"id 0", 0, sent},
		{"id beyond the table", 1000, sent},
		{"huge id", 1<<64 - 1, sent},
		{"id of messages without answer", unasked, sent},
		{"second completion", 1, sent},
		{"empty", 1, nil},
		{"typed", 1, nvsp.SendReceiveBufferComplete{Status: nvsp.StatusSuccess}.Append(nil)},
		{"short", 1, []byte{108, 0, 0, 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newFakeHost()
			n := open(t, h, Config{})
			r := up(t, n)
			if err := h.queue(0).send(vmbus.AppendCompletion(nil, c.tid), c.m); err != nil {
				t.Fatal(err)
			}
			alive(t, h, n, r)
			if err := n.Down(context.Background()); err != nil {
				t.Fatal(err)
			}
			if got := n.count.Load(counter.HostBadCompletion); got != 1 {
				t.Errorf("host_bad_completion is %d", got)
			}
		})
	}
}

// TestHostileEmptyCompletion has the host complete a send with nothing, then well.
func TestHostileEmptyCompletion(t *testing.T) {
	h := newFakeHost()
	h.onData = func(q *fakeQueue, tid uint64) bool {
		q.send(vmbus.AppendCompletion(nil, tid))
		q.send(vmbus.AppendCompletion(nil, tid), nvsp.InitComplete{Status: nvsp.StatusSuccess}.Append(nil))
		return false
	}
	n := open(t, h, Config{Queues: 1}) // so that what follows comes after it
	r := up(t, n)
	alive(t, h, n, r)
	if err := n.Down(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got := n.count.Load(counter.HostBadCompletion); got != 2 {
		t.Errorf("host_bad_completion is %d", got)
	}
}

// TestHostileReceive has the host send packets that break a rule. Each is completed
// with failure, so that its sections come back, and none reaches the sink.
func TestHostileReceive(t *testing.T) {
	good := func() []byte { return packetMessage(frame(0, 60), nil) }
	info := func() []byte {
		return packetMessage(frame(0, 60), &rndis.Info{Has: rndis.HasHash | rndis.HasVLAN})
	}
	nv := nvsp.RNDISPacket{Section: nvsp.NoSection}.Append(nil)
	whole := []vmbus.ByteRange{{Count: 316}}
	for _, c := range []struct {
		name   string
		set    uint16
		ranges []vmbus.ByteRange
		nvsp   []byte
		m      []byte
	}{
		{"another set", 0xcaff, whole, nv, good()},
		{"no range", nvsp.ReceiveBufferID, nil, nv, good()},
		{"another NVSP message", nvsp.ReceiveBufferID, whole, nvsp.Init{}.Append(nil), good()},
		{"no NVSP message", nvsp.ReceiveBufferID, whole, nil, good()},
		{"beyond the buffer", nvsp.ReceiveBufferID, []vmbus.ByteRange{{Count: 316, Offset: 16 << 20}}, nv, good()},
		{"across the end", nvsp.ReceiveBufferID, []vmbus.ByteRange{{Count: 316, Offset: 16<<20 - 8}}, nv, good()},
		{"wraps", nvsp.ReceiveBufferID, []vmbus.ByteRange{{Count: 316, Offset: 0xffffffff}}, nv, good()},
		{"longer than a section", nvsp.ReceiveBufferID, []vmbus.ByteRange{{Count: 1807}}, nv, good()},
		{"huge", nvsp.ReceiveBufferID, []vmbus.ByteRange{{Count: 0xffffffff}}, nv, good()},
		{"empty", nvsp.ReceiveBufferID, []vmbus.ByteRange{{}}, nv, good()},
		{"7 bytes", nvsp.ReceiveBufferID, []vmbus.ByteRange{{Count: 7}}, nv, good()},
		{"43 bytes", nvsp.ReceiveBufferID, []vmbus.ByteRange{{Count: 43}}, nv, put32(good(), 4, 43)},
		{"unknown type", nvsp.ReceiveBufferID, whole, nv, put32(good(), 0, 99)},
		{"keepalive", nvsp.ReceiveBufferID, whole, nv, put32(good(), 0, uint32(rndis.TypeKeepalive))},
		{"reset complete", nvsp.ReceiveBufferID, whole, nv, put32(good(), 0, uint32(rndis.TypeResetComplete))},
		{"length 0", nvsp.ReceiveBufferID, whole, nv, put32(good(), 4, 0)},
		{"length beyond range", nvsp.ReceiveBufferID, whole, nv, put32(good(), 4, 317)},
		{"data beyond range", nvsp.ReceiveBufferID, whole, nv, put32(good(), 8, 249)},
		{"data offset huge", nvsp.ReceiveBufferID, whole, nv, put32(good(), 8, 0xfffffff8)},
		{"data in the header", nvsp.ReceiveBufferID, whole, nv, put32(good(), 8, 8)},
		{"data too long", nvsp.ReceiveBufferID, whole, nv, put32(good(), 12, 61)},
		{"data huge", nvsp.ReceiveBufferID, whole, nv, put32(good(), 12, 0xffffffff)},
		{"13 bytes of data", nvsp.ReceiveBufferID, whole, nv, put32(good(), 12, 13)},
		{"no data", nvsp.ReceiveBufferID, whole, nv, put32(good(), 12, 0)},
		{"info beyond message", nvsp.ReceiveBufferID, whole, nv, put32(info(), 32, 0x1000)},
		{"info offset huge", nvsp.ReceiveBufferID, whole, nv, put32(info(), 28, 0xfffffff0)},
		{"info in the header", nvsp.ReceiveBufferID, whole, nv, put32(info(), 28, 4)},
		{"info of size 0", nvsp.ReceiveBufferID, whole, nv, put32(info(), 44, 0)},
		{"info of size 4", nvsp.ReceiveBufferID, whole, nv, put32(info(), 44, 4)},
		{"info larger than the rest", nvsp.ReceiveBufferID, whole, nv, put32(info(), 44, 33)},
		{"info data beyond", nvsp.ReceiveBufferID, whole, nv, put32(info(), 52, 16)},
		{"info data in its header", nvsp.ReceiveBufferID, whole, nv, put32(info(), 52, 0)},
		{"info value of 1 byte", nvsp.ReceiveBufferID, whole, nv, put32(info(), 52, 15)},
		{"563 ranges", nvsp.ReceiveBufferID, slices.Repeat(whole, maxRanges+1), nv, good()},
		{"too long for any packet", nvsp.ReceiveBufferID, slices.Repeat(whole, 600), nv, good()},
		{"second range bad", nvsp.ReceiveBufferID, []vmbus.ByteRange{{Count: 316}, {Count: 6}}, nv, put32(good(), 12, 5)},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newFakeHost()
			n := open(t, h, Config{})
			r := up(t, n)
			h.until(t, "the NIC is up", func() bool { return h.filter != 0 && len(h.rxBusy) == 0 })
			copy(h.rx.Bytes, c.m)
			h.mu.Lock()
			bad := h.completed[uint32(nvsp.StatusFail)]
			h.mu.Unlock()
			if err := h.queue(0).send(vmbus.AppendTransferPages(nil, 7777, c.set, c.ranges), c.nvsp); err != nil {
				t.Fatal(err)
			}
			h.until(t, "a completion with failure", func() bool { return h.completed[uint32(nvsp.StatusFail)] == bad+1 })
			if len(r.frames) != 0 {
				t.Error("a frame reached the sink")
			}
			alive(t, h, n, r)
			if n.count.Load(counter.HostBadPacket) == 0 {
				t.Error("host_bad_packet is 0")
			}
		})
	}
}

// TestHostilePackets has the host send what no host sends.
func TestHostilePackets(t *testing.T) {
	for _, c := range []struct {
		name   string
		packet []byte
	}{
		{"GPA direct", vmbus.AppendGPADirect(nil, 5, []vmbus.PageRange{{Count: 8, PFNs: []uint64{1}}})},
		{"in-band without message", vmbus.AppendInBand(nil, 0, 5)},
		{"in-band request", append(vmbus.AppendInBand(nil, 1, 5), nvsp.Pad(nvsp.Init{}.Append(nil), 0, 40)...)},
		{"short table", append(vmbus.AppendInBand(nil, 0, 0), nvsp.Pad(nil, 0, 16)...)},
		{"table of 17", append(vmbus.AppendInBand(nil, 0, 0), put32(put32(make([]byte, 120), 0, 134), 4, 17)...)},
		{"table far away", append(vmbus.AppendInBand(nil, 0, 0), put32(put32(put32(make([]byte, 120), 0, 134), 4, 16), 8, 0xffffffc0)...)},
		{"unknown type", put32(vmbus.AppendInBand(nil, 0, 5), 0, 0x20063)},
		{"oversized", append(vmbus.AppendInBand(nil, 0, 0), make([]byte, 6000)...)},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newFakeHost()
			n := open(t, h, Config{})
			r := up(t, n)
			if err := h.queue(0).send(c.packet); err != nil {
				t.Fatal(err)
			}
			alive(t, h, n, r)
			if err := n.Down(context.Background()); err != nil {
				t.Fatal(err)
			}
			if n.count.Load(counter.HostBadMessage) == 0 {
				t.Error("host_bad_message is 0")
			}
		})
	}
}

// TestHostileTable has the host name channels that don't exist.
func TestHostileTable(t *testing.T) {
	h := newFakeHost()
	n := open(t, h, Config{Queues: 3})
	r := up(t, n)
	var m nvsp.IndirectionTable
	for i := range m.Table {
		m.Table[i] = 0xfffffff0 + uint32(i)
	}
	h.queue(0).send(vmbus.AppendInBand(nil, 0, 0), m.Append(nil))
	for i := range 64 {
		f := []nic.Frame{asFrame(frame(i, 60))}
		for n.Send(0, f) == 0 {
		}
	}
	alive(t, h, n, r)
}

// setIndex stores an index of a ring that the driver looks at meanwhile.
func setIndex(b []byte, v uint32) { atomic.StoreUint32((*uint32)(unsafe.Pointer(&b[0])), v) }

// TestHostileRing has the host break the rings themselves: the device is lost,
// everybody is told, and nobody keeps a processor busy over it.
func TestHostileRing(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(q *fakeQueue)
	}{
		{"packet that begins behind its end", func(q *fakeQueue) {
			q.send(put32(vmbus.AppendInBand(nil, 0, 0), 0, 0xffff0006))
		}},
		{"write index", func(q *fakeQueue) {
			setIndex(q.down, 12345)
			q.guest.Wake()
		}},
		{"read index", func(q *fakeQueue) {
			setIndex(q.up[4:], 4)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newFakeHost()
				h.expectBad = true
				n := open(t, h, Config{Queues: 1})
				up(t, n)
				synctest.Wait()
				c.do(h.queue(0))
				synctest.Wait()
				for range 16 {
					n.Send(0, []nic.Frame{asFrame(frame(2, 60))})
				}
				synctest.Wait()
				if err := <-n.Lost(); !errors.Is(err, nic.ErrNoDevice) {
					t.Errorf("lost: %v", err)
				}
				if err := n.SetChannels(context.Background(), 2); !errors.Is(err, nic.ErrNoDevice) {
					t.Errorf("SetChannels: %v", err)
				}
			})
		})
	}
}

// FuzzHost lets a host send anything through the rings of a NIC in use. The driver
// never panics, and loses no section, page or transaction.
func FuzzHost(f *testing.F) {
	f.Add([]byte{0}, uint64(1))
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8}, uint64(2))
	f.Add([]byte("\x02\x01\x03\x00\x04\x04\x04\x02\x01\x00"), uint64(3))
	f.Fuzz(func(t *testing.T, script []byte, seed uint64) {
		h := newFakeHost()
		h.vps = 2
		h.anyAnswer = true
		n := open(t, h, Config{RxSections: 400, RingBytes: 8 * 4096})
		r := up(t, n)
		rnd := rand.New(rand.NewPCG(seed, 0))
		word := func() uint32 { return rnd.Uint32() >> rnd.IntN(32) }
		for i, op := range script[:min(len(script), 200)] {
			q := h.queue(int(op) >> 7)
			b := make([]byte, rnd.IntN(256)&^7)
			for j := range b {
				b[j] = byte(rnd.Uint32() >> rnd.IntN(24))
			}
			// A section of its own, that the host writes once.
			at := uint32((100 + i) * h.rxSection)
			m := packetMessage(frame(i, 60), &rndis.Info{
				Has:      rndis.HasHash | rndis.HasVLAN | rndis.InfoSet(word())&(rndis.HasPacketID|rndis.HasChecksum),
				Checksum: word() & 0x1ff, PacketID: rndis.NewPacketID(uint8(word()&7), 1),
			})
			switch op % 8 {
			case 0:
				q.send(vmbus.AppendInBand(nil, uint16(word()&1), uint64(word())), b)
			case 1:
				q.send(vmbus.AppendCompletion(nil, uint64(word())), b)
			case 2:
				q.send(vmbus.AppendCompletion(nil, uint64(word()%8)<<32|uint64(word()%16)), put32(put32(make([]byte, 40), 0, 100+word()%40), 4, word()))
			case 3:
				copy(h.rx.Bytes[at:], b)
				q.send(vmbus.AppendTransferPages(nil, 1<<40, nvsp.ReceiveBufferID, []vmbus.ByteRange{
					{Count: word(), Offset: at}, {Count: word() % 2048, Offset: uint32(len(h.rx.Bytes)) + word()}}),
					nvsp.RNDISPacket{}.Append(nil))
			case 4:
				copy(h.rx.Bytes[at:], put32(m, rnd.IntN(len(m)/4)*4, word()))
				q.send(vmbus.AppendTransferPages(nil, 1<<40, nvsp.ReceiveBufferID, []vmbus.ByteRange{{Count: uint32(len(m)), Offset: at}}),
					nvsp.RNDISPacket{}.Append(nil))
			case 5:
				for _, t := range []rndis.MessageType{rndis.TypeQueryComplete, rndis.TypeIndicateStatus, rndis.TypeSetComplete} {
					c := put32(append([]byte(nil), m...), 0, uint32(t))
					q.indicate(put32(c, 8+rnd.IntN(4)*4, word()))
				}
			case 6:
				n.Send(i, []nic.Frame{asFrame(frame(i, 14+rnd.IntN(1500)))})
			case 7:
				p := append(vmbus.AppendInBand(nil, 0, 0), b...)
				q.send(put32(p, 0, word()&0xff|2<<16))
			}
		}
		if n.failure() == nil {
			alive(t, h, n, r)
		}
	})
}
