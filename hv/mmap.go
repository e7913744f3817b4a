package hv

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A view is one shared mapping of guest memory in this process. Regions and
// Mappings hold references to it; the last one gone unmaps it.
type view struct {
	bytes []byte
	refs  atomic.Int32
	gone  func() // called when it is unmapped, if not nil
}

// mapFile maps size bytes of the file behind fd from offset on, shared and
// writable, and returns a view with one reference. The descriptor is not needed
// afterwards.
func mapFile(fd int, offset int64, size int) (*view, error) {
	p, err := unix.MmapPtr(fd, offset, nil, uintptr(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes of guest memory: %w", size, err)
	}
	return newView(p, size), nil
}

// reserve takes a range of addresses where nothing is mapped yet.
func reserve(size int) (*view, error) {
	p, err := unix.MmapPtr(-1, 0, nil, uintptr(size), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("reserve %d bytes of address space: %w", size, err)
	}
	return newView(p, size), nil
}

func newView(p unsafe.Pointer, size int) *view {
	v := &view{bytes: unsafe.Slice((*byte)(p), size)}
	v.refs.Store(1)
	return v
}

// alias makes part of another view appear in v at the given offset. mremap with
// an old size of 0 duplicates a shared mapping, so that no descriptor of guest
// memory has to be kept for this.
func (v *view) alias(offset int, of *view, from, size int) error {
	old, at := unsafe.Pointer(&of.bytes[from]), unsafe.Pointer(&v.bytes[offset])
	_, err := unix.MremapPtr(old, 0, at, uintptr(size), unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED)
	if err != nil {
		return fmt.Errorf("map %d pages of guest memory: %w", size/PageSize, err)
	}
	return nil
}

// hold takes one more reference.
func (v *view) hold() *view {
	v.refs.Add(1)
	return v
}

// drop gives one reference back.
func (v *view) drop() error {
	if v.refs.Add(-1) > 0 {
		return nil
	}
	if v.gone != nil {
		defer v.gone()
	}
	err := unix.MunmapPtr(unsafe.Pointer(&v.bytes[0]), uintptr(len(v.bytes)))
	if err != nil {
		return fmt.Errorf("unmap guest memory: %w", err)
	}
	return nil
}
