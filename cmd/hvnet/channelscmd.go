package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
)

// channelsCmd shows on which processors a NIC's channels interrupt their guest, and moves
// them.
type channelsCmd struct {
	ifaceArg
	Move []string `placeholder:"CHANNEL:VP" help:"Have the host interrupt the virtual processor VP for a channel, until that is opened anew."`
}

// Run moves what is to be moved, and prints a line for each channel.
func (c *channelsCmd) Run(ctx context.Context, s streams) error {
	type move struct{ channel, vp int }
	var moves []move
	for _, m := range c.Move {
		a, b, _ := strings.Cut(m, ":")
		channel, err1 := strconv.Atoi(a)
		vp, err2 := strconv.Atoi(b)
		if err1 != nil || err2 != nil || channel < 0 || vp < 0 {
			return usagef("--move %s: want a channel and a virtual processor, such as 1:3", m)
		}
		moves = append(moves, move{channel, vp})
	}
	d, err := c.driver(ctx)
	if err != nil {
		return err
	}
	for _, m := range moves {
		if err := d.Move(ctx, m.channel, m.vp); err != nil {
			return err
		}
	}
	places, err := d.Placement(ctx)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "CHANNEL\tRELID\tVP\tNODE")
	for _, p := range places {
		fmt.Fprintf(w, "%d\t%d\t%d\t%d\n", p.Channel, p.Relid, p.VP, p.Node)
	}
	return w.Flush()
}
