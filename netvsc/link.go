package netvsc

import (
	"sync"
	"time"

	"hvnet/nic"
	"hvnet/rndis"
)

// A link holds what the host says of the link, and tells who wants to know. What the
// host indicates takes effect as with hv_netvsc: at most one event in linkInterval,
// the first one at once, so that who watches the carrier sees each change. A
// goroutine does it, so that neither the waiting nor the telling delays frames.
type link struct {
	mu      sync.Mutex
	state   nic.LinkState
	events  []rndis.Status // indicated, and not yet handled
	handled time.Time      // when the last one was
	news    bool           // for onChange
	// What a user has set in place of what the host says: see NIC.SetLinkSettings.
	pretended bool
	mbps      uint32
	duplex    nic.Duplex
	onChange  func(nic.LinkState)
	changed   chan struct{} // capacity 1
}

const (
	// linkInterval is the time between two events. Linux tells its users of a
	// carrier once a second (link_watch), so what comes faster they never see.
	linkInterval = 2 * time.Second
	// maxLinkEvents bounds what waits: of more only the last ones count.
	maxLinkEvents = 16
)

func (l *link) init() { l.changed, l.duplex = make(chan struct{}, 1), nic.DuplexFull }

// Link returns the state of the link, as far as the host's events have taken effect.
func (n *NIC) Link() nic.LinkState {
	n.link.mu.Lock()
	defer n.link.mu.Unlock()
	return n.link.state
}

// OnLink has f called with the state of the link now, and whenever it changes, from
// one goroutine. Changes of the link follow each other at intervals of two seconds
// at least, as with hv_netvsc; in a move to another network the link goes down for
// that long. f is called with the same state again if the host tells of a link that
// is up that it is up: the NIC's neighbours may have forgotten it. There is one f;
// nil for none.
func (n *NIC) OnLink(f func(nic.LinkState)) {
	n.link.mu.Lock()
	n.link.onChange, n.link.news = f, true
	n.link.mu.Unlock()
	n.link.tell()
}

// set changes the state without an event. Events that wait are void, and the next one takes
// effect at once: with hv_netvsc it would be another device's.
func (l *link) set(s nic.LinkState) {
	l.mu.Lock()
	l.events, l.handled = nil, time.Time{}
	l.mu.Unlock()
	l.found(s)
}

// forget drops the events that wait: whoever calls it is about to ask for the state.
func (l *link) forget() {
	l.mu.Lock()
	l.events = nil
	l.mu.Unlock()
}

// found takes the host's answer. What was indicated since it was asked is newer.
func (l *link) found(s nic.LinkState) {
	l.mu.Lock()
	l.state, l.news = s, true
	l.pretended = l.pretended && s.Mbps == 0
	l.mu.Unlock()
	l.tell()
}

func (l *link) tell() {
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// run handles events and calls the callback until done is closed.
func (l *link) run(done <-chan struct{}) {
	var next <-chan time.Time
	for {
		select {
		case <-l.changed:
		case <-next:
		case <-done:
			return
		}
		l.mu.Lock()
		wait := l.handle(time.Now())
		s, f, news := l.state, l.onChange, l.news
		l.news = false
		l.mu.Unlock()
		if next = nil; wait > 0 {
			next = time.After(wait)
		}
		if f != nil && news {
			f(s)
		}
	}
}

// handle handles one event if it is time for one, and returns how long to wait for
// the next, 0 if there is none. The caller holds the lock.
func (l *link) handle(now time.Time) (wait time.Duration) {
	if len(l.events) == 0 {
		return 0
	}
	if since := now.Sub(l.handled); !l.handled.IsZero() && since < linkInterval {
		return linkInterval - since
	}
	l.handled = now
	e := l.events[0]
	l.events = l.events[1:]
	switch {
	case e == rndis.StatusMediaConnect:
		l.state.Up, l.news = true, true
	case !l.state.Up: // nothing to take down
	case e == rndis.StatusNetworkChange:
		// The NIC is in another network now: whoever has addresses or
		// neighbours from the old one learns that from a link that goes and
		// comes.
		l.events = append([]rndis.Status{rndis.StatusMediaConnect}, l.events...)
		fallthrough
	default:
		l.state.Up, l.news = false, true
	}
	if len(l.events) > 0 {
		return linkInterval
	}
	return 0
}

// indicate takes an indication from the host. Those that are not about the link are
// of no concern. Another speed takes effect at once.
func (l *link) indicate(m rndis.IndicateStatus) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch m.Status {
	case rndis.StatusMediaConnect, rndis.StatusMediaDisconnect, rndis.StatusNetworkChange:
		if len(l.events) == maxLinkEvents {
			l.events = l.events[1:]
		}
		l.events = append(l.events, m.Status)
	case rndis.StatusLinkSpeedChange:
		v, err := rndis.ParseUint32(m.Info)
		if err != nil || rndis.LinkMbps(v) == l.state.Mbps {
			return
		}
		l.state.Mbps, l.news, l.pretended = rndis.LinkMbps(v), true, false
	default:
		return
	}
	l.tell()
}
