package hv

import (
	"math/bits"
	"sync/atomic"
	"unsafe"
)

// A bitmap is shared between a side that sets bits and a side that takes them.
// Bit n is bit n%8 of byte n/8, which on the little-endian machines that Hyper-V
// runs on is bit n%64 of word n/64.
type bitmap []uint64

// bitmapAt returns n bits of guest memory as a bitmap. The memory is aligned to
// 8 bytes, as every place in a page that we use is.
func bitmapAt(b []byte, n int) bitmap {
	return unsafe.Slice((*uint64)(unsafe.Pointer(&b[:n/8][0])), n/64)
}

// set sets bit n and tells whether it was clear.
func (b bitmap) set(n int) bool {
	bit := uint64(1) << (n % 64)
	return atomic.OrUint64(&b[n/64], bit)&bit == 0
}

// take clears the first word from index from on that has bits set, and returns
// its index and what it held; 0 if there is none. Words of zeros are only read, so
// that looking at an idle bitmap takes no cache line from the other side.
func (b bitmap) take(from int) (word int, v uint64) {
	for i := from; i < len(b); i++ {
		if atomic.LoadUint64(&b[i]) != 0 {
			return i, atomic.SwapUint64(&b[i], 0)
		}
	}
	return len(b), 0
}

// eachBit calls f with the number of every set bit of the word with the given index.
func eachBit(word int, v uint64, f func(n int)) {
	for ; v != 0; v &= v - 1 {
		f(word*64 + bits.TrailingZeros64(v))
	}
}
