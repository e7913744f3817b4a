package netvsc

import (
	"bytes"
	"context"
	"sync"
	"testing"
	"testing/synctest"

	"hvnet/nic"
	"hvnet/rndis"
)

// A marker is a sink that changes what it gets of frames, behind their heads or all of it.
type marker struct {
	all    bool
	mu     sync.Mutex
	frames int
}

func (m *marker) WriteFrames(frames []nic.Frame) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range frames {
		m.frames++
		if m.all {
			mark(frames[i].Head)
		}
		for _, b := range frames[i].Body {
			mark(b)
		}
	}
}

func mark(b []byte) {
	for i := range b {
		b[i] = 0xc5
	}
}

// marked returns how many bytes have been changed.
func marked(b []byte) int { return bytes.Count(b, []byte{0xc5}) }

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
	if changed := marked(n.session.Load().receive.Load().mem); changed < len(b)-nic.HeadLen {
		t.Errorf("of %d bytes %d are those in the receive buffer", len(b), changed)
	}
}

// A markerVF is a virtual function that changes what it is to send.
type markerVF struct {
	*fakeVF
	marker
}

func (v *markerVF) WriteFrames(frames []nic.Frame) { v.marker.WriteFrames(frames) }

// TestVFBodiesInPlace checks that the driver copies nothing of what goes by a VF: that gets
// the memory that frames were read into, and the sink what the VF has received into.
func TestVFBodiesInPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHost()
		h.vf.serial = 7
		n := open(t, h, Config{VF: true})
		sink, dev := &marker{all: true}, &markerVF{fakeVF: newFakeVF(h), marker: marker{all: true}}
		if err := n.Up(t.Context(), sink); err != nil {
			t.Fatal(err)
		}
		port, err := n.AddVF(context.Background(), dev)
		if err != nil {
			t.Fatal(err)
		}
		port.Changed(running)
		synctest.Wait()
		const count = 10
		sent := frame(1, 1500)
		p := &pump{n: n, src: &loop{frame: sent, left: count}}
		if err := p.round(); err != nic.ErrNoFrame || dev.frames != count {
			t.Fatalf("%d frames sent: %v", dev.frames, err)
		}
		if changed := marked(p.vf.mem[:]); changed < count*len(sent) {
			t.Errorf("of %d bytes %d are those that the pump has read", count*len(sent), changed)
		}
		came := frame(2, 1500)
		port.WriteFrames([]nic.Frame{{Head: came[:100], Body: [][]byte{came[100:]}}})
		if changed := marked(came); changed != len(came) {
			t.Errorf("of %d bytes that were received the sink has got %d where they were", len(came), changed)
		}
	})
}
