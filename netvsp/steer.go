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
}

// hashTypes translates what the guest has asked for.
var hashTypes = map[rndis.HashInfo]offload.HashTypes{
	rndis.HashIPv4: offload.HashIPv4, rndis.HashTCPv4: offload.HashTCPv4, rndis.HashUDPv4: offload.HashUDPv4,
	rndis.HashIPv6: offload.HashIPv6, rndis.HashTCPv6: offload.HashTCPv6, rndis.HashUDPv6: offload.HashUDPv6,
}

// steering makes the steering that the state asks for the current one. With RSS off,
// or before all sub-channels are open, everything goes to the primary channel. The
// caller holds mu.
func (s *session) steering() {
	st := &steering{queues: append([]*queue(nil), s.queues...)}
	if r := &s.rndis.rss; s.active && r.enabled && len(s.queues) > 1 {
		st.hash = offload.NewToeplitz(r.key)
		for asked, t := range hashTypes {
			if r.hash&asked != 0 {
				st.types |= t
			}
		}
		st.table = r.table // never written to once it is there
	}
	s.steer.Store(st)
}

// queue returns where a frame goes: by its hash, or to the primary if it has none
// or if the channel of the table is not open.
func (st *steering) queue(f *nic.Frame) int {
	h, kind := st.hash.Flow(f.Head, st.types)
	if kind == nic.HashNone {
		return 0
	}
	i := int(st.table[h%uint32(len(st.table))])
	if i >= len(st.queues) || st.queues[i] == nil {
		return 0
	}
	return i
}

// staging is the working memory of one delivery to several channels.
type staging struct{ lists [][]nic.Frame }

// deliver spreads a batch over the channels: one delivery for each, whose lock is
// taken once.
func (s *session) deliver(frames []nic.Frame) {
	if len(frames) == 0 {
		return
	}
	st := s.steer.Load()
	if len(st.table) == 0 {
		st.queues[0].deliver(frames)
		return
	}
	first := st.queue(&frames[0])
	k := 1 // frames from the start that go to the same channel
	for k < len(frames) && st.queue(&frames[k]) == first {
		k++
	}
	if k == len(frames) {
		st.queues[first].deliver(frames)
		return
	}
	g := s.stagings.Get().(*staging)
	for len(g.lists) < len(st.queues) {
		g.lists = append(g.lists, nil)
	}
	g.lists[first] = append(g.lists[first], frames[:k]...)
	for i := k; i < len(frames); i++ {
		q := st.queue(&frames[i])
		g.lists[q] = append(g.lists[q], frames[i])
	}
	for i, list := range g.lists {
		if len(list) > 0 {
			st.queues[i].deliver(list)
			clear(list)
			g.lists[i] = list[:0]
		}
	}
	s.stagings.Put(g)
}
