package ethtool

import "hvnet/nic"

// A command is one option of the command line.
type command struct {
	names  []string
	text   string   // what it does, in the list of -h
	params []string // lines of -h, with ethtool's own indents
	device bool     // takes the name of an interface
	ioctl  string   // why it does not go by netlink, said of names that only netlink takes
	run    func(*call) int
}

// Why a command goes by ioctl: there is none for it on netlink, or the kernel has
// no such netlink.
const (
	noNetlink = "ethtool netlink support for subcommand missing"
	refused   = "netlink interface initialization failed"
)

// commands returns all commands, in the order of -h.
func commands() []command {
	return []command{
		{names: []string{"-g", "--show-ring"}, text: "Query RX/TX ring parameters", device: true, ioctl: refused, run: (*call).showRings},
		{
			names: []string{"-G", "--set-ring"}, text: "Set RX/TX ring parameters", device: true, ioctl: refused, run: (*call).setRings,
			params: []string{"\t\t[ rx N ]", "\t\t[ rx-mini N ]", "\t\t[ rx-jumbo N ]", "\t\t[ tx N ]"},
		},
		{names: []string{"-k", "--show-features", "--show-offload"}, text: "Get state of protocol offload and other features", device: true, ioctl: refused, run: (*call).showFeatures},
		{
			names: []string{"-K", "--features", "--offload"}, text: "Set protocol offload and other features", device: true, ioctl: refused, run: (*call).setFeatures,
			params: []string{"\t\tFEATURE on|off ..."},
		},
		{names: []string{"-i", "--driver"}, text: "Show driver information", device: true, ioctl: noNetlink, run: (*call).showDriver},
		{names: []string{"-S", "--statistics"}, text: "Show adapter statistics", device: true, ioctl: "ioctl-only request", run: (*call).showStats},
		{
			names: []string{"-n", "-u", "--show-nfc", "--show-ntuple"}, text: "Show Rx network flow classification options or rules",
			device: true, ioctl: noNetlink, run: (*call).showFlowHash,
			params: []string{"\t\t[ rx-flow-hash tcp4|udp4|ah4|esp4|sctp4|tcp6|udp6|ah6|esp6|sctp6 [context %d] |", "\t\t  rule %d ]"},
		},
		{
			names: []string{"-N", "-U", "--config-nfc", "--config-ntuple"}, text: "Configure Rx network flow classification options or rules",
			device: true, ioctl: noNetlink, run: (*call).setFlowHash,
			params: []string{
				"\t\trx-flow-hash tcp4|udp4|ah4|esp4|sctp4|tcp6|udp6|ah6|esp6|sctp6 m|v|t|s|d|f|n|r... [context %d] |",
				"\t\tflow-type ether|ip4|tcp4|udp4|sctp4|ah4|esp4|ip6|tcp6|udp6|ah6|esp6|sctp6",
				"\t\tdelete %d",
			},
		},
		{
			names: []string{"-x", "--show-rxfh-indir", "--show-rxfh"}, text: "Show Rx flow hash indirection table and/or RSS hash key",
			device: true, ioctl: noNetlink, run: (*call).showRSS,
			params: []string{"\t\t[ context %d ]"},
		},
		{
			names: []string{"-X", "--set-rxfh-indir", "--rxfh"}, text: "Set Rx flow hash indirection table and/or RSS hash key",
			device: true, ioctl: noNetlink, run: (*call).setRSS,
			params: []string{"\t\t[ context %d|new ]", "\t\t[ equal N | weight W0 W1 ... | default ]",
				"\t\t[ hkey %x:%x:%x:%x:%x:.... ]", "\t\t[ hfunc FUNC ]", "\t\t[ delete ]"},
		},
		{names: []string{"-l", "--show-channels"}, text: "Query Channels", device: true, ioctl: refused, run: (*call).showChannels},
		{
			names: []string{"-L", "--set-channels"}, text: "Set Channels", device: true, ioctl: refused, run: (*call).setChannels,
			params: []string{"               [ rx N ]", "               [ tx N ]", "               [ other N ]", "               [ combined N ]"},
		},
		{names: []string{"-h", "--help"}, text: "Show this help", run: (*call).help},
		{names: []string{"--version"}, text: "Show version number", run: (*call).version},
	}
}

// help prints the usage of those commands that there are.
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
	c.printf("\nFLAGS:\n")
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
