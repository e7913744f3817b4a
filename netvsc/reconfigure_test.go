package netvsc

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hvnet/counter"
	"hvnet/nic"
	"hvnet/nvsp"
	"hvnet/rndis"
	"hvnet/vmbus/channel"
)

// TestSetChannels changes the number of channels while frames flow both ways.
func TestSetChannels(t *testing.T) {
	h := newFakeHost()
	n := open(t, h, Config{})
	src := newSource()
	pumping(t, n, src)
	r := up(t, n)
	ctx := context.Background()
	frames := 0
	more := func() {
		for range 100 {
			src.add(frame(frames, 60+frames%1000))
			frames++
		}
	}
	for _, want := range []int{1, 4, 2, 8, 8, 3} {
		more()
		if err := n.SetChannels(ctx, want); err != nil {
			t.Fatalf("SetChannels(%d): %v", want, err)
		}
		more()
		if c := n.Channels(); c != (nic.Channels{Max: 8, Combined: want}) {
			t.Errorf("channels %+v, want %d", c, want)
		}
		if h.filter != 0x0d {
			t.Errorf("filter is %#x", h.filter)
		}
		if err := h.queue(want - 1).indicate(packetMessage(frame(want, 60), nil)); err != nil {
			t.Fatal(err)
		}
	}
	h.until(t, "all frames arrive", func() bool { return len(h.frames) == frames })
	r.wait(t, 6)
	if got := n.count.Load(counter.TxLost); got != 0 {
		t.Errorf("tx_lost is %d", got)
	}
}

func TestSetChannelsRefused(t *testing.T) {
	h := newFakeHost()
	h.queues = 4
	n := open(t, h, Config{})
	up(t, n)
	for _, bad := range []int{-1, 0, 5, 99} {
		if err := n.SetChannels(context.Background(), bad); !errors.Is(err, nic.ErrInvalid) {
			t.Errorf("SetChannels(%d): %v", bad, err)
		}
	}
	h.mu.Lock()
	before := len(h.events)
	h.mu.Unlock()
	if err := n.SetChannels(context.Background(), 4); err != nil {
		t.Errorf("SetChannels to what is: %v", err)
	}
	if len(h.events) != before {
		t.Error("SetChannels to what is did something")
	}
}

// TestRollback has the second attachment fail at each step: the NIC is back as it
// was, and the source goes on.
func TestRollback(t *testing.T) {
	for _, step := range []string{"INIT", "SEND_RECEIVE_BUFFER", "SEND_SEND_BUFFER", "INITIALIZE", "SUBCHANNEL", "SET TCP_OFFLOAD_PARAMETERS", "SET GEN_CURRENT_PACKET_FILTER"} {
		t.Run(step, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newFakeHost()
				n := open(t, h, Config{Queues: 4})
				src := newSource()
				pumping(t, n, src)
				up(t, n)
				n.OnLink(func(l nic.LinkState) {
					// A session that fails before it is in use loses nothing.
					if !l.Up && step != "SET GEN_CURRENT_PACKET_FILTER" {
						t.Error("the link goes down")
					}
				})
				h.mu.Lock()
				silent := true
				once := func(what string) bool {
					h.mu.Lock()
					defer h.mu.Unlock()
					hit := silent && strings.HasSuffix(h.events[len(h.events)-1], what)
					if hit {
						silent = false
					}
					return hit
				}
				h.onNVSP = func(q *fakeQueue, got nvsp.MessageType, m []byte, tid uint64) bool { return once(step) }
				h.onControl = func(q *fakeQueue, got rndis.MessageType, m []byte, tid uint64) bool {
					s, err := rndis.ParseSet(m)
					off := err == nil && s.OID == rndis.OIDCurrentPacketFilter && s.Info[0] == 0
					return !off && once(step)
				}
				h.mu.Unlock()
				err := n.SetChannels(context.Background(), 2)
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("SetChannels: %v", err)
				}
				if c := n.Channels(); c.Combined != 4 {
					t.Errorf("%d channels after going back to 4", c.Combined)
				}
				src.add(frame(1, 60))
				h.until(t, "the frame arrives", func() bool { return len(h.frames) == 1 })
				if err := n.SetChannels(context.Background(), 2); err != nil {
					t.Errorf("second try: %v", err)
				}
				src.add(frame(1, 60))
				h.until(t, "the frame arrives", func() bool { return len(h.frames) == 2 })
			})
		})
	}
}

// TestNoWayBack has both attachments fail: the NIC says so, and a later change
// finds it again.
func TestNoWayBack(t *testing.T) {
	h := newFakeHost()
	n := open(t, h, Config{Queues: 4})
	src := newSource()
	pumping(t, n, src)
	up(t, n)
	h.mu.Lock()
	versions := h.versions
	h.versions = nil
	h.mu.Unlock()
	err := n.SetChannels(context.Background(), 2)
	if err == nil || !strings.Contains(err.Error(), "go back") {
		t.Errorf("SetChannels: %v", err)
	}
	src.add(frame(1, 60))
	h.mu.Lock()
	h.versions = versions
	h.mu.Unlock()
	if err := n.SetChannels(context.Background(), 2); err != nil {
		t.Fatal(err)
	}
	h.until(t, "the frame arrives", func() bool { return len(h.frames) == 1 })
}

// TestBusyHost has the host sit on a send: the change of settings gives up, names
// what it waited for, and the NIC goes on.
func TestBusyHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		held := make(chan uint64, 1)
		h.onData = func(q *fakeQueue, tid uint64) bool {
			select {
			case held <- tid:
				return true
			default:
				return false
			}
		}
		n := open(t, h, Config{Queues: 1})
		up(t, n)
		n.Send(0, []nic.Frame{asFrame(frame(0, 60))})
		h.until(t, "the filter is set", func() bool { return h.filter == 0x0d })
		err := n.SetChannels(context.Background(), 2)
		if err == nil || !strings.Contains(err.Error(), "1 sends on channel 0") {
			t.Errorf("SetChannels: %v", err)
		}
		if h.filter != 0x0d {
			t.Errorf("filter is %#x", h.filter)
		}
		h.queue(0).complete(<-held, nvsp.RNDISPacketComplete{Status: nvsp.StatusSuccess}.Append(nil))
		held <- 0 // hold no more
		if n.Send(0, []nic.Frame{asFrame(frame(0, 60))}) != 1 {
			t.Error("Send took nothing")
		}
		if err := n.SetChannels(context.Background(), 2); err != nil {
			t.Error(err)
		}
	})
}

// TestRescind takes the device away while everything is in use.
func TestRescind(t *testing.T) {
	h := newFakeHost()
	n := open(t, h, Config{})
	up(t, n)
	pumping(t, n, newSource())
	for n.pumping() == 0 {
	}
	h.rescind()
	if err := <-n.Lost(); !errors.Is(err, nic.ErrNoDevice) || !errors.Is(err, channel.ErrRescinded) {
		t.Errorf("lost: %v", err)
	}
	if n.Link().Up {
		t.Error("the link is up")
	}
	ctx := context.Background()
	if err := n.SetChannels(ctx, 2); !errors.Is(err, nic.ErrNoDevice) {
		t.Errorf("SetChannels: %v", err)
	}
	if err := n.Down(ctx); err != nil {
		t.Errorf("Down: %v", err)
	}
	if n.Send(0, []nic.Frame{asFrame(frame(0, 60))}) != 0 {
		t.Error("Send took a frame")
	}
	if _, err := Open(ctx, h, Config{}); !errors.Is(err, channel.ErrRescinded) {
		t.Errorf("Open: %v", err)
	}
}

// TestCloseUnanswered closes a NIC whose host has stopped to answer.
func TestCloseUnanswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		n, err := Open(context.Background(), h, Config{})
		if err != nil {
			t.Fatal(err)
		}
		up(t, n)
		h.mu.Lock()
		h.onControl = func(*fakeQueue, rndis.MessageType, []byte, uint64) bool { return true }
		h.mu.Unlock()
		if err := n.Close(context.Background()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("close: %v", err)
		}
		checkPools(t, n)
		h.clean(t)
		if err := n.Close(context.Background()); err != nil {
			t.Errorf("second close: %v", err)
		}
	})
}

func TestStats(t *testing.T) {
	h := newFakeHost()
	h.vps = 2
	n := open(t, h, Config{})
	up(t, n)
	n.Send(0, []nic.Frame{asFrame(frame(0, 60)), asFrame(frame(0, 70))})
	h.until(t, "all frames arrive", func() bool { return len(h.frames) == 2 })
	if err := n.Down(context.Background()); err != nil { // waits for completions
		t.Fatal(err)
	}
	stats := n.Stats()
	sum := map[string]uint64{}
	for _, s := range stats {
		sum[s.Name] = s.Value
	}
	if stats[0].Name != "tx_scattered" || stats[16].Name != "tx_queue_0_packets" || stats[32].Name != "cpu0_rx_packets" {
		t.Errorf("order: %v", stats)
	}
	if p, b := sum["tx_queue_0_packets"]+sum["tx_queue_1_packets"], sum["tx_queue_0_bytes"]+sum["tx_queue_1_bytes"]; p != 2 || b != 130 {
		t.Errorf("sent %d packets, %d bytes", p, b)
	}
	// Counters of channels begin anew with the channels, the others go on.
	n.count.Add(counter.TxBusy, 5)
	if err := n.SetChannels(context.Background(), 1); err != nil {
		t.Fatal(err)
	}
	for _, s := range n.Stats() {
		if s.Name == "tx_queue_0_packets" && s.Value != 0 || s.Name == "tx_busy" && s.Value != 5 || s.Name == "tx_queue_1_packets" {
			t.Errorf("after the change: %+v", s)
		}
	}
	if d := n.DriverInfo(); d.Driver != "hv_netvsc" || d.Firmware != "N/A" || !d.Stats || !d.RegisterDump {
		t.Errorf("%+v", d)
	}
}

// TestReconfigure changes everything that can be: the path is the same for all.
func TestReconfigure(t *testing.T) {
	h := newFakeHost()
	n := open(t, h, Config{Queues: 2})
	src := newSource()
	pumping(t, n, src)
	up(t, n)
	src.add(frame(1, 1500))
	release, err := n.own(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	err = n.reconfigure(context.Background(), settings{queues: 3, rxBytes: 100 * nominalRxSection, txBytes: 50 * nominalTxSection, mtu: 4000})
	release()
	if err != nil {
		t.Fatal(err)
	}
	i := n.Info()
	if i.MTU != 4000 || i.Channels != 3 || i.TxSections != 50 || i.RxSections != 176128/1806 {
		t.Errorf("Info: %+v", i)
	}
	src.add(frame(1, 4014))
	h.until(t, "both frames arrive", func() bool { return len(h.frames) == 2 })
}

// TestLateAnswer has the host answer a request after its asker has given up: the
// answer is counted and dropped, and does not answer the next request.
func TestLateAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		n := open(t, h, Config{Queues: 1})
		late, silent := make(chan []byte, 1), true
		h.mu.Lock()
		h.onControl = func(q *fakeQueue, got rndis.MessageType, m []byte, tid uint64) bool {
			if !silent {
				return false
			}
			silent = false
			late <- q.answer(got, m)
			q.complete(tid, nvsp.RNDISPacketComplete{Status: nvsp.StatusSuccess}.Append(nil))
			return true
		}
		h.mu.Unlock()
		r := newRecorder()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		err := n.Up(ctx, r)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "setting of GEN_CURRENT_PACKET_FILTER") {
			t.Errorf("Up: %v", err)
		}
		if n.Send(0, []nic.Frame{asFrame(frame(0, 60))}) != 0 {
			t.Error("Send took a frame of a NIC that is not up")
		}
		h.queue(0).indicate(<-late)
		synctest.Wait()
		if got := n.count.Load(counter.HostBadMessage); got != 1 {
			t.Errorf("host_bad_message is %d", got)
		}
		alive(t, h, n, up(t, n))
	})
}

// TestIdle leaves a NIC alone for an hour: nothing wakes up.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		n := open(t, h, Config{})
		r := up(t, n)
		pumping(t, n, newSource())
		for range 100 { // enough that the queue lingers for a while
			for h.queue(0).indicate(packetMessage(frame(1, 60), nil)) != nil {
			}
		}
		r.wait(t, 100)
		synctest.Wait()
		wakeups := func() (sum uint64) {
			for _, q := range n.session.Load().queues {
				sum += q.count.Load(counter.Wakeups)
			}
			return
		}
		before := wakeups()
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := wakeups(); got != before {
			t.Errorf("%d wake-ups in an idle hour", got-before)
		}
	})
}
