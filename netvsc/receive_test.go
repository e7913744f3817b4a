package netvsc

import (
	"context"
	"errors"
	"slices"
	"testing"

	"hvnet/counter"
	"hvnet/nic"
	"hvnet/rndis"
	"hvnet/vmbus/channel"
)

func TestReceive(t *testing.T) {
	h := newFakeHost()
	n := open(t, h, Config{})
	r := up(t, n)
	h.until(t, "the filter is set", func() bool { return h.filter == 0x0d })
	var want [][]byte
	for i := range 50 {
		b := frame(i, 14+i*29)
		want = append(want, b)
		if err := h.queue(3).indicate(packetMessage(b, nil)); err != nil {
			t.Fatal(err)
		}
	}
	sameFrames(t, r.wait(t, len(want)), want)
	for _, m := range r.meta {
		if m.Channel != 3 || m.HashKind != nic.HashNone {
			t.Errorf("metadata %+v", m)
		}
	}
	h.until(t, "all sections come back", func() bool { return len(h.rxBusy) == 0 })
	if got := n.session.Load().queues[3].count.Load(counter.RxPackets); got != 50 {
		t.Errorf("rx_queue_3_packets is %d", got)
	}
}

func TestReceiveSeveralRanges(t *testing.T) {
	h := newFakeHost()
	n := open(t, h, Config{})
	r := up(t, n)
	var want, messages [][]byte
	for i := range 200 {
		want = append(want, frame(i, 60+i))
		messages = append(messages, packetMessage(want[i], nil))
	}
	if err := h.queue(1).indicate(messages...); err != nil {
		t.Fatal(err)
	}
	sameFrames(t, r.wait(t, len(want)), want)
	if r.calls != 1 {
		t.Errorf("sink was called %d times for one packet", r.calls)
	}
}

// TestReceiveSeveralInRange has ranges of several messages: frames behind frames, in
// more ranges than a batch has room for, and behind the last one padding.
func TestReceiveSeveralInRange(t *testing.T) {
	h := newFakeHost()
	n := open(t, h, Config{Queues: 1})
	r := up(t, n)
	join := func(from, k, size int) (message []byte, frames [][]byte) {
		for i := range k {
			f := frame(from+i, size)
			m := append(make([]byte, headroom), f...)
			rndis.PutPacketAt(m, headroom, size, &rndis.Info{Has: rndis.HasHash, Hash: uint32(i)})
			m = append(m, make([]byte, -len(m)&7)...)
			rndis.SetPacketLength(m, len(m))
			message, frames = append(message, m...), append(frames, f)
		}
		return message, frames
	}
	control := rndis.Keepalive{}.Append(nil)
	var want [][]byte
	for _, tt := range []struct {
		name        string
		count, size int
		behind      []byte
		ranges      int
	}{
		{name: "one", count: 1, size: 100, ranges: 1},
		{name: "two", count: 2, size: 700, ranges: 1},
		{name: "many", count: 12, size: 60, ranges: 100},
		{name: "zeros behind", count: 2, size: 100, behind: make([]byte, 100), ranges: 3},
		{name: "a few bytes behind", count: 2, size: 100, behind: []byte{1, 0, 0, 0, 255}, ranges: 3},
		{name: "a control message behind", count: 2, size: 100, behind: append(control, make([]byte, 40)...), ranges: 1},
		{name: "a longer frame than there is behind", count: 1, size: 100, behind: append([]byte{1, 0, 0, 0, 200, 0, 0, 0}, make([]byte, 60)...), ranges: 1},
	} {
		var messages [][]byte
		for i := range tt.ranges {
			m, frames := join(i, tt.count, tt.size)
			messages, want = append(messages, append(m, tt.behind...)), append(want, frames...)
		}
		if err := h.queue(0).indicate(messages...); err != nil {
			t.Fatal(tt.name, err)
		}
		sameFrames(t, r.wait(t, len(want)), want)
	}
	if bad := n.count.Load(counter.HostBadPacket); bad != 0 {
		t.Errorf("%d are refused", bad)
	}

	// One that is wrong is refused, and counted; those in front of it are there.
	m, frames := join(0, 2, 100)
	put32(m, len(m)/2+8, 4000) // where the data of the second one begin
	h.queue(0).indicate(m)
	want = append(want, frames[0])
	h.until(t, "it is refused", func() bool { return n.count.Load(counter.HostBadPacket) == 1 })
	sameFrames(t, r.wait(t, len(want)), want)
}

func TestReceiveInfo(t *testing.T) {
	h := newFakeHost()
	n := open(t, h, Config{})
	r := up(t, n)
	b := frame(1, 300)
	h.queue(0).indicate(packetMessage(b, &rndis.Info{Has: rndis.HasHash | rndis.HasVLAN, Hash: 0x12345678, VLAN: 0x6123}))
	want := append(append(append([]byte(nil), b[:12]...), 0x81, 0x00, 0x61, 0x23), b[12:]...)
	sameFrames(t, r.wait(t, 1), [][]byte{want})
	if m := r.meta[0]; m.Hash != 0x12345678 || m.HashKind != nic.HashL4 {
		t.Errorf("metadata %+v", m)
	}
}

// TestReceiveRingFull has the driver's outbound ring full while it receives: the
// completions come later, all of them.
func TestReceiveRingFull(t *testing.T) {
	h := newFakeHost()
	gate := make(chan struct{})
	h.onData = func(q *fakeQueue, tid uint64) bool { <-gate; return false }
	n := open(t, h, Config{Queues: 1, RingBytes: 2 * 4096})
	r := up(t, n)
	for n.Send(0, []nic.Frame{asFrame(frame(0, 60))}) > 0 {
	}
	const count = 60
	for i := range count {
		for h.queue(0).indicate(packetMessage(frame(i, 60), nil)) != nil {
		}
	}
	r.wait(t, count)
	close(gate)
	h.until(t, "all sections come back", func() bool { return len(h.rxBusy) == 0 })
	if n.count.Load(counter.RxCompBusy) == 0 {
		t.Error("rx_comp_busy is 0")
	}
}

func TestUpDown(t *testing.T) {
	h := newFakeHost()
	n := open(t, h, Config{})
	ctx := context.Background()
	r := up(t, n)
	if err := n.Down(ctx); err != nil {
		t.Fatal(err)
	}
	if h.filter != 0 {
		t.Errorf("filter is %#x after Down", h.filter)
	}
	h.queue(0).indicate(packetMessage(frame(0, 60), nil))
	h.until(t, "the section comes back", func() bool { return len(h.rxBusy) == 0 })
	if len(r.frames) != 0 {
		t.Error("sink was called after Down")
	}
	r2 := up(t, n)
	h.queue(0).indicate(packetMessage(frame(0, 60), nil))
	r2.wait(t, 1)
	if err := n.Close(ctx); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{"Up": n.Up(ctx, r), "Down": n.Down(ctx), "SetChannels": n.SetChannels(ctx, 2)} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s after Close: %v", what, err)
		}
	}
	if n.Send(0, []nic.Frame{asFrame(frame(0, 60))}) != 0 {
		t.Error("Send took a frame after Close")
	}
}

// closingSink closes a NIC while it has the first frames, and returns from that when
// nothing more is to be taken.
type closingSink struct {
	n      *NIC
	calls  int
	closed chan error
}

func (c *closingSink) WriteFrames([]nic.Frame) {
	if c.calls++; c.calls > 1 {
		return
	}
	s := c.n.session.Load()
	s.fail(channel.ErrRescinded) // so that nobody waits for the host
	go func() { c.closed <- c.n.Close(context.Background()) }()
	<-s.queues[0].closing
}

// TestCloseInPacket closes a NIC in the middle of a packet that is worth many batches: a
// host cannot have that wait for the rest of it.
func TestCloseInPacket(t *testing.T) {
	h := newFakeHost()
	n := open(t, h, Config{Queues: 1})
	sink := &closingSink{n: n, closed: make(chan error, 1)}
	if err := n.Up(context.Background(), sink); err != nil {
		t.Fatal(err)
	}
	const inRange = 12
	var m []byte
	for i := range inRange {
		at, f := len(m), frame(i, 60)
		m = append(append(m, make([]byte, rndis.PacketHeaderSize)...), f...)
		rndis.PutPacketAt(m[at:], rndis.PacketHeaderSize, len(f), nil)
	}
	if err := h.queue(0).indicate(slices.Repeat([][]byte{m}, 4*frameSlots/inRange)...); err != nil {
		t.Fatal(err)
	}
	if err := <-sink.closed; err != nil {
		t.Error(err)
	}
	if sink.calls > 2 {
		t.Errorf("%d batches come after the NIC is closed", sink.calls-2)
	}
}
