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
				if !errors.Is(err, nic.ErrTimeout) || !strings.Contains(err.Error(), what) || strings.Contains(err.Error(), "\n") {
					t.Errorf("SetChannels: %v, want %q", err, what)
				}
				// Some milliseconds go by where a drain has to look again.
				if took := time.Since(begin); took.Round(100*time.Millisecond) != defaultTimeout {
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
				// Some milliseconds go by where a drain has to look again.
				if took := time.Since(begin); took.Round(100*time.Millisecond) != c.most {
					t.Errorf("it took %v, want %v", took, c.most)
				}
				checkPools(t, n)
				h.clean(t)
			})
		})
	}
}

// TestDownWaitsForEverything has the host not read a channel, on which it gets
// completions of what it has sent: before it has them all the NIC is not down, and
// says what it has waited for.
func TestDownWaitsForEverything(t *testing.T) {
	for want, frames := range map[string]int{
		"reading channel 1":               3,
		"what was received on channel 1:": 300, // more completions than the ring has room for
	} {
		t.Run(want, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newFakeHost()
				gate := make(chan struct{})
				h.onPacket = func(index int, _ []byte) {
					if index == 1 {
						<-gate
					}
				}
				n := open(t, h, Config{Queues: 2, RingBytes: 2 * 4096})
				r := up(t, n)
				for range frames {
					if err := h.queue(1).indicate(packetMessage(frame(0, 60), nil)); err != nil {
						t.Fatal(err)
					}
					synctest.Wait()
				}
				err := n.Down(context.Background())
				if err == nil || !strings.Contains(err.Error(), "finish "+want) {
					t.Errorf("Down: %v, want %q", err, want)
				}
				if len(r.frames) != frames {
					t.Errorf("%d frames, want %d", len(r.frames), frames)
				}
				close(gate)
				if err := errors.Join(n.Up(context.Background(), r), n.Down(context.Background())); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
