package vswitch_test

import (
	"fmt"

	"hvnet/nic"
	"hvnet/vswitch"
)

// A printer is a sink that says what arrives.
type printer string

func (p printer) WriteFrames(frames []nic.Frame) {
	for i := range frames {
		fmt.Printf("%s: %v -> %v\n", p, frames[i].Src(), frames[i].Dst())
	}
}

func Example() {
	sw := vswitch.New(vswitch.Config{})
	mac1, mac2 := nic.MAC{2, 0, 0, 0, 0, 1}, nic.MAC{2, 0, 0, 0, 0, 2}
	a, _ := sw.Connect("a", printer("a"), vswitch.PortOptions{MAC: mac1})
	b, _ := sw.Connect("b", printer("b"), vswitch.PortOptions{})
	_, _ = sw.Connect("c", printer("c"), vswitch.PortOptions{})

	ethernet := func(dst, src nic.MAC) []nic.Frame {
		head := append(append(dst[:], src[:]...), 0x08, 0x00)
		return []nic.Frame{{Head: head}}
	}
	a.WriteFrames(ethernet(mac2, mac1)) // unknown: to all that learn
	b.WriteFrames(ethernet(mac1, mac2)) // known
	a.WriteFrames(ethernet(mac2, mac1)) // known now
	// Output:
	// b: 02:00:00:00:00:01 -> 02:00:00:00:00:02
	// c: 02:00:00:00:00:01 -> 02:00:00:00:00:02
	// a: 02:00:00:00:00:02 -> 02:00:00:00:00:01
	// b: 02:00:00:00:00:01 -> 02:00:00:00:00:02
}
