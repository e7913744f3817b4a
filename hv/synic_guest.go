package hv

import "sync"

// A GuestSynIC is the guest's half of the synthetic interrupt controllers of a
// partition that is a process: it allocates the pages and works on them.
type GuestSynIC struct {
	ring  func()
	pages Region // the signal page, then a message and an event page for each VP
	vps   int

	mu     sync.RWMutex // held shared while the pages are touched or the host rung
	closed bool
}

// NewGuestSynIC returns the guest's half for a number of VPs, on pages from
// alloc. ring is called, with a lock held, to make the host look at signals and
// slots; it must not block nor call back. It is not called after Close.
func NewGuestSynIC(vps int, alloc func(bytes int) (Region, error), ring func()) (*GuestSynIC, error) {
	pages, err := alloc((1 + 2*vps) * PageSize)
	if err != nil {
		return nil, err
	}
	return &GuestSynIC{ring: ring, pages: pages, vps: vps}, nil
}

// Pages returns where the host finds the pages.
func (g *GuestSynIC) Pages() Pages {
	p := Pages{Signals: g.pages.GPA}
	for vp := range g.vps {
		p.Message = append(p.Message, g.pages.GPA+GPA(1+2*vp)*PageSize)
		p.Event = append(p.Event, g.pages.GPA+GPA(2+2*vp)*PageSize)
	}
	return p
}

// page returns the page with the given index.
func (g *GuestSynIC) page(i int) []byte {
	return g.pages.Bytes[i*PageSize : (i+1)*PageSize]
}

// Signal signals a connection. The host is rung only if it has not been told of
// the connection already. Errors are ErrRange, and ErrGone after Close.
func (g *GuestSynIC) Signal(conn uint32) error {
	if conn >= MaxConnectionID {
		return ErrRange
	}
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.closed {
		return ErrGone
	}
	if bitmapAt(g.page(0), MaxConnectionID).set(int(conn)) {
		g.ring()
	}
	return nil
}

// TakeFlags clears the event flags of a VP and calls each with every flag that
// was set, with no lock held. It does nothing for a VP that does not exist.
func (g *GuestSynIC) TakeFlags(vp int, each func(flag int)) {
	if vp < 0 || vp >= g.vps {
		return
	}
	for i, v := g.takeFlags(vp, 0); v != 0; i, v = g.takeFlags(vp, i+1) {
		eachBit(i, v, each)
	}
}

func (g *GuestSynIC) takeFlags(vp, from int) (word int, v uint64) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.closed {
		return 0, 0
	}
	return flagsAt(g.page(2 + 2*vp)).take(from)
}

// TakeMessage copies the message of a VP to m, frees the slot and, if the host
// waits for that, rings it. It returns false if there is none. A message whose
// size field is impossible comes with Size 0.
func (g *GuestSynIC) TakeMessage(vp int, m *Message) bool {
	if vp < 0 || vp >= g.vps {
		return false
	}
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.closed {
		return false
	}
	ok, pending := slotAt(g.page(1 + 2*vp)).take(m)
	if pending {
		g.ring()
	}
	return ok
}

// Close makes all other methods do nothing. When it returns none of the pages is
// touched any more and the host is not rung; the pages still belong to whoever
// gave alloc.
func (g *GuestSynIC) Close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
}
