package hv

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// ErrLimit is returned when a guest asks for more than its [Limits].
var ErrLimit = errors.New("hv: limit of the guest reached")

// ErrRegion is returned for a region of memory that can't be what it says:
// unaligned, at address 0, beyond the address space, overlapping another one, or
// not there.
var ErrRegion = errors.New("hv: bad memory region")

// Limits bound what one guest can make its host hold. A zero field means its
// default.
type Limits struct {
	Regions int   // regions of memory at the same time; default 1024
	Bytes   int64 // sum of their sizes, with those that a Mapping keeps after Remove; default 8 GiB
	// Runs bounds the runs of adjacent pages in all open Mappings together, for
	// each takes an entry in the process's memory map, of which the kernel allows
	// 65530 by default. Default 32768.
	Runs int
	// Quota, if not nil, is what this guest and others have together.
	Quota *Quota
}

// A Quota bounds the entries that guests take in the memory map of their host's process
// together, one for each region of memory and for each run of a Mapping. A process
// whose map is full can't go on.
type Quota struct {
	most int64
	used atomic.Int64
}

// NewQuota returns a quota of most entries; 0 for 49152, which leaves the process a
// quarter of what the kernel allows by default.
func NewQuota(most int) *Quota { return &Quota{most: int64(cmp.Or(most, 49152))} }

// take takes n entries. The error is ErrLimit if there are not as many left. No quota has
// no end.
func (q *Quota) take(n int) error {
	if q != nil && q.used.Add(int64(n)) > q.most {
		q.give(n)
		return fmt.Errorf("%w: the guests of this host have %d entries of its memory map together", ErrLimit, q.most)
	}
	return nil
}

func (q *Quota) give(n int) {
	if q != nil {
		q.used.Add(int64(-n))
	}
}

func (l Limits) orDefault() Limits {
	if l.Regions == 0 {
		l.Regions = 1024
	}
	if l.Bytes == 0 {
		l.Bytes = 8 << 30
	}
	if l.Runs == 0 {
		l.Runs = 32768
	}
	return l
}

// Memory is the host's view of a guest's physical memory: regions that come and
// go while the guest is attached.
//
// There are two ways in. [Memory.Bytes] is for a look at an address that a guest
// has just named; it costs a search and holds only under RLock. [Memory.Map] is
// for what stays: rings and buffers.
//
// The guest writes to this memory whenever it likes. Whoever reads it copies
// once, checks the copy and uses the copy.
type Memory struct {
	mu      sync.RWMutex
	regions []region // sorted by address, disjoint
	closed  bool
	limits  Limits
	bytes   atomic.Int64 // of all regions that are mapped
	runs    atomic.Int64
}

// A region is one run of guest-physical addresses.
type region struct {
	gpa  GPA
	end  GPA // of the first byte behind it
	view *view
}

// maxGPA bounds guest-physical addresses: x64 has 52 bits of them.
const maxGPA GPA = 1 << 52

// NewMemory returns the view of a guest that has no memory yet.
func NewMemory(l Limits) *Memory {
	return &Memory{limits: l.orDefault()}
}

// RLock keeps the regions in place. Hold it while using slices of Bytes; take it
// once per batch, and neither Add, Remove, Map nor Close under it.
func (m *Memory) RLock() { m.mu.RLock() }

// RUnlock lets regions go again.
func (m *Memory) RUnlock() { m.mu.RUnlock() }

// Bytes returns n bytes of guest memory from gpa on. They must lie in one
// region, else the error is ErrBounds. The caller holds RLock, and the slice is
// good until RUnlock. Bytes does not allocate.
func (m *Memory) Bytes(gpa GPA, n int) ([]byte, error) {
	r := m.find(gpa)
	if r == nil || n < 0 || uint64(n) > uint64(r.end-gpa) {
		return nil, ErrBounds
	}
	off := int(gpa - r.gpa)
	return r.view.bytes[off : off+n : off+n], nil
}

// find returns the region that gpa lies in, or nil.
func (m *Memory) find(gpa GPA) *region {
	lo, hi := 0, len(m.regions) // the first region that ends behind gpa
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		if m.regions[mid].end <= gpa {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == len(m.regions) || gpa < m.regions[lo].gpa {
		return nil
	}
	return &m.regions[lo]
}

// Add makes size bytes of the file behind fd, from offset on, appear at gpa. All
// three are multiples of PageSize. The caller vouches for the file: that it is
// that long and will not shrink (else see [Guard]). fd may be closed afterwards.
// Errors are ErrRegion, ErrLimit, or what the kernel said.
func (m *Memory) Add(gpa GPA, fd int, offset int64, size int64) error {
	if gpa == 0 || gpa%PageSize != 0 || offset < 0 || offset%PageSize != 0 || size <= 0 || size%PageSize != 0 {
		return fmt.Errorf("%w: address %#x, offset %#x, size %#x are not whole pages", ErrRegion, uint64(gpa), offset, size)
	}
	if gpa >= maxGPA || GPA(size) > maxGPA-gpa {
		return fmt.Errorf("%w: %#x bytes at %#x are beyond the address space", ErrRegion, size, uint64(gpa))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return ErrGone
	}
	if len(m.regions) >= m.limits.Regions || size > m.limits.Bytes-m.bytes.Load() {
		return fmt.Errorf("%w: %d regions with %d bytes, %d bytes more", ErrLimit, len(m.regions), m.bytes.Load(), size)
	}
	i := 0
	for i < len(m.regions) && m.regions[i].end <= gpa {
		i++
	}
	end := gpa + GPA(size)
	if i < len(m.regions) && m.regions[i].gpa < end {
		return fmt.Errorf("%w: %#x bytes at %#x overlap the region at %#x", ErrRegion, size, uint64(gpa), uint64(m.regions[i].gpa))
	}
	if err := m.limits.Quota.take(1); err != nil {
		return err
	}
	v, err := mapFile(fd, offset, int(size))
	if err != nil {
		m.limits.Quota.give(1)
		return err
	}
	m.bytes.Add(size)
	v.gone = func() { m.bytes.Add(-size) }
	m.regions = slices.Insert(m.regions, i, region{gpa, end, v})
	return nil
}

// Remove takes the region at gpa away. It waits for everyone who holds RLock;
// Mappings of its pages live on. The error is ErrRegion if there is none.
func (m *Memory) Remove(gpa GPA) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, r := range m.regions {
		if r.gpa == gpa {
			m.regions = slices.Delete(m.regions, i, i+1)
			m.limits.Quota.give(1)
			return r.view.drop()
		}
	}
	return fmt.Errorf("%w: there is none at %#x", ErrRegion, uint64(gpa))
}

// Close takes all regions away, for good.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var errs []error
	for _, r := range m.regions {
		errs = append(errs, r.view.drop())
	}
	m.limits.Quota.give(len(m.regions))
	m.regions, m.closed = nil, true
	return errors.Join(errs...)
}
