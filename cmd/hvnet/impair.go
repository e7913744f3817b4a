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

	FragmentFault bool `help:"Lose fragments of UDP datagrams as the release is known to do (azure): delay each channel of a guest by a time of its own, and drop fragments that then come out of order."`
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

// impair disturbs the lines of a host, and says so of those that no flag names.
func (f *impairFlags) impair(h *host.Host, b badLines, w io.Writer) error {
	for port, im := range b {
		h.Impair(port, im)
	}
	if !f.FragmentFault {
		return nil
	}
	im, err := h.FragmentFault(0)
	if err != nil {
		return usagef("--fragment-fault: %w; --profile azure has it", err)
	}
	fmt.Fprintf(w, "fragment fault of %s: lines of guests are %v\n", h.Profile().Release, im)
	return nil
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
