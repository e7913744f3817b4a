package netvsc

import (
	"sync"

	"hvnet/nic"
	"hvnet/rndis"
)

// A link holds what the host says of the link, and tells who wants to know. The
// telling has a goroutine of its own, so that it never delays frames.
type link struct {
	mu       sync.Mutex
	state    nic.LinkState
	flapped  bool // the link was down in between, see indicated
	onChange func(nic.LinkState)
	changed  chan struct{} // capacity 1
}

func (l *link) init() { l.changed = make(chan struct{}, 1) }

// Link returns what the host last said of the link.
func (n *NIC) Link() nic.LinkState {
	n.link.mu.Lock()
	defer n.link.mu.Unlock()
	return n.link.state
}

// OnLink has f called with the state of the link now, and whenever it changes, from
// one goroutine. Of changes in quick succession f may see only the last. There is
// one f; nil for none.
func (n *NIC) OnLink(f func(nic.LinkState)) {
	n.link.mu.Lock()
	n.link.onChange = f
	n.link.mu.Unlock()
	n.link.tell()
}

// set changes the state.
func (l *link) set(s nic.LinkState) {
	l.mu.Lock()
	l.state = s
	l.mu.Unlock()
	l.tell()
}

func (l *link) tell() {
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// run calls the callback until done is closed.
func (l *link) run(done <-chan struct{}) {
	for {
		select {
		case <-l.changed:
		case <-done:
			return
		}
		l.mu.Lock()
		s, flapped, f := l.state, l.flapped, l.onChange
		l.flapped = false
		l.mu.Unlock()
		if f == nil {
			continue
		}
		if flapped && s.Up {
			f(nic.LinkState{Mbps: s.Mbps})
		}
		f(s)
	}
}

// indicated takes an indication from the host. Those that are not about the link
// are of no concern.
func (n *NIC) indicated(m rndis.IndicateStatus) {
	l := &n.link
	l.mu.Lock()
	switch m.Status {
	case rndis.StatusMediaConnect:
		l.state.Up = true
	case rndis.StatusMediaDisconnect:
		l.state.Up = false
	case rndis.StatusNetworkChange:
		// The NIC is in another network now: whoever has addresses or
		// neighbours from the old one learns that from a link that goes and
		// comes.
		l.flapped = l.flapped || l.state.Up
	case rndis.StatusLinkSpeedChange:
		if v, err := rndis.ParseUint32(m.Info); err == nil {
			l.state.Mbps = rndis.LinkMbps(v)
		}
	}
	l.mu.Unlock()
	l.tell()
}
