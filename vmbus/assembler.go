package vmbus

// A PageRange is a run of bytes in pages that need not be adjacent: it begins Offset
// bytes into the first page and goes on through whole pages.
type PageRange struct {
	Count  uint32   // bytes, not 0
	Offset uint32   // below PageSize
	PFNs   []uint64 // the pages, as many as the bytes touch
}

// pageCount returns how many pages count bytes from offset on touch.
func pageCount(count, offset uint32) uint64 {
	return (uint64(offset) + uint64(count) + PageSize - 1) / PageSize
}

// An Assembler puts one GPADL of the guest together from its messages. What it
// holds is bounded by the 16-bit length in the header, and grows only with what
// the guest has sent.
type Assembler struct {
	relid, id uint32
	ranges    int
	missing   int // words
	list      []uint64
}

// NewAssembler begins with the header. It returns an error if the header cannot
// begin a list of ranges; the host answers that with a failed GPADL_CREATED.
func NewAssembler(h GPADLHeader) (*Assembler, error) {
	switch {
	case h.ID == 0:
		return nil, malformed(TypeGPADLHeader, "id 0")
	case h.RangeLen%8 != 0:
		return nil, malformed(TypeGPADLHeader, "list of %d bytes, want a multiple of 8", h.RangeLen)
	case h.Ranges == 0:
		return nil, malformed(TypeGPADLHeader, "no range")
	case int(h.Ranges)*(rangeSize+8) > int(h.RangeLen):
		return nil, malformed(TypeGPADLHeader, "%d ranges in a list of %d bytes", h.Ranges, h.RangeLen)
	}
	a := &Assembler{relid: h.Relid, id: h.ID, ranges: int(h.Ranges), missing: int(h.RangeLen) / 8}
	a.Add(h.Data)
	return a, nil
}

// Relid returns the channel that the GPADL belongs to, which its bodies do not tell.
func (a *Assembler) Relid() uint32 { return a.relid }

// ID returns the GPADL's id.
func (a *Assembler) ID() uint32 { return a.id }

// Held returns the bytes of memory that the assembler's list takes, for a host that
// bounds what unfinished GPADLs of a guest may hold.
func (a *Assembler) Held() int { return 8 * cap(a.list) }

// Done reports whether the list is complete.
func (a *Assembler) Done() bool { return a.missing == 0 }

// Add takes the data of a body and reports whether the list is complete. Bytes
// behind the end of the list do not count: some guests always post whole messages.
func (a *Assembler) Add(data []byte) (done bool) {
	n := min(len(data)/8, a.missing)
	for i := range n {
		a.list = append(a.list, le.Uint64(data[8*i:]))
	}
	a.missing -= n
	return a.Done()
}

// Ranges returns the ranges of a complete list; they share the assembler's memory.
// It returns an error if the list is not complete, if a range is empty, begins
// behind its first page or has fewer pages than its bytes touch, or if the list is
// longer than its ranges. Whether the pages exist is for the caller to check.
func (a *Assembler) Ranges() ([]PageRange, error) {
	if !a.Done() {
		return nil, malformed(TypeGPADLHeader, "list incomplete, %d bytes missing", 8*a.missing)
	}
	ranges := make([]PageRange, 0, a.ranges)
	rest := a.list
	for i := range a.ranges {
		if len(rest) == 0 {
			return nil, malformed(TypeGPADLHeader, "list ends before range %d of %d", i, a.ranges)
		}
		r := PageRange{Count: uint32(rest[0]), Offset: uint32(rest[0] >> 32)}
		rest = rest[1:]
		n := pageCount(r.Count, r.Offset)
		switch {
		case r.Count == 0:
			return nil, malformed(TypeGPADLHeader, "range %d is empty", i)
		case r.Offset >= PageSize:
			return nil, malformed(TypeGPADLHeader, "range %d begins at byte %d of its first page", i, r.Offset)
		case n > uint64(len(rest)):
			return nil, malformed(TypeGPADLHeader, "range %d needs %d pages, the list has %d more", i, n, len(rest))
		}
		r.PFNs, rest = rest[:n:n], rest[n:]
		ranges = append(ranges, r)
	}
	if len(rest) != 0 {
		return nil, malformed(TypeGPADLHeader, "%d bytes behind the last range", 8*len(rest))
	}
	return ranges, nil
}
