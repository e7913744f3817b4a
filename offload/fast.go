package offload

import (
	"math/bits"

	"hvnet/nic"
)

// A Flow is what FastFlow says of a frame.
type Flow struct {
	Hash uint32
	Kind nic.HashKind // what Hash is over
	// UDP is set for UDP whose ports count, if the frame has them.
	UDP bool
	// Fragment is set for a part of an IP packet, the first or another one.
	Fragment bool
	// Pair is the hash over the addresses alone, of UDP and of fragments.
	Pair uint32
}

// FastFlow is a flow hash for a driver's own choice of a channel to send on, where
// nobody asks for a particular one: it says as much as Toeplitz.Flow in a fraction
// of the time. levels has the protocols whose ports count, as far as a frame has ports:
// the first fragment of a packet does, the others do not. The addresses always count,
// so it is 0, HashNone, for what is not IP only. The hash is not symmetric, and is
// the same in every process.
func FastFlow(head []byte, levels HashTypes) (f Flow) {
	addrs, ports, l3, l4, of := dissect(head)
	if l3 == 0 {
		return f
	}
	f.Kind, f.UDP, f.Fragment = nic.HashL3, levels&l4&(HashUDPv4|HashUDPv6) != 0, of != whole
	var p uint64
	if levels&l4 != 0 && ports != nil {
		f.Kind = nic.HashL4
		p = uint64(be.Uint32(ports)) | uint64(l4)<<32
	}
	f.Hash = fast(addrs, p)
	if f.UDP || f.Fragment {
		f.Pair = fast(addrs, 0)
	}
	return f
}

// Odd constants of many bits (digits of pi) keep a factor from being zero.
const k0, k1, k2 = 0x243f6a8885a308d3, 0x13198a2e03707345, 0xa4093822299f31d1

// fast hashes addresses and, if they are not 0, ports.
func fast(addrs []byte, ports uint64) uint32 {
	h := mix(be.Uint64(addrs)^k0, ports^k1)
	if len(addrs) == 32 {
		h ^= mix(be.Uint64(addrs[8:])^k1, be.Uint64(addrs[16:])^k2) ^ be.Uint64(addrs[24:])
		h = mix(h^k2, k0)
	}
	return uint32(h>>32) ^ uint32(h)
}

// mix multiplies and folds the upper half of the product onto the lower.
func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}
