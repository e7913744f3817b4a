package ethtool

import (
	"slices"

	"hvnet/ethtool/layout"
	"hvnet/nic"
)

// A command is one option of the command line.
type command struct {
	names  []string
	text   string   // what it does, in the list of -h
	params []string // lines of -h, with ethtool's own indents
	device bool     // takes the name of an interface
	ioctl  string   // why it does not go by netlink, said of names that only netlink takes
	run    func(*call) int
	json   func(*call, Device) object // what --json shows in place of run; nil: nothing
}

// Why a command goes by ioctl: there is none for it on netlink, or the kernel has
// no such netlink.
const (
	noNetlink = "ethtool netlink support for subcommand missing"
	refused   = "netlink interface initialization failed"
)

// find returns the command of a name, nil if there is none.
func find(name string) *command {
	all := commands()
	for i := range all {
		if slices.Contains(all[i].names, name) {
			return &all[i]
		}
	}
	return nil
}

// help prints the usage.
func (c *call) help() int {
	c.version()
	c.printf("Usage:\n")
	for _, cmd := range commands() {
		c.printf("        ethtool [ FLAGS ] %s", cmd.names[0])
		for _, n := range cmd.names[1:] {
			c.printf("|%s", n)
		}
		if cmd.device {
			c.printf(" DEVNAME\t%s\n", cmd.text)
		} else {
			c.printf(" \t\t%s\n", cmd.text)
		}
		for _, p := range cmd.params {
			c.printf("%s\n", p)
		}
	}
	c.printf("%s\nFLAGS:\n", monitorHelp)
	c.printf("\t--debug MASK\tturn on debugging messages\n")
	c.printf("\t--json\t\tenable JSON output format (not supported by all commands)\n")
	c.printf("\t-I|--include-statistics\t\trequest device statistics related to the command (not supported by all commands)\n")
	return 0
}

func (c *call) version() int {
	c.printf("ethtool version %s\n", Version)
	return 0
}

// showDriver is -i.
func (c *call) showDriver() int {
	if len(c.args) != 0 {
		return c.badArgs()
	}
	d, err := c.deviceFor(request(196, layout.GDRVINFO))
	if err != nil {
		return c.fail(exitDriverInfo, "Cannot get driver information: %s", errText(err))
	}
	i := d.DriverInfo()
	for _, l := range [][2]string{
		{"driver", i.Driver},
		{"version", i.Version},
		{"firmware-version", i.Firmware},
		{"expansion-rom-version", i.ExpansionROM},
		{"bus-info", i.Bus},
		{"supports-statistics", yesNo(i.Stats)},
		{"supports-test", yesNo(i.Test)},
		{"supports-eeprom-access", yesNo(i.EEPROM)},
		{"supports-register-dump", yesNo(i.RegisterDump)},
		{"supports-priv-flags", yesNo(i.PrivateFlags)},
	} {
		c.printf("%s: %s\n", l[0], l[1])
	}
	return 0
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// showStats is -S.
func (c *call) showStats() int {
	if len(c.args) != 0 { // the groups of counters exist on netlink alone
		return c.badArgs()
	}
	return c.printStats("NIC statistics", layout.SetStats, layout.GSTATS)
}

// printStats prints the counters of a set.
func (c *call) printStats(title string, set, cmd uint32) int {
	d, err := c.lookup(c.name)
	if err != nil {
		return c.fail(exitStatsStrings, "Cannot get stats strings information: %s", errText(err))
	}
	var stats []nic.Stat
	if a, ok := d.(Asker); ok {
		names, err := StringSet(a, set)
		if err != nil {
			return c.fail(exitStatsStrings, "Cannot get stats strings information: %s", errText(err))
		}
		if stats, err = ReadStats(a, cmd, names); err != nil {
			return c.fail(exitStats, "Cannot get stats information: %s", errText(err))
		}
	} else if set == layout.SetStats {
		stats = d.Stats()
	}
	if len(stats) == 0 {
		return c.fail(exitNoStats, "no stats available")
	}
	c.printf("%s:\n", title)
	for _, s := range stats {
		c.printf("     %s: %d\n", s.Name, s.Value)
	}
	return 0
}

// The four kinds of rings and channels, in the order of their structures.
var (
	ringKinds    = [...]string{"rx", "rx-mini", "rx-jumbo", "tx"}
	channelKinds = [...]string{"rx", "tx", "other", "combined"}
)

// counts is how many there are of something that there are four kinds of.
type counts struct{ most, now [4]int }

// printCounts prints them under their titles.
func (c *call) printCounts(n counts, titles [4]string) {
	for _, part := range []struct {
		title string
		n     [4]int
	}{{"Pre-set maximums", n.most}, {"Current hardware settings", n.now}} {
		c.printf("%s:\n", part.title)
		for i, t := range titles {
			c.printf("%s%d\n", t, part.n[i])
		}
	}
	c.printf("\n")
}

// askCounts reads a structure of four maxima and four numbers.
func askCounts(a Asker, cmd uint32) (n counts, err error) {
	b := request(36, cmd)
	if _, err := a.Ask(b); err != nil {
		return n, err
	}
	for i := range 4 {
		n.most[i], n.now[i] = int(word(b, 4+4*i)), int(word(b, 20+4*i))
	}
	return n, nil
}

// setCounts is the request to set them; the maxima go back as they are.
func setCounts(a Asker, cmd uint32, n counts) error {
	b := request(36, cmd)
	for i := range 4 {
		order.PutUint32(b[4+4*i:], uint32(n.most[i]))
		order.PutUint32(b[20+4*i:], uint32(n.now[i]))
	}
	_, err := a.Ask(b)
	return err
}

// rings returns the device and its rings.
func (c *call) rings() (d Device, n counts, err error) {
	if d, err = c.lookup(c.name); err != nil {
		return nil, n, err
	}
	if a, ok := d.(Asker); ok {
		n, err = askCounts(a, layout.GRINGPARAM)
		return d, n, err
	}
	r := d.Rings()
	return d, counts{most: [4]int{0: r.RxMax, 3: r.TxMax}, now: [4]int{0: r.Rx, 3: r.Tx}}, nil
}

// channels returns the device and its channels.
func (c *call) channels() (d Device, n counts, err error) {
	if d, err = c.lookup(c.name); err != nil {
		return nil, n, err
	}
	if a, ok := d.(Asker); ok {
		n, err = askCounts(a, layout.GCHANNELS)
		return d, n, err
	}
	ch := d.Channels()
	return d, counts{most: [4]int{3: ch.Max}, now: [4]int{3: ch.Combined}}, nil
}

// showRings is -g.
func (c *call) showRings() int {
	if len(c.args) != 0 {
		return c.badArgs()
	}
	c.printf("Ring parameters for %s:\n", c.name)
	_, n, err := c.rings()
	if err != nil {
		return c.fail(exitRings, "Cannot get device ring settings: %s", errText(err))
	}
	c.printCounts(n, [4]string{"RX:\t\t", "RX Mini:\t", "RX Jumbo:\t", "TX:\t\t"})
	return 0
}

// showChannels is -l.
func (c *call) showChannels() int {
	if len(c.args) != 0 {
		return c.badArgs()
	}
	c.printf("Channel parameters for %s:\n", c.name)
	_, n, err := c.channels()
	if err != nil {
		return c.fail(exitFailure, "Cannot get device channel parameters: %s", errText(err))
	}
	c.printCounts(n, [4]string{"RX:\t\t", "TX:\t\t", "Other:\t\t", "Combined:\t"})
	return 0
}

// rxRings returns how many rings there are for receiving.
func (c *call) rxRings() (int, error) {
	d, err := c.lookup(c.name)
	if err != nil {
		return 0, err
	}
	if a, ok := d.(Asker); ok {
		b := request(192, layout.GRXRINGS)
		_, err := a.Ask(b)
		return int(order.Uint64(b[8:])), err
	}
	return d.Channels().Combined, nil
}
