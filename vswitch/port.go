package vswitch

import (
	"sync"
	"sync/atomic"

	"hvnet/nic"
	"hvnet/offload"
)

// A Port is one place to connect to. Its methods may be called from any goroutine.
type Port struct {
	sw     *Switch
	name   string
	mac    nic.MAC
	vlan   atomic.Pointer[VLAN]
	out    *offload.Sink
	slot   int
	closed atomic.Bool

	way     atomic.Pointer[way]  // by which frames leave
	second  atomic.Pointer[Path] // nil: there is no other
	turning sync.Mutex           // held while way changes

	learned int // stations learned here; guarded by sw.mu
	count   counters
}

// The places that a frame can go to, in staging.dst; others are slots of ports.
const (
	toAll      = -1 // all ports but the one it came from
	toLearners = -2 // the same, without the ports whose only station is known
	toNone     = -3 // dropped
	mixed      = -4 // of a batch: several destinations
)

// staging is the working memory of one WriteFrames, kept in a pool.
type staging struct {
	dst    []int32       // of each frame
	lists  [][]nic.Frame // by slot: what goes to a port if the batch does not go there whole
	news   []address     // to learn
	tagged bool          // there are frames with tags
	counts tally
}

// maxNews bounds how many addresses one batch can teach; the rest is learned from
// later frames.
const maxNews = 64

// WriteFrames takes a batch of frames that came in on the port. Everything about
// them is done when it returns: nothing of the batch is kept.
func (p *Port) WriteFrames(frames []nic.Frame) { p.take(nil, frames) }

// take is WriteFrames for frames that came by a path, nil for the port's own.
func (p *Port) take(by *Path, frames []nic.Frame) {
	if len(frames) == 0 {
		return
	}
	if p.closed.Load() {
		p.count.dropped[DropClosed].Add(uint64(len(frames)))
		return
	}
	s := p.sw
	st := s.staging.Get().(*staging)
	now := s.seconds()
	in := p.vlan.Load()
	ports, whole := p.sort(st, by, in, frames, now)
	if len(st.news) > 0 {
		s.learn(p, in, st.news, now)
		st.news = st.news[:0]
	}
	switch {
	case whole >= 0:
		ports[whole].deliver(frames, in, st.tagged)
	case whole == toAll, whole == toLearners:
		for _, q := range ports {
			if p.floods(q, whole) {
				q.deliver(frames, in, st.tagged)
			}
		}
	case whole == toNone:
	default:
		p.scatter(st, in, ports, frames)
	}
	p.count.add(&st.counts)
	if by != nil {
		by.inFrames.Add(st.counts.frames)
		by.inBytes.Add(st.counts.bytes)
	}
	st.counts = tally{}
	s.staging.Put(st)
}

// floods reports whether a frame from p with a destination of toAll or toLearners
// goes to q, if that is in its VLAN. q may be nil.
func (p *Port) floods(q *Port, to int32) bool {
	return q != nil && q != p && (to == toAll || q.mac.IsZero())
}

// sort decides where each frame goes. It returns the ports of that instant and the
// destination that all frames share, or mixed.
func (p *Port) sort(st *staging, by *Path, in *VLAN, frames []nic.Frame, now int64) (ports []*Port, whole int32) {
	s := p.sw
	st.dst, st.tagged = st.dst[:0], false
	var lastSrc address // zero is no valid source, and never looked up
	lastDst := address{vlan: maxVLAN + 1}
	var srcForged bool
	var to int32 = toNone
	s.mu.RLock()
	defer s.mu.RUnlock()
	for i := range frames {
		f := &frames[i]
		n := f.Len()
		if drop, ok := malformed(f, n); !ok {
			st.counts.dropped[drop]++
			st.dst = append(st.dst, toNone)
			continue
		}
		id, tagged, ok := in.of(f.Head)
		if !ok {
			st.counts.dropped[DropVLAN]++
			st.dst = append(st.dst, toNone)
			continue
		}
		if src := (address{f.Src(), id}); src != lastSrc {
			forged, news := s.hear(p, src, now)
			if news && len(st.news) < maxNews {
				st.news = append(st.news, src)
			}
			lastSrc, srcForged = src, forged || by != nil && !p.mac.IsZero() && src.mac != p.mac
		}
		if srcForged {
			st.counts.dropped[DropForged]++
			st.dst = append(st.dst, toNone)
			continue
		}
		st.tagged = st.tagged || tagged
		if dst := (address{f.Dst(), id}); dst != lastDst {
			to, lastDst = s.route(dst, now), dst
		}
		st.counts.frames++
		st.counts.bytes += uint64(n)
		out := to
		switch {
		case out == int32(p.slot):
			// The destination is where the frame came from.
			st.counts.dropped[DropLocal]++
			out = toNone
		case out == toAll, out == toLearners:
			st.counts.flooded++
		}
		st.dst = append(st.dst, out)
	}
	whole = st.dst[0]
	for _, d := range st.dst[1:] {
		if d != whole {
			whole = mixed
			break
		}
	}
	return s.ports, whole
}

// malformed reports whether the frame is one that no station could have sent.
func malformed(f *nic.Frame, n int) (Drop, bool) {
	switch {
	case len(f.Head) < nic.MinFrame:
		return DropRunt, false
	case n > nic.MaxFrame+nic.TagLen:
		return DropLong, false
	}
	if src := f.Src(); src.Multicast() || src.IsZero() {
		return DropSource, false
	}
	return 0, true
}

// route returns where a destination address is. The caller holds the lock.
func (s *Switch) route(dst address, now int64) int32 {
	if dst.mac.Multicast() {
		return toAll
	}
	if q := s.fixed[dst.mac]; q != nil && q.vlan.Load().member(dst.vlan) {
		return int32(q.slot)
	}
	st := s.stations[dst]
	if st == nil || s.expired(st, now) {
		return toLearners
	}
	return int32(st.port.slot)
}

// scatter delivers a batch with several destinations: each port gets one batch, in
// the order of the frames.
func (p *Port) scatter(st *staging, in *VLAN, ports []*Port, frames []nic.Frame) {
	for len(st.lists) < len(ports) {
		st.lists = append(st.lists, nil)
	}
	for i, d := range st.dst {
		switch d {
		case toNone:
		case toAll, toLearners:
			for slot, q := range ports {
				if p.floods(q, d) {
					st.lists[slot] = append(st.lists[slot], frames[i])
				}
			}
		default:
			st.lists[d] = append(st.lists[d], frames[i])
		}
	}
	for slot, q := range ports {
		list := st.lists[slot]
		if len(list) == 0 {
			continue
		}
		q.deliver(list, in, st.tagged)
		clear(list) // the pool must not keep anyone's memory alive
		st.lists[slot] = list[:0]
	}
}

// SetVLAN changes the VLANs of the port. The stations that were learned on it are
// forgotten, for they may be in others now.
func (p *Port) SetVLAN(v VLAN) {
	p.sw.mu.Lock()
	defer p.sw.mu.Unlock()
	p.setVLAN(v)
}

// setVLAN is SetVLAN with the lock held.
func (p *Port) setVLAN(v VLAN) {
	p.vlan.Store(&v)
	p.sw.forgetAll(func(_ address, st *station) bool { return st.port == p })
}

// Close takes the port off the switch. Batches that others are delivering at that
// moment may still reach its sink; nothing does that began later. Frames written
// to the port afterwards are dropped.
func (p *Port) Close() {
	if p.closed.CompareAndSwap(false, true) {
		p.sw.disconnect(p)
	}
}
