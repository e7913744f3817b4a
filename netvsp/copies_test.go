package netvsp

import (
	"testing"

	"hvnet/nic"
)

// A marker is a port that changes what it gets of frames behind their heads.
type marker struct{ bodies int }

func (m *marker) WriteFrames(frames []nic.Frame) {
	for i := range frames {
		for _, b := range frames[i].Body {
			m.bodies++
			for j := range b {
				b[j] = 0xc5
			}
		}
	}
}
func (*marker) Close() {}

// TestBodiesInPlace checks that the device copies no more of a frame than its head on
// the way to the switch: whoever changes what the port got changes the guest's memory.
func TestBodiesInPlace(t *testing.T) {
	g, q, _ := quiet(t)
	m := new(marker)
	q.s.port = m
	const size = 1000
	s := newSender(g, 1, 1, size)
	s.put()
	q.take()
	changed := 0
	for _, b := range g.send.Bytes[:6144] {
		if b == 0xc5 {
			changed++
		}
	}
	if m.bodies != 1 || changed < size-nic.HeadLen {
		t.Errorf("%d bodies, and of %d bytes %d are those in the send section", m.bodies, size, changed)
	}
}
