package netvsc

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hvnet/counter"
	"hvnet/nic"
	"hvnet/nvsp"
	"hvnet/rndis"
	"hvnet/vmbus/channel"
)

// movable opens a NIC on the first of some hosts that a test moves it between, and
// checks at the end that none is left with anything.
func movable(t *testing.T, cfg Config, hosts ...*fakeHost) *NIC {
	t.Helper()
	n := open(t, hosts[0], cfg)
	t.Cleanup(func() {
		n.Close(context.Background())
		for _, h := range hosts {
			h.clean(t)
		}
	})
	return n
}

// TestReattach has the host take the device away with sends under way, and give
// another: what was under way is counted, and source, sink, settings and callback go
// on with the new one.
func TestReattach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, next := newFakeHost(), newFakeHost()
		h.onData = func(*fakeQueue, uint64) bool { return true } // is never confirmed
		n := movable(t, Config{Queues: 4, MTU: 1400}, h, next)
		ctx := context.Background()
		if err := n.SetChannels(ctx, 3); err != nil {
			t.Fatal(err)
		}
		var links []bool
		n.OnLink(func(l nic.LinkState) { links = append(links, l.Up) })
		r := up(t, n)
		src := newSource(frame(0, 60), frame(1, 1000), frame(2, 60))
		pumping(t, n, src)
		synctest.Wait()
		h.rescind()
		synctest.Wait()
		if err := <-n.Lost(); !errors.Is(err, channel.ErrRescinded) {
			t.Errorf("lost: %v", err)
		}
		src.add(frame(3, 60))
		synctest.Wait()
		if err := n.Detach(ctx); err != nil {
			t.Fatal(err)
		}
		h.clean(t)
		if got := n.count.Load(counter.TxLost); got != 3 {
			t.Errorf("tx_lost is %d, want 3", got)
		}
		if n.Send(0, []nic.Frame{asFrame(frame(0, 60))}) != 0 {
			t.Error("Send took a frame")
		}
		if err := n.Reattach(ctx, next); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		sameFrames(t, next.frames, [][]byte{frame(3, 60)})
		if err := next.queue(2).indicate(packetMessage(frame(7, 60), nil)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		sameFrames(t, r.frames, [][]byte{frame(7, 60)})
		if c := n.Channels().Combined; c != 3 || n.MTU() != 1400 {
			t.Errorf("%d channels, MTU %d", c, n.MTU())
		}
		if len(links) < 2 || links[len(links)-2] || !links[len(links)-1] {
			t.Errorf("link: %v, want down and up at the end", links)
		}
		if len(n.Lost()) != 0 {
			t.Errorf("lost again: %v", <-n.Lost())
		}
	})
}

// TestReattachFails has the new device fail at each step; one that works comes
// after it.
func TestReattachFails(t *testing.T) {
	for _, step := range []nvsp.MessageType{nvsp.TypeInit, nvsp.TypeSendReceiveBuffer, nvsp.TypeSendSendBuffer, nvsp.TypeSubChannel} {
		for _, how := range []string{"silent", "rescinded"} {
			t.Run(step.String()+" "+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					h, bad, good := newFakeHost(), newFakeHost(), newFakeHost()
					bad.onNVSP = func(q *fakeQueue, got nvsp.MessageType, m []byte, tid uint64) bool {
						if got == step && how == "rescinded" {
							bad.rescind()
						}
						return got == step
					}
					n := movable(t, Config{}, h, bad, good)
					up(t, n)
					h.rescind()
					ctx := context.Background()
					if err := n.Reattach(ctx, bad); err == nil {
						t.Error("attached")
					}
					if err := n.SetChannels(ctx, 1); err == nil {
						t.Error("SetChannels works without a device")
					}
					if err := n.Reattach(ctx, good); err != nil {
						t.Fatal(err)
					}
					if n.Send(0, []nic.Frame{asFrame(frame(0, 60))}) != 1 {
						t.Error("Send took nothing")
					}
					synctest.Wait()
					sameFrames(t, good.frames, [][]byte{frame(0, 60)})
				})
			})
		}
	}
}

// TestUpWithoutDevice sets the NIC up and down while there is no device.
func TestUpWithoutDevice(t *testing.T) {
	h, next, last := newFakeHost(), newFakeHost(), newFakeHost()
	ctx := context.Background()
	n := movable(t, Config{}, h, next, last)
	h.rescind()
	<-n.Lost()
	up(t, n)
	if err := n.Reattach(ctx, next); err != nil {
		t.Fatal(err)
	}
	if next.filter == 0 {
		t.Error("the NIC is down")
	}
	next.rescind()
	if err := n.Down(ctx); err != nil {
		t.Error(err)
	}
	if err := n.Reattach(ctx, last); err != nil {
		t.Fatal(err)
	}
	if last.filter != 0 {
		t.Error("the NIC is up")
	}
	n.Close(ctx)
	if err := n.Reattach(ctx, h); !errors.Is(err, ErrClosed) {
		t.Errorf("Reattach of a closed NIC: %v", err)
	}
}

// TestSilentHost has the host stop with sends under way: it is given up, but not if
// it goes on in time, nor if it only doesn't confirm.
func TestSilentHost(t *testing.T) {
	for _, c := range []struct {
		name  string
		stop  time.Duration // how long it is stopped
		flood bool          // its rings are full
		deaf  bool          // it confirms no send
		lost  bool
	}{
		{name: "for good", stop: time.Hour, lost: true},
		{name: "for good, rings full", stop: time.Hour, flood: true, lost: true},
		{name: "for three seconds", stop: 3 * time.Second},
		{name: "for three seconds, rings full", stop: 3 * time.Second, flood: true},
		{name: "does not confirm", deaf: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newFakeHost()
				goOn := make(chan struct{})
				var stopped atomic.Bool
				h.onPacket = func(int, []byte) {
					if stopped.Load() {
						<-goOn
					}
				}
				h.onData = func(*fakeQueue, uint64) bool { return c.deaf }
				n, err := Open(context.Background(), h, Config{Queues: 2, RingBytes: 8 * 4096})
				if err != nil {
					t.Fatal(err)
				}
				up(t, n)
				synctest.Wait()
				stopped.Store(c.stop > 0)
				again := time.AfterFunc(c.stop, func() { close(goOn) })
				n.Send(0, []nic.Frame{asFrame(frame(0, 60)), asFrame(frame(1, 60))})
				for c.flood && n.Send(0, []nic.Frame{asFrame(frame(0, 60))}) == 1 {
				}
				start := time.Now()
				select {
				case err := <-n.Lost():
					if d := time.Since(start); !c.lost || !errors.Is(err, ErrSilent) || d > 8*time.Second {
						t.Errorf("lost after %v: %v", d, err)
					}
				case <-time.After(time.Minute):
					if c.lost {
						t.Error("not lost")
					}
				}
				if n.Link().Up == c.lost {
					t.Errorf("link up: %v", n.Link().Up)
				}
				if again.Stop() {
					close(goOn)
				}
				n.Close(context.Background()) // says what was not confirmed
				checkPools(t, n)
				h.clean(t)
			})
		})
	}
}

// TestSilentRequest has the host leave a request without answer.
func TestSilentRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		n, err := Open(context.Background(), h, Config{})
		if err != nil {
			t.Fatal(err)
		}
		h.mu.Lock()
		h.onControl = func(*fakeQueue, rndis.MessageType, []byte, uint64) bool { return true }
		h.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := n.Up(ctx, newRecorder()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("up: %v", err)
		}
		if len(n.Lost()) != 0 {
			t.Error("the device is lost, but the time over was the caller's")
		}
		if err := n.Up(context.Background(), newRecorder()); err != nil {
			t.Errorf("up: %v", err)
		}
		if err := <-n.Lost(); !errors.Is(err, ErrSilent) {
			t.Errorf("lost: %v", err)
		}
		n.Close(context.Background())
		h.clean(t)
	})
}
