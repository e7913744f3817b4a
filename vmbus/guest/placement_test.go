package guest

import (
	"slices"
	"testing"

	"hvnet/vmbus"
)

// vps returns the processors of a device's channels, by index.
func (b *bench) vps(n byte) (list []int) {
	for index := 0; ; index++ {
		i := slices.IndexFunc(sortedKeys(b.m.channels), func(relid uint32) bool {
			ch := b.m.channels[relid]
			return ch.offer.Instance == vmbus.GUID{n} && int(ch.offer.SubChannel) == index && !ch.stale
		})
		if i < 0 {
			return list
		}
		list = append(list, b.m.channels[sortedKeys(b.m.channels)[i]].vp)
	}
}

// TestPlacement: where the channels of devices go that are offered one after the other,
// each with all its channels.
func TestPlacement(t *testing.T) {
	for name, c := range map[string]struct {
		vps, nodes int
		want       [][]int // processors, by device
	}{
		"one processor":             {1, 1, [][]int{{0, 0, 0}}},
		"one node":                  {4, 1, [][]int{{0, 1, 2, 3}}},
		"fewer channels":            {8, 1, [][]int{{0, 1, 2}, {3, 4, 5}}},
		"devices share":             {4, 1, [][]int{{0, 1, 2, 3}, {0, 1, 2, 3}}},
		"a device begins where":     {4, 1, [][]int{{0, 1, 2}, {3, 0, 1, 2}}},
		"two nodes":                 {8, 2, [][]int{{0, 4, 1, 5, 2, 6, 3, 7}}},
		"two nodes, two devices":    {8, 2, [][]int{{0, 4, 1}, {5, 2, 6, 3}}},
		"four nodes":                {8, 4, [][]int{{0, 2, 4, 6, 1, 3, 5, 7}}},
		"nodes of different size":   {5, 2, [][]int{{0, 3, 1, 4, 2}}},
		"nodes as processors":       {3, 3, [][]int{{0, 1, 2}}},
		"more nodes than that":      {2, 5, [][]int{{0, 1}}},
		"more channels than that":   {2, 1, [][]int{{0, 1, 0, 1, 0}}},
		"more channels on two":      {4, 2, [][]int{{0, 2, 1, 3, 0, 2}}},
		"no nodes are one":          {2, 0, [][]int{{0, 1}}},
		"a small node is used up":   {3, 2, [][]int{{0, 2, 1}, {2, 0, 1}}},
		"the second device's turns": {4, 2, [][]int{{0}, {2, 1, 3, 0}}},
	} {
		t.Run(name, func(t *testing.T) {
			b := connected(t, vmbus.Version5_3)
			b.m.placement = newPlacement(c.vps, c.nodes)
			relid := uint32(0)
			for i, want := range c.want {
				for index := range want {
					relid++
					b.offer(relid, byte(i+1), index)
				}
			}
			for i, want := range c.want {
				if got := b.vps(byte(i + 1)); !slices.Equal(got, want) {
					t.Errorf("device %d: %v, want %v", i+1, got, want)
				}
			}
		})
	}
}

// What Linux 6.1 has chosen on 8 processors of two nodes when a device had one number of
// channels after the other, by `ethtool -L`. A processor is free again when the last
// channel has left it, also if the host is late in taking the old ones away.
func TestPlacementAgain(t *testing.T) {
	for _, late := range []bool{false, true} {
		b := connected(t, vmbus.Version5_3)
		b.m.placement = newPlacement(8, 2)
		primary, relid := uint32(1), uint32(1)
		b.offer(primary, 1, 0)
		var old []uint32
		for _, want := range [][]int{
			{0, 4, 1, 5, 2, 6, 3, 7},
			{0, 1, 4},
			{0, 1, 4, 2, 5, 3, 6, 7},
			{0},
			{0, 1, 4, 2, 5},
			{0, 1},
			{0, 4, 1, 5, 2, 6, 3},
		} {
			if !late {
				b.rescind(old...)
			}
			var subs []uint32
			for index := 1; index < len(want); index++ {
				relid++
				b.offer(relid, 1, index)
				subs = append(subs, relid)
			}
			if late {
				b.rescind(old...)
			}
			if got := b.vps(1); !slices.Equal(got, want) {
				t.Fatalf("late %v: %v, want %v", late, got, want)
			}
			b.open(primary)
			b.m.close(b.m.channels[primary])
			b.m.closed(b.m.channels[primary])
			old = subs
		}
		b.rescind(old...)
		if slices.Contains(b.m.placement.taken[1:], true) {
			t.Errorf("taken by nobody: %v", b.m.placement.taken)
		}
	}
}

// A channel that was moved leaves its processor to others.
func TestPlacementAfterMove(t *testing.T) {
	b := connected(t, vmbus.Version5_3)
	b.m.placement = newPlacement(4, 1)
	b.offer(1, 1, 0)
	b.offer(2, 1, 1)
	b.m.moved(b.m.channels[2], 3)
	b.offer(3, 1, 2)
	b.m.moved(b.m.channels[1], 3) // two on one
	b.m.moved(b.m.channels[2], 0)
	b.offer(4, 1, 3)
	if got, want := b.vps(1), []int{3, 0, 1, 2}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
