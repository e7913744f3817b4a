package netvsc

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hvnet/nic"
	"hvnet/rndis"
)

// hush has a host take a type of control message and all after it without a word.
func (h *fakeHost) hush(from rndis.MessageType) {
	h.mu.Lock()
	defer h.mu.Unlock()
	silent := false
	h.onControl = func(_ *fakeQueue, t rndis.MessageType, _ []byte, _ uint64) bool {
		silent = silent || t == from
		return silent
	}
}

// TestChangeMeetsSilence has the host stop at the first and at the last thing that a
// change asks of a session: the change ends within one deadline, says that the host
// does not answer, and the NIC has lost its device. Another one takes it as it was.
func TestChangeMeetsSilence(t *testing.T) {
	for what, from := range map[string]rndis.MessageType{
		"setting of GEN_CURRENT_PACKET_FILTER": rndis.TypeSet,
		"1 sends on channel 0":                 rndis.TypeHalt,
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, next := newFakeHost(), newFakeHost()
				n := movable(t, Config{Queues: 4}, h, next)
				up(t, n)
				h.hush(from)
				begin := time.Now()
				err := n.SetChannels(context.Background(), 2)
				if !errors.Is(err, nic.ErrTimeout) || !strings.Contains(err.Error(), what) {
					t.Errorf("SetChannels: %v, want %q", err, what)
				}
				if took := time.Since(begin); took != defaultTimeout {
					t.Errorf("it took %v", took)
				}
				if err := <-n.Lost(); !errors.Is(err, ErrSilent) {
					t.Errorf("lost: %v", err)
				}
				if err := n.Reattach(context.Background(), next); err != nil {
					t.Fatal(err)
				}
				if c := n.Channels().Combined; c != 4 {
					t.Errorf("%d channels", c)
				}
			})
		})
	}
}

// TestCloseMeetsSilence has the host stop at the first and at the last thing that Close
// asks, or sit on a frame: Close waits a second for each, and two at most.
func TestCloseMeetsSilence(t *testing.T) {
	for name, c := range map[string]struct {
		stop func(*fakeHost)
		most time.Duration
	}{
		"from the beginning": {func(h *fakeHost) { h.hush(rndis.TypeSet) }, time.Second},
		"from HALT":          {func(h *fakeHost) { h.hush(rndis.TypeHalt) }, time.Second},
		"for a frame":        {func(*fakeHost) {}, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newFakeHost()
				h.onData = func(*fakeQueue, uint64) bool { return name == "for a frame" }
				n, err := Open(context.Background(), h, Config{})
				if err != nil {
					t.Fatal(err)
				}
				up(t, n)
				n.Send(0, []nic.Frame{asFrame(frame(0, 60))})
				synctest.Wait()
				c.stop(h)
				begin := time.Now()
				if err := n.Close(context.Background()); !errors.Is(err, ErrSilent) {
					t.Errorf("Close: %v", err)
				}
				if took := time.Since(begin); took != c.most {
					t.Errorf("it took %v, want %v", took, c.most)
				}
				checkPools(t, n)
				h.clean(t)
			})
		})
	}
}
