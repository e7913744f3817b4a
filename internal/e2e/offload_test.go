package e2e

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"hvnet/internal/packets"
	"hvnet/netvsc"
	"hvnet/netvsp/profile"
	"hvnet/nic"
	"hvnet/nvsp"
	"hvnet/offload"
)

// An offloadSink keeps frames with their metadata, and takes what it says.
type offloadSink struct {
	takes nic.Offloads
	mu    sync.Mutex
	bytes [][]byte
	meta  []nic.Offload
	got   chan struct{}
}

func newOffloadSink(takes nic.Offloads) *offloadSink {
	return &offloadSink{takes: takes, got: make(chan struct{}, 1)}
}

func (s *offloadSink) Takes() nic.Offloads { return s.takes }

func (s *offloadSink) WriteFrames(frames []nic.Frame) {
	s.mu.Lock()
	for i := range frames {
		s.bytes = append(s.bytes, packets.Bytes(&frames[i]))
		s.meta = append(s.meta, frames[i].Offload)
	}
	s.mu.Unlock()
	select {
	case s.got <- struct{}{}:
	default:
	}
}

// take waits for frames until as many bytes are there as want has, and forgets them.
func (s *offloadSink) take(t testing.TB, what string, want [][]byte) (frames [][]byte, meta []nic.Offload) {
	t.Helper()
	deadline := time.NewTimer(devicePatience)
	defer deadline.Stop()
	for {
		s.mu.Lock()
		if len(s.bytes) >= len(want) {
			frames, meta, s.bytes, s.meta = s.bytes, s.meta, nil, nil
			s.mu.Unlock()
			return frames, meta
		}
		n := len(s.bytes)
		s.mu.Unlock()
		select {
		case <-s.got:
		case <-deadline.C:
			t.Fatalf("%s: %d frames, want %d", what, n, len(want))
		}
	}
}

const takesAll = nic.TakesChecksum | nic.TakesTCPv4 | nic.TakesTCPv6 | nic.TakesUDP

// A metaSource gives its frames once, with their metadata.
type metaSource struct {
	mu     sync.Mutex
	frames []nic.Frame
	wake   chan struct{}
}

func (s *metaSource) ReadFrame(first, rest []byte) (int, nic.Offload, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.frames) == 0 {
		return 0, nic.Offload{}, nic.ErrNoFrame
	}
	f := s.frames[0]
	s.frames = s.frames[1:]
	b := packets.Bytes(&f)
	copy(rest, b[copy(first, b):])
	return len(b), f.Offload, nil
}

func (s *metaSource) Wait() error { <-s.wake; return nil }
func (s *metaSource) Wake() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// A sample is a frame that leaves something to be done, and what it becomes on a wire.
type sample struct {
	shape packets.Shape
	frame nic.Frame
	wire  [][]byte
}

// samples returns frames of all shapes: with a partial checksum, and to be cut.
func samples(dst, src nic.MAC) (list []sample) {
	add := func(s packets.Shape, payload, size int) {
		b := s.Frame(packets.Random(payload))
		copy(b, dst[:])
		copy(b[6:], src[:])
		sm := sample{shape: s, frame: packets.Partial(bytes.Clone(b), nic.SegmentNone, 0), wire: [][]byte{b}}
		if size > 0 {
			sm.frame = packets.Partial(b, s.Segment(), size)
			keep := newOffloadSink(0)
			offload.NewSink(keep).WriteFrames([]nic.Frame{sm.frame})
			sm.wire = keep.bytes
		}
		list = append(list, sm)
	}
	for _, s := range packets.Shapes {
		for _, n := range []int{0, 1, 100, 1400} {
			add(s, n, 0)
		}
		for _, n := range []int{1401, 5000, 62000, 65000} {
			add(s, n, 1400-4*s.IPOptions/4)
		}
		add(s, 3000, 60) // many segments
	}
	return list
}

// onWire returns what frames with metadata become on a wire.
func onWire(frames [][]byte, meta []nic.Offload) [][]byte {
	keep := newOffloadSink(0)
	s := offload.NewSink(keep)
	for i, b := range frames {
		f := packets.Split(bytes.Clone(b))
		f.Offload = meta[i]
		s.WriteFrames([]nic.Frame{f})
	}
	return keep.bytes
}

// TestOffloadFromGuest sends what leaves something to be done on every release of
// the host, by both ways into the driver. On the wire it is the same everywhere; how
// much of it the host does is what the release offers.
func TestOffloadFromGuest(t *testing.T) {
	for _, release := range profile.Names() {
		for _, way := range []string{"send", "pump"} {
			t.Run(release+"/"+way, func(t *testing.T) {
				r := newDriverRig(t, release, 2, netvsc.Config{Queues: 2})
				port := newOffloadSink(takesAll)
				r.port.echo = port
				if err := r.nic.Up(context.Background(), newDriverPort()); err != nil {
					t.Fatal(err)
				}
				src := &metaSource{wake: make(chan struct{}, 1)}
				if way == "pump" {
					ctx, cancel := context.WithCancel(context.Background())
					var pump sync.WaitGroup
					pump.Go(func() { r.nic.Pump(ctx, src) })
					defer pump.Wait()
					defer cancel()
				}
				offered := r.device.Info().NVSP
				for _, s := range samples(driverOther, driverMAC) {
					what := fmt.Sprintf("%s, %d bytes, %+v", s.shape.Name, s.frame.Len(), s.frame.Offload)
					whole := s.whole(offered)
					want := s.wire
					if whole > 0 {
						want = want[:whole]
					}
					if way == "pump" {
						src.mu.Lock()
						src.frames = append(src.frames, s.frame)
						src.mu.Unlock()
						src.Wake()
					} else {
						r.sendAll([]nic.Frame{s.frame})
					}
					frames, meta := port.take(t, what, want)
					if got := onWire(frames, meta); !equalFrames(got, s.wire) {
						t.Fatalf("%s: %d frames on the wire, want %d, or they differ", what, len(got), len(s.wire))
					}
					if len(frames) != len(want) {
						t.Errorf("%s: went as %d frames, want %d: %+v", what, len(frames), len(want), meta)
					}
				}
			})
		}
	}
}

var driverOther = nic.MAC{0x00, 0x15, 0x5d, 9, 9, 9}

// whole returns in how many frames a sample goes to a host, 0 if it is cut by the
// driver: hosts cut TCP over the versions of IP that they have, what is not too long
// without its tag, and never UDP.
func (s *sample) whole(v nvsp.Version) int {
	o := s.frame.Offload
	if o.Segment == nic.SegmentNone || s.shape.UDP || s.shape.V6 && v < nvsp.V4 {
		return 0
	}
	longest := 62780
	if s.shape.Tag {
		longest += nic.TagLen
	}
	if s.frame.Len() > longest {
		return 2
	}
	return 1
}

func equalFrames(a, b [][]byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !bytes.Equal(a[i], b[i]) {
			return false
		}
	}
	return true
}

// TestOffloadToGuest sends the same the other way, to guests with a sink that takes
// it and to others.
func TestOffloadToGuest(t *testing.T) {
	for _, release := range profile.Names() {
		for _, takes := range []nic.Offloads{0, takesAll} {
			t.Run(fmt.Sprintf("%s/%d", release, takes), func(t *testing.T) {
				r := newDriverRig(t, release, 2, netvsc.Config{Queues: 2})
				noGRO(t, r.nic) // see TestGROToGuest
				sink := newOffloadSink(takes)
				if err := r.nic.Up(context.Background(), sink); err != nil {
					t.Fatal(err)
				}
				v := r.device.Info().NVSP
				for _, s := range samples(driverMAC, driverOther) {
					what := fmt.Sprintf("%s, %d bytes, %+v", s.shape.Name, s.frame.Len(), s.frame.Offload)
					whole := takes == takesAll && v >= nvsp.V61 && s.frame.Offload.Segment != nic.SegmentNone && !s.shape.UDP
					want := s.wire
					if whole {
						want = want[:1]
					}
					r.device.WriteFrames([]nic.Frame{s.frame})
					frames, meta := sink.take(t, what, want)
					if got := onWire(frames, meta); !equalFrames(got, s.wire) {
						t.Fatalf("%s: %d frames on the wire, want %d, or they differ", what, len(got), len(s.wire))
					}
					if len(frames) != len(want) {
						t.Errorf("%s: came as %d frames, want %d", what, len(frames), len(want))
					}
					for _, m := range meta {
						told := !s.shape.UDP && (!s.shape.V6 || v >= nvsp.V4) || v >= nvsp.V5
						if told == (m.Checksum == nic.ChecksumUnknown) {
							t.Errorf("%s: came with %+v", what, m)
						}
					}
				}

				// What comes with nothing known is looked at.
				good := packets.Shape{}.Frame(packets.Random(500))
				copy(good, driverMAC[:])
				bad := bytes.Clone(good)
				bad[len(bad)-1]++
				r.device.WriteFrames([]nic.Frame{packets.Split(good), packets.Split(bad)})
				frames, meta := sink.take(t, "two frames", [][]byte{good, bad})
				if !equalFrames(frames, [][]byte{good, bad}) || meta[0].Checksum != nic.ChecksumOK || meta[1].Checksum != nic.ChecksumBad {
					t.Errorf("a right and a wrong checksum: %+v", meta)
				}
			})
		}
	}
}

// noGRO switches off what puts frames together on their way to the sink.
func noGRO(t *testing.T, n *netvsc.NIC) {
	t.Helper()
	if err := n.SetFeatures(t.Context(), nic.FeatureChange{Change: nic.FeaturesOf(nic.FeatureGRO)}); err != nil {
		t.Fatal(err)
	}
}
