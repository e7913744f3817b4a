package offload

import "hvnet/nic"

// DefaultKey is the key of Microsoft's examples of receive-side scaling, which
// hv_netvsc uses too.
var DefaultKey = [40]byte{
	0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb,
	0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
}

// MaxHashInput is the longest input of a Toeplitz hash with a 40-byte key: two IPv6
// addresses and two ports.
const MaxHashInput = 36

// A Toeplitz computes the hash of receive-side scaling. It is a value of 36 KiB
// with the contribution of every byte at every place of the input, and is safe for
// concurrent use.
type Toeplitz struct {
	table [MaxHashInput][256]uint32
}

// NewToeplitz prepares a key.
func NewToeplitz(key [40]byte) *Toeplitz {
	t := new(Toeplitz)
	for i := range t.table {
		// Bit b of byte i, counted from the left, contributes the 32 bits of
		// the key that begin at bit 8i+b.
		window := uint64(be.Uint32(key[i:]))<<8 | uint64(key[i+4])
		for b := range 8 {
			word, bit := uint32(window>>(8-b)), 0x80>>b
			for v := range 256 {
				if v&bit != 0 {
					t.table[i][v] ^= word
				}
			}
		}
	}
	return t
}

// Hash returns the hash of an input of at most MaxHashInput bytes; what is beyond
// does not count.
func (t *Toeplitz) Hash(input []byte) uint32 {
	return t.sum(0, input)
}

// sum returns what input contributes at place at of the whole input.
func (t *Toeplitz) sum(at int, input []byte) (h uint32) {
	table := t.table[at:]
	if len(input) > len(table) {
		input = input[:len(table)]
	}
	for i, v := range input {
		h ^= table[i][v]
	}
	return h
}

// Flow returns the hash of a frame by its first bytes, nic.HeadLen of them or the
// whole frame. It is over addresses and ports if types has the packet's protocol,
// over addresses if it has only its IP version, and there is none for any other
// packet and for one that is cut short or garbled.
func (t *Toeplitz) Flow(head []byte, types HashTypes) (hash uint32, kind nic.HashKind) {
	hash, over := t.FlowType(head, types)
	switch {
	case over == 0:
		return 0, nic.HashNone
	case over&(HashIPv4|HashIPv6) != 0:
		return hash, nic.HashL3
	}
	return hash, nic.HashL4
}

// FlowType is Flow, and says which one of types the hash is; 0 if there is none. A
// fragment's is over the addresses, for only the first has ports, and a datagram must
// stay together.
func (t *Toeplitz) FlowType(head []byte, types HashTypes) (hash uint32, over HashTypes) {
	addrs, ports, l3, l4, of := dissect(head)
	switch {
	case types&l4 != 0 && of == whole:
		return t.sum(0, addrs) ^ t.sum(len(addrs), ports), l4
	case types&l3 != 0:
		return t.sum(0, addrs), l3
	}
	return 0, 0
}
