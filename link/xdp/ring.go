package xdp

import (
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A ring is one of the four that a socket shares with the kernel. Of each, one side
// writes entries and moves producer, the other reads them and moves consumer; both count
// up for ever. The kernel is trusted: nobody else has the memory.
type ring[T uint64 | unix.XDPDesc] struct {
	mem                []byte
	producer, consumer *atomic.Uint32
	flags              *atomic.Uint32
	entries            []T // a power of two
}

// mapRing maps the ring at a page offset of a socket, which has n entries.
func mapRing[T uint64 | unix.XDPDesc](fd int, n int, at unix.XDPRingOffset, page int64) (r ring[T], err error) {
	var entry T
	length := int(at.Desc) + n*int(unsafe.Sizeof(entry))
	if r.mem, err = unix.Mmap(fd, page, length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		return r, os.NewSyscallError("mmap of a ring", err)
	}
	base := unsafe.Pointer(unsafe.SliceData(r.mem))
	r.producer = (*atomic.Uint32)(unsafe.Add(base, at.Producer))
	r.consumer = (*atomic.Uint32)(unsafe.Add(base, at.Consumer))
	r.flags = (*atomic.Uint32)(unsafe.Add(base, at.Flags))
	r.entries = unsafe.Slice((*T)(unsafe.Add(base, at.Desc)), n)
	return r, nil
}

// entry returns the one that a count stands for.
func (r *ring[T]) entry(count uint32) *T { return &r.entries[count&uint32(len(r.entries)-1)] }

// filled returns how many entries the consumer has yet to take.
func (r *ring[T]) filled() int { return int(r.producer.Load() - r.consumer.Load()) }

// wants reports whether the kernel asks to be woken to look at the ring.
func (r *ring[T]) wants() bool { return r.flags.Load()&unix.XDP_RING_NEED_WAKEUP != 0 }

func (r *ring[T]) unmap() {
	if r.mem != nil {
		unix.Munmap(r.mem)
		r.mem, r.entries = nil, nil
	}
}
