package netvsp

import (
	"hvnet/nic"
	"hvnet/offload"
	"hvnet/rndis"
)

// steering is how frames for the guest are spread over its channels: an immutable
// value behind an atomic pointer.
type steering struct {
	queues []*queue // by channel; those that are not in use are nil
	hash   *offload.Toeplitz
	types  offload.HashTypes
	table  []uint32 // channel by hash; empty: all to the primary

	fragmentsFirst bool // go to the primary
}

// A flow is the hash of a frame and what it is over, as the guest is told. The zero
// value is none.
type flow struct {
	hash uint32
	over rndis.HashInfo
}

// hashTypes translates what the guest has asked for.
var hashTypes = [...]struct {
	asked rndis.HashInfo
	types offload.HashTypes
}{
	{rndis.HashIPv4, offload.HashIPv4}, {rndis.HashTCPv4, offload.HashTCPv4}, {rndis.HashUDPv4, offload.HashUDPv4},
	{rndis.HashIPv6, offload.HashIPv6}, {rndis.HashTCPv6, offload.HashTCPv6}, {rndis.HashUDPv6, offload.HashUDPv6},
}

// hashInfo is what the guest is told of a hash.
func hashInfo(over offload.HashTypes) rndis.HashInfo {
	for _, t := range &hashTypes {
		if t.types == over {
			return rndis.HashToeplitz | t.asked
		}
	}
	return 0
}

// steering makes the steering that the state asks for the current one. With RSS off,
// or before all sub-channels are open, everything goes to the primary channel. When it
// returns nothing comes by the one before any more. The caller holds mu.
func (s *session) steering() {
	st := &steering{queues: append([]*queue(nil), s.queues...), fragmentsFirst: s.ctl.profile.FragmentsFirst}
	if r := &s.rndis.rss; s.active && r.enabled && len(s.queues) > 1 {
		st.hash = offload.NewToeplitz(r.key)
		for _, t := range hashTypes {
			if r.hash&t.asked != 0 {
				st.types |= t.types
			}
		}
		if s.ctl.profile.UDPByAddress {
			st.types &^= offload.HashUDPv4 | offload.HashUDPv6
		}
		st.table = r.table // never written to once it is there
	}
	s.steer.Store(st)
	s.settle()
}

// queue returns where a frame goes: by its hash, or to the primary if it has none
// or if the channel of the table is not open.
func (st *steering) queue(f *nic.Frame) (int, flow) {
	if st.fragmentsFirst && offload.Fragment(f.Head) {
		return 0, flow{}
	}
	h, over := st.hash.FlowType(f.Head, st.types)
	if over == 0 {
		return 0, flow{}
	}
	i := int(st.table[h%uint32(len(st.table))])
	if i >= len(st.queues) || st.queues[i] == nil {
		i = 0
	}
	return i, flow{h, hashInfo(over)}
}

// staging is the working memory of one delivery to several channels.
type staging struct {
	to    []int    // the channel of each frame,
	flows []flow   // and its flow
	lists []staged // by channel, if they differ
}

type staged struct {
	frames []nic.Frame
	flows  []flow
}

// deliver spreads a batch over the channels: one delivery for each, whose lock is
// taken once.
func (s *session) deliver(frames []nic.Frame) {
	if len(frames) > 0 {
		s.deliverBy(s.steer.Load(), frames)
	}
}

// deliverBy is deliver by a steering that was the current one a moment ago. Whoever is
// held up for long here may find that it is not any more: by the old one its frames
// could come on another channel than those of their flows that follow, and be overtaken.
// So a queue takes frames by the current steering alone, and what it does not take is
// spread anew.
func (s *session) deliverBy(st *steering, frames []nic.Frame) {
	if len(st.table) == 0 {
		if !st.queues[0].deliver(st, frames, nil) {
			s.deliver(frames)
		}
		return
	}
	g := s.stagings.Get().(*staging)
	defer s.stagings.Put(g)
	g.to, g.flows = g.to[:0], g.flows[:0]
	mixed := false
	for i := range frames {
		to, flow := st.queue(&frames[i])
		g.to, g.flows = append(g.to, to), append(g.flows, flow)
		mixed = mixed || to != g.to[0]
	}
	if !mixed {
		if !st.queues[g.to[0]].deliver(st, frames, g.flows) {
			s.deliver(frames)
		}
		return
	}
	for len(g.lists) < len(st.queues) {
		g.lists = append(g.lists, staged{})
	}
	for i, to := range g.to {
		l := &g.lists[to]
		l.frames, l.flows = append(l.frames, frames[i]), append(l.flows, g.flows[i])
	}
	for i := range g.lists {
		if l := &g.lists[i]; len(l.frames) > 0 {
			if !st.queues[i].deliver(st, l.frames, l.flows) {
				s.deliver(l.frames)
			}
			clear(l.frames)
			l.frames, l.flows = l.frames[:0], l.flows[:0]
		}
	}
}
