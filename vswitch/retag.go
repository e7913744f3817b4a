package vswitch

import (
	"hvnet/nic"
	"hvnet/offload"
)

// retagBatch is how many frames with changed tags go on in one batch.
const retagBatch = 64

// retagging is the working memory of one delivery between ports whose frames do not have the
// same form. It is kept in a pool.
type retagging struct {
	frames [retagBatch]nic.Frame
	heads  [retagBatch][nic.HeadLen + nic.TagLen]byte
	body   [][]byte
	n      int
}

// deliver hands a batch to what is behind the port: those of the frames that are in its VLANs,
// in the form that they have there. They came in on a port with VLANs of in; tagged says that
// there are tags among them.
func (p *Port) deliver(frames []nic.Frame, in *VLAN, tagged bool) {
	if p.closed.Load() {
		return
	}
	out := p.vlan.Load()
	switch {
	case tagged || !in.plain() || !out.plain():
		p.retag(frames, in, out)
	case in.id == out.id:
		p.send(frames)
	}
}

// retag is deliver for frames that have to be looked at one by one.
func (p *Port) retag(frames []nic.Frame, in, out *VLAN) {
	w := p.sw.retagged.Get().(*retagging)
	for i := range frames {
		f := &frames[i]
		id, had, _ := in.of(f.Head) // all of them were let in
		if !out.member(id) {
			continue
		}
		if w.n == retagBatch {
			p.flush(w)
		}
		to, room := &w.frames[w.n], w.heads[w.n][:]
		w.n++
		tci, _, _ := offload.Tag(f.Head)
		switch has := id != out.id; {
		case had == has && tci&0xfff == id, !had && !has:
			*to = *f
		default: // priority and drop eligible stay
			w.body = offload.Retag(to, f, tci&^0xfff|id, has, room, w.body)
		}
	}
	p.flush(w)
	p.sw.retagged.Put(w)
}

// flush sends what was gathered; the pool must not keep anyone's memory alive.
func (p *Port) flush(w *retagging) {
	if w.n > 0 {
		p.send(w.frames[:w.n])
	}
	clear(w.frames[:w.n])
	clear(w.body)
	w.n, w.body = 0, w.body[:0]
}

// send hands a batch to what is behind the port, by the way that is in use. That is free
// again should the sink panic, as it may where a guest takes its memory away.
func (p *Port) send(frames []nic.Frame) {
	var n uint64
	for i := range frames {
		n += uint64(frames[i].Len())
	}
	p.count.outFrames.Add(uint64(len(frames)))
	p.count.outBytes.Add(n)
	w := p.enter()
	defer w.users.RUnlock()
	if w.path != nil {
		w.path.outFrames.Add(uint64(len(frames)))
		w.path.outBytes.Add(n)
	}
	w.out.WriteFrames(frames)
}
