package bench

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A VFConfig says what [VF] does.
type VFConfig struct {
	Moves  int // removals of the function, each with an addition, of each kind
	Mbits  int // rate of the datagrams each way, and of TCP, in Mbit/s
	Window int // most datagrams on their way while removals are announced; 0: any
}

// A VFReport is what VF has found.
type VFReport struct {
	Mbits  int     `json:"mbits"`
	Window int     `json:"window"`
	Rows   []VFRow `json:"rows"`
}

// A VFRow is how it went with one kind of removals.
type VFRow struct {
	Kind    string        `json:"kind"`
	Moves   int           `json:"moves"`
	Took    time.Duration `json:"took_ns"`
	Streams [2]VFStream   `json:"streams"` // from the guest, to the guest
	// TCP are connections, one each way, that last for all moves.
	TCP struct {
		Connections int      `json:"connections"`
		Broken      int      `json:"broken"`
		Bytes       int64    `json:"bytes"`
		Why         []string `json:"why,omitempty"`
	} `json:"tcp"`
}

// A VFStream is what became of numbered datagrams.
type VFStream struct {
	Sent       int     `json:"sent"`
	Mbits      float64 `json:"mbits"`      // reached
	Lost       int     `json:"lost"`       // but for Overflowed
	Overflowed int     `json:"overflowed"` // dropped by the receiver's socket, which was full
	Duplicated int     `json:"duplicated"`
	Reordered  int     `json:"reordered"` // came after a later one
	// Outage is the time of the stream that a removal cost: the datagrams that it lost at
	// their rate. Pause is the longest time from one datagram to the next at a removal,
	// be something lost or not.
	OutageMedian time.Duration `json:"outage_median_ns"`
	Outage99     time.Duration `json:"outage_99_ns"` // 99 of 100 are no longer
	OutageMax    time.Duration `json:"outage_max_ns"`
	PauseMedian  time.Duration `json:"pause_median_ns"`
	PauseMax     time.Duration `json:"pause_max_ns"`
}

// Kinds of removals. VFStill are none: what is lost is so for other reasons.
const (
	VFStill     = "none"
	VFAnnounced = "announced"
	VFVanished  = "vanished"
	VFDeleted   = "deleted by the guest"
)

// VFDirections are the names of the streams of a row.
var VFDirections = [2]string{"from the guest", "to the guest"}

// VF removes and adds a guest's virtual function under load, and counts what becomes of it:
// UDP datagrams with numbers, and TCP, both each way, between the kernel of a guest's
// namespace and that of a station outside. Announced removals take turns with those that give
// it back at once; other functions vanish, as hardware does, or are removed by the guest's
// administrator. What is lost while nothing moves is counted first. It takes what
// [sandbox.New] takes.
func VF(ctx context.Context, cfg VFConfig) (*VFReport, error) {
	r := &VFReport{Mbits: cfg.Mbits, Window: cfg.Window}
	for _, kind := range []string{VFStill, VFAnnounced, VFVanished, VFDeleted} {
		row, err := vfKind(ctx, kind, cfg)
		if err != nil {
			return nil, fmt.Errorf("measure removals (%s): %w", kind, err)
		}
		r.Rows = append(r.Rows, *row)
	}
	return r, nil
}

func vfKind(ctx context.Context, kind string, cfg VFConfig) (_ *VFRow, err error) {
	b := new(vfBench)
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.open(ctx); err != nil {
		return nil, err
	}
	return b.run(ctx, kind, cfg)
}

// run moves under load.
func (b *vfBench) run(ctx context.Context, kind string, cfg VFConfig) (*VFRow, error) {
	window := cfg.Window
	if kind != VFAnnounced {
		window = 0 // what is lost would be held back
	}
	begun := time.Now()
	l, err := b.load(ctx, cfg.Mbits, window)
	if err != nil {
		return nil, err
	}
	marks, err := b.moves(ctx, kind, cfg.Moves, l)
	row := &VFRow{Kind: kind, Moves: cfg.Moves, Took: time.Since(begun)}
	if err := errors.Join(err, l.end(ctx)); err != nil {
		return nil, err
	}
	row.TCP.Connections = len(l.tallies)
	for _, t := range l.tallies {
		row.TCP.Bytes += t.bytes
		if err := t.err(); err != nil {
			row.TCP.Broken++
			row.TCP.Why = append(row.TCP.Why, err.Error())
		}
	}
	for i, s := range l.streams {
		row.Streams[i] = s.report(marks[i], row.Took)
	}
	return row, nil
}

// moves moves as often as asked for and returns where the streams were before each move.
func (b *vfBench) moves(ctx context.Context, kind string, n int, l *vfLoad) (marks [2][]numberedMark, err error) {
	wait := func() error { return l.flow(ctx) }
	for i := range n {
		if err := wait(); err != nil {
			return marks, err
		}
		for k, s := range l.streams {
			marks[k] = append(marks[k], s.mark())
		}
		if err := b.move(ctx, kind, i, wait); err != nil {
			return marks, fmt.Errorf("move %d: %w", i+1, err)
		}
	}
	return marks, wait()
}
