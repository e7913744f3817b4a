package top

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"hvnet/nic"
)

// An Order is what channels are sorted by.
type Order int

// The orders. All but the first have the most in front.
const (
	ByQueue Order = iota
	ByReceived
	BySent
	orders
)

var orderNames = [orders]string{"queue", "received", "sent"}

// String returns the order's name.
func (o Order) String() string { return orderNames[o] }

// sorted returns the channels in an order.
func (v *View) sorted(by Order, reverse bool) []Queue {
	q := slices.Clone(v.Queues)
	slices.SortStableFunc(q, func(a, b Queue) int {
		switch by {
		case ByReceived:
			return cmp.Or(cmp.Compare(b.RxBits, a.RxBits), cmp.Compare(b.RxPackets, a.RxPackets))
		case BySent:
			return cmp.Or(cmp.Compare(b.TxBits, a.TxBits), cmp.Compare(b.TxPackets, a.TxPackets))
		}
		return 0
	})
	if reverse {
		slices.Reverse(q)
	}
	return q
}

// A Page is a View as text.
type Page struct {
	Head     []string // what the NIC is, and the names of the columns
	Queues   []string // a line each
	All      string   // the line of their sum
	Counters []string // the names of the columns, and a line each; nothing if none has counted
}

// Page returns the text of a view, its channels in an order.
func (v *View) Page(by Order, reverse bool) Page {
	table := "no table"
	if v.Entries > 0 {
		table = fmt.Sprintf("table of %d", v.Entries)
	}
	var levels []string
	for _, f := range flows {
		levels = append(levels, f.String()+" "+v.Levels[f.String()])
	}
	p := Page{Head: []string{
		fmt.Sprintf("%s: %d of %d channels, path %s, %s, %d dropped", v.Interface, v.Channels, v.MaxChannels, v.Path, table, v.Dropped),
		"flows by: " + strings.Join(levels, ", "),
		"",
		"       RECEIVED                    SENT                        WAKEUPS   TABLE",
		"QUEUE  PACKETS/S    BITS/S  FLOWS  PACKETS/S    BITS/S  FLOWS       /S",
	}}
	for _, q := range v.sorted(by, reverse) {
		share := "-"
		if v.Entries > 0 {
			share = fmt.Sprintf("%.0f %%", 100*q.Table)
		}
		p.Queues = append(p.Queues, row(fmt.Sprint(q.Queue), &q.Rates, share, q.Flows, q))
	}
	p.All = row("all", &v.All, "", v.Flows, v.Queues...)
	if len(v.Counters) > 0 {
		p.Counters = append(p.Counters, "COUNTER                        VALUE        /S")
	}
	for _, c := range v.Counters {
		note := ""
		if c.Drop {
			note = "   dropped"
		}
		p.Counters = append(p.Counters, fmt.Sprintf("%-22s %13d %9s%s", c.Name, c.Value, short(c.PerSecond), note))
	}
	return p
}

// row returns the line of the sum of some channels.
func row(name string, r *Rates, share string, f *nic.Flows, of ...Queue) string {
	received, sent := "-", "-"
	if f != nil {
		received = flowCount(f.Received, of, func(q Queue) int { return q.Flows.Received })
		sent = flowCount(f.Sent, of, func(q Queue) int { return q.Flows.Sent })
	}
	return strings.TrimRight(fmt.Sprintf("%5s  %9s %9s %6s  %9s %9s %6s %8s %7s", name,
		short(r.RxPackets), short(r.RxBits), received, short(r.TxPackets), short(r.TxBits), sent, short(r.Wakeups), share), " ")
}

// flowCount writes how many flows some channels have: more, if one of them may have more.
func flowCount(n int, of []Queue, count func(Queue) int) string {
	if slices.ContainsFunc(of, func(q Queue) bool { return count(q) >= nic.MaxFlows }) {
		return fmt.Sprintf(">%d", n-1)
	}
	return fmt.Sprint(n)
}

// Lines returns all of the page.
func (p *Page) Lines() []string {
	lines := append(slices.Clone(p.Head), p.Queues...)
	lines = append(lines, p.All)
	if len(p.Counters) > 0 {
		lines = append(append(lines, ""), p.Counters...)
	}
	return lines
}

// short writes a number with three digits and what it is multiplied by.
func short(f float64) string {
	units := []string{"", " k", " M", " G", " T"}
	for f >= 999.5 && len(units) > 1 {
		f, units = f/1000, units[1:]
	}
	digits := 0
	switch {
	case units[0] == "" && f == math.Trunc(f): // a whole number
	case f < 9.995:
		digits = 2
	case f < 99.95:
		digits = 1
	}
	return fmt.Sprintf("%.*f%s", digits, f, units[0])
}
