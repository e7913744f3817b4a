package e2e

import (
	"context"
	"encoding/binary"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hvnet/netvsc"
	"hvnet/netvsc/vf"
	"hvnet/netvsp"
	"hvnet/netvsp/profile"
	"hvnet/nic"
)

// A stream notes the numbers of frames.
type stream struct {
	mu   sync.Mutex
	seen []uint32
}

func (s *stream) WriteFrames(frames []nic.Frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b [nic.HeadLen]byte
	for i := range frames {
		frames[i].CopyTo(b[:])
		s.seen = append(s.seen, binary.BigEndian.Uint32(b[42:]))
	}
}

// A testVF is a function whose frames come to a stream.
type testVF struct{ *stream }

func (testVF) MAC() nic.MAC              { return driverMAC }
func (testVF) Serial() uint32            { return 5 }
func (testVF) Dropped() uint64           { return 0 }
func (testVF) SetUp(bool) error          { return nil }
func (testVF) SetMTU(int) error          { return nil }
func (testVF) SetMAC(nic.MAC) error      { return nil }
func (testVF) SetPromiscuous(bool) error { return nil }

// TestVF: driver and device move the path under a stream, whoever begins: nothing is lost,
// nothing comes twice, and both are of one mind in the end.
func TestVF(t *testing.T) {
	p, err := profile.Lookup("ws2022")
	if err != nil {
		t.Fatal(err)
	}
	r := newDriverRigOn(t, p, 2, netvsc.Config{VF: true, Queues: 2})
	ctx := t.Context()
	if err := r.nic.Up(ctx, &stream{}); err != nil {
		t.Fatal(err)
	}
	var active atomic.Bool
	host := netvsp.VF{Serial: 5, Use: func(on bool) { active.Store(on) }}
	over := &stream{}
	if err := r.device.AddVF(host); err != nil {
		t.Fatal(err)
	}
	port, err := r.nic.AddVF(ctx, testVF{over})
	if err != nil {
		t.Fatal(err)
	}
	run := netvsc.VFState{Up: true, Carrier: true}
	port.Changed(run)
	until := func(path vf.Path) {
		t.Helper()
		for deadline := time.Now().Add(devicePatience); r.nic.Path() != path || active.Load() != (path == vf.VF); runtime.Gosched() {
			if time.Now().After(deadline) {
				t.Fatalf("the driver is on %v, the host uses the VF: %v, want %v; %+v", r.nic.Path(), active.Load(), path, r.nic.VFTimeline())
			}
		}
	}
	stop, sent := make(chan struct{}), make(chan uint32)
	go func() {
		b := driverFrame(1, 60)
		for i := uint32(0); ; i++ {
			select {
			case <-stop:
				sent <- i
				return
			default:
			}
			binary.BigEndian.PutUint32(b[42:], i)
			for r.nic.Send(0, []nic.Frame{{Head: b}}) == 0 {
				runtime.Gosched()
			}
			runtime.Gosched()
		}
	}()
	rounds := 60
	if testing.Short() {
		rounds = 8
	}
	for i := range rounds {
		until(vf.VF)
		switch i % 4 {
		case 0: // announced
			if moved, err := r.device.RemoveVF(ctx); err != nil || !moved {
				t.Fatalf("RemoveVF: %v, %v", moved, err)
			}
			until(vf.Synthetic)
			if err := r.device.AddVF(host); err != nil {
				t.Fatal(err)
			}
		case 1: // pulled out
			if err := r.device.LoseVF(); err != nil {
				t.Fatal(err)
			}
			port.Gone()
			until(vf.Synthetic)
			<-port.Done()
			if err := r.device.AddVF(host); err != nil {
				t.Fatal(err)
			}
			if port, err = r.nic.AddVF(ctx, testVF{over}); err != nil {
				t.Fatal(err)
			}
			port.Changed(run)
		case 2: // carrier
			port.Changed(netvsc.VFState{Up: true})
			until(vf.Synthetic)
			port.Changed(run)
		case 3:
			if err := r.nic.SetMTU(ctx, 1400+i); err != nil {
				t.Fatal(err)
			}
		}
	}
	until(vf.VF)
	close(stop)
	total := <-sent
	if err := r.nic.Down(context.Background()); err != nil {
		t.Fatal(err)
	}
	until(vf.Synthetic)
	r.port.mu.Lock()
	defer r.port.mu.Unlock()
	var all []uint32
	for _, f := range r.port.frames {
		all = append(all, binary.BigEndian.Uint32(f[42:]))
	}
	if !slices.IsSorted(all) || !slices.IsSorted(over.seen) {
		t.Error("frames overtook others")
	}
	t.Logf("%d frames, %d over the VF", total, len(over.seen))
	all = append(all, over.seen...)
	slices.Sort(all)
	for i, k := range all {
		if uint32(i) != k {
			t.Fatalf("frame %d is missing or there twice", i)
		}
	}
	if uint32(len(all)) != total {
		t.Errorf("%d frames, want %d", len(all), total)
	}
}
