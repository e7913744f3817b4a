package netvsc

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"hvnet/counter"
	"hvnet/nic"
	"hvnet/nvsp"
	"hvnet/rndis"
	"hvnet/vmbus"
	"hvnet/vmbus/channel"
)

// Traps that drivers of netvsc are known to fall into, each by its name.
// docs/traps.md says which test is about which.

// TestTrapEmptyCompletionOfControl has the host complete a control message with
// nothing, which Linux takes for another kind of request: it is counted, the
// message's page and transaction come back, and the answer is waited for as ever.
func TestTrapEmptyCompletionOfControl(t *testing.T) {
	h := newFakeHost()
	h.onControl = func(q *fakeQueue, got rndis.MessageType, m []byte, tid uint64) bool {
		if a := q.answer(got, m); a != nil {
			q.indicate(a)
		}
		q.send(vmbus.AppendCompletion(nil, tid))
		// Should the first one not count, this one gives the page back.
		q.complete(tid, nvsp.RNDISPacketComplete{Status: nvsp.StatusSuccess}.Append(nil))
		return true
	}
	n := open(t, h, Config{Queues: 1})
	alive(t, h, n, up(t, n))
	if n.count.Load(counter.HostBadCompletion) == 0 {
		t.Error("host_bad_completion is 0")
	}
}

// TestTrapTypedCompletionOfAnother has the host answer a request with the right
// type of message under the id of a send that is outstanding: neither is finished
// by it.
func TestTrapTypedCompletionOfAnother(t *testing.T) {
	h := newFakeHost()
	h.onData = func(q *fakeQueue, tid uint64) bool {
		for _, m := range [][]byte{
			nvsp.InitComplete{Status: nvsp.StatusSuccess}.Append(nil),
			nvsp.SendReceiveBufferComplete{Status: nvsp.StatusSuccess, Sections: []nvsp.ReceiveSection{{Size: 1806, Count: 10}}}.Append(nil),
			nvsp.SendSendBufferComplete{Status: nvsp.StatusSuccess, SectionSize: 128}.Append(nil),
			nvsp.SubChannelComplete{Status: nvsp.StatusSuccess, Count: 63}.Append(nil),
		} {
			q.complete(tid, m)
		}
		return false
	}
	n := open(t, h, Config{Queues: 1})
	r := up(t, n)
	for range 4 {
		alive(t, h, n, r)
	}
	if err := n.Down(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got := n.count.Load(counter.HostBadCompletion); got != 16 {
		t.Errorf("host_bad_completion is %d, want 16", got)
	}
	if i := n.Info(); i.Channels != 1 {
		t.Errorf("%d channels", i.Channels)
	}
}

// TestTrapMessagesAfterHalt has the host send a frame, a link event and an answer
// that nobody waits for after the driver has said HALT: the NIC closes as ever.
func TestTrapMessagesAfterHalt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		halted := false
		h.onRNDIS = func(m []byte) {
			if hd, _ := rndis.ParseHeader(m, len(m)); hd.Type != rndis.TypeHalt {
				return
			}
			halted = true
			for _, m := range [][]byte{
				packetMessage(frame(1, 60), nil),
				rndis.IndicateStatus{Status: rndis.StatusMediaDisconnect}.Append(nil),
				rndis.QueryComplete{RequestID: 1, Info: []byte{1, 2, 3, 4}}.Append(nil),
			} {
				if err := h.queue(0).indicate(m); err != nil {
					t.Error(err)
				}
			}
		}
		n := open(t, h, Config{})
		up(t, n)
		if err := n.Close(context.Background()); err != nil {
			t.Errorf("close: %v", err)
		}
		if !halted {
			t.Error("the driver has not said HALT")
		}
	})
}

// TestTrapLongestFrames sends and receives the longest frames that there are. What
// is a byte longer is dropped under its name.
func TestTrapLongestFrames(t *testing.T) {
	h := newFakeHost()
	h.mtu, h.rxSection = 65535, 256+nic.MaxFrame+64
	n := open(t, h, Config{Queues: 1, MTU: 65521})
	r := up(t, n)
	if mtu := n.Info().MTU; mtu != 65521 {
		t.Fatalf("the MTU is %d", mtu)
	}
	const longest = 65521 + nic.HeaderLen + 4 // with a tag
	for _, size := range []int{65521 + nic.HeaderLen, 65536, longest, longest + 1, 1 << 17} {
		before := len(h.frames)
		b := frame(1, size)
		if n.Send(0, []nic.Frame{asFrame(b)}) != 1 {
			t.Fatalf("%d bytes: not taken", size)
		}
		if size > longest {
			continue
		}
		h.until(t, "the frame arrives", func() bool { return len(h.frames) > before })
		if !bytes.Equal(h.frames[before], b) {
			t.Errorf("%d bytes: another frame arrived", size)
		}
	}
	if got := n.count.Load(counter.TxTooBig); got != 2 {
		t.Errorf("tx_too_big is %d, want 2", got)
	}
	for i, size := range []int{65535, 65536, nic.MaxFrame} {
		b := frame(2, size)
		if err := h.queue(0).indicate(packetMessage(b, nil)); err != nil {
			t.Fatal(err)
		}
		if got := r.wait(t, i+1)[i]; !bytes.Equal(got, b) {
			t.Errorf("received %d bytes, want %d", len(got), size)
		}
	}
	alive(t, h, n, r)
}

// TestTrapAnswersBeforeCompletions has the host answer control messages at once and
// complete them only when it has as many as the driver has pages for.
func TestTrapAnswersBeforeCompletions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		var held []uint64
		most := 0
		h.onControl = func(q *fakeQueue, got rndis.MessageType, m []byte, tid uint64) bool {
			if a := q.answer(got, m); a != nil {
				q.indicate(a)
			}
			held = append(held, tid)
			most = max(most, len(held))
			if len(held) < controlPages && got != rndis.TypeHalt {
				return true
			}
			list := held
			held = nil
			time.AfterFunc(closeTimeout/2, func() {
				for _, tid := range list {
					q.complete(tid, nvsp.RNDISPacketComplete{Status: nvsp.StatusSuccess}.Append(nil))
				}
			})
			return true
		}
		n, err := Open(context.Background(), h, Config{})
		if err != nil {
			t.Fatal(err)
		}
		if err := n.Close(context.Background()); err != nil {
			t.Error(err)
		}
		checkPools(t, n)
		h.clean(t)
		if most != controlPages {
			t.Errorf("%d messages were under way, want %d", most, controlPages)
		}
	})
}

// TestTrapBatchLimits has the host announce absurd limits of what a packet may
// carry. They are clamped, and what is sent keeps to them.
func TestTrapBatchLimits(t *testing.T) {
	for _, c := range []struct {
		packets, align uint32
		most           int // frames in one ring packet
		aligned        int
	}{
		{0, 0, 1, 1},
		{1 << 31, 31, 64, 128},
		{0xffffffff, 0xffffffff, 64, 128},
		{64, 8, 64, 128},
	} {
		h := newFakeHost()
		h.maxPackets, h.align, h.txSection, h.expectBad = c.packets, c.align, 32<<10, true
		most, aligned := 0, true
		h.onPacket = func(_ int, b []byte) {
			p, err := vmbus.ParsePacket(b)
			if err != nil || p.Type != vmbus.PacketInBand {
				return
			}
			m, err := nvsp.ParseRNDISPacket(p.Payload)
			if err != nil || m.Section == nvsp.NoSection {
				return
			}
			h.mu.Lock()
			defer h.mu.Unlock()
			messages := 0
			for rest := h.tx.Bytes[int(m.Section)*h.txSection:][:m.SectionBytes]; len(rest) > 0; messages++ {
				hd, err := rndis.ParseHeader(rest, len(rest))
				if err != nil {
					h.bad = append(h.bad, err.Error())
					return
				}
				if rest = rest[hd.Length:]; len(rest) > 0 && int(hd.Length)%c.aligned != 0 {
					aligned = false
				}
			}
			most = max(most, messages)
		}
		h.onData = func(q *fakeQueue, tid uint64) bool {
			q.complete(tid, nvsp.RNDISPacketComplete{Status: nvsp.StatusSuccess}.Append(nil))
			return true
		}
		n := open(t, h, Config{Queues: 1})
		up(t, n)
		var list []nic.Frame
		for i := range 256 {
			list = append(list, asFrame(frame(i, 61)))
		}
		for len(list) > 0 {
			list = list[n.Send(0, list):]
		}
		if err := n.Down(context.Background()); err != nil {
			t.Fatal(err)
		}
		h.mu.Lock()
		if most != c.most || !aligned {
			t.Errorf("packets %d, factor %d: at most %d frames, want %d; aligned %v", c.packets, c.align, most, c.most, aligned)
		}
		h.mu.Unlock()
	}
}

// TestTrapSharedMemoryIsNotFreed has the host not confirm that a buffer is no
// longer shared: its memory is never given to anyone else (CVE-2024-36911).
func TestTrapSharedMemoryIsNotFreed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		d := &stubborn{fakeHost: h}
		n, err := Open(context.Background(), d, Config{Queues: 1})
		if err != nil {
			t.Fatal(err)
		}
		if err := n.Close(context.Background()); !errors.Is(err, errStubborn) {
			t.Errorf("close: %v", err)
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		if len(h.gpadls) != 2 || len(h.bad) > 0 {
			t.Errorf("%d GPADLs are left, want 2; %q", len(h.gpadls), h.bad)
		}
		for id, r := range h.gpadls {
			if _, ok := h.regions[r.GPA]; !ok {
				t.Errorf("the memory of GPADL %#x is free", id)
			}
		}
	})
}

// A stubborn host keeps what is shared with it.
type stubborn struct{ *fakeHost }

var errStubborn = errors.New("not torn down")

func (*stubborn) Unshare(context.Context, uint32) error { return errStubborn }

// TestTrapOpenChannelKeepsPages has the host not confirm that the channels are closed:
// the pages that packets on them may name are not given to anyone else.
func TestTrapOpenChannelKeepsPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		n, err := Open(context.Background(), &reluctant{h}, Config{})
		if err != nil {
			t.Fatal(err)
		}
		if err := n.Close(context.Background()); !errors.Is(err, errReluctant) {
			t.Errorf("close: %v", err)
		}
		if len(h.regions) != 2 { // page runs, and pages for control messages
			t.Errorf("%d regions are left, want 2", len(h.regions))
		}
		h.Close(context.Background(), h.queue(0).guest) // for its goroutines
	})
}

// A reluctant host does not close channels.
type reluctant struct{ *fakeHost }

var errReluctant = errors.New("not closed")

func (*reluctant) Close(context.Context, *channel.Channel) error { return errReluctant }

// TestTrapChangingReceiveBuffer has the host change a frame's head in the receive
// buffer while the driver hands it on: what the sink gets is what was checked.
func TestTrapChangingReceiveBuffer(t *testing.T) {
	h := newFakeHost()
	n := open(t, h, Config{Queues: 1})
	b := frame(3, 1500)
	changed := make(chan []byte, 1)
	if err := n.Up(context.Background(), sinkFunc(func(frames []nic.Frame) {
		first := bytes.Clone(frames[0].Head)
		clear(h.rx.Bytes[:64<<10])
		clear(h.rx.Bytes[len(h.rx.Bytes)-(64<<10):])
		if !bytes.Equal(first, frames[0].Head) {
			first = nil
		}
		changed <- first
	})); err != nil {
		t.Fatal(err)
	}
	if err := h.queue(0).indicate(packetMessage(b, nil)); err != nil {
		t.Fatal(err)
	}
	head := <-changed
	if head == nil || !slices.Equal(head, b[:len(head)]) || len(head) < nic.HeadLen {
		t.Errorf("the head has changed: % x", head)
	}
}

type sinkFunc func([]nic.Frame)

func (f sinkFunc) WriteFrames(frames []nic.Frame) { f(frames) }
