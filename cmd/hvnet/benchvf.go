package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"hvnet/bench"
)

// benchVFCmd moves a data path under load.
type benchVFCmd struct {
	Moves  int  `default:"100" help:"How often the function is removed and added, of each kind."`
	Rate   int  `default:"200" help:"Rate of the datagrams each way, and of a TCP connection each way, in Mbit/s."`
	Window int  `default:"128" help:"How many datagrams may be on their way while removals are announced, so that a machine which is too slow for the rate loses none for that reason; 0 for any number."`
	JSON   bool `name:"json" help:"Print JSON."`
}

// Bounds of the flags.
const (
	maxMoves  = 100_000
	maxRate   = 10_000
	maxWindow = 1 << 20
)

// Run prints a table.
func (c *benchVFCmd) Run(ctx context.Context, s streams) error {
	for _, f := range []struct {
		name          string
		v, least, max int
	}{{"moves", c.Moves, 1, maxMoves}, {"rate", c.Rate, 1, maxRate}, {"window", c.Window, 0, maxWindow}} {
		if f.v < f.least || f.v > f.max {
			return usagef("--%s %d: want %d to %d", f.name, f.v, f.least, f.max)
		}
	}
	r, err := bench.VF(ctx, bench.VFConfig{Moves: c.Moves, Mbits: c.Rate, Window: c.Window})
	if err != nil {
		return err
	}
	if c.JSON {
		return printJSON(s.out, r)
	}
	return printVFMoves(s.out, r)
}

// printVFMoves prints a table with a line for each stream.
func printVFMoves(w io.Writer, r *bench.VFReport) error {
	fmt.Fprintf(w, "UDP at %d Mbit/s each way, and TCP; outage of a removal: median, 99 of 100, longest; pause: median, longest\n\n", r.Mbits)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "REMOVALS\t\tDATAGRAMS\tSENT\tMBIT/S\tLOST\tTWICE\tLATE\tOVERFLOW\tOUTAGE\t\t\tPAUSE\t\tTCP BROKEN")
	for i := range r.Rows {
		row := &r.Rows[i]
		for k, d := range row.Streams {
			fmt.Fprintf(t, "%s\t%d\t%s\t%d\t%.0f\t%d\t%d\t%d\t%d\t%s\t%s\t%s\t%s\t%s\t%d of %d\n", row.Kind, row.Moves, bench.VFDirections[k],
				d.Sent, d.Mbits, d.Lost, d.Duplicated, d.Reordered, d.Overflowed, short(d.OutageMedian), short(d.Outage99), short(d.OutageMax), short(d.PauseMedian), short(d.PauseMax),
				row.TCP.Broken, row.TCP.Connections)
		}
	}
	return t.Flush()
}
