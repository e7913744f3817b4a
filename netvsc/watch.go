package netvsc

import (
	"context"
	"sync/atomic"
	"time"

	"hvnet/rndis"
)

// A watch finds out that the host has stopped without having gone: a send that it
// does not confirm for a second has it asked for a sign of life, and if none comes
// the device is lost. While nothing is under way nobody watches, and no timer runs.
type watch struct {
	on   atomic.Bool
	call chan struct{} // capacity 1: a sender found nobody watching
}

const (
	watchEvery = time.Second
	patience   = 5 // times that the host may be found silent after it was asked
)

func (w *watch) init() { w.call = make(chan struct{}, 1) }

// start is called by senders after each batch.
func (w *watch) start() {
	if w.on.Load() || w.on.Swap(true) {
		return
	}
	select {
	case w.call <- struct{}{}:
	default:
	}
}

// run is the watch's goroutine.
func (w *watch) run(n *NIC) {
	for {
		select {
		case <-w.call:
			w.look(n)
		case <-n.done:
			return
		}
	}
}

// A progress is how far a session's sends are.
type progress struct {
	s       *session
	sent    uint64 // ring packets that the host has confirmed
	pending int    // and that it has not
	flowing bool   // the session is not being changed
}

func (n *NIC) progress() progress {
	n.gate.RLock()
	defer n.gate.RUnlock()
	p := progress{s: n.session.Load(), flowing: n.flowing}
	for _, q := range p.s.queues {
		q.ch.Lock()
		p.sent += q.confirmed
		p.pending += q.outstanding
		q.ch.Unlock()
	}
	return p
}

// look looks at the host regularly until nothing is under way.
func (w *watch) look(n *NIC) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	var before progress
	var sign *request
	silent := 0
	for {
		select {
		case <-tick.C:
		case <-n.done:
			return
		}
		now := n.progress()
		if now.pending == 0 || now.s.broken() {
			// A sender that comes from here on calls again; one that came before
			// is seen by the second look.
			w.on.Store(false)
			if now = n.progress(); now.pending == 0 || now.s.broken() || w.on.Swap(true) {
				return
			}
		}
		switch {
		case now.s != before.s || now.sent != before.sent || before.pending == 0 || !now.flowing:
			silent, sign = 0, nil // whoever changes the session has a deadline
		case sign != nil && len(sign.answer) > 0:
			silent, sign = 0, n.askForSign(now.s)
		default:
			if silent++; silent > patience {
				now.s.fail(ErrSilent)
			}
			if sign == nil {
				sign = n.askForSign(now.s)
			}
		}
		before = now
	}
}

// askForSign asks for the state of the link, which every host knows. It returns nil
// if the ring has no room for it, or the session is being changed.
func (n *NIC) askForSign(s *session) *request {
	n.gate.RLock()
	defer n.gate.RUnlock()
	if !n.flowing || n.session.Load() != s {
		return nil
	}
	at, cancel := context.WithCancel(context.Background())
	cancel() // at once or not at all
	r := s.requests.start("sign of life", rndis.TypeQueryComplete)
	m := rndis.Query{RequestID: r.id, OID: rndis.OIDMediaConnectStatus}.Append(nil)
	if err := s.sendControl(at, r.what, r, m); err != nil {
		s.requests.finish(r, nil, err)
		return nil
	}
	return r
}
