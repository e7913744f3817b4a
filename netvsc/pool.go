package netvsc

import "sync"

// A pool hands out the equal parts of one piece of guest memory by number: the
// sections of the send buffer, the page runs for what does not fit a section, the
// pages of control messages. A part that the host holds is taken; whatever
// completes gives it back. Its lock is taken once per part taken, that is per ring
// packet of several frames, and once per batch given back.
type pool struct {
	mem  []byte
	size int // bytes of a part
	max  int // number of parts

	mu   sync.Mutex
	free []int32 // a stack: the part given back last is warm
}

// newPool returns a pool of max parts of size bytes of mem.
func newPool(mem []byte, size, max int) *pool {
	p := &pool{mem: mem, size: size, max: max, free: make([]int32, max)}
	for i := range p.free {
		p.free[i] = int32(max - 1 - i)
	}
	return p
}

// none is the number of no part.
const none int32 = -1

// take returns a part that nobody has, or none.
func (p *pool) take() int32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.free)
	if n == 0 {
		return none
	}
	i := p.free[n-1]
	p.free = p.free[:n-1]
	return i
}

// give takes parts back.
func (p *pool) give(parts ...int32) {
	if len(parts) == 0 {
		return
	}
	p.mu.Lock()
	p.free = append(p.free, parts...)
	p.mu.Unlock()
}

// bytes returns the memory of part i.
func (p *pool) bytes(i int32) []byte {
	at := int(i) * p.size
	return p.mem[at : at+p.size : at+p.size]
}

// idle returns how many parts nobody has.
func (p *pool) idle() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.free)
}
