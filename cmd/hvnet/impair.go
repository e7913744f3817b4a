package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"hvnet/host"
)

// impairFlags say which lines of a host are bad ones.
type impairFlags struct {
	Impair []string `sep:"none" placeholder:"PORT:RULES" help:"Disturb the line of a guest's port, by rules such as loss=1%,delay=5ms,jitter=1ms,reorder=1%,dup=1%,corrupt=0.1%,fragment=5%,rate=100mbit,seed=7,dir=to-guest."`
}

// badLines are the disturbed lines of a host, by the names of their ports.
type badLines map[string]host.Impairment

// badLines checks the flags.
func (f *impairFlags) badLines() (badLines, error) {
	bad := badLines{}
	for _, text := range f.Impair {
		port, im, err := host.ParseImpairment(text)
		if err != nil {
			return nil, usagef("--impair %s: %w", text, err)
		}
		if _, ok := bad[port]; ok {
			return nil, usagef("--impair %s: the port %s has rules already", text, port)
		}
		bad[port] = im
	}
	return bad, nil
}

// impair disturbs the lines.
func (b badLines) impair(h *host.Host) {
	for port, im := range b {
		h.Impair(port, im)
	}
}

// printLines prints a table of the lines that are disturbed, nothing if none is.
func printLines(w io.Writer, ports []host.PortInfo) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	head := "\nPORT\tDIRECTION\tFRAMES\tLOST\tDOUBLED\tCORRUPTED\tREORDERED\tFRAGMENTS\tDELAYED\tOVERFLOWED"
	for _, p := range ports {
		for _, l := range p.Line {
			if head != "" {
				fmt.Fprintln(t, head)
				head = ""
			}
			fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n", p.Switch.Name, l.Direction,
				l.Frames, l.Lost, l.Doubled, l.Corrupted, l.Reordered, l.Fragments, l.Delayed, l.Overflowed)
		}
	}
	return t.Flush()
}
