package ethtool

import (
	"slices"

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
	d, err := c.lookup(c.name)
	if err != nil {
		return c.fail(exitDriverInfo, "Cannot get driver information: %s", errText(err))
	}
	i := d.DriverInfo()
	for _, l := range [][2]string{
		{"driver", i.Driver},
		{"version", i.Version},
		{"firmware-version", i.Firmware},
		{"expansion-rom-version", ""},
		{"bus-info", i.Bus},
		{"supports-statistics", yesNo(i.Stats)},
		{"supports-test", yesNo(false)},
		{"supports-eeprom-access", yesNo(false)},
		{"supports-register-dump", yesNo(i.RegisterDump)},
		{"supports-priv-flags", yesNo(false)},
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
	d, err := c.lookup(c.name)
	if err != nil {
		return c.fail(exitStatsStrings, "Cannot get stats strings information: %s", errText(err))
	}
	stats := d.Stats()
	if len(stats) == 0 {
		return c.fail(exitNoStats, "no stats available")
	}
	c.printf("NIC statistics:\n")
	for _, s := range stats {
		c.printf("     %s: %d\n", s.Name, s.Value)
	}
	return 0
}

// showRings is -g.
func (c *call) showRings() int {
	if len(c.args) != 0 {
		return c.badArgs()
	}
	c.printf("Ring parameters for %s:\n", c.name)
	d, err := c.lookup(c.name)
	if err != nil {
		return c.fail(exitRings, "Cannot get device ring settings: %s", errText(err))
	}
	r := d.Rings()
	const four = "RX:\t\t%d\nRX Mini:\t%d\nRX Jumbo:\t%d\nTX:\t\t%d\n"
	c.printf("Pre-set maximums:\n"+four, r.RxMax, 0, 0, r.TxMax)
	c.printf("Current hardware settings:\n"+four, r.Rx, 0, 0, r.Tx)
	c.printf("\n")
	return 0
}

// showChannels is -l.
func (c *call) showChannels() int {
	if len(c.args) != 0 {
		return c.badArgs()
	}
	c.printf("Channel parameters for %s:\n", c.name)
	ch, err := c.channels()
	if err != nil {
		return c.fail(exitFailure, "Cannot get device channel parameters: %s", errText(err))
	}
	const four = "RX:\t\t%d\nTX:\t\t%d\nOther:\t\t%d\nCombined:\t%d\n"
	c.printf("Pre-set maximums:\n"+four, 0, 0, 0, ch.Max)
	c.printf("Current hardware settings:\n"+four, 0, 0, 0, ch.Combined)
	c.printf("\n")
	return 0
}

func (c *call) channels() (nic.Channels, error) {
	d, err := c.lookup(c.name)
	if err != nil {
		return nic.Channels{}, err
	}
	return d.Channels(), nil
}
