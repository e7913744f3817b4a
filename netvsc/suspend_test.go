package netvsc

import (
	"context"
	"errors"
	"testing"

	"hvnet/nic"
	"hvnet/nvsp"
	"hvnet/rndis"
)

// A suspended NIC keeps its settings, its source and its sink, and holds nothing of
// the host's.
func TestSuspend(t *testing.T) {
	ctx := context.Background()
	h := newFakeHost()
	n := open(t, h, Config{Queues: 4})
	r := up(t, n)
	src := newSource()
	pumping(t, n, src)
	if err := n.SetChannels(ctx, 2); err != nil {
		t.Fatal(err)
	}
	if err := n.Resume(ctx); !errors.Is(err, nic.ErrNoDevice) {
		t.Errorf("resume of a NIC that is awake: %v", err)
	}
	for range 3 {
		if err := n.Suspend(ctx); err != nil {
			t.Fatal(err)
		}
		if i := n.Info(); !i.Suspended || i.Link.Up {
			t.Errorf("suspended: %+v", i)
		}
		if h.queue(0) != nil {
			t.Error("the primary channel is open")
		}
		if n.Send(0, []nic.Frame{asFrame(frame(0, 60))}) != 0 {
			t.Error("Send took a frame")
		}
		for what, f := range map[string]func() error{
			"Suspend":     func() error { return n.Suspend(ctx) },
			"SetChannels": func() error { return n.SetChannels(ctx, 3) },
		} {
			if err := f(); !errors.Is(err, nic.ErrNoDevice) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if err := n.Resume(ctx); err != nil {
			t.Fatal(err)
		}
		if i := n.Info(); i.Suspended || !i.Link.Up || i.Channels != 2 || !i.Up {
			t.Errorf("resumed: %+v", i)
		}
		alive(t, h, n, r)
	}
	if err := n.Suspend(ctx); err != nil {
		t.Fatal(err)
	}
	if err := n.Down(ctx); err != nil {
		t.Errorf("Down: %v", err)
	}
	if err := n.Resume(ctx); err != nil {
		t.Fatal(err)
	}
	h.mu.Lock()
	if h.filter != 0 {
		t.Errorf("packet filter %#x of a NIC that went down while it slept", h.filter)
	}
	h.mu.Unlock()
	alive(t, h, n, up(t, n))
	if err := n.Suspend(ctx); err != nil { // and closed, by the end of the test
		t.Fatal(err)
	}
}

// A host that refuses when the NIC is to wake up leaves it asleep, and it can be
// tried again.
func TestResumeRefused(t *testing.T) {
	ctx := context.Background()
	h := newFakeHost()
	n := open(t, h, Config{})
	r := up(t, n)
	if err := n.Suspend(ctx); err != nil {
		t.Fatal(err)
	}
	h.mu.Lock()
	h.oid = map[rndis.OID][]byte{rndis.OIDPermanentAddress: {}}
	h.mu.Unlock()
	if err := n.Resume(ctx); err == nil {
		t.Fatal("the NIC has no address")
	}
	if !n.Info().Suspended {
		t.Error("the NIC is awake")
	}
	h.mu.Lock()
	h.oid = nil
	h.mu.Unlock()
	if err := n.Resume(ctx); err != nil {
		t.Fatal(err)
	}
	alive(t, h, n, r)
}

// A host that does not let the NIC finish keeps it awake.
func TestSuspendRefused(t *testing.T) {
	h := newFakeHost()
	n := open(t, h, Config{Queues: 1})
	r := up(t, n)
	h.mu.Lock()
	refuse := true
	h.onControl = func(q *fakeQueue, got rndis.MessageType, m []byte, tid uint64) bool {
		s, err := rndis.ParseSet(m)
		if err != nil || !refuse {
			return false
		}
		refuse = false
		q.indicate(rndis.SetComplete{RequestID: s.RequestID, Status: rndis.StatusFailure}.Append(nil))
		q.complete(tid, nvsp.RNDISPacketComplete{Status: nvsp.StatusSuccess}.Append(nil))
		return true
	}
	h.mu.Unlock()
	if err := n.Suspend(context.Background()); !errors.Is(err, rndis.StatusFailure) {
		t.Errorf("Suspend: %v", err)
	}
	if n.Info().Suspended {
		t.Error("the NIC is suspended")
	}
	alive(t, h, n, r)
}

// A device that goes while it is to be suspended is lost, not suspended.
func TestSuspendOfLost(t *testing.T) {
	h := newFakeHost()
	n := open(t, h, Config{Queues: 1})
	up(t, n)
	h.mu.Lock()
	h.onControl = func(*fakeQueue, rndis.MessageType, []byte, uint64) bool {
		h.rescind()
		return true
	}
	h.mu.Unlock()
	if err := n.Suspend(context.Background()); !errors.Is(err, nic.ErrNoDevice) {
		t.Errorf("Suspend: %v", err)
	}
	if n.Info().Suspended {
		t.Error("the NIC is suspended")
	}
}
