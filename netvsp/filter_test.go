package netvsp

import (
	"fmt"
	"testing"

	"hvnet/nic"
)

// TestFilter is the table of what passes which packet filter.
func TestFilter(t *testing.T) {
	mine, other := nic.MAC{0, 0x15, 0x5d, 1, 2, 3}, nic.MAC{0, 0x15, 0x5d, 1, 2, 4}
	group := nic.MAC{0x33, 0x33, 0, 0, 0, 1}
	for _, c := range []struct {
		bits                          uint32
		mine, other, group, broadcast bool
	}{
		{0, false, false, false, false},
		{0x01, true, false, false, false},
		{0x02, false, false, true, false},
		{0x04, false, false, true, false},
		{0x08, false, false, false, true},
		{0x0d, true, false, true, true}, // what Linux has when it is up
		{0x20, true, true, true, true},  // and promiscuous
		{0x40, false, false, false, false},
	} {
		f := filter{c.bits, mine}
		for dst, want := range map[nic.MAC]bool{mine: c.mine, other: c.other, group: c.group, nic.Broadcast: c.broadcast} {
			b := make([]byte, 60)
			copy(b, dst[:])
			if got := f.frame(&nic.Frame{Head: b}); got != want {
				t.Errorf("filter %#x: a frame to %v passes: %v, want %v", c.bits, dst, got, want)
			}
		}
	}
	for n := range nic.MinFrame {
		if (&filter{0x0d, nic.MAC{}}).frame(&nic.Frame{Head: make([]byte, n)}) {
			t.Error(fmt.Sprint("a runt of ", n, " bytes passes"))
		}
	}
}
