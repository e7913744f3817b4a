package netvsc

import (
	"bytes"
	"context"
	"testing"

	"hvnet/counter"
	"hvnet/internal/packets"
	"hvnet/nic"
	"hvnet/offload"
	"hvnet/rndis"
)

// segmentMessages returns a packet of n bytes of payload as the messages of its
// segments, and their bytes.
func segmentMessages(n, size int, info *rndis.Info) (messages, segments [][]byte) {
	f := packets.Partial(packets.Shape{TCPOptions: 12}.Frame(packets.Random(n)), nic.SegmentTCPv4, size)
	var k plainRecorder
	offload.NewSink(&k).WriteFrames([]nic.Frame{f})
	for _, b := range k.frames {
		messages = append(messages, packetMessage(b, info))
	}
	return messages, k.frames
}

// A plainRecorder is a recorder that takes nothing that is to be cut.
type plainRecorder struct{ frames [][]byte }

func (r *plainRecorder) WriteFrames(frames []nic.Frame) {
	for i := range frames {
		r.frames = append(r.frames, packets.Bytes(&frames[i]))
	}
}

// TestGRO receives segments as one frame, with the offload on, and one by one with it
// off, whether the host has looked at the checksums or not.
func TestGRO(t *testing.T) {
	h := newFakeHost()
	n := open(t, h, Config{})
	r := up(t, n)
	if !n.Features().Active.Has(nic.FeatureGRO) {
		t.Error("it is off at first")
	}
	at := 0
	for _, info := range []*rndis.Info{nil, {Has: rndis.HasChecksum, Checksum: uint32(rndis.RxTCPOK | rndis.RxIPOK)}} {
		for _, on := range []bool{true, false, true} {
			set(t, n, on, "rx-gro")
			count := n.session.Load().queues[2].count
			packetsBefore, joinedBefore := count.Load(counter.RxPackets), count.Load(counter.RxGRO)
			messages, segments := segmentMessages(9500, 1000, info)
			if err := h.queue(2).indicate(messages...); err != nil {
				t.Fatal(err)
			}
			want, joined := len(segments), 0
			if on {
				want, joined = 1, len(segments)-1
			}
			got := r.wait(t, at+want)[at:]
			if len(got) != want {
				t.Fatalf("on %v: %d frames, want %d", on, len(got), want)
			}
			o := r.meta[at].Offload
			if whole := (packets.Shape{TCPOptions: 12}).Frame(packets.Random(9500)); on &&
				(o.Segment != nic.SegmentTCPv4 || o.Size != 1000 || o.Checksum != nic.ChecksumPartial || !bytes.Equal(got[0][66:], whole[66:])) {
				t.Errorf("%+v, or other bytes", o)
			}
			if !on && !bytes.Equal(bytes.Join(got, nil), bytes.Join(segments, nil)) {
				t.Error("off, and not as they came")
			}
			at += want
			h.until(t, "it is counted", func() bool {
				return count.Load(counter.RxPackets)-packetsBefore == uint64(len(segments)) &&
					count.Load(counter.RxGRO)-joinedBefore == uint64(joined)
			})
		}
	}
}

// TestGROBehindBatch has segments come in a packet behind more frames than a batch holds:
// what is put together is of the segments, and not of the frames in front of them.
func TestGROBehindBatch(t *testing.T) {
	h := newFakeHost()
	n := open(t, h, Config{Queues: 1})
	r := up(t, n)
	var messages, want [][]byte
	const inRange = 12
	for i := 0; i < frameSlots; i += inRange {
		var m []byte
		for k := range inRange {
			f := frame(i+k, 60)
			at := len(m)
			m = append(append(m, make([]byte, rndis.PacketHeaderSize)...), f...)
			rndis.PutPacketAt(m[at:], rndis.PacketHeaderSize, len(f), nil)
			want = append(want, f)
		}
		messages = append(messages, m)
	}
	segments, _ := segmentMessages(9500, 1000, nil)
	if err := h.queue(0).indicate(append(messages, segments...)...); err != nil {
		t.Fatal(err)
	}
	got := r.wait(t, len(want)+1)
	sameFrames(t, got[:len(want)], want)
	whole := (packets.Shape{TCPOptions: 12}).Frame(packets.Random(9500))
	if joined := got[len(want)]; len(joined) != len(whole) || !bytes.Equal(joined[66:], whole[66:]) {
		t.Errorf("%d bytes, want %d, or other ones", len(joined), len(whole))
	}
}

// TestGROSinks receives segments for a sink that takes no frames to be cut.
func TestGROSinks(t *testing.T) {
	h := newFakeHost()
	n := open(t, h, Config{})
	var r plainRecorder
	if err := n.Up(context.Background(), &r); err != nil {
		t.Fatal(err)
	}
	messages, segments := segmentMessages(9500, 1000, nil)
	if err := h.queue(0).indicate(messages...); err != nil {
		t.Fatal(err)
	}
	h.until(t, "the sections come back", func() bool { return len(h.rxBusy) == 0 })
	if err := n.Down(context.Background()); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(bytes.Join(r.frames, nil), bytes.Join(segments, nil)) {
		t.Errorf("%d frames, want %d, or other bytes", len(r.frames), len(segments))
	}
	if joined := n.session.Load().queues[0].count.Load(counter.RxGRO); joined != 0 {
		t.Errorf("%d counted", joined)
	}
}

// TestGROStays checks that changes of settings, and another device, leave it as it is.
func TestGROStays(t *testing.T) {
	h, next := newFakeHost(), newFakeHost()
	n := movable(t, Config{Queues: 4}, h, next)
	ctx := context.Background()
	set(t, n, false, "rx-gro")
	if err := n.SetChannels(ctx, 2); err != nil || n.Features().Active.Has(nic.FeatureGRO) {
		t.Errorf("with other channels it is on: %v", err)
	}
	h.rescind()
	<-n.Lost()
	if err := n.Detach(ctx); err != nil {
		t.Fatal(err)
	}
	if err := n.Reattach(ctx, next); err != nil || n.Features().Active.Has(nic.FeatureGRO) {
		t.Errorf("with another device it is on: %v", err)
	}
}
