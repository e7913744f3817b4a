package netvsc

import (
	"sync"
	"testing"

	"hvnet/nic"
	"hvnet/rndis"
)

// A marker is a sink that changes what it gets of frames behind their heads.
type marker struct {
	mu     sync.Mutex
	frames int
}

func (m *marker) WriteFrames(frames []nic.Frame) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range frames {
		m.frames++
		for _, b := range frames[i].Body {
			for j := range b {
				b[j] = 0xc5
			}
		}
	}
}

// TestBodiesInPlace checks that the driver copies no more of a received frame than its
// head, not even of one that came in pieces: whoever changes what the sink got changes
// the receive buffer.
func TestBodiesInPlace(t *testing.T) {
	h := newFakeHost()
	n := open(t, h, Config{})
	m := new(marker)
	if err := n.Up(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	b := frame(1, 3200)
	list := []piece{{first, b[:1200]}, {middle, b[1200:2200]}, {last, b[2200:]}}
	if err := h.queue(0).indicate(pieceMessages(rndis.Info{}, list)...); err != nil {
		t.Fatal(err)
	}
	h.until(t, "all sections come back", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.frames == 1 && len(h.rxBusy) == 0
	})
	changed := 0
	for _, b := range n.session.Load().receive.Load().mem {
		if b == 0xc5 {
			changed++
		}
	}
	if changed < len(b)-nic.HeadLen {
		t.Errorf("of %d bytes %d are those in the receive buffer", len(b), changed)
	}
}
