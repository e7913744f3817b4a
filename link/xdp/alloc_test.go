package xdp

import "testing"

// TestNoAllocation sends and receives without allocating.
func TestNoAllocation(t *testing.T) {
	enter(t)
	veth(t, "v0", "v1", 1500, 1)
	a, b := open(t, "v0"), open(t, "v1")
	list := frames(1500)
	q := b.queues[0]
	exchange := func() {
		a.WriteFrames(list)
		for got := 0; got < len(list); {
			if err := q.rc.Read(q.turn); err != nil {
				t.Fatal(err)
			}
			got += q.n
			q.giveBack()
			q.passing.Unlock()
		}
	}
	exchange()
	if n := testing.AllocsPerRun(100, exchange); n != 0 {
		t.Errorf("%v allocations for %d frames", n, len(list))
	}
	lossless(t, a, b)
}
