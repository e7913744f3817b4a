package netvsp

import (
	"context"
	"time"

	"hvnet/hv"
)

// How long a guest must have been silent before it is taken to have come to rest: that it
// sends nothing for a moment is enough if it has sent nothing before either. One that was
// heard since the cable was pulled may not have noticed yet: Linux looks at its link in a
// work item of its own, which waits for its turn.
const (
	glance   = 2 * time.Millisecond
	silent   = 10 // glances
	quietNow = 50 // glances, once something was heard
)

// Rest returns when the guest of an unplugged device has come to rest: what it has sent is
// answered, it has taken the answers, and it holds no receive section. When ctx ends Rest
// returns in any case. It is meant for a host that takes the NIC away: once it has been
// told so, Linux takes no more completions, and waits for ever for those that it misses.
func (d *Device) Rest(ctx context.Context) {
	tick := time.NewTicker(glance)
	defer tick.Stop()
	need := silent
	heard, _ := d.resting()
	for still := 0; still < need; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		now, idle := d.resting()
		if now == heard && idle {
			still++
			continue
		}
		heard, still, need = now, 0, quietNow
	}
}

// resting returns how many ring packets the guest has sent, and whether nothing is under
// way at this moment, in either direction.
func (d *Device) resting() (heard uint64, idle bool) {
	s := d.live.Load()
	if s == nil {
		return 0, true
	}
	s.mu.Lock()
	queues := append([]*queue(nil), s.queues...)
	s.mu.Unlock()
	idle = true
	for _, q := range queues {
		if q == nil {
			continue
		}
		n, rests := q.resting()
		heard, idle = heard+n, idle && rests
	}
	return heard, idle
}

// resting is Device.resting for one queue. Of a ring that is broken nothing more is to be
// expected.
func (q *queue) resting() (heard uint64, idle bool) {
	q.taking.Lock()
	defer q.taking.Unlock()
	if q.over {
		return q.heard, true
	}
	if err := hv.Guard(func() { idle = q.ch.In.Err() != nil || q.ch.In.Empty() && q.answered() }); err != nil {
		q.s.fault(err)
		return q.heard, true
	}
	return q.heard, idle
}

// answered reports whether the guest has taken everything that it was sent, and has given
// back the sections of it.
func (q *queue) answered() bool {
	q.ch.Lock()
	defer q.ch.Unlock()
	return len(q.pending)+len(q.replies)+q.data.given+q.control.given == 0 && q.ch.Out.Empty()
}
