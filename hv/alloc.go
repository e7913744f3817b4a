package hv

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// An Allocator is the physical memory of a guest that is a process. Every region
// is a memfd of its own that can't change its size, at an address of its own: not
// 0, not beside another region, never used twice. So a guest-physical address, an
// offset and a pointer can't be taken for each other, nor an old region for a new.
type Allocator struct {
	add    func(gpa GPA, fd, size int) error
	remove func(GPA) error

	mu     sync.Mutex
	next   GPA
	views  map[GPA]*view
	closed bool
}

// Regions begin at firstGPA and are gapPages apart.
const firstGPA, gapPages GPA = 0x1_2345_6000, 5

// NewAllocator returns an empty memory. add tells the host of a new region, which
// is all of the file behind fd and zeroed; remove tells it of one that is no more.
func NewAllocator(add func(gpa GPA, fd, size int) error, remove func(GPA) error) *Allocator {
	return &Allocator{add: add, remove: remove, next: firstGPA, views: make(map[GPA]*view)}
}

// Alloc allocates a region of at least bytes, rounded up to whole pages.
func (a *Allocator) Alloc(bytes int) (Region, error) {
	if bytes <= 0 || bytes > 1<<40 {
		return Region{}, fmt.Errorf("allocate guest memory: %w: %d bytes", ErrLimit, bytes)
	}
	size := (bytes + PageSize - 1) &^ (PageSize - 1)
	fd, err := memoryFile(size)
	if err != nil {
		return Region{}, fmt.Errorf("allocate guest memory: %w", err)
	}
	defer unix.Close(fd)
	v, err := mapFile(fd, 0, size)
	if err != nil {
		return Region{}, fmt.Errorf("allocate guest memory: %w", err)
	}
	a.mu.Lock()
	gpa := a.next
	a.next += GPA(size) + gapPages*PageSize
	a.mu.Unlock()
	if err := a.add(gpa, fd, size); err != nil {
		v.drop()
		return Region{}, fmt.Errorf("allocate guest memory: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		v.drop()
		return Region{}, fmt.Errorf("allocate guest memory: %w", ErrGone)
	}
	a.views[gpa] = v
	return Region{GPA: gpa, Bytes: v.bytes}, nil
}

// memoryFile returns a memfd of the given size that can neither shrink nor grow.
func memoryFile(size int) (fd int, err error) {
	fd, err = unix.MemfdCreate("guest memory", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return -1, fmt.Errorf("memfd_create: %w", err)
	}
	if err = unix.Ftruncate(fd, int64(size)); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("ftruncate: %w", err)
	}
	if _, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("seal: %w", err)
	}
	return fd, nil
}

// Free takes a region away again. The error is ErrRegion if Alloc did not return
// it, or what the host said; the guest's own pages are gone in either case.
func (a *Allocator) Free(r Region) error {
	a.mu.Lock()
	v := a.views[r.GPA]
	delete(a.views, r.GPA)
	a.mu.Unlock()
	if v == nil {
		return fmt.Errorf("free guest memory: %w: none was allocated at %#x", ErrRegion, uint64(r.GPA))
	}
	if err := errors.Join(a.remove(r.GPA), v.drop()); err != nil {
		return fmt.Errorf("free guest memory: %w", err)
	}
	return nil
}

// Close unmaps all regions without telling the host.
func (a *Allocator) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var errs []error
	for _, v := range a.views {
		errs = append(errs, v.drop())
	}
	a.views, a.closed = nil, true
	return errors.Join(errs...)
}
