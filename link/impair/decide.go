package impair

import (
	"encoding/binary"
	"math/rand/v2"
	"time"
)

// A fate is what becomes of one frame.
type fate struct {
	lost    bool
	full    bool // lost because too much waits
	double  bool
	corrupt bool
	late    bool // held back, so that others may overtake it
	fault   bool // one of a fragment
	bit     int  // which bit is changed, from the frame's first
	wait    bool // it is not passed on at once, but at this time:
	at      time.Duration
}

// A decider decides what becomes of frames. It is a value without clock and
// memory: time is what it is told, from any beginning, and never goes back.
type decider struct {
	cfg  Config
	rand *rand.Rand
	slow bool          // each frame has to wait, so none overtakes another by not doing so
	idle time.Duration // when the line has sent all that it was given
	// By channel, if the channels differ: how much later its frames are released, and
	// when the last one is that was not held back. Else there is one.
	channels []pace
	parts    datagrams // what has been seen of them, for Unordered
}

// A pace is when the frames of a channel are released.
type pace struct{ skew, last time.Duration }

// maxChannels is how many channels have a delay of their own; others share them.
const maxChannels = 64

func newDecider(c Config) decider {
	if c.Gap == 0 {
		c.Gap = DefaultGap
	}
	if c.Limit == 0 {
		c.Limit = DefaultLimit
	}
	d := decider{cfg: c, rand: rand.New(rand.NewPCG(c.Seed, 0)), slow: c.Delay > 0 || c.Jitter > 0 || c.Rate > 0 || c.Skew > 0}
	d.channels = make([]pace, 1)
	if c.Skew > 0 {
		d.channels = make([]pace, maxChannels)
		skews := rand.New(rand.NewPCG(c.Seed, 1)) // chances of their own
		for i := range d.channels {
			d.channels[i].skew = time.Duration(skews.Int64N(int64(c.Skew) + 1))
		}
	}
	return d
}

// chance reports whether something of that probability happens. What never happens
// uses up no chance, so settings of one kind don't change the sequence of another.
func (d *decider) chance(p float64) bool { return p > 0 && d.rand.Float64() < p }

// decide returns the fate of a frame of n bytes that begins with head and comes on a
// channel at the time now, while frames that cost waiting bytes wait.
func (d *decider) decide(now time.Duration, channel uint16, head []byte, n, waiting int) fate {
	c := &d.cfg
	f := fate{lost: d.chance(c.Loss)}
	f.double = d.chance(c.Duplicate)
	f.corrupt = d.chance(c.Corrupt) && n > ethernet
	if f.corrupt {
		f.bit = 8*ethernet + d.rand.IntN(8*(n-ethernet))
	}
	f.late = d.chance(c.Reorder)
	if c.Fragment > 0 && isFragment(head) && d.chance(c.Fragment) {
		f.fault = true
		switch d.rand.IntN(3) {
		case 0:
			f.lost = true
		case 1:
			f.double = true
		case 2:
			f.late = true
		}
	}
	if f.lost {
		return fate{lost: true, fault: f.fault}
	}

	f.at = now
	idle := max(d.idle, now)
	if c.Rate > 0 {
		idle += time.Duration(float64(8*n) / float64(c.Rate) * float64(time.Second))
		f.at = idle
	}
	p := &d.channels[int(channel)%len(d.channels)]
	f.at += c.Delay + p.skew
	if c.Jitter > 0 {
		f.at += time.Duration(d.rand.Int64N(2*int64(c.Jitter)+1)) - c.Jitter
	}
	f.at = max(f.at, p.last)
	if f.late {
		f.at += c.Gap
	}
	f.wait = d.slow || f.late
	if c.Unordered > 0 && !d.parts.follows(head, f.at) && d.chance(c.Unordered) {
		return fate{lost: true, fault: true}
	}
	copies := 1
	if f.double {
		copies = 2
	}
	if f.wait && waiting+copies*cost(n) > c.Limit {
		return fate{lost: true, full: true, fault: f.fault}
	}
	d.idle = idle
	if !f.late {
		p.last = f.at
	}
	return f
}

// charge is what the shortest frame costs of the limit, in bytes.
const charge = 2048

// cost is what a frame of n bytes costs of the limit.
func cost(n int) int { return max(n, charge) }

// ethernet is the length of the header that is never changed: a frame with another
// source would be somebody else's, and what checked it has done so before.
const ethernet = 14

// isFragment reports whether the frame is a part of an IP datagram (RFC 791
// section 3.1, RFC 8200 section 4.5, there as the first extension header).
func isFragment(b []byte) bool {
	at := ethernet
	if len(b) >= at+4 && binary.BigEndian.Uint16(b[12:]) == 0x8100 {
		at += 4
	}
	if len(b) < at+20 {
		return false
	}
	switch binary.BigEndian.Uint16(b[at-2:]) {
	case 0x0800:
		const moreAndOffset = 0x3fff
		return binary.BigEndian.Uint16(b[at+6:])&moreAndOffset != 0
	case 0x86dd:
		return b[at+6] == 44
	}
	return false
}
