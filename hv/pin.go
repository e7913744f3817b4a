package hv

import (
	"fmt"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// allowed are the processors of the machine that the process may use, as they were before
// any of its threads was pinned.
var allowed = sync.OnceValues(func() (set unix.CPUSet, err error) {
	return set, unix.SchedGetaffinity(0, &set)
})

// Pin keeps the calling goroutine on the processor of the machine that stands for a
// guest's virtual processor: of those that this process may use the vp-th, counted from 0
// and beginning anew when there are no more. The goroutine has its thread for itself from
// then on, and may be pinned again. When it ends, its thread does.
func Pin(vp int) error {
	runtime.LockOSThread()
	all, err := allowed()
	if err == nil && (vp < 0 || all.Count() == 0) {
		err = unix.EINVAL
	}
	if err != nil {
		return fmt.Errorf("pin to processor %d: %w", vp, err)
	}
	var one unix.CPUSet
	for cpu, skip := 0, vp%all.Count(); one.Count() == 0; cpu++ {
		switch {
		case !all.IsSet(cpu):
		case skip > 0:
			skip--
		default:
			one.Set(cpu)
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return fmt.Errorf("pin to processor %d: %w", vp, err)
	}
	return nil
}
