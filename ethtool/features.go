package ethtool

import (
	"path"
	"slices"

	"hvnet/nic"
)

// An alias is a name from before features had names: what it switches, and how it is
// printed.
type alias struct {
	short, long string
	// pattern is that of the names of its features, as of package path. There is no
	// feature for UDP fragmentation any more.
	pattern string
}

// aliases are all of them, in the order in which they are printed.
var aliases = [...]alias{
	{"rx", "rx-checksumming", "rx-checksum"},
	{"tx", "tx-checksumming", "tx-checksum-*"},
	{"sg", "scatter-gather", "tx-scatter-gather*"},
	{"tso", "tcp-segmentation-offload", "tx-tcp*-segmentation"},
	{"ufo", "udp-fragmentation-offload", "tx-udp-fragmentation"},
	{"gso", "generic-segmentation-offload", "tx-generic-segmentation"},
	{"gro", "generic-receive-offload", "rx-gro"},
	{"lro", "large-receive-offload", "rx-lro"},
	{"rxvlan", "rx-vlan-offload", "rx-vlan-hw-parse"},
	{"txvlan", "tx-vlan-offload", "tx-vlan-hw-insert"},
	{"ntuple", "ntuple-filters", "rx-ntuple-filter"},
	{"rxhash", "receive-hashing", "rx-hashing"},
}

// A featureTable has the names of a device's features.
type featureTable struct {
	names   []string                    // by numbers; "" is none
	aliased [len(aliases)][]nic.Feature // by aliases
	never   nic.FeatureSet              // what can be changed on no device
}

// newFeatureTable returns the table for the names of a kernel.
func newFeatureTable(names []string, never nic.FeatureSet) *featureTable {
	t := &featureTable{names: names, never: never}
	for f, name := range names {
		for i := range aliases {
			if ok, _ := path.Match(aliases[i].pattern, name); ok {
				t.aliased[i] = append(t.aliased[i], nic.Feature(f))
			}
		}
	}
	return t
}

// ownFeatures is the table of our devices: that of Linux 6.1.
var ownFeatures = func() *featureTable {
	var names []string
	for f := range nic.Feature(nic.NumFeatures) {
		names = append(names, f.String())
	}
	return newFeatureTable(names, nic.FeaturesNeverChanged)
}()

// set returns the features of an alias.
func (t *featureTable) set(alias int) nic.FeatureSet { return nic.FeaturesOf(t.aliased[alias]...) }

// rest returns the features without an alias.
func (t *featureTable) rest() (list []nic.Feature) {
	var aliased nic.FeatureSet
	for i := range aliases {
		aliased |= t.set(i)
	}
	for f, name := range t.names {
		if f := nic.Feature(f); name != "" && !aliased.Has(f) {
			list = append(list, f)
		}
	}
	return list
}

// fixed says whether nobody can change a feature.
func (t *featureTable) fixed(now nic.Features, f nic.Feature) bool {
	return !(now.Available &^ t.never).Has(f)
}

// features finds the device and the table for it.
func (c *call) features() (Device, *featureTable, error) {
	d, err := c.lookup(c.name)
	if err != nil {
		return nil, nil, err
	}
	a, ok := d.(Asker)
	if !ok {
		return d, ownFeatures, nil
	}
	names, err := a.FeatureNames()
	return d, newFeatureTable(names, 0), err
}

// findAlias returns the index of the alias of a name, -1 if there is none.
func findAlias(name string) int {
	return slices.IndexFunc(aliases[:], func(a alias) bool { return a.short == name || a.long == name })
}

// showFeatures is -k.
func (c *call) showFeatures() int {
	if len(c.args) != 0 {
		return c.badArgs()
	}
	d, t, err := c.features()
	if err != nil {
		return c.fail(exitFailure, "Cannot get device feature names: %s", errText(err))
	}
	c.printf("Features for %s:\n", c.name)
	c.printFeatures(t, d.Features(), nil)
	return 0
}

// printFeatures prints those features that are not as before, and all of them if there
// is no before. An alias of several has a line for the group, which is on if any of
// them is.
func (c *call) printFeatures(t *featureTable, now nic.Features, before *nic.Features) {
	show := func(indent, name string, f nic.Feature) {
		if before != nil && before.Active.Has(f) == now.Active.Has(f) {
			return
		}
		c.printf("%s%s: %s%s\n", indent, name, onOff(now.Active.Has(f)), t.note(now, f))
	}
	for i, features := range t.aliased {
		if len(features) == 1 {
			show("", aliases[i].long, features[0])
			continue
		}
		indent, on := "", now.Active&t.set(i) != 0
		if len(features) > 0 && (before == nil || on != (before.Active&t.set(i) != 0)) {
			c.printf("%s: %s\n", aliases[i].long, onOff(on))
			indent = "\t"
		}
		for _, f := range features {
			show(indent, t.names[f], f)
		}
	}
	for _, f := range t.rest() {
		show("", t.names[f], f)
	}
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// note is what else there is to say behind the state of a feature.
func (t *featureTable) note(now nic.Features, f nic.Feature) string {
	switch wanted := now.Wanted.Has(f); {
	case t.fixed(now, f):
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
func parseWish(t *featureTable, args []string) (w wish, ok bool) {
	for i := 0; i < len(args); i += 2 {
		if i+1 == len(args) || args[i+1] != "on" && args[i+1] != "off" {
			return w, false
		}
		name, on := args[i], args[i+1] == "on"
		if !w.add(t, name, on) {
			return w, false
		}
	}
	return w, true
}

func (w *wish) add(t *featureTable, name string, on bool) bool {
	if i := findAlias(name); i >= 0 {
		w.mask[i], w.on[i] = true, on
		return true
	}
	f := slices.Index(t.names, name)
	if f < 0 {
		return false
	}
	w.set(nic.Feature(f), on)
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
	d, t, err := c.features()
	if err != nil {
		return c.fail(exitFailure, "Cannot get device feature names: %s", errText(err))
	}
	w, ok := parseWish(t, c.args)
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
	changeable := before.Available &^ t.never
	for i, asked := range w.mask {
		if !asked {
			continue
		}
		if t.set(i)&changeable == 0 {
			c.fail(0, "Cannot change %s", aliases[i].long)
		}
		for _, f := range t.aliased[i] {
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
	case w.granted(t, before.Active, now.Active):
		return 0
	case now.Active == before.Active:
		return c.fail(exitFailure, "Could not change any device features")
	}
	c.printf("Actual changes:\n")
	c.printFeatures(t, now, &before)
	return 0
}

// granted reports whether a change of what is on is the one that was asked for, and
// nothing besides. Aliases count as what is shown for them: on, if any of their
// features is.
func (w *wish) granted(t *featureTable, before, now nic.FeatureSet) bool {
	if now != before&^w.Change|w.On&w.Change {
		return false
	}
	for i := range aliases {
		want := before&t.set(i) != 0
		if w.mask[i] {
			want = w.on[i]
		}
		if want != (now&t.set(i) != 0) {
			return false
		}
	}
	return true
}
