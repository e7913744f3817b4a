package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"hvnet/bench"
)

// benchCmd are the measurements.
type benchCmd struct {
	UDPFragments benchFragmentsCmd `cmd:"" name:"udp-fragments" help:"What becomes of the fragments of UDP datagrams on a host that is known to lose some, by how the guest chooses their channels. It needs no rights and ends by itself."`
	VF           benchVFCmd        `cmd:"" name:"vf" help:"What becomes of UDP and TCP while a virtual function is removed and added under load: announced, vanished, deleted. It takes what 'hvnet run' takes."`
}

// benchFragmentsCmd compares the ways to choose the channels of fragments.
type benchFragmentsCmd struct {
	Datagrams int    `default:"50" help:"How many datagrams of each size each flow sends."`
	Seed      uint64 `default:"1" help:"Chooses the delays of the channels."`
	JSON      bool   `name:"json" help:"Print JSON."`
}

// maxDatagrams bounds how long the command takes.
const maxDatagrams = 1000

// Run prints a table.
func (c *benchFragmentsCmd) Run(ctx context.Context, s streams) error {
	if c.Datagrams < 1 || c.Datagrams > maxDatagrams {
		return usagef("--datagrams %d: want 1 to %d", c.Datagrams, maxDatagrams)
	}
	r, err := bench.UDPFragments(ctx, c.Datagrams, c.Seed)
	if err != nil {
		return err
	}
	if c.JSON {
		e := json.NewEncoder(s.out)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	return printFragments(s.out, r)
}

// printFragments prints a table of what was lost and late, in percent of what was sent.
func printFragments(w io.Writer, r *bench.FragmentReport) error {
	fmt.Fprintf(w, "%s, %s: %d channels, %d flows between %d pairs of addresses\n\n", r.Host, r.Line, r.Channels, r.Flows, r.Pairs)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprint(t, "\t\t\t")
	for _, way := range r.Ways {
		fmt.Fprintf(t, "%s\t\t", way)
	}
	fmt.Fprint(t, "\nBYTES\tFRAGMENTS\tDATAGRAMS\t")
	for range r.Ways {
		fmt.Fprint(t, "LOST\tLATE\t")
	}
	fmt.Fprintln(t)
	for _, row := range r.Rows {
		size := fmt.Sprint(row.Bytes)
		if row.Bytes == 0 {
			size = "mixed"
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t", size, row.Fragments, row.Datagrams)
		for i := range r.Ways {
			fmt.Fprintf(t, "%s\t%s\t", percent(row.Lost[i], row.Datagrams), percent(row.Late[i], row.Datagrams))
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}

// percent writes a share, and nothing but 0 for none.
func percent(n, of int) string {
	if n == 0 {
		return "0"
	}
	return fmt.Sprintf("%.1f%%", 100*float64(n)/float64(of))
}
