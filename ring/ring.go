// Package ring is one VMBus ring: a producer that writes packets into memory
// shared with a peer, a consumer that takes them out, and every rule about when
// one of them owes the other a signal.
//
// A ring is one header page and a data area. The header holds the two indices,
// the consumer's interrupt mask and the producer's pending send size; each word
// has one writer. A channel has two rings, one in each direction, so each side of
// it has a [Producer] and a [Consumer].
//
// The peer is another process or another kernel and may be hostile. Indices that
// this side owns are kept private and only ever stored; each sample of one that
// the peer owns is checked before it is used; a packet is copied out once and what
// was checked is the copy. A ring that breaks a rule is dead for good: every
// later call returns [ErrCorrupt], and Err says what was wrong.
//
// Nothing here allocates, blocks or signals. Publish and Release say whether the
// peer has to be signalled, and the caller does it. That matters: a host counts
// signals that the rules do not allow, and may suspend a guest for them.
//
// The words and their protocol are those of struct hv_ring_buffer in Linux
// hyperv.h. Words are little-endian and are used in place, so the package works on
// little-endian machines, as Hyper-V itself does.
package ring

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"
)

const (
	// HeaderSize is the size in bytes of the header page in front of the data.
	HeaderSize = 4096
	// Trailer is the size in bytes of what follows each packet on the ring: 32
	// zero bits and the index at which the packet starts.
	Trailer = 8
	// Descriptor is the size in bytes of the smallest packet: its descriptor.
	Descriptor = 16
	// MaxPacket is the largest packet in bytes that a descriptor can describe.
	// A ring may be too small for it.
	MaxPacket = 0xffff * 8

	// gap is what always stays free: a write index that caught up with the read
	// index would say "empty". Everything on a ring is a multiple of 8 bytes.
	gap = 8

	// maxSize bounds the data area so that sums of two indices fit an int32.
	maxSize = 1 << 30
)

var le = binary.LittleEndian

// The errors of this package. They are returned as they are, never wrapped.
var (
	// ErrFull is returned by Put when the packet does not fit for now.
	ErrFull = errors.New("ring: full")
	// ErrEmpty is returned by Next when there is no packet for now.
	ErrEmpty = errors.New("ring: empty")
	// ErrTooBig is returned by Put for a packet that can never fit, and by Next
	// for one that is larger than the buffer: its beginning is returned.
	ErrTooBig = errors.New("ring: packet too big")
	// ErrShort is returned by Put for a head without a whole descriptor.
	ErrShort = errors.New("ring: packet shorter than its descriptor")
	// ErrCorrupt is returned when the peer broke a rule of the ring. It stays.
	ErrCorrupt = errors.New("ring: corrupt")
)

// A header is the head of the header page. Offsets: write index 0, read index 4,
// interrupt mask 8, pending send size 12, feature bits 64.
type header struct {
	write    atomic.Uint32 // by the producer: where the next packet will start
	read     atomic.Uint32 // by the consumer: where its next packet starts
	mask     atomic.Uint32 // by the consumer: non-zero means no signal for new data
	pending  atomic.Uint32 // by the producer: non-zero means signal at this much room
	_        [48]byte
	features atomic.Uint32 // by the producer
}

// publish stores a word before this side looks at one of the peer's, in this order
// for everyone. Store does so too, but not in a build with the race detector: for
// memory that is not Go's own it makes a plain store of it, which the processor may
// let the load overtake, and a signal is lost. An exchange is a barrier in any build.
func publish(word *atomic.Uint32, v uint32) { word.Swap(v) }

// featurePending says two things: I use the pending send size of this ring, and I
// honour the peer's in the ring of the other direction.
const featurePending = 1

// Need returns how many bytes of a ring a packet of n bytes takes: padded to a
// multiple of 8, and the trailer. Free and AwaitRoom count in these bytes.
func Need(n int) int { return (n+7)&^7 + Trailer }

// Init prepares a ring that nobody uses yet, as the guest does before it opens
// the channel: indices, mask and pending send size zero, feature bit set. Memory
// that cannot be a ring is left alone; NewProducer and NewConsumer refuse it.
func Init(mem []byte) {
	h, _, err := layout(mem)
	if err != nil {
		return
	}
	h.write.Store(0)
	h.read.Store(0)
	h.mask.Store(0)
	h.pending.Store(0)
	h.features.Store(featurePending)
}

// layout splits the memory of a ring into its header and its data.
func layout(mem []byte) (*header, []byte, error) {
	size := len(mem) - HeaderSize
	switch {
	case size < HeaderSize:
		return nil, nil, fmt.Errorf("ring: memory of %d bytes: want a header page and at least one page of data", len(mem))
	case size%HeaderSize != 0:
		return nil, nil, fmt.Errorf("ring: memory of %d bytes: not a multiple of %d", len(mem), HeaderSize)
	case size > maxSize:
		return nil, nil, fmt.Errorf("ring: memory of %d bytes: data larger than %d bytes", len(mem), maxSize)
	}
	base := unsafe.Pointer(unsafe.SliceData(mem))
	if uintptr(base)%8 != 0 {
		return nil, nil, fmt.Errorf("ring: memory at %p: not aligned to 8 bytes", base)
	}
	return (*header)(base), mem[HeaderSize:len(mem):len(mem)], nil
}

// checkIndex says what is wrong with an index that the peer may have written.
func checkIndex(name string, i uint32, size int) error {
	if i%8 != 0 || int(i) >= size {
		return fmt.Errorf("ring: %s index %d: want a multiple of 8 below %d", name, i, size)
	}
	return nil
}

// used returns how many bytes lie between a read and a write index.
func used(write, read, size int) int {
	if write >= read {
		return write - read
	}
	return size - read + write
}
