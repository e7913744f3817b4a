package hv_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"hvnet/hv"
)

// A pinned goroutine is on one processor of those that there are, in their order and round
// again.
func TestPin(t *testing.T) {
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	var cpus []int
	for cpu := 0; len(cpus) < all.Count(); cpu++ {
		if all.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for vp := range 2*len(cpus) + 1 {
			var mine unix.CPUSet
			if err := hv.Pin(vp); err != nil {
				t.Error(err)
			}
			if err := unix.SchedGetaffinity(0, &mine); err != nil || mine.Count() != 1 || !mine.IsSet(cpus[vp%len(cpus)]) {
				t.Errorf("pinned to processor %d: %v, %v", vp, mine, err)
			}
		}
		if hv.Pin(-1) == nil {
			t.Error("pinned to processor -1")
		}
	}()
	<-done
}
