package ethtool

import (
	"errors"

	"hvnet/ethtool/layout"
	"hvnet/nic"
)

// An Asker is a Device that a kernel drives. It may be any kind of interface, so it may
// refuse what Device takes for granted, and have what no NIC of Hyper-V has. What its
// getters return is then zero; the requests of Linux's system call SIOCETHTOOL tell all.
type Asker interface {
	Device
	// Ask has the kernel answer one request. b is its structure, the command first;
	// the answer is in it afterwards, also that of a refused one. n is what the
	// system call returns. An error that is none of package nic's has the C library's
	// text.
	Ask(b []byte) (n int, err error)
	// FeatureNames returns the kernel's names of features, in the order of the bits
	// of nic.Feature; one without a name is not shown.
	FeatureNames() ([]string, error)
}

var order = layout.Order

// request returns a structure of so many bytes with the command and the words behind it.
func request(size int, cmd uint32, words ...uint32) []byte {
	b := make([]byte, size)
	order.PutUint32(b, cmd)
	for i, w := range words {
		order.PutUint32(b[4+4*i:], w)
	}
	return b
}

// word returns the word at an offset of a structure.
func word(b []byte, at int) uint32 { return order.Uint32(b[at:]) }

// ask asks the device, if it is one of a kernel. Others are NICs of Hyper-V, and have not
// what is asked for in this way.
func (c *call) ask(b []byte) error {
	d, err := c.lookup(c.name)
	if err != nil {
		return err
	}
	if a, ok := d.(Asker); ok {
		_, err := a.Ask(b)
		return err
	}
	return nic.ErrNotSupported
}

// deviceFor finds the device for a command whose answer a getter of Device has: err is
// what the device, if it is one of a kernel, refuses the request with.
func (c *call) deviceFor(b []byte) (Device, error) {
	d, err := c.lookup(c.name)
	if err != nil {
		return nil, err
	}
	if a, ok := d.(Asker); ok {
		if _, err := a.Ask(b); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// notShown says that the device has what a command is for, and that it is nothing that
// this program can show or do.
func (c *call) notShown(what string) int {
	return c.fail(exitFailure, "hvnet: %s has %s, which is left to the ethtool program", c.name, what)
}

// maxStrings is how many strings of a set are believed in: more than any device has.
const maxStrings = 1 << 16

// StringSet returns the strings of a set of a kernel's device; nil, without an error, if
// it does not have the set.
func StringSet(a Asker, set uint32) ([]string, error) {
	b := request(20, layout.GSSETINFO)
	order.PutUint64(b[8:], 1<<set)
	switch _, err := a.Ask(b); {
	case errors.Is(err, nic.ErrNotSupported):
		return nil, nil
	case err != nil:
		return nil, err
	case order.Uint64(b[8:]) == 0 || word(b, 16) == 0:
		return nil, nil
	}
	n := min(word(b, 16), maxStrings)
	b = request(12+layout.NameLen*int(n), layout.GSTRINGS, set, n)
	if _, err := a.Ask(b); err != nil {
		return nil, err
	}
	names := make([]string, 0, n)
	for i := range min(word(b, 8), n) {
		names = append(names, layout.Text(b[12+layout.NameLen*i:][:layout.NameLen]))
	}
	return names, nil
}

// ReadStats returns the counters of a kernel's device, of which there is one for each name:
// those that cmd is for, layout.GSTATS or layout.GPHYSTATS.
func ReadStats(a Asker, cmd uint32, names []string) ([]nic.Stat, error) {
	if len(names) == 0 {
		return nil, nil
	}
	b := request(8+8*len(names), cmd, uint32(len(names)))
	if _, err := a.Ask(b); err != nil {
		return nil, err
	}
	stats := make([]nic.Stat, min(len(names), int(word(b, 4))))
	for i := range stats {
		stats[i] = nic.Stat{Name: names[i], Value: order.Uint64(b[8+8*i:])}
	}
	return stats, nil
}

// ReadLinkSettings returns a kernel's struct ethtool_link_settings with the three masks of
// link modes behind it. How long those are is asked for first.
func ReadLinkSettings(a Asker) ([]byte, error) {
	b := request(layout.LinkEnd, layout.GLINKSETTINGS)
	if _, err := a.Ask(b); err != nil {
		return nil, err
	}
	words := -int(int8(b[layout.LinkWords]))
	if words <= 0 {
		return nil, nic.ErrNotSupported
	}
	b = request(layout.LinkEnd+3*4*words, layout.GLINKSETTINGS)
	b[layout.LinkWords] = byte(words)
	_, err := a.Ask(b)
	b[layout.LinkWords] = byte(words)
	return b, err
}

// A Spread is how a kernel's device spreads what it receives.
type Spread struct {
	nic.RSS
	Functions uint32 // the hash functions in use, a bit for each string of their set
}

// ReadSpread returns that of a context of RSS, 0 being the device's own.
func ReadSpread(a Asker, context uint32) (Spread, error) {
	b := request(layout.RSSEnd, layout.GRSSH, context)
	if _, err := a.Ask(b); err != nil {
		return Spread{}, err
	}
	entries, keyLen := min(word(b, layout.RSSEntries), maxStrings), min(word(b, layout.RSSKeyLen), maxStrings)
	b = request(layout.RSSEnd+4*int(entries)+int(keyLen), layout.GRSSH, context, entries, keyLen)
	if _, err := a.Ask(b); err != nil {
		return Spread{}, err
	}
	s := Spread{Functions: uint32(b[layout.RSSFunction])}
	for i := range int(entries) {
		s.Table = append(s.Table, word(b, layout.RSSEnd+4*i))
	}
	s.Key = b[layout.RSSEnd+4*entries:]
	return s, nil
}
