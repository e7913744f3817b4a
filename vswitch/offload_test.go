package vswitch

import (
	"bytes"
	"testing"

	"hvnet/internal/packets"
	"hvnet/nic"
)

// A taker is a catcher that takes frames to be cut.
type taker struct {
	catcher
	segments []nic.Segment
}

func (k *taker) Takes() nic.Offloads { return nic.TakesTCPv4 }

func (k *taker) WriteFrames(frames []nic.Frame) {
	for i := range frames {
		k.segments = append(k.segments, frames[i].Offload.Segment)
	}
	k.catcher.WriteFrames(frames)
}

// TestOffload floods a frame that is to be cut: each port gets it as it takes it.
func TestOffload(t *testing.T) {
	s, ps, cs := ports(t, Config{}, 2)
	k := new(taker)
	if _, err := s.Connect("taker", k, PortOptions{}); err != nil {
		t.Fatal(err)
	}
	b := packets.Shape{}.Frame(packets.Random(2500))
	f := packets.Partial(bytes.Clone(b), nic.SegmentTCPv4, 1000)
	ps[0].WriteFrames([]nic.Frame{f})
	if len(k.frames) != 1 || k.segments[0] != nic.SegmentTCPv4 || len(k.frames[0]) != len(b) {
		t.Errorf("the taker got %d frames, %v", len(k.frames), k.segments)
	}
	if len(cs[1].frames) != 3 {
		t.Fatalf("the other port got %d frames, want 3", len(cs[1].frames))
	}
	for i, got := range cs[1].frames {
		want := bytes.Clone(got)
		if packets.Correct(want); !bytes.Equal(got, want) {
			t.Errorf("frame %d has a wrong checksum", i)
		}
	}
	// One that is not what it says is dropped where it had to be cut.
	f.Offload.Segment = nic.SegmentTCPv6
	ps[0].WriteFrames([]nic.Frame{f})
	for _, p := range s.Ports() {
		want := uint64(1)
		if p.Name == "p0" {
			want = 0
		}
		if p.Dropped[DropOffload] != want {
			t.Errorf("%s: %d dropped, want %d", p.Name, p.Dropped[DropOffload], want)
		}
	}
}
