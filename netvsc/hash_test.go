package netvsc

import (
	"context"
	"errors"
	"sync"
	"testing"

	"hvnet/nic"
)

// channelsOf sends one frame of each of 64 flows and returns on how many channels
// they went.
func (h *fakeHost) channelsOf(t *testing.T, n *NIC, hash func(i int) nic.Frame) int {
	t.Helper()
	h.mu.Lock()
	h.frames = nil
	clear(h.perChan)
	h.mu.Unlock()
	var frames []nic.Frame
	for i := range 64 {
		frames = append(frames, hash(i))
	}
	for len(frames) > 0 {
		frames = frames[n.Send(0, frames):]
	}
	h.until(t, "all frames arrive", func() bool { return len(h.frames) == 64 })
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.perChan)
}

// TestHashLevels has flows that differ in their ports alone spread, or not, by the
// level of their protocol, across everything that a NIC goes through.
func TestHashLevels(t *testing.T) {
	h := newFakeHost()
	n := open(t, h, Config{Queues: 4})
	up(t, n)
	ctx := context.Background()
	udp := func(i int) nic.Frame { return asFrame(frame(i, 60)) }
	tcp := func(i int) nic.Frame { b := frame(i, 60); b[23] = 6; return asFrame(b) }
	hashed := func(i int) nic.Frame {
		f := asFrame(frame(i, 60))
		f.Hash, f.HashKind = uint32(i), nic.HashL4 // as it came from another NIC
		return f
	}
	check := func(when string, udps, tcps int) {
		t.Helper()
		for what, c := range map[string]struct {
			frame func(int) nic.Frame
			want  int
		}{"UDP": {udp, udps}, "TCP": {tcp, tcps}, "UDP with a hash": {hashed, udps}} {
			if got := h.channelsOf(t, n, c.frame); got != c.want {
				t.Errorf("%s: %s on %d channels, want %d", when, what, got, c.want)
			}
		}
	}
	all := nic.HashLevels{nic.HashL4, nic.HashL4, nic.HashL4, nic.HashL4}
	if got := n.HashLevels(); got != all {
		t.Errorf("levels are %v at first", got)
	}
	check("at first", 4, 4)
	if err := n.SetHashLevel(ctx, nic.FlowUDPv4, nic.HashL3); err != nil {
		t.Fatal(err)
	}
	check("UDP by address", 1, 4)
	if err := n.SetChannels(ctx, 3); err != nil {
		t.Fatal(err)
	}
	check("with 3 channels", 1, 3)
	if err := n.Detach(ctx); err != nil {
		t.Fatal(err)
	}
	if err := n.SetHashLevel(ctx, nic.FlowTCPv4, nic.HashL3); err != nil {
		t.Fatalf("without a device: %v", err)
	}
	if err := n.Reattach(ctx, h); err != nil {
		t.Fatal(err)
	}
	check("with another device", 1, 1)
	want := nic.HashLevels{nic.FlowTCPv4: nic.HashL3, nic.FlowUDPv4: nic.HashL3, nic.FlowTCPv6: nic.HashL4, nic.FlowUDPv6: nic.HashL4}
	if got := n.HashLevels(); got != want {
		t.Errorf("levels are %v, want %v", got, want)
	}
	for _, f := range []nic.Flow{nic.FlowTCPv4, nic.FlowUDPv4, nic.FlowUDPv4} {
		if err := n.SetHashLevel(ctx, f, nic.HashL4); err != nil {
			t.Fatal(err)
		}
	}
	check("by ports again", 3, 3)
	for _, bad := range []struct {
		f nic.Flow
		l nic.HashKind
	}{{4, nic.HashL3}, {255, nic.HashL4}, {nic.FlowTCPv4, nic.HashNone}, {nic.FlowTCPv4, 3}} {
		if err := n.SetHashLevel(ctx, bad.f, bad.l); !errors.Is(err, nic.ErrNotSupported) {
			t.Errorf("level %d of %v: %v", bad.l, bad.f, err)
		}
	}
	if n.HashLevels() != all {
		t.Errorf("a refused level has done something: %v", n.HashLevels())
	}
}

// TestHashLevelKeepsOrder changes the level of a flow while the host has frames of it:
// the next one is sent when those are completed.
func TestHashLevelKeepsOrder(t *testing.T) {
	h := newFakeHost()
	hold := make(chan struct{})
	release := sync.OnceFunc(func() { close(hold) })
	held := make(chan struct{}, 1)
	h.onData = func(q *fakeQueue, tid uint64) bool {
		select {
		case held <- struct{}{}:
		default:
		}
		<-hold
		return false
	}
	n := open(t, h, Config{Queues: 4})
	defer release()
	up(t, n)
	if n.Send(0, []nic.Frame{asFrame(frame(1, 60))}) != 1 {
		t.Fatal("Send took nothing")
	}
	<-held
	changed := make(chan error, 1)
	go func() { changed <- n.SetHashLevel(context.Background(), nic.FlowUDPv4, nic.HashL3) }()
	for n.Send(0, []nic.Frame{asFrame(frame(2, 60))}) == 1 { // until senders pause
	}
	if n.levels()&flowTypes[nic.FlowUDPv4] == 0 {
		t.Error("the level changed while the host has a frame")
	}
	release()
	if err := <-changed; err != nil {
		t.Error(err)
	}
	if n.levels()&flowTypes[nic.FlowUDPv4] != 0 {
		t.Error("the level has not changed")
	}
}
