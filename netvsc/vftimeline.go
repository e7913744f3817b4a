package netvsc

import (
	"sync"
	"time"
)

// A VFMove is one move of the path that frames are sent on, or an attempt.
type VFMove struct {
	At    time.Time `json:"at"`    // when senders changed over, or the attempt was over
	To    string    `json:"to"`    // "vf" or "synthetic"
	First string    `json:"first"` // who moved first: "host", "device", "user" or "driver"
	Why   string    `json:"why"`   // what happened
	// Failed says that the host has refused, or not answered; "" if it has moved.
	Failed string `json:"failed,omitempty"`
	// Took is the time from telling the host to its answer, 0 as long as there is none.
	Took time.Duration `json:"took_ns"`
	// Held is for how long senders waited for the path that they left to be empty.
	Held time.Duration `json:"held_ns"`
	// InFlight is how many frames were under way on the synthetic path when a VF was
	// about to be used, and Undrained how many of them were not waited for any longer.
	InFlight  int `json:"in_flight"`
	Undrained int `json:"undrained"`
}

// timelineLen is how many moves are known.
const timelineLen = 64

// A timeline has the last moves.
type timeline struct {
	mu    sync.Mutex
	moves []VFMove // the oldest first
}

func (t *timeline) add(m VFMove) {
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
func (n *NIC) VFTimeline() []VFMove {
	t := &n.vf.timeline
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]VFMove(nil), t.moves...)
}
