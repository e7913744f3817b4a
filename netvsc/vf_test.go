package netvsc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"hvnet/counter"
	"hvnet/netvsc/vf"
	"hvnet/nic"
	"hvnet/nvsp"
	"hvnet/vmbus"
)

var running = VFState{Up: true, Carrier: true}

// A vfTest is a NIC that is up and has a VF that it uses.
type vfTest struct {
	t    *testing.T
	h    *fakeHost
	n    *NIC
	rx   *recorder
	dev  *fakeVF
	port *VFPort
	sent int
}

// newVFTest opens a NIC on hosts of which the first associates a VF, and joins one. It is
// to be called in a synctest bubble.
func newVFTest(t *testing.T, cfg Config, more ...*fakeHost) *vfTest {
	t.Helper()
	h := newFakeHost()
	h.vf.serial = 7
	cfg.VF = true
	x := &vfTest{t: t, h: h, n: movable(t, cfg, append([]*fakeHost{h}, more...)...), dev: newFakeVF(h)}
	x.rx = up(t, x.n)
	x.join()
	return x
}

// join adds the VF and has it run.
func (x *vfTest) join() {
	x.t.Helper()
	var err error
	if x.port, err = x.n.AddVF(context.Background(), x.dev); err != nil {
		x.t.Fatal(err)
	}
	x.port.Changed(running)
	synctest.Wait()
}

// goes sends a frame and checks by which path it goes.
func (x *vfTest) goes(path vf.Path) {
	x.t.Helper()
	synctest.Wait()
	x.sent++
	f := frame(x.sent, 60+x.sent)
	if got := x.n.Send(0, []nic.Frame{asFrame(f)}); got != 1 {
		x.t.Fatalf("Send took %d frames", got)
	}
	synctest.Wait()
	x.h.mu.Lock()
	synthetic := len(x.h.frames) > 0 && slices.Equal(x.h.frames[len(x.h.frames)-1], f)
	x.h.mu.Unlock()
	x.dev.recorder.mu.Lock()
	over := len(x.dev.frames) > 0 && slices.Equal(x.dev.frames[len(x.dev.frames)-1], f)
	x.dev.recorder.mu.Unlock()
	if synthetic == over || over != (path == vf.VF) || x.n.Path() != path {
		x.t.Fatalf("the frame went over the VF: %v, the synthetic device: %v; the path is %v, want %v", over, synthetic, x.n.Path(), path)
	}
}

// received has a frame come over the VF, and one over the synthetic device, and checks
// that both are delivered.
func (x *vfTest) received() {
	x.t.Helper()
	before := len(x.rx.frames)
	f := asFrame(frame(1, 200))
	f.Channel = 3
	x.port.WriteFrames([]nic.Frame{f})
	if err := x.h.queue(0).indicate(packetMessage(frame(2, 100), nil)); err != nil {
		x.t.Fatal(err)
	}
	synctest.Wait()
	sameFrames(x.t, x.rx.frames[before:], [][]byte{frame(1, 200), frame(2, 100)})
	if a, b := x.rx.meta[before], x.rx.meta[before+1]; !a.VF || a.Channel != 3 || b.VF {
		x.t.Errorf("over the VF: %+v, over the synthetic device: %+v", a, b)
	}
}

// paths checks what the host was asked for.
func (x *vfTest) paths(want ...uint32) {
	x.t.Helper()
	synctest.Wait()
	if got := x.h.askedPaths(); !slices.Equal(got, want) {
		x.t.Errorf("the host was asked for paths %v, want %v", got, want)
	}
}

// last returns the last move.
func (x *vfTest) last() nic.VFMove {
	x.t.Helper()
	moves := x.n.VFTimeline()
	if len(moves) == 0 {
		x.t.Fatal("the timeline is empty")
	}
	return moves[len(moves)-1]
}

// TestVF: frames go over a VF when host and device are ready for it, and back whoever is not.
func TestVF(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newVFTest(t, Config{Queues: 4})
		if x.h.vf.caps&nvsp.CapSRIOV == 0 {
			t.Errorf("capabilities %#x", x.h.vf.caps)
		}
		if got := x.dev.heard(); !slices.Equal(got, []string{"mtu 1500", "mac " + x.h.mac.String(), "promiscuous false", "up true"}) {
			t.Errorf("the VF was told %q", got)
		}
		x.paths(nvsp.PathVF)
		x.goes(vf.VF)
		x.received()
		for _, step := range []struct {
			what     string
			off, on  func()
			host     bool // is asked
			first    string
			returned string
		}{
			{"carrier", func() { x.port.Changed(VFState{Up: true}) }, func() { x.port.Changed(running) }, true, "device", "device"},
			{"device down", func() { x.port.Changed(VFState{Carrier: true}) }, func() { x.port.Changed(running) }, true, "device", "device"},
			{"association", func() { x.h.queue(0).associate(false, 7) }, func() { x.h.queue(0).associate(true, 7) }, true, "host", "host"},
			{"taken back", func() { x.h.queue(0).takeBack() }, func() { x.h.queue(0).associate(true, 7) }, false, "host", "host"},
			{"removed", func() { x.port.Gone() }, func() { x.join() }, true, "device", "device"},
			{"removed in order", func() {
				if err := x.n.RemoveVF(context.Background(), x.port); err != nil {
					t.Error(err)
				}
			}, func() { x.join() }, true, "device", "device"},
		} {
			step.off()
			x.goes(vf.Synthetic)
			if step.host {
				x.paths(nvsp.PathSynthetic)
			} else {
				x.paths()
			}
			if m := x.last(); m.First != step.first || m.To != "synthetic" || m.Failed != "" {
				t.Errorf("%s: %+v", step.what, m)
			}
			step.on()
			x.paths(nvsp.PathVF)
			x.goes(vf.VF)
			if m := x.last(); m.First != step.returned || m.To != "vf" || m.Failed != "" {
				t.Errorf("%s, and back: %+v", step.what, m)
			}
		}
		x.received()
		if s, h := x.n.count.Load(counter.VFSwitches), x.n.count.Load(counter.HostBadMessage)+x.n.count.Load(counter.HostBadCompletion); s != 13 || h != 0 {
			t.Errorf("vf_switches is %d, the host was wrong %d times", s, h)
		}
	})
}

// TestVFSeen: others see which path is in use, what there is for the other one, and how
// long frames may be on each.
func TestVFSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newVFTest(t, Config{})
		x.goes(vf.VF)
		have := nic.VFStatus{Wanted: true, Announced: true, Associated: true, Serial: 7, Device: true, DeviceSerial: 7, Up: true, Carrier: true, Active: true}
		seen := func(want nic.VFStatus) {
			t.Helper()
			synctest.Wait()
			if got := x.n.VFStatus(); got != want || x.n.Details().VF != got {
				t.Errorf("status %+v, want %+v", got, want)
			}
		}
		seen(have)
		var paths []vf.Path
		x.n.OnPath(func() { paths = append(paths, x.n.Path()) })
		if err := x.n.AwaitPath(context.Background(), vf.VF); err != nil {
			t.Error(err)
		}
		x.port.Changed(VFState{Up: true})
		if err := x.n.AwaitPath(context.Background(), vf.Synthetic); err != nil {
			t.Error(err)
		}
		have.Carrier, have.Active = false, false
		seen(have)
		x.h.queue(0).associate(false, 7)
		have.Associated = false
		seen(have)
		x.port.Gone()
		seen(nic.VFStatus{Wanted: true, Announced: true, Serial: 7})
		x.n.OnPath(nil)
		x.h.queue(0).associate(true, 8)
		x.join()
		x.goes(vf.VF)
		if !slices.Equal(paths, []vf.Path{vf.VF, vf.Synthetic}) {
			t.Errorf("told of paths %v", paths)
		}
		soon, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := x.n.AwaitPath(soon, vf.Synthetic); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a path that does not come: %v", err)
		}
	})
}

// TestVFLargeSend: how long frames may be is for the path in use to say.
func TestVFLargeSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newVFTest(t, Config{}) // the host cuts nothing
		if got := x.n.LargeSend(); got != 65536 {
			t.Errorf("%d by a VF that cuts", got)
		}
		x.port.Gone()
		synctest.Wait()
		if got := x.n.LargeSend(); got != 0 {
			t.Errorf("%d by the host", got)
		}
		p, err := x.n.AddVF(context.Background(), plainVF{fakeVF: x.dev})
		if err != nil {
			t.Fatal(err)
		}
		p.Changed(running)
		synctest.Wait()
		if got := x.n.LargeSend(); got != 0 || x.n.Path() != vf.VF {
			t.Errorf("%d by a VF that does not cut", got)
		}
	})
}

// TestVFNotAsked: a NIC that was not opened for it says nothing of SR-IOV.
func TestVFNotAsked(t *testing.T) {
	h := newFakeHost()
	n := open(t, h, Config{})
	if h.vf.caps&nvsp.CapSRIOV != 0 {
		t.Errorf("capabilities %#x", h.vf.caps)
	}
	if _, err := n.AddVF(context.Background(), newFakeVF(h)); !errors.Is(err, nic.ErrNotSupported) {
		t.Errorf("AddVF: %v", err)
	}
}

// TestVFOldHost: before NVSP 5 there is no SR-IOV.
func TestVFOldHost(t *testing.T) {
	h := newFakeHost()
	h.versions = []nvsp.Version{nvsp.V4}
	n := open(t, h, Config{VF: true})
	if h.vf.caps&nvsp.CapSRIOV != 0 {
		t.Errorf("capabilities %#x", h.vf.caps)
	}
	port, err := n.AddVF(context.Background(), newFakeVF(h))
	if err != nil {
		t.Fatal(err)
	}
	up(t, n)
	port.Changed(running)
	h.queue(0).associate(true, 7)
	if err := n.RemoveVF(context.Background(), port); err != nil || n.Path() != vf.Synthetic || len(h.askedPaths()) > 0 {
		t.Errorf("path %v, %v", n.Path(), err)
	}
}

func TestAddVFRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newVFTest(t, Config{})
		ctx := context.Background()
		if _, err := x.n.AddVF(ctx, x.dev); !errors.Is(err, nic.ErrBusy) {
			t.Errorf("a second one: %v", err)
		}
		if err := x.n.RemoveVF(ctx, x.port); err != nil {
			t.Error(err)
		}
		other := newFakeVF(x.h)
		other.mac[5]++
		if _, err := x.n.AddVF(ctx, other); !errors.Is(err, nic.ErrInvalid) {
			t.Errorf("another's: %v", err)
		}
		x.n.Close(ctx)
		if _, err := x.n.AddVF(ctx, x.dev); !errors.Is(err, ErrClosed) {
			t.Errorf("closed: %v", err)
		}
	})
}

// TestVFRefused: a host that answers with a message, whatever it says, has not moved the path.
func TestVFRefused(t *testing.T) {
	for _, answer := range [][]byte{nvsp.RNDISPacketComplete{Status: nvsp.StatusFail}.Append(nil), nvsp.InitComplete{}.Append(nil)} {
		synctest.Test(t, func(t *testing.T) {
			x := newVFTest(t, Config{})
			x.goes(vf.VF)
			x.h.onNVSP = func(q *fakeQueue, typ nvsp.MessageType, m []byte, tid uint64) bool {
				if typ == nvsp.TypeSwitchDataPath && m[4] == nvsp.PathVF {
					q.complete(tid, answer)
					return true
				}
				return false
			}
			x.port.Changed(VFState{})
			x.goes(vf.Synthetic)
			x.port.Changed(running)
			x.goes(vf.Synthetic)
			if m := x.last(); m.Failed != "refused" || m.To != "vf" {
				t.Errorf("%+v", m)
			}
		})
	}
}

// TestVFSilent: a host that does not answer has its time, frames go by the synthetic path
// meanwhile and then, and its answer no longer counts when it comes.
func TestVFSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newVFTest(t, Config{})
		x.port.Changed(VFState{})
		x.paths(nvsp.PathVF, nvsp.PathSynthetic)
		var late []uint64
		x.h.onNVSP = func(_ *fakeQueue, typ nvsp.MessageType, _ []byte, tid uint64) bool {
			if typ != nvsp.TypeSwitchDataPath {
				return false
			}
			late = append(late, tid)
			return true
		}
		x.port.Changed(running)
		x.goes(vf.Synthetic)
		time.Sleep(switchTimeout)
		x.goes(vf.Synthetic)
		if m := x.last(); m.Failed != "no answer" || m.To != "vf" || m.Took != switchTimeout {
			t.Errorf("%+v", m)
		}
		time.Sleep(switchTimeout) // for the way back
		synctest.Wait()
		if len(late) != 2 {
			t.Errorf("%d switches, want one there and one back", len(late))
		}
		for _, tid := range late {
			x.h.queue(0).send(vmbus.AppendCompletion(nil, tid))
		}
		x.goes(vf.Synthetic)
		if got := x.n.count.Load(counter.HostBadCompletion); got != 2 {
			t.Errorf("host_bad_completion is %d", got)
		}
		x.h.onNVSP = nil
		x.port.Changed(VFState{})
		synctest.Wait()
		x.port.Changed(running)
		x.goes(vf.VF)
	})
}

// TestVFWaitsForSynthetic: no frame goes over the VF before the host has completed all that
// was sent, or has had its time.
func TestVFWaitsForSynthetic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newVFTest(t, Config{Queues: 1})
		x.port.Changed(VFState{})
		synctest.Wait()
		var tids []uint64
		x.h.onData = func(_ *fakeQueue, tid uint64) bool { tids = append(tids, tid); return true }
		x.n.Send(0, []nic.Frame{asFrame(frame(1, 60)), asFrame(frame(2, 60))})
		x.port.Changed(running)
		synctest.Wait()
		f := []nic.Frame{asFrame(frame(3, 60))}
		if x.n.Send(0, f) != 0 {
			t.Error("Send took a frame that would overtake others")
		}
		src := newSource(frame(4, 60))
		pumping(t, x.n, src)
		time.Sleep(10 * time.Millisecond)
		x.h.onData = nil
		for _, tid := range tids {
			x.h.queue(0).complete(tid, nvsp.RNDISPacketComplete{Status: nvsp.StatusSuccess}.Append(nil))
		}
		synctest.Wait()
		if len(x.dev.frames) != 1 { // the pump's
			t.Errorf("%d frames over the VF", len(x.dev.frames))
		}
		x.goes(vf.VF)
		if m := x.last(); m.InFlight != 2 || m.Undrained != 0 || m.Held < 10*time.Millisecond {
			t.Errorf("%+v", m)
		}
		// A host that keeps a frame does not keep the path.
		x.port.Changed(VFState{})
		synctest.Wait()
		x.h.onData = func(_ *fakeQueue, tid uint64) bool { tids[0] = tid; return true }
		x.n.Send(0, f)
		x.port.Changed(running)
		time.Sleep(vfDrain)
		x.goes(vf.VF)
		if m := x.last(); m.InFlight != 1 || m.Undrained != 1 || x.n.count.Load(counter.VFUndrained) != 1 {
			t.Errorf("%+v", m)
		}
		x.h.queue(0).complete(tids[0], nvsp.RNDISPacketComplete{Status: nvsp.StatusSuccess}.Append(nil))
	})
}

// TestVFSettings: the VF gets what the NIC gets, and stays while the NIC attaches anew.
func TestVFSettings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newVFTest(t, Config{Queues: 2})
		ctx := context.Background()
		x.dev.heard()
		x.paths(nvsp.PathVF)
		mac := nic.MAC{2, 0, 0, 0, 0, 9}
		all := func(mtu int, m nic.MAC, promiscuous bool) []string {
			return []string{fmt.Sprint("mtu ", mtu), "mac " + m.String(), fmt.Sprint("promiscuous ", promiscuous)}
		}
		for _, c := range []struct {
			what  string
			do    func() error
			told  []string
			paths []uint32
		}{
			{"MTU", func() error { return x.n.SetMTU(ctx, 4000) }, append([]string{"mtu 4000"}, all(4000, x.h.mac, false)...), []uint32{0, 1}},
			{"MAC", func() error { return x.n.SetMAC(ctx, mac) }, append([]string{"mac " + mac.String()}, all(4000, mac, false)...), nil},
			{"promiscuous", func() error { return x.n.SetPromiscuous(ctx, true) }, all(4000, mac, true), nil},
			{"channels", func() error { return x.n.SetChannels(ctx, 1) }, all(4000, mac, true), []uint32{0, 1}},
			{"sleep", func() error { return errors.Join(x.n.Suspend(ctx), x.n.Resume(ctx)) }, all(4000, mac, true), []uint32{0, 1}},
		} {
			if err := c.do(); err != nil {
				t.Fatalf("%s: %v", c.what, err)
			}
			x.paths(c.paths...)
			x.goes(vf.VF)
			if got := x.dev.heard(); !slices.Equal(got, c.told) {
				t.Errorf("%s: the VF was told %q, want %q", c.what, got, c.told)
			}
		}
		if err := x.n.Down(ctx); err != nil {
			t.Fatal(err)
		}
		x.paths(nvsp.PathSynthetic)
		if got := x.dev.heard(); len(got) != 4 || got[3] != "up false" {
			t.Errorf("down: the VF was told %q", got)
		}
		x.port.WriteFrames([]nic.Frame{asFrame(frame(1, 60))})
		if len(x.rx.frames) > 0 {
			t.Error("a NIC that is down delivers frames of the VF")
		}
		x.dev.err = errors.New("no")
		if err := x.n.SetMTU(ctx, 1300); !errors.Is(err, x.dev.err) || x.n.MTU() != 4000 {
			t.Errorf("a VF that refuses: MTU %d, %v", x.n.MTU(), err)
		}
	})
}
