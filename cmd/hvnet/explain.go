package main

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"hvnet/counter"
	"hvnet/ethtool"
	"hvnet/netvsc"
	"hvnet/netvsp/profile"
	"hvnet/nic"
)

// explainCmd says what a counter or a feature is.
type explainCmd struct {
	Name string `arg:"" optional:"" help:"As 'hvnet ethtool -S' or '-k' prints it, or as '-K' takes it; a list of all if it is left out."`
}

// Run prints the explanation, or the list.
func (c *explainCmd) Run(s streams) error {
	counters, features := counter.Defs(), ethtool.FeatureDefs()
	if c.Name == "" {
		listAll(s.out, counters, features)
		return nil
	}
	for _, d := range counters {
		if isCounter(d.Name, c.Name) {
			fmt.Fprintf(s.out, "%s: a counter of 'hvnet ethtool -S', in %s\n\n%s\nWhat to do: %s\n", numbered(d.Name), d.Unit, d.Meaning, d.Advice)
			return nil
		}
	}
	for _, d := range features {
		if d.Called(c.Name) {
			return explainFeature(s.out, d)
		}
	}
	return unknownName(c.Name, counters, features)
}

// numbered returns a counter's name as people write it: N for the number of a channel or
// a processor.
func numbered(name string) string { return strings.Replace(name, "%d", "N", 1) }

// isCounter reports whether a counter of the table is meant: any channel's, by any way
// to write its number.
func isCounter(def, name string) bool {
	pattern := strings.Replace(regexp.QuoteMeta(def), "%d", `(\d+|N|%d)`, 1)
	return regexp.MustCompile("^" + pattern + "$").MatchString(name)
}

// listAll prints all names, each with the first sentence about it.
func listAll(w io.Writer, counters []counter.Def, features []ethtool.FeatureDef) {
	first := func(text string) string {
		s, _, _ := strings.Cut(text, ". ")
		return strings.TrimSuffix(s, ".") + "."
	}
	fmt.Fprintf(w, "Counters, as 'hvnet ethtool -S' shows them:\n\n")
	for _, d := range counters {
		fmt.Fprintf(w, "  %-28s %s\n", numbered(d.Name), first(d.Meaning))
	}
	fmt.Fprintf(w, "\nFeatures, as 'hvnet ethtool -k' shows them:\n\n")
	for _, d := range features {
		fmt.Fprintf(w, "  %-28s %s\n", d.Name, first(d.Meaning))
	}
	fmt.Fprintf(w, "\n'hvnet explain NAME' says more.\n")
}

// explainFeature prints what a feature is, how it is on each host, and how to switch
// it.
func explainFeature(w io.Writer, d ethtool.FeatureDef) error {
	fmt.Fprintf(w, "%s: a feature of 'hvnet ethtool -k'", d.Name)
	if len(d.Others) > 0 {
		fmt.Fprintf(w, ", or %s", strings.Join(d.Others, ", "))
	}
	fmt.Fprintf(w, "\n\n%s\n", d.Meaning)
	if len(d.Features) > 1 {
		fmt.Fprintf(w, "It stands for:\n")
		for _, f := range d.Features {
			fmt.Fprintf(w, "  %v\n", f)
		}
	}
	hosts, can, err := onHosts(nic.FeaturesOf(d.Features...))
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "\nIt is:\n%s", hosts)
	name := d.Name
	if len(d.Others) > 0 {
		name = d.Others[0]
	}
	if can {
		fmt.Fprintf(w, "\nWhat to do: hvnet ethtool -K eth0 %s on|off\n", name)
	} else {
		fmt.Fprintf(w, "\nWhat to do: nothing, nobody can switch it.\n")
	}
	return nil
}

// onHosts says how features are at first on the hosts that there are, oldest first:
// hosts in a row that have it the same are told as one. can reports whether it can be
// switched anywhere.
func onHosts(set nic.FeatureSet) (text string, can bool, err error) {
	type row struct{ state, from, to string }
	var rows []row
	for _, name := range profile.Names() {
		p, err := profile.Lookup(name)
		if err != nil {
			return "", false, err
		}
		f := netvsc.FeaturesOn(p.NVSP[0], &p.Offload)
		state := "off"
		if f.Active&set != 0 {
			state = "on"
		}
		if f.Available&set == 0 {
			state += " [fixed]"
		} else {
			can = true
		}
		if n := len(rows); n > 0 && rows[n-1].state == state {
			rows[n-1].to = name
		} else {
			rows = append(rows, row{state, name, name})
		}
	}
	var b strings.Builder
	for _, r := range rows {
		hosts := r.from
		switch {
		case len(rows) == 1:
			hosts = "every host"
		case r.from != r.to:
			hosts = r.from + " to " + r.to
		}
		fmt.Fprintf(&b, "  %-12s on %s\n", r.state, hosts)
	}
	return b.String(), can, nil
}

// unknownName says that there is no such name, and which one is like it.
func unknownName(name string, counters []counter.Def, features []ethtool.FeatureDef) error {
	var all []string
	for _, d := range counters {
		all = append(all, numbered(d.Name))
	}
	for _, d := range features {
		all = append(append(all, d.Name), d.Others...)
	}
	near := slices.MinFunc(all, func(a, b string) int { return distance(name, a) - distance(name, b) })
	if distance(name, near) <= max(1, len(name)/3) {
		return usagef("no counter or feature %q, did you mean %q?", name, near)
	}
	return usagef("no counter or feature %q: 'hvnet explain' lists them", name)
}

// distance returns how many letters have to be put in, taken out or changed to make a
// word another one.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		corner := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := corner
			if a[i] != b[j] {
				change++
			}
			corner = row[j+1]
			row[j+1] = min(change, corner+1, row[j]+1)
		}
	}
	return row[len(b)]
}
