package ethtool

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"hvnet/nic"
)

// An absence is a command for something that neither hv_netvsc nor ours has: what is asked
// for is looked at, then it is refused.
type absence struct {
	// parse reports whether the arguments can be understood.
	parse func(args []string) bool
	head  string // on stdout before all, with the name of the interface
	what  string // could not be done
	exit  int
}

// run is the command.
func (a absence) run(c *call) int {
	if a.parse != nil && !a.parse(c.args) {
		return c.badArgs()
	}
	if a.head != "" {
		c.printf(a.head, c.name)
	}
	return c.fail(a.exit, "%s: %s", a.what, errText(c.unsupported()))
}

// unsupported returns what a device answers to everything that it has not.
func (c *call) unsupported() error {
	if _, err := c.lookup(c.name); err != nil {
		return err
	}
	return nic.ErrNotSupported
}

// nothing are no arguments.
func nothing(args []string) bool { return len(args) == 0 }

// upTo returns the parser of at most n arguments that are numbers.
func upTo(n int) func([]string) bool {
	return func(args []string) bool {
		return len(args) <= n && !slices.ContainsFunc(args, func(a string) bool { return !isNumber(a) })
	}
}

func isNumber(s string) bool { _, ok := anyInt(s); return ok }
func isBool(s string) bool   { return s == "on" || s == "off" }
func isByte(s string) bool   { n, ok := scanInt(s); return ok && n >= 0 && n <= math.MaxUint8 }

// pairs returns the parser of arguments of the form "name value", of which there are at
// least so many.
func pairs(least int, values map[string]func(string) bool) func([]string) bool {
	return func(args []string) bool {
		for i := 0; i < len(args); i += 2 {
			valid, ok := values[args[i]]
			if !ok || i+1 == len(args) || !valid(args[i+1]) {
				return false
			}
		}
		return len(args) >= least
	}
}

// fields returns a map of names that all have values of one kind.
func fields(valid func(string) bool, names ...string) map[string]func(string) bool {
	m := map[string]func(string) bool{}
	for _, n := range names {
		m[n] = valid
	}
	return m
}

// or puts two maps together.
func or(a, b map[string]func(string) bool) map[string]func(string) bool {
	for n, f := range b {
		a[n] = f
	}
	return a
}

// The absences.
var (
	pause    = absence{parse: nothing, head: "Pause parameters for %s:\n", what: "Cannot get device pause settings", exit: exitRings}
	setPause = absence{parse: pairs(0, fields(isBool, "autoneg", "rx", "tx")), what: "Cannot get device pause settings", exit: exitSetPause}
	coalesce = absence{parse: nothing, head: "Coalesce parameters for %s:\n", what: "Cannot get device coalesce settings", exit: exitCoalesce}

	setCoalesce = absence{parse: pairs(0, or(fields(isBool, "adaptive-rx", "adaptive-tx"), fields(isNumber,
		"sample-interval", "stats-block-usecs", "pkt-rate-low", "pkt-rate-high",
		"rx-usecs", "rx-frames", "rx-usecs-irq", "rx-frames-irq", "tx-usecs", "tx-frames", "tx-usecs-irq", "tx-frames-irq",
		"rx-usecs-low", "rx-frames-low", "tx-usecs-low", "tx-frames-low",
		"rx-usecs-high", "rx-frames-high", "tx-usecs-high", "tx-frames-high"))),
		what: "Cannot get device coalesce settings", exit: exitRings}

	negotiate = absence{parse: nothing, what: "Cannot restart autonegotiation", exit: exitMinus}
	identify  = absence{parse: upTo(1), what: "Cannot identify NIC", exit: exitMinus}
	module    = absence{parse: pairs(0, or(fields(isBool, "raw", "hex"), fields(isNumber, "offset", "length"))),
		what: "Cannot get module EEPROM information", exit: exitFailure}
	dump = absence{parse: func(args []string) bool { return len(args) == 0 || len(args) == 2 && args[0] == "data" },
		what: "Can not get dump level", exit: exitFailure}
	setDump = absence{parse: func(args []string) bool { return len(args) == 1 && isNumber(args[0]) },
		what: "Can not set dump level", exit: exitFailure}
	eee    = absence{parse: nothing, what: "Cannot get EEE settings", exit: exitFailure}
	setEEE = absence{parse: pairs(2, or(fields(isBool, "eee", "tx-lpi"), fields(isNumber, "advertise", "tx-timer"))),
		what: "Cannot get EEE settings", exit: exitFailure}
	fec    = absence{parse: nothing, what: "Cannot get FEC settings", exit: exitMinus}
	setFEC = absence{parse: func(args []string) bool {
		return len(args) > 1 && args[0] == "encoding" && !slices.ContainsFunc(args[1:], func(a string) bool {
			return !slices.Contains([]string{"auto", "off", "rs", "baser", "llrs"}, a)
		})
	}, what: "Cannot set FEC settings", exit: exitMinus}
)

// byNetlink is a command that there is for netlink alone.
func (c *call) byNetlink() int {
	return c.fail(exitFailure, "netlink interface initialization failed, subcommand not supported by ioctl")
}

// showEEPROM is -e.
func (c *call) showEEPROM() int {
	if !pairs(0, or(fields(isBool, "raw"), fields(isNumber, "offset", "length")))(c.args) {
		return c.badArgs()
	}
	if _, err := c.lookup(c.name); err != nil {
		return c.fail(exitEEPROM, "Cannot get driver information: %s", errText(err))
	}
	return c.fail(exitEEPROM, "Cannot get EEPROM data: %s", errText(nic.ErrNotSupported))
}

// changeEEPROM is -E. Nothing is in bounds; what would be read from stdin is not.
func (c *call) changeEEPROM() int {
	if !pairs(0, or(fields(isByte, "value"), fields(isNumber, "magic", "offset", "length")))(c.args) {
		return c.badArgs()
	}
	if _, err := c.lookup(c.name); err != nil {
		return c.fail(exitEEPROM, "Cannot get driver information: %s", errText(err))
	}
	if !slices.Contains(c.args, "value") {
		return c.fail(exitSettings, "not enough data from stdin")
	}
	return c.fail(exitFailure, "offset & length out of bounds")
}

// test is -t.
func (c *call) test() int {
	if len(c.args) > 1 || len(c.args) == 1 && !slices.Contains([]string{"online", "offline", "external_lb"}, c.args[0]) {
		return c.badArgs()
	}
	if _, err := c.lookup(c.name); err != nil {
		return c.fail(exitEEPROM, "Cannot get strings: %s", errText(err))
	}
	return c.fail(exitEEPROM, "Cannot test: %s", errText(nic.ErrNotSupported))
}

// flash is -f. Linux flashes what has no firmware with success.
func (c *call) flash() int {
	if len(c.args) == 0 || len(c.args) > 2 {
		return c.badArgs()
	}
	if _, err := c.lookup(c.name); err != nil {
		return c.fail(exitMinus, "Flashing failed: %s", errText(err))
	}
	return 0
}

// privateFlags is --show-priv-flags and --set-priv-flags.
func (c *call) privateFlags(set bool) int {
	if !set && len(c.args) > 0 {
		return c.badArgs()
	}
	if _, err := c.lookup(c.name); err != nil {
		return c.fail(exitFailure, "Cannot get private flag names: %s", errText(err))
	}
	return c.fail(exitFailure, "No private flags defined")
}

func (c *call) showPrivateFlags() int { return c.privateFlags(false) }
func (c *call) setPrivateFlags() int  { return c.privateFlags(true) }

// showPHYStats is --phy-statistics.
func (c *call) showPHYStats() int {
	if len(c.args) > 0 {
		return c.badArgs()
	}
	if _, err := c.lookup(c.name); err != nil {
		return c.fail(exitStatsStrings, "Cannot get stats strings information: %s", errText(err))
	}
	return c.fail(exitNoStats, "no stats available")
}

// components are what --reset resets, and the bits for it; those that are shared with
// other devices are 16 bits higher.
var components = []string{"mgmt", "irq", "dma", "filter", "offload", "mac", "phy", "ram", "ap"}

// reset is --reset.
func (c *call) reset() int {
	var bits uint32
	for i := 0; i < len(c.args); i++ {
		name, shared := strings.CutSuffix(c.args[i], "-shared")
		k := slices.Index(components, name)
		switch {
		case k >= 0 && shared:
			bits |= 1 << k << 16
		case k >= 0:
			bits |= 1 << k
		case c.args[i] == "dedicated":
			bits |= math.MaxUint16
		case c.args[i] == "all":
			bits = math.MaxUint32
		case c.args[i] == "flags" && i+1 < len(c.args):
			i++
			n, err := strconv.ParseUint(strings.TrimPrefix(c.args[i], "0x"), 16, 32)
			if err != nil {
				return c.badArgs()
			}
			bits |= uint32(n)
		default:
			return c.badArgs()
		}
	}
	if bits == 0 {
		return c.badArgs()
	}
	c.printf("ETHTOOL_RESET 0x%x\n", bits)
	return c.fail(exitFailure, "Cannot issue ETHTOOL_RESET: %s", errText(c.unsupported()))
}

// tunables are those of a device; in the order in which they are set.
var tunables = []string{"rx-copybreak", "tx-copybreak", "tx-buf-size", "pfc-prevention-tout"}

// getTunable is --get-tunable. Why it can't be got is not said.
func (c *call) getTunable() int {
	if len(c.args) == 0 || !slices.Contains(tunables, c.args[0]) {
		return c.badArgs()
	}
	return c.fail(exitMinus, "%s: Cannot get tunable", c.args[0])
}

// setTunable is --set-tunable.
func (c *call) setTunable() int {
	if !pairs(2, fields(isNumber, tunables...))(c.args) {
		return c.badArgs()
	}
	first := slices.IndexFunc(tunables, func(t string) bool { return slices.Contains(c.args, t) })
	return c.fail(exitMinus, "%s: %s", tunables[first], errText(c.unsupported()))
}

// phyTunables are the names of --get-phy-tunable and --set-phy-tunable, what is said of
// them, and the name of the number that may follow.
var phyTunables = []struct{ name, get, set, number string }{
	{"downshift", "Cannot Get PHY downshift count", "Cannot Set PHY downshift count", "count"},
	{"fast-link-down", "Cannot Get PHY Fast Link Down value", "Cannot Set PHY Fast Link Down value", "msecs"},
	{"energy-detect-power-down", "Cannot Get PHY Energy Detect Power Down value", "Cannot Set PHY Energy Detect Power Down", "msecs"},
}

func (c *call) getPHYTunable() int {
	for _, t := range phyTunables {
		if len(c.args) > 0 && c.args[0] == t.name {
			return c.fail(exitPHYTunable, "%s: %s", t.get, errText(c.unsupported()))
		}
	}
	return c.badArgs()
}

func (c *call) setPHYTunable() int {
	for _, t := range phyTunables {
		if len(c.args) < 2 || c.args[0] != t.name {
			continue
		}
		number := len(c.args) > 3 && c.args[2] == t.number
		switch {
		case !isBool(c.args[1]) || number && !isNumber(c.args[3]):
			return c.badArgs()
		case t.name == "energy-detect-power-down" && c.args[1] == "on" && !number:
			c.fail(0, "'msecs' max value is 65533.")
			return c.badArgs()
		}
		return c.fail(exitPHYTunable, "%s: %s", t.set, errText(c.unsupported()))
	}
	return c.badArgs()
}

// perQueue is -Q.
func (c *call) perQueue() int {
	args := c.args
	if len(args) == 0 {
		return c.badArgs()
	}
	if args[0] == "queue_mask" {
		if len(args) < 2 || !isMask(args[1]) {
			c.printf("Invalid queue mask\n")
			return exitMinus
		}
		args = args[2:]
	} else {
		ch, err := c.channels()
		if err != nil {
			return c.fail(exitPerQueue, "Cannot get number of queues: %s", errText(err))
		}
		c.printf("The sub commands will be applied to all %d queues\n", ch.Combined)
	}
	switch {
	case len(args) == 0 || find(args[0]) == nil:
		return c.badArgs()
	case args[0] != "--show-coalesce" && args[0] != "--coalesce":
		return c.fail(exitSubcommand, "The subcommand is not supported yet: Success")
	}
	c.fail(0, "Cannot get device per queue parameters: %s", errText(c.unsupported()))
	return c.fail(exitPerQueue, "Cannot get device per queue parameters: %s", errText(nic.ErrInvalid))
}
