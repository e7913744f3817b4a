package conform

import (
	"maps"
	"slices"
	"strings"
)

// A kind is a kind of packet that there may be any number of.
type kind struct {
	from  Side
	relid uint32
	what  string
}

// A tally counts packets by kind.
type tally map[kind]uint64

// first counts a packet and reports whether it is the first of its kind. The 10th,
// 100th and so on leave a line that says so.
func (c tally) first(t *Transcript, k kind) bool {
	c[k]++
	n := c[k]
	if n == 1 {
		return true
	}
	for n%10 == 0 {
		n /= 10
	}
	if n == 1 {
		c.total(t, k, "so far")
	}
	return false
}

func (c tally) total(t *Transcript, k kind, when string) {
	t.line("%-6s relid %d: %d %s %s", k.from, k.relid, c[k], k.what, when)
}

// ended writes what there was on a channel that ends. Its relid may be another's later.
func (t *Transcript) ended(relid uint32) {
	kinds := slices.SortedFunc(maps.Keys(t.tally), func(a, b kind) int { return strings.Compare(a.from.String()+a.what, b.from.String()+b.what) })
	for _, k := range kinds {
		if k.relid == relid {
			t.tally.total(t, k, "in all")
			delete(t.tally, k)
		}
	}
	maps.DeleteFunc(t.frames, func(x transaction, _ bool) bool { return x.relid == relid })
}
