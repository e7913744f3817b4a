package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"hvnet/netvsc"
	"hvnet/netvsp/profile"
	"hvnet/nic"
)

// TestGROToGuest sends all that is to be cut to a guest that puts together what it can
// of what comes cut, from every release of the host. On the wire it would be the same;
// of what comes as segments of a size, few frames are left.
func TestGROToGuest(t *testing.T) {
	releases := profile.Names()
	if testing.Short() {
		releases = []string{"ws2012r2", "ws2022"} // without RSC and with it
	}
	for _, release := range releases {
		t.Run(release, func(t *testing.T) {
			r := newDriverRig(t, release, 2, netvsc.Config{Queues: 2})
			sink := newOffloadSink(takesAll)
			if err := r.nic.Up(context.Background(), sink); err != nil {
				t.Fatal(err)
			}
			for _, s := range samples(driverMAC, driverOther) {
				what := fmt.Sprintf("%s, %d bytes, %+v", s.shape.Name, s.frame.Len(), s.frame.Offload)
				r.device.WriteFrames([]nic.Frame{s.frame})
				n, wire := sink.takeWire(t, what, len(s.wire))
				if !equalFrames(wire, s.wire) {
					t.Fatalf("%s: %d frames on the wire, want %d, or they differ", what, len(wire), len(s.wire))
				}
				// The device hands over up to 64 frames at once. Linux leaves IPv4 options
				// alone, too; the short segments are too short.
				most := (len(s.wire) + 63) / 64
				if s.shape.IPOptions > 0 && !s.shape.V6 || s.frame.Offload.Size == 60 {
					most = len(s.wire)
				}
				if n > most {
					t.Errorf("%s: came as %d frames, want %d at most", what, n, most)
				}
			}
		})
	}
}

// takeWire waits until frames are there that would be n on the wire, and forgets them. It
// returns how many there were, and these.
func (s *offloadSink) takeWire(t testing.TB, what string, n int) (frames int, wire [][]byte) {
	t.Helper()
	deadline := time.NewTimer(devicePatience)
	defer deadline.Stop()
	for {
		s.mu.Lock()
		if wire = onWire(s.bytes, s.meta); len(wire) >= n {
			frames, s.bytes, s.meta = len(s.bytes), nil, nil
			s.mu.Unlock()
			return frames, wire
		}
		s.mu.Unlock()
		select {
		case <-s.got:
		case <-deadline.C:
			t.Fatalf("%s: %d frames, want %d", what, len(wire), n)
		}
	}
}
