package netvsc

import (
	"sync"
	"time"

	"hvnet/nic"
)

// timelineLen is how many moves are known.
const timelineLen = 64

// A timeline has the last moves.
type timeline struct {
	mu    sync.Mutex
	moves []nic.VFMove // the oldest first
}

func (t *timeline) add(m nic.VFMove) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.moves) == timelineLen {
		t.moves = append(t.moves[:0], t.moves[1:]...)
	}
	t.moves = append(t.moves, m)
}

// took notes how long the host took for the last move to the synthetic path.
func (t *timeline) took(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if k := len(t.moves) - 1; k >= 0 && t.moves[k].To == "synthetic" && t.moves[k].Took == 0 {
		t.moves[k].Took = d
	}
}

// VFTimeline returns the last moves between virtual function and synthetic device, the
// oldest first.
func (n *NIC) VFTimeline() []nic.VFMove {
	t := &n.vf.timeline
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]nic.VFMove(nil), t.moves...)
}
