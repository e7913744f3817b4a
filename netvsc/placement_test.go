package netvsc

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"hvnet/nic"
	"hvnet/vmbus/channel"
)

// Node implements channel.Device: two nodes, odd and even.
func (h *fakeHost) Node(vp int) int { return vp % 2 }

// Retarget implements channel.Device.
func (h *fakeHost) Retarget(ctx context.Context, c *channel.Channel, vp int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.event("retarget %d vp %d", c.Index, vp)
	c.Move(vp)
	return nil
}

// place returns the places of channels on these processors, as the fake host has them.
func place(vps ...int) (list []nic.Place) {
	for i, vp := range vps {
		list = append(list, nic.Place{Channel: i, Relid: 1, VP: vp, Node: vp % 2})
	}
	return list
}

func TestPlacement(t *testing.T) {
	ctx := t.Context()
	h := newFakeHost()
	n := open(t, h, Config{Queues: 3})
	r := up(t, n)
	if diff := cmp.Diff(place(0, 1, 2), n.Placement()); diff != "" {
		t.Error(diff)
	}
	if err := n.Move(ctx, 1, 3); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(place(0, 3, 2), n.Placement()); diff != "" {
		t.Error(diff)
	}
	alive(t, h, n, r)
	for _, m := range [][2]int{{-1, 0}, {3, 0}, {0, -1}, {0, h.vps}} {
		if err := n.Move(ctx, m[0], m[1]); !errors.Is(err, nic.ErrInvalid) {
			t.Errorf("move channel %d to %d: %v", m[0], m[1], err)
		}
	}
	// What comes on the channel counts for the processor where it is.
	shown := func(vp int) (v uint64) {
		for _, s := range n.Stats() {
			if s.Name == fmt.Sprintf("cpu%d_rx_packets", vp) {
				return s.Value
			}
		}
		t.Fatalf("no count of processor %d", vp)
		return 0
	}
	before := shown(3)
	if err := n.Move(ctx, 0, 3); err != nil {
		t.Fatal(err)
	}
	if after := shown(3); after <= before || shown(0) != 0 {
		t.Errorf("processor 3 has had %d frames and has now %d, processor 0 %d", before, after, shown(0))
	}
	if err := n.SetChannels(ctx, 2); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(place(0, 1), n.Placement()); diff != "" {
		t.Errorf("opened anew: %s", diff)
	}
	if err := n.Suspend(ctx); err != nil {
		t.Fatal(err)
	}
	if err := n.Move(ctx, 0, 1); !errors.Is(err, nic.ErrNoDevice) {
		t.Errorf("suspended: %v", err)
	}
}

// A where is a sink that notes which processors it may be called on.
type where struct {
	*recorder
	cpus atomic.Pointer[unix.CPUSet]
}

func (w *where) WriteFrames(frames []nic.Frame) {
	var set unix.CPUSet
	unix.SchedGetaffinity(0, &set)
	w.cpus.Store(&set)
	w.recorder.WriteFrames(frames)
}

// Frames of a pinned channel come on the processor that it is pinned to, also once it was
// moved; of others on any.
func TestPin(t *testing.T) {
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	var cpus []int
	for cpu := 0; len(cpus) < all.Count(); cpu++ {
		if all.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	for _, pin := range []bool{false, true} {
		h := newFakeHost()
		n := open(t, h, Config{Queues: 1, Pin: pin})
		w := &where{recorder: newRecorder()}
		if err := n.Up(t.Context(), w); err != nil {
			t.Fatal(err)
		}
		for _, vp := range []int{0, 1, 2} {
			if err := n.Move(t.Context(), 0, vp); err != nil {
				t.Fatal(err)
			}
			want := all
			if pin {
				want.Zero()
				want.Set(cpus[vp%len(cpus)])
			}
			alive(t, h, n, w.recorder)
			if got := *w.cpus.Load(); got != want {
				t.Errorf("pinned %v to processor %d: on %d processors, %v", pin, vp, got.Count(), got)
			}
		}
	}
}
