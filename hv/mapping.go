package hv

import (
	"fmt"
	"math"
	"sync"
)

// A Mapping is a contiguous view of guest pages that need not be contiguous. It
// outlives the removal of their regions, and the guest.
type Mapping struct {
	Bytes []byte // until Close

	view  *view
	free  func()
	close sync.Once
	err   error
}

// A run is a piece of one region that a page list names in order.
type run struct {
	view       *view
	from, size int
}

// Map returns a contiguous view of the pages with the given frame numbers, in
// their order. Errors are ErrBounds for a page outside guest memory and ErrLimit
// for more than [Limits] allows.
//
// A list that is one run of one region, as our own guests make it, costs nothing
// but a reference. Any other list, such as the scattered pages of a kernel, gets
// addresses of its own onto which its runs are mapped.
func (m *Memory) Map(pfns []uint64) (*Mapping, error) {
	if len(pfns) == 0 {
		return nil, fmt.Errorf("map guest pages: %w: an empty list", ErrBounds)
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	runs, err := m.coalesce(pfns)
	if err != nil {
		return nil, fmt.Errorf("map guest pages: %w", err)
	}
	n, size := len(runs), len(pfns)*PageSize
	if err := m.take(n); err != nil {
		return nil, fmt.Errorf("map guest pages: %w", err)
	}
	v, from, err := join(runs, size)
	if err != nil {
		m.give(n)
		return nil, err
	}
	return &Mapping{
		Bytes: v.bytes[from : from+size : from+size],
		view:  v,
		free:  func() { m.give(n) },
	}, nil
}

// take takes entries of the memory map for n runs, from the guest's own and from those of all.
func (m *Memory) take(n int) error {
	if m.runs.Add(int64(n)) > int64(m.limits.Runs) {
		m.runs.Add(int64(-n))
		return fmt.Errorf("%w: %d runs of pages more than the %d allowed", ErrLimit, n, m.limits.Runs)
	}
	if err := m.limits.Quota.take(n); err != nil {
		m.runs.Add(int64(-n))
		return err
	}
	return nil
}

func (m *Memory) give(n int) {
	m.runs.Add(int64(-n))
	m.limits.Quota.give(n)
}

// coalesce turns a page list into as few runs as possible.
func (m *Memory) coalesce(pfns []uint64) ([]run, error) {
	var runs []run
	for _, pfn := range pfns {
		if pfn > math.MaxUint64/PageSize {
			return nil, ErrBounds
		}
		r := m.find(GPA(pfn * PageSize))
		if r == nil {
			return nil, ErrBounds
		}
		from := int(GPA(pfn*PageSize) - r.gpa)
		if k := len(runs) - 1; k >= 0 && runs[k].view == r.view && runs[k].from+runs[k].size == from {
			runs[k].size += PageSize
			continue
		}
		if len(runs) == m.limits.Runs {
			return nil, ErrLimit
		}
		runs = append(runs, run{r.view, from, PageSize})
	}
	return runs, nil
}

// join returns a view in which the runs follow each other, and where they begin.
func join(runs []run, size int) (v *view, from int, err error) {
	if len(runs) == 1 {
		return runs[0].view.hold(), runs[0].from, nil
	}
	if v, err = reserve(size); err != nil {
		return nil, 0, err
	}
	at := 0
	for _, r := range runs {
		if err := v.alias(at, r.view, r.from, r.size); err != nil {
			v.drop()
			return nil, 0, err
		}
		at += r.size
	}
	return v, 0, nil
}

// Close gives the mapping back. The caller has stopped using Bytes. Closing again
// does nothing.
func (p *Mapping) Close() error {
	p.close.Do(func() {
		p.Bytes = nil
		p.err = p.view.drop()
		p.free()
	})
	return p.err
}
