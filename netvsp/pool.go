package netvsp

import "sync"

// A pool is the sections of the receive buffer that are free for frames. The channels
// share it, for most of the time few of them have much to do. But each has a part of
// its own, a quarter of what an even division would give it, that no other one takes: a
// flow that its guest is slow to take keeps nobody else's frames out.
//
// Its lock is taken for a batch of frames, and for a batch of sections that come back.
type pool struct {
	mu      sync.Mutex
	free    []int32 // a stack, for what was used last is still in the caches
	members []*sections
	own     int // sections that each member can count on
	kept    int // how many of those the members do not have: so many of free are promised
}

// newPool returns a pool of the sections from first up to, but without, end.
func newPool(first, end int) *pool {
	p := &pool{free: make([]int32, 0, end)}
	for i := end - 1; i >= first; i-- {
		p.free = append(p.free, int32(i))
	}
	return p
}

// join makes s a member, of which there are to be n.
func (p *pool) join(s *sections, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.pool = p
	p.members = append(p.members, s)
	p.divide(n)
}

// divide makes the own parts those of n members.
func (p *pool) divide(n int) {
	total := len(p.free)
	for _, s := range p.members {
		total += s.held
	}
	p.own, p.kept = total/(4*n), 0
	for _, s := range p.members {
		p.kept += p.missing(s)
	}
}

// leave takes from s all that it has, and its membership. It has nothing at hand.
func (p *pool) leave(s *sections) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = append(p.free, s.free...)
	for i, m := range p.members {
		if m == s {
			p.members = append(p.members[:i], p.members[i+1:]...)
			p.kept -= p.missing(s)
			break
		}
	}
	s.free, s.held = s.free[:0], 0
}

// missing is how many sections of its own part a member does not have.
func (p *pool) missing(s *sections) int { return max(p.own-s.held, 0) }

// move notes that a member has n sections more.
func (p *pool) move(s *sections, n int) {
	p.kept -= p.missing(s)
	s.held += n
	p.kept += p.missing(s)
}

// fetch gives a member up to n sections more at hand.
func (p *pool) fetch(s *sections, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n = min(n, len(p.free)-(p.kept-p.missing(s))); n <= 0 {
		return
	}
	at := len(p.free) - n
	s.free = append(s.free, p.free[at:]...)
	p.free = p.free[:at]
	p.move(s, n)
}

// idle returns how many sections nobody has.
func (p *pool) idle() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.free)
}

// put takes back what a member has at hand.
func (p *pool) put(s *sections) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = append(p.free, s.free...)
	p.move(s, -len(s.free))
	s.free = s.free[:0]
}
