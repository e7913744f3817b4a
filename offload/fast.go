package offload

import (
	"math/bits"

	"hvnet/nic"
)

// FastFlow is a flow hash for a driver's own choice of a channel to send on, where
// nobody asks for a particular one: it says as much as Toeplitz.Flow in a fraction
// of the time. levels has the protocols whose ports count; the addresses always do,
// so it is 0, HashNone, for what is not IP only. The hash is not symmetric, and is
// the same in every process.
func FastFlow(head []byte, levels HashTypes) (hash uint32, kind nic.HashKind) {
	addrs, ports, l3, l4 := dissect(head)
	if l3 == 0 {
		return 0, nic.HashNone
	}
	kind = nic.HashL3
	var p uint64
	if levels&l4 != 0 {
		kind = nic.HashL4
		p = uint64(be.Uint32(ports)) | uint64(l4)<<32
	}
	// Odd constants of many bits (digits of pi) keep a factor from being zero.
	const k0, k1, k2 = 0x243f6a8885a308d3, 0x13198a2e03707345, 0xa4093822299f31d1
	h := mix(be.Uint64(addrs)^k0, p^k1)
	if len(addrs) == 32 {
		h ^= mix(be.Uint64(addrs[8:])^k1, be.Uint64(addrs[16:])^k2) ^ be.Uint64(addrs[24:])
		h = mix(h^k2, k0)
	}
	return uint32(h>>32) ^ uint32(h), kind
}

// mix multiplies and folds the upper half of the product onto the lower.
func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}
