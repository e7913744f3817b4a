package netvsc

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hvnet/counter"
	"hvnet/netvsc/vf"
	"hvnet/nic"
	"hvnet/nvsp"
	"hvnet/rndis"
	"hvnet/vmbus"
)

// TestVFRescind: the VF falls away with the NIC's device, and another can be added to the
// next one.
func TestVFRescind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		next := newFakeHost()
		x := newVFTest(t, Config{}, next)
		x.goes(vf.VF)
		x.h.rescind()
		synctest.Wait()
		<-x.port.Done()
		if x.n.Path() != vf.Synthetic || x.n.Send(0, []nic.Frame{asFrame(frame(1, 60))}) != 0 {
			t.Error("frames go on without a device")
		}
		x.port.WriteFrames([]nic.Frame{asFrame(frame(1, 60))})
		if len(x.rx.frames) > 0 {
			t.Error("a VF that was let go of delivers frames")
		}
		<-x.n.Lost()
		if err := x.n.Reattach(context.Background(), next); err != nil {
			t.Fatal(err)
		}
		x.h = next
		x.join()
		x.goes(vf.Synthetic)
		next.queue(0).associate(true, 9) // not the device's: its address says enough
		x.goes(vf.VF)
	})
}

// TestVFDamped: after a loss the VF is left alone for a while.
func TestVFDamped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newVFTest(t, Config{VFRest: 3 * time.Second})
		x.goes(vf.VF)
		for range 5 {
			x.port.Changed(VFState{Up: true})
			synctest.Wait()
			x.port.Changed(running)
			x.goes(vf.Synthetic)
		}
		time.Sleep(3 * time.Second)
		x.goes(vf.VF)
		x.paths(nvsp.PathVF, nvsp.PathSynthetic, nvsp.PathVF)
	})
}

// TestVFHostile: a host that talks nonsense about VFs, or too much, costs nothing.
func TestVFHostile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newVFTest(t, Config{})
		q := x.h.queue(0)
		for _, m := range [][]byte{
			nvsp.VFAssociation{Allocated: true}.Append(nil)[:8],
			nvsp.SwitchDataPath{Path: nvsp.PathVF}.Append(nil), nvsp.SwitchDataPath{Path: 7}.Append(nil),
		} {
			q.send(vmbus.AppendInBand(nil, 0, 1), m)
		}
		synctest.Wait()
		if got := x.n.count.Load(counter.HostBadMessage); got != 3 {
			t.Errorf("host_bad_message is %d, want 3", got)
		}
		x.goes(vf.VF)
		for i := range 1000 {
			q.associate(i%2 == 0, uint32(i))
			q.takeBack()
		}
		synctest.Wait()
		q.associate(true, 7)
		x.goes(vf.VF)
		if got := len(x.n.VFTimeline()); got > timelineLen {
			t.Errorf("%d moves", got)
		}
	})
}

// TestVFComesWhileAddressChanges: a VF that comes while the host is asked for another address
// has that address in the end.
func TestVFComesWhileAddressChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newVFTest(t, Config{})
		if err := x.n.RemoveVF(context.Background(), x.port); err != nil {
			t.Fatal(err)
		}
		x.dev = newFakeVF(x.h)
		x.h.mu.Lock()
		x.h.onControl = func(_ *fakeQueue, kind rndis.MessageType, m []byte, _ uint64) bool {
			if c, err := rndis.ParseSet(m); kind == rndis.TypeSet && err == nil && c.OID == rndis.OIDConfigParameter {
				x.join() // it gets the address that the NIC has so far
			}
			return false
		}
		x.h.mu.Unlock()
		mac := nic.MAC{2, 0, 0, 0, 0, 9}
		if err := x.n.SetMAC(context.Background(), mac); err != nil {
			t.Fatal(err)
		}
		x.goes(vf.VF)
		var last string
		for _, told := range x.dev.heard() {
			if strings.HasPrefix(told, "mac ") {
				last = told
			}
		}
		if last != "mac "+mac.String() {
			t.Errorf("the VF was told %q last, and the NIC has %v", last, mac)
		}
	})
}

// A lateVF has its NIC closed while it is joined to it.
type lateVF struct {
	*fakeVF
	n *NIC
}

func (v lateVF) Serial() uint32 {
	v.n.Close(context.Background())
	return v.fakeVF.Serial()
}

// TestAddVFWhileClosed joins a VF while the NIC is closed: either the NIC lets go of it, or
// it has never had it. Who waits for that must not wait for ever.
func TestAddVFWhileClosed(t *testing.T) {
	h := newFakeHost()
	n := open(t, h, Config{VF: true})
	p, err := n.AddVF(context.Background(), lateVF{newFakeVF(h), n})
	if p != nil || !errors.Is(err, ErrClosed) {
		t.Errorf("%v, %v, want ErrClosed", p, err)
	}
	if n.vf.port.Load() != nil {
		t.Error("the NIC has it still")
	}
}
