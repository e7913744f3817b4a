package guest

// A placement decides which virtual processor the host interrupts for a channel, as
// Linux does when a channel is offered (init_vp_index() in drivers/hv/channel_mgmt.c):
//
//   - the NUMA nodes take turns, whichever device a channel is of;
//   - in a node it is the first processor that has no channel yet; when all have one, all
//     are as if they had none;
//   - a sub-channel does not share a processor with another channel of its device: the
//     next node is tried instead, until there have been as many tries as processors, or if
//     the device has more channels than there are processors.
//
// A processor is free again when its last channel has gone. Linux 6.1, 6.12 and 7.3 place
// channels alike; for them processors that are isolated from interrupts are not there, of
// which a guest of ours has none.
type placement struct {
	node  []int  // of each processor
	nodes int    // how many there are
	next  int    // whose turn it is
	taken []bool // by processor: not to be given while its node has others
}

// newPlacement returns the placement of a guest whose processors are divided over its
// nodes in equal runs. A guest has no more nodes than processors.
func newPlacement(vps, nodes int) *placement {
	nodes = max(1, min(nodes, vps))
	p := &placement{node: make([]int, vps), nodes: nodes, taken: make([]bool, vps)}
	for vp := range p.node {
		p.node[vp] = vp * nodes / vps
	}
	return p
}

// place returns the processor of a channel with the given sub-channel index. used
// reports whether another channel of its device has a processor.
func (p *placement) place(index int, used func(vp int) bool) (vp int) {
	vps := len(p.node)
	for try := 0; ; try++ {
		vp = p.first(p.next)
		p.next = (p.next + 1) % p.nodes
		p.taken[vp] = true
		if try == vps || index >= vps || index == 0 || !used(vp) {
			return vp
		}
	}
}

// first returns a node's first processor that is not taken.
func (p *placement) first(node int) int {
	first := -1
	for vp, n := range p.node {
		if n != node {
			continue
		}
		if !p.taken[vp] {
			return vp
		}
		if first < 0 {
			first = vp
		}
	}
	for vp, n := range p.node {
		if n == node {
			p.taken[vp] = false
		}
	}
	return first
}
