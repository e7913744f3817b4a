package rndis_test

import (
	"fmt"

	"hvnet/rndis"
)

// A guest puts a header with a flow hash in front of a frame; the host reads both.
func Example() {
	frame := []byte("a frame of some length")
	section := make([]byte, 6144)
	n := rndis.PutPacket(section, len(frame), &rndis.Info{Has: rndis.HasHash, Hash: 0x51ccc178})
	n += copy(section[n:], frame)

	var head [rndis.PacketHeadSize]byte // private: the section is shared
	k := copy(head[:], section[:n])
	p, err := rndis.ParsePacket(head[:k], n)
	var info rndis.Info
	if err == nil {
		err = p.Info(&info)
	}
	fmt.Printf("%s, hash %x, %v\n", section[p.DataOffset:][:p.DataLen], info.Hash, err)
	// Output: a frame of some length, hash 51ccc178, <nil>
}
