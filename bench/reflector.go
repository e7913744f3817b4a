// Package bench holds the measurements of the whole: two processes, real
// interfaces, and the peers that the figures are compared with. The benchmarks are
// in its tests; `make bench` runs them. What they need beyond the tests is here.
package bench

import (
	"sync"

	"hvnet/nic"
	"hvnet/vswitch"
)

// A Reflector is a station on a switch that sends every frame back to where it
// came from, at once, in the goroutine that brought it.
type Reflector struct {
	port *vswitch.Port
	pool sync.Pool // of *mirror
}

// mirror is the working memory of one batch.
type mirror struct {
	frames []nic.Frame
	heads  []byte
}

// NewReflector connects a reflector with the given address to a switch.
func NewReflector(sw *vswitch.Switch, mac nic.MAC) (*Reflector, error) {
	r := &Reflector{}
	r.pool.New = func() any { return new(mirror) }
	var err error
	r.port, err = sw.Connect("reflector", r, vswitch.PortOptions{MAC: mac})
	return r, err
}

// WriteFrames sends the frames back with their addresses exchanged.
func (r *Reflector) WriteFrames(frames []nic.Frame) {
	m := r.pool.Get().(*mirror)
	need := 0
	for i := range frames {
		need += len(frames[i].Head)
	}
	if cap(m.heads) < need {
		m.heads = make([]byte, need)
	}
	room := m.heads[:need]
	m.frames = m.frames[:0]
	for i := range frames {
		f := frames[i]
		head := room[:len(f.Head):len(f.Head)]
		room = room[len(f.Head):]
		copy(head, f.Head[6:12])
		copy(head[6:], f.Head[:6])
		copy(head[12:], f.Head[12:])
		f.Head = head
		m.frames = append(m.frames, f)
	}
	r.port.WriteFrames(m.frames)
	clear(m.frames)
	r.pool.Put(m)
}

// Close takes the reflector off the switch.
func (r *Reflector) Close() { r.port.Close() }
