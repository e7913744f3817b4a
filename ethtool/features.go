package ethtool

import (
	"slices"

	"hvnet/nic"
)

// An alias is a name from before features had names: what it switches, and how it is
// printed.
type alias struct {
	short, long string
	features    []nic.Feature
}

// aliases are all of them, in the order in which they are printed. There is no feature
// for UDP fragmentation any more.
var aliases = [...]alias{
	{"rx", "rx-checksumming", named("rx-checksum")},
	{"tx", "tx-checksumming", named("tx-checksum-ipv4", "tx-checksum-ip-generic", "tx-checksum-ipv6", "tx-checksum-fcoe-crc", "tx-checksum-sctp")},
	{"sg", "scatter-gather", named("tx-scatter-gather", "tx-scatter-gather-fraglist")},
	{"tso", "tcp-segmentation-offload", named("tx-tcp-segmentation", "tx-tcp-ecn-segmentation", "tx-tcp-mangleid-segmentation", "tx-tcp6-segmentation")},
	{"ufo", "udp-fragmentation-offload", nil},
	{"gso", "generic-segmentation-offload", named("tx-generic-segmentation")},
	{"gro", "generic-receive-offload", named("rx-gro")},
	{"lro", "large-receive-offload", named("rx-lro")},
	{"rxvlan", "rx-vlan-offload", named("rx-vlan-hw-parse")},
	{"txvlan", "tx-vlan-offload", named("tx-vlan-hw-insert")},
	{"ntuple", "ntuple-filters", named("rx-ntuple-filter")},
	{"rxhash", "receive-hashing", named("rx-hashing")},
}

func named(names ...string) (list []nic.Feature) {
	for _, n := range names {
		f, _ := nic.ParseFeature(n) // a test looks
		list = append(list, f)
	}
	return list
}

// set returns the features of an alias.
func (a *alias) set() nic.FeatureSet { return nic.FeaturesOf(a.features...) }

// findAlias returns the index of the alias of a name, -1 if there is none.
func findAlias(name string) int {
	return slices.IndexFunc(aliases[:], func(a alias) bool { return a.short == name || a.long == name })
}

// showFeatures is -k.
func (c *call) showFeatures() int {
	if len(c.args) != 0 {
		return c.badArgs()
	}
	d, err := c.lookup(c.name)
	if err != nil {
		return c.fail(exitFailure, "Cannot get device feature names: %s", errText(err))
	}
	c.printf("Features for %s:\n", c.name)
	c.printFeatures(d.Features(), nil)
	return 0
}

// printFeatures prints those features that are not as before, and all of them if there
// is no before. An alias of several has a line for the group, which is on if any of
// them is.
func (c *call) printFeatures(now nic.Features, before *nic.Features) {
	show := func(indent, name string, f nic.Feature) {
		if before != nil && before.Active.Has(f) == now.Active.Has(f) {
			return
		}
		c.printf("%s%s: %s%s\n", indent, name, onOff(now.Active.Has(f)), fixed(now, f))
	}
	var shown nic.FeatureSet
	for i := range aliases {
		a := &aliases[i]
		shown |= a.set()
		if len(a.features) == 1 {
			show("", a.long, a.features[0])
			continue
		}
		indent, on := "", now.Active&a.set() != 0
		if len(a.features) > 0 && (before == nil || on != (before.Active&a.set() != 0)) {
			c.printf("%s: %s\n", a.long, onOff(on))
			indent = "\t"
		}
		for _, f := range a.features {
			show(indent, f.String(), f)
		}
	}
	for f := range nic.Feature(nic.NumFeatures) {
		if !shown.Has(f) && f.String() != "" {
			show("", f.String(), f)
		}
	}
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// fixed says behind the state of a feature what else there is to say.
func fixed(now nic.Features, f nic.Feature) string {
	switch wanted := now.Wanted.Has(f); {
	case !(now.Available &^ nic.FeaturesNeverChanged).Has(f):
		return " [fixed]"
	case wanted == now.Active.Has(f):
		return ""
	case wanted:
		return " [requested on]"
	}
	return " [requested off]"
}

// A wish is what a command line of -K asks for.
type wish struct {
	nic.FeatureChange                    // by the kernel's names
	mask, on          [len(aliases)]bool // by aliases
}

// parseWish reads arguments of the form "NAME on|off". Of two for a name the last one
// counts.
func parseWish(args []string) (w wish, ok bool) {
	for i := 0; i < len(args); i += 2 {
		if i+1 == len(args) || args[i+1] != "on" && args[i+1] != "off" {
			return w, false
		}
		name, on := args[i], args[i+1] == "on"
		if !w.add(name, on) {
			return w, false
		}
	}
	return w, true
}

func (w *wish) add(name string, on bool) bool {
	if i := findAlias(name); i >= 0 {
		w.mask[i], w.on[i] = true, on
		return true
	}
	f, ok := nic.ParseFeature(name)
	if !ok {
		return false
	}
	w.set(f, on)
	return true
}

func (w *wish) set(f nic.Feature, on bool) {
	bit := nic.FeaturesOf(f)
	w.Change |= bit
	w.On &^= bit
	if on {
		w.On |= bit
	}
}

// setFeatures is -K.
func (c *call) setFeatures() int {
	d, err := c.lookup(c.name)
	if err != nil {
		return c.fail(exitFailure, "Cannot get device feature names: %s", errText(err))
	}
	w, ok := parseWish(c.args)
	if !ok {
		return c.badArgs()
	}
	if len(c.args) == 0 {
		c.printf("no features changed\n")
		return 0
	}
	// An alias means those of its features that can be changed and that are not
	// asked for by their own names.
	before := d.Features()
	changeable := before.Available &^ nic.FeaturesNeverChanged
	for i, asked := range w.mask {
		if !asked {
			continue
		}
		if aliases[i].set()&changeable == 0 {
			c.fail(0, "Cannot change %s", aliases[i].long)
		}
		for _, f := range aliases[i].features {
			if changeable.Has(f) && !w.Change.Has(f) {
				w.set(f, w.on[i])
			}
		}
	}
	if err := d.SetFeatures(c.ctx, w.FeatureChange); err != nil {
		return c.fail(exitFailure, "Cannot set device feature settings: %s", errText(err))
	}
	now := d.Features()
	switch {
	case w.granted(before.Active, now.Active):
		return 0
	case now.Active == before.Active:
		return c.fail(exitFailure, "Could not change any device features")
	}
	c.printf("Actual changes:\n")
	c.printFeatures(now, &before)
	return 0
}

// granted reports whether a change of what is on is the one that was asked for, and
// nothing besides. Aliases count as what is shown for them: on, if any of their
// features is.
func (w *wish) granted(before, now nic.FeatureSet) bool {
	if now != before&^w.Change|w.On&w.Change {
		return false
	}
	for i := range aliases {
		want := before&aliases[i].set() != 0
		if w.mask[i] {
			want = w.on[i]
		}
		if want != (now&aliases[i].set() != 0) {
			return false
		}
	}
	return true
}
