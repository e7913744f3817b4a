package offload_test

import (
	"fmt"

	"hvnet/offload"
)

// A host chooses the channel of a received frame: the hash picks an entry of the
// guest's table.
func ExampleToeplitz_Flow() {
	head := []byte{12: 0x08, 13: 0x00, 14: 0x45, 23: 6, 26: 66, 9, 149, 187, 161, 142, 100, 80, 0x0a, 0xea, 0x06, 0xe6}
	table := [128]uint32{0x78: 3}

	hash, _ := offload.NewToeplitz(offload.DefaultKey).Flow(head, offload.HashAll)
	fmt.Printf("hash %08x, channel %d\n", hash, table[hash%128])
	// Output: hash 51ccc178, channel 3
}
