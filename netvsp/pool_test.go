package netvsp

import (
	"math/rand/v2"
	"testing"
)

// TestPool has four channels take and return sections at random. None takes what is
// another's own, each gets its own part at any time, and in the end all are back.
func TestPool(t *testing.T) {
	const n, first, members = 400, 16, 4
	r := rand.New(rand.NewPCG(1, 2))
	p := newPool(first, n)
	next := make([]int32, n)
	var all [members]sections
	given := [members][]uint64{}
	for i := range all {
		all[i] = newSections(next)
		p.join(&all[i], members)
	}
	own := (n - first) / (4 * members)
	check := func() {
		t.Helper()
		kept, held := 0, 0
		for i := range all {
			kept, held = kept+max(own-all[i].held, 0), held+all[i].held
		}
		if p.own != own || p.kept != kept || len(p.free) != n-first-held || len(p.free) < kept {
			t.Fatalf("own %d, kept %d of %d free, %d held; want %d, %d", p.own, p.kept, len(p.free), held, own, kept)
		}
	}
	for range 20000 {
		i := r.IntN(members)
		s := &all[i]
		if k := 1 + r.IntN(60); r.IntN(2) == 0 {
			before := s.held
			if s.want(k) {
				packet := make([]int32, k)
				for j := range packet {
					packet[j], _ = s.take()
				}
				s.give(packet)
				given[i] = append(given[i], uint64(packet[0]))
			} else if before+k <= own {
				t.Fatalf("channel %d has %d sections and gets no %d more", i, before, k)
			}
		} else if len(given[i]) > 0 {
			j := r.IntN(len(given[i]))
			if s.giveBack(given[i][j]) == 0 {
				t.Fatal("a packet is not known any more")
			}
			given[i] = append(given[i][:j], given[i][j+1:]...)
		}
		s.settle()
		check()
	}
	if s := &all[0]; s.want(n) || s.held <= (n-first)/members {
		t.Errorf("one channel has %d sections, and %t that this is all", s.held, s.want(n))
	}
	for i := range all {
		all[i].reclaim()
		p.leave(&all[i])
	}
	if len(p.free) != n-first || len(p.members) != 0 || p.kept != 0 {
		t.Errorf("%d sections are back, %d channels left, %d kept", len(p.free), len(p.members), p.kept)
	}
}
