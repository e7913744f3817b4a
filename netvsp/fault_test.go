package netvsp

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"hvnet/hv"
	"hvnet/internal/packets"
	"hvnet/nic"
	"hvnet/nvsp"
	"hvnet/vmbus"
)

// onFile replaces the memory of a GPADL by a file, which unlike a sealed memfd can
// be taken away. It returns the test's own view of it.
func (g *fakeGuest) onFile(gpadl uint32, gpa hv.GPA, n int) (f *os.File, view []byte) {
	g.t.Helper()
	f, err := os.Create(filepath.Join(g.t.TempDir(), "memory"))
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { f.Close() })
	if err := f.Truncate(int64(n)); err != nil {
		g.t.Fatal(err)
	}
	if err := g.bus.mem.Add(gpa, int(f.Fd()), 0, int64(n)); err != nil {
		g.t.Fatal(err)
	}
	var list []uint64
	for i := range n / hv.PageSize {
		list = append(list, uint64(gpa)/hv.PageSize+uint64(i))
	}
	g.bus.gpadls[gpadl] = list
	m, err := g.bus.mem.Map(list)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { m.Close() })
	return f, m.Bytes
}

// TestFault takes guest memory away while the device uses it: the guest's owner is
// told, others go on, and nothing hangs.
func TestFault(t *testing.T) {
	newGuest := func() (*fakeGuest, chan error) {
		faults := make(chan error, 1)
		return newGuest(t, "ws2022", func(c *Config) { c.Fault = func(err error) { faults <- err } }), faults
	}
	told := func(faults chan error) {
		t.Helper()
		select {
		case err := <-faults:
			if !errors.Is(err, hv.ErrFault) {
				t.Errorf("told %v", err)
			}
		case <-time.After(patience):
			t.Fatal("waiting to be told of the fault")
		}
	}
	t.Run("receive buffer", func(t *testing.T) {
		g, faults := newGuest()
		f, view := g.onFile(recvGPADL, 1<<40, recvBytes)
		g.recv.Bytes = view
		g.up(nvsp.V61)
		g.settle()
		f.Truncate(0)
		g.dev.WriteFrames(batchOf(3, 100))
		told(faults)
		g.dev.WriteFrames(batchOf(3, 100))
		if info := g.dev.Info(); info.RxDropped[DropFault] != 3 || info.RxDropped[DropFilter] != 3 {
			t.Errorf("%+v", info)
		}
		g.account()
	})
	t.Run("send buffer", func(t *testing.T) {
		g, faults := newGuest()
		f, _ := g.onFile(sendGPADL, 1<<40, sendBytes)
		g.up(nvsp.V61)
		f.Truncate(0)
		m := nvsp.RNDISPacket{SectionBytes: 200}
		g.put(g.ch, []byte{6, 0, 2, 0, 0, 0, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0}, m.Append(nil))
		told(faults)
		g.backend.Close(g.host)
	})
	t.Run("of another guest, coalesced", func(t *testing.T) {
		g := coalescingGuest(t)
		f, view := g.onFile(0xdead, 1<<40, sendBytes)
		b := packets.Shape{}.Frame(packets.Random(4000))
		copy(b, guestMAC[:])
		large := packets.Partial(b, nic.SegmentTCPv4, 1000)
		large.Body = [][]byte{large.Body[0][:1500], view[:len(large.Body[0])-1500]}
		f.Truncate(0)
		g.dev.WriteFrames([]nic.Frame{large})
		if info := g.dev.Info(); info.RxDropped[DropFault] != 1 || info.Receive.InFlight != 0 || info.Stage != StageUp {
			t.Errorf("%+v", info)
		}
		g.account()
	})
	// So it does in the middle of a batch: what is in the ring already reaches the guest, and
	// each frame is counted once.
	t.Run("of another guest, in a long batch", func(t *testing.T) {
		g, _ := newGuest()
		g.up(nvsp.V61)
		g.settle()
		f, view := g.onFile(0xdead, 1<<40, sendBytes)
		batch := batchOf(maxRanges+6, 100)
		batch[2] = frames(ether(otherMAC, guestMAC, 100, 0))[0] // not for the guest
		broken := ether(guestMAC, otherMAC, 1000, 0)
		batch[maxRanges+4] = nic.Frame{Head: broken[:128], Body: [][]byte{view[:872]}}
		f.Truncate(0)
		g.dev.WriteFrames(batch)
		info := g.dev.Info()
		if info.Stats.RxFrames != maxRanges || info.RxDropped[DropFilter] != 1 || info.RxDropped[DropFault] != 5 {
			t.Errorf("%d frames delivered, dropped %v; want %d, 1 by the filter and 5 for the memory", info.Stats.RxFrames, info.RxDropped, maxRanges)
		}
		if got := g.received(g.next(g.ch)); len(got) != maxRanges {
			t.Errorf("%d frames in the packet, want %d", len(got), maxRanges)
		}
		g.account()
	})
	// The memory of a sender goes away between check and copy: the receiver drops
	// the frame and stays.
	t.Run("of another guest", func(t *testing.T) {
		g, faults := newGuest()
		f, view := g.onFile(sendGPADL, 1<<40, sendBytes)
		g.up(nvsp.V61)
		g.settle()
		frame := ether(guestMAC, otherMAC, 1000, 0)
		f.Truncate(0)
		g.dev.WriteFrames([]nic.Frame{{Head: frame[:128], Body: [][]byte{view[:872]}}})
		if info := g.dev.Info(); info.RxDropped[DropFault] != 1 || info.Stage != StageUp {
			t.Errorf("%+v", info)
		}
		g.account()
		g.dev.WriteFrames(frames(frame))
		if got := g.received(g.next(g.ch)); len(got) != 1 {
			t.Errorf("%d frames after the fault", len(got))
		}
		select {
		case err := <-faults:
			t.Errorf("told %v", err)
		default:
		}
	})
}

// TestClosing: frames that are under way when the device is taken from the guest, or
// closed by it, are no fault of the guest's. They are dropped by their own name.
func TestClosing(t *testing.T) {
	g := newGuest(t, "ws2022")
	g.up(nvsp.V61)
	const packets, each = 16, 8 // two batches
	m := packet(ether(otherMAC, guestMAC, 60, 0), nil)
	b := bytes.Repeat(m, each)
	copy(g.send.Bytes, b)
	send := nvsp.Pad(nvsp.RNDISPacket{SectionBytes: uint32(len(b))}.Append(nil), 0, nvsp.MaxSize)
	before := g.dev.Info()
	closed := make(chan struct{})
	g.port.mu.Lock()
	g.port.hook = func([]nic.Frame) {
		g.port.hook = nil
		s := g.dev.live.Load()
		go func() {
			defer close(closed)
			g.backend.Close(g.host)
		}()
		for !s.primary().closing.Load() || s.open.Load() {
			runtime.Gosched()
		}
	}
	g.port.mu.Unlock()
	g.ch.Lock()
	for range packets {
		if err := g.ch.Out.Put(vmbus.AppendInBand(nil, 0, 1), send); err != nil {
			t.Error(err)
		}
	}
	g.ch.Flush()
	g.ch.Unlock()
	<-closed
	after := g.dev.Info()
	if after.Faults != before.Faults || after.Failures != before.Failures {
		t.Errorf("%d rules are broken and %d sends failed", after.Faults-before.Faults, after.Failures-before.Failures)
	}
	if n := after.Stats.TxFrames - before.Stats.TxFrames + after.TxDropped[DropClosing]; n != packets*each || after.TxDropped[DropClosing] == 0 {
		t.Errorf("%d of %d frames are accounted for: %+v", n, packets*each, after)
	}
}
