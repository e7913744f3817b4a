package offload_test

import (
	"bytes"
	"testing"

	"hvnet/internal/packets"
	"hvnet/nic"
	"hvnet/offload"
)

// A keeper keeps what it is given.
type keeper struct {
	frames [][]byte
	meta   []nic.Offload
}

func (k *keeper) WriteFrames(frames []nic.Frame) {
	for i := range frames {
		k.frames = append(k.frames, packets.Bytes(&frames[i]))
		k.meta = append(k.meta, frames[i].Offload)
	}
}

// TestSink has one batch of all that there is for sinks that take more and more.
func TestSink(t *testing.T) {
	plain := packets.Shape{}.Frame(packets.Random(300))
	wire := packets.Shape{TCPOptions: 12}.Frame(packets.Random(300))
	batch := func() []nic.Frame {
		first, last := packets.Split(bytes.Clone(plain)), packets.Split(bytes.Clone(plain))
		first.Offload.Checksum = nic.ChecksumBad
		return []nic.Frame{
			first,
			packets.Partial(bytes.Clone(wire), nic.SegmentNone, 0, 33),
			packets.Partial(packets.Shape{}.Frame(packets.Random(1000)), nic.SegmentTCPv4, 300),
			packets.Partial(packets.Shape{V6: true}.Frame(packets.Random(10000)), nic.SegmentTCPv6, 100),
			packets.Partial(packets.Shape{UDP: true}.Frame(packets.Random(1000)), nic.SegmentUDP, 500),
			packets.Partial(packets.Shape{UDP: true}.Frame(packets.Random(1000)), nic.SegmentTCPv4, 500), // a lie
			last,
		}
	}
	for _, tt := range []struct {
		takes          nic.Offloads
		frames, whole  int
		lies, complete int
	}{
		{0, 2 + 1 + 4 + 100 + 2, 0, 1, 1 + 4 + 100 + 2},
		{nic.TakesChecksum, 2 + 1 + 4 + 100 + 2, 0, 1, 0},
		{nic.TakesChecksum | nic.TakesTCPv6, 2 + 1 + 4 + 1 + 2, 1, 1, 0},
		{nic.TakesTCPv6, 2 + 1 + 4 + 1 + 2, 1, 1, 1 + 4 + 2},
		{nic.TakesChecksum | nic.TakesTCPv4 | nic.TakesTCPv6 | nic.TakesUDP, 7, 4, 0, 0},
	} {
		var k keeper
		s := offload.NewSinkFor(&k, tt.takes)
		in := batch()
		s.WriteFrames(in)
		whole, complete := 0, 0
		for i, m := range k.meta {
			if m.Needs()&^tt.takes != 0 {
				t.Errorf("takes %b: got %+v", tt.takes, m)
			}
			if m.Segment != nic.SegmentNone {
				whole++
			}
			if m.Checksum == nic.ChecksumOK {
				complete++
				valid(t, "a frame", k.frames[i])
			}
		}
		if len(k.frames) != tt.frames || whole != tt.whole || int(s.Malformed.Load()) != tt.lies || complete != tt.complete {
			t.Errorf("takes %b: %d frames, %d whole, %d completed, %d malformed; want %+v",
				tt.takes, len(k.frames), whole, complete, s.Malformed.Load(), tt)
		}
		if !bytes.Equal(k.frames[0], plain) || !bytes.Equal(k.frames[len(k.frames)-1], plain) || k.meta[0].Checksum != nic.ChecksumBad {
			t.Errorf("takes %b: what needs nothing came through changed", tt.takes)
		}
		if tt.takes == 0 && !bytes.Equal(k.frames[1], wire) {
			t.Errorf("completed to %x, want %x", k.frames[1], wire)
		}
		for i, f := range batch() { // others may get them too
			if in[i].Offload != f.Offload || !bytes.Equal(packets.Bytes(&in[i]), packets.Bytes(&f)) {
				t.Errorf("takes %b: frame %d of the batch has changed", tt.takes, i)
			}
		}
	}
}

// TestSinkLongHead has a frame that is all head, as links have that copy.
func TestSinkLongHead(t *testing.T) {
	for _, seg := range []nic.Segment{nic.SegmentNone, nic.SegmentTCPv4} {
		want := packets.Shape{}.Frame(packets.Random(1000))
		f := packets.Partial(bytes.Clone(want), seg, 1000)
		f.Head, f.Body = packets.Bytes(&f), nil
		var k keeper
		offload.NewSink(&k).WriteFrames([]nic.Frame{f})
		if len(k.frames) != 1 || !bytes.Equal(k.frames[0], want) {
			t.Errorf("kind %d: got %x, want %x", seg, k.frames, want)
		}
	}
}

type counting struct{ frames, bytes int }

func (c *counting) WriteFrames(frames []nic.Frame) {
	c.frames += len(frames)
	for i := range frames {
		c.bytes += frames[i].Len()
	}
}

func TestSinkDoesNotAllocate(t *testing.T) {
	var c counting
	s := offload.NewSink(&c)
	batch := []nic.Frame{packets.Partial(packets.Shape{}.Frame(packets.Random(60000)), nic.SegmentTCPv4, 1460, 4000, 8000)}
	if n := testing.AllocsPerRun(100, func() { s.WriteFrames(batch) }); n != 0 && !raceEnabled {
		t.Errorf("%v allocations a batch", n)
	}
}

// BenchmarkSegment cuts a frame of 60 KiB; ns/segment is what one of 1448 bytes
// costs.
func BenchmarkSegment(b *testing.B) {
	var c counting
	s := offload.NewSink(&c)
	frame := packets.Shape{TCPOptions: 12}.Frame(packets.Random(60000))
	batch := []nic.Frame{packets.Partial(frame, nic.SegmentTCPv4, 1448)}
	b.SetBytes(int64(len(frame)))
	b.ReportAllocs()
	for b.Loop() {
		s.WriteFrames(batch)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(c.frames), "ns/segment")
}
