// Package matrix tries the offloads in every combination with what they depend on:
// release of the host, IP version, protocol, MTU, and where the frames go. All cases
// on raw frames in one process, and a cover of all pairs on real interfaces, with the
// kernel's own sockets and counters at both ends.
package matrix

import (
	"slices"
	"strings"
)

// An Axis is something in which cases differ.
type Axis struct {
	Name   string
	Values []string
}

// A Case has one value of each axis.
type Case struct {
	axes []Axis
	at   []int // index of the value, by axis
}

// Of returns the value of an axis by its name. It panics if there is none of the name.
func (c Case) Of(name string) string {
	i := slices.IndexFunc(c.axes, func(a Axis) bool { return a.Name == name })
	return c.axes[i].Values[c.at[i]]
}

// On reports whether the value of an axis is "on"; see [Case.Of].
func (c Case) On(name string) bool { return c.Of(name) == "on" }

// String names the case: the values of all axes, "ws2019/4/tcp/lso on".
func (c Case) String() string {
	var s []string
	for i, a := range c.axes {
		switch v := a.Values[c.at[i]]; v {
		case "on", "off":
			s = append(s, a.Name+"="+v)
		default:
			s = append(s, v)
		}
	}
	return strings.Join(s, "/")
}

// All returns every combination. Cases that follow each other differ in the last
// axes first.
func All(axes []Axis) (list []Case) {
	at := make([]int, len(axes))
	for {
		list = append(list, Case{axes, slices.Clone(at)})
		i := len(axes) - 1
		for ; i >= 0; i-- {
			if at[i]++; at[i] < len(axes[i].Values) {
				break
			}
			at[i] = 0
		}
		if i < 0 {
			return list
		}
	}
}

// A pair is a value of each of two axes, the earlier axis first.
type pair struct{ a, i, b, j int }

// Pairs returns a few cases in which each value of each axis meets each value of each
// other one. They are the same each time.
func Pairs(axes []Axis) (list []Case) {
	var todo []pair // in order, so that the outcome is fixed
	open := map[pair]bool{}
	for b := range axes {
		for a := range b {
			for i := range axes[a].Values {
				for j := range axes[b].Values {
					p := pair{a, i, b, j}
					todo, open[p] = append(todo, p), true
				}
			}
		}
	}
	for _, p := range todo {
		if !open[p] {
			continue
		}
		c := Case{axes, make([]int, len(axes))}
		for x := range c.at {
			c.at[x] = -1
		}
		c.at[p.a], c.at[p.b] = p.i, p.j
		for x := range c.at {
			if c.at[x] < 0 {
				c.choose(x, len(list), open)
			}
		}
		for _, p := range c.pairs() {
			delete(open, p)
		}
		list = append(list, c)
	}
	return list
}

// choose gives the case the value of axis x that covers the most open pairs with
// those that it has. Of equal ones it is another one by turns.
func (c Case) choose(x, turn int, open map[pair]bool) {
	best, value := -1, 0
	for k := range c.axes[x].Values {
		v := (k + turn) % len(c.axes[x].Values)
		c.at[x] = v
		n := 0
		for _, p := range c.pairs() {
			if open[p] && (p.a == x || p.b == x) {
				n++
			}
		}
		if n > best {
			best, value = n, v
		}
	}
	c.at[x] = value
}

// pairs returns the pairs of the values that the case has.
func (c Case) pairs() (list []pair) {
	for b, j := range c.at {
		for a, i := range c.at[:b] {
			if i >= 0 && j >= 0 {
				list = append(list, pair{a, i, b, j})
			}
		}
	}
	return list
}
