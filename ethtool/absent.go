package ethtool

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"hvnet/ethtool/layout"
	"hvnet/nic"
)

// A rarity is a command for something that no NIC of Hyper-V has, and few others do: what
// is asked for is looked at, then it is asked of a kernel's device, or refused.
type rarity struct {
	// parse reports whether the arguments can be understood.
	parse func(args []string) bool
	what  string // could not be done
	exit  int
	// request returns what is to be asked.
	request func(args []string) []byte
	// show prints what was answered; nil: nothing is to be said.
	show func(c *call, answer []byte) int
}

// run is the command.
func (r rarity) run(c *call) int {
	if !r.parse(c.args) {
		return c.badArgs()
	}
	b := r.request(c.args)
	if err := c.ask(b); err != nil {
		return c.fail(r.exit, "%s: %s", r.what, errText(err))
	}
	if r.show == nil {
		return 0
	}
	return r.show(c, b)
}

// asking returns a request that is the same for all arguments.
func asking(size int, cmd uint32) func([]string) []byte {
	return func([]string) []byte { return request(size, cmd) }
}

// leftToOthers returns what says that there is something that this program does not show.
func leftToOthers(what string) func(*call, []byte) int {
	return func(c *call, _ []byte) int { return c.notShown(what) }
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

// The rarities.
var (
	negotiate = rarity{parse: nothing, what: "Cannot restart autonegotiation", exit: exitMinus, request: asking(4, layout.NWAYRST)}
	identify  = rarity{parse: upTo(1), what: "Cannot identify NIC", exit: exitMinus, request: func(args []string) []byte {
		seconds := int64(0) // until somebody interrupts
		if len(args) > 0 {
			seconds, _ = anyInt(args[0])
		}
		return request(8, layout.PHYSID, uint32(seconds))
	}}
	module = rarity{parse: pairs(0, or(fields(isBool, "raw", "hex"), fields(isNumber, "offset", "length"))),
		what: "Cannot get module EEPROM information", exit: exitFailure, request: asking(44, layout.GMODULEINFO), show: leftToOthers("a module")}
	dump = rarity{parse: func(args []string) bool { return len(args) == 0 || len(args) == 2 && args[0] == "data" },
		what: "Can not get dump level", exit: exitFailure, request: asking(16, layout.GETDUMPFLAG),
		show: func(c *call, b []byte) int {
			if len(c.args) > 0 {
				return c.notShown("a dump")
			}
			c.printf("flag: %d, version: %d, length: %d\n", word(b, 8), word(b, 4), word(b, 12))
			return 0
		}}
	setDump = rarity{parse: func(args []string) bool { return len(args) == 1 && isNumber(args[0]) },
		what: "Can not set dump level", exit: exitFailure, request: func(args []string) []byte {
			flag, _ := anyInt(args[0])
			return request(16, layout.SETDUMP, 0, uint32(flag))
		}}
	eee    = rarity{parse: nothing, what: "Cannot get EEE settings", exit: exitFailure, request: asking(eeeLen, layout.GEEE), show: (*call).printEEE}
	setEEE = rarity{parse: pairs(2, or(fields(isBool, "eee", "tx-lpi"), fields(isNumber, "advertise", "tx-timer"))),
		what: "Cannot get EEE settings", exit: exitFailure, request: asking(eeeLen, layout.GEEE), show: leftToOthers("EEE")}
	fec    = rarity{parse: nothing, what: "Cannot get FEC settings", exit: exitMinus, request: asking(fecLen, layout.GFECPARAM), show: (*call).printFECModes}
	setFEC = rarity{parse: func(args []string) bool {
		return len(args) > 1 && args[0] == "encoding" && !slices.ContainsFunc(args[1:], func(a string) bool { return fecBit(a) == 0 })
	}, what: "Cannot set FEC settings", exit: exitMinus, request: func(args []string) []byte {
		var bits uint32
		for _, a := range args[1:] {
			bits |= fecBit(a)
		}
		return request(fecLen, layout.SFECPARAM, 0, bits)
	}}
)

// flash is -f. Linux flashes what has no firmware with success.
func (c *call) flash() int {
	if len(c.args) == 0 || len(c.args) > 2 {
		return c.badArgs()
	}
	const room = 128 // for the name of the file
	region := int64(0)
	if len(c.args) > 1 {
		region, _ = anyInt(c.args[1])
	}
	b := request(8+room, layout.FLASHDEV, uint32(region))
	layout.PutText(b[8:], c.args[0])
	if _, err := c.deviceFor(b); err != nil {
		return c.fail(exitMinus, "Flashing failed: %s", errText(err))
	}
	return 0
}

// byNetlink is a command that there is for netlink alone.
func (c *call) byNetlink() int {
	return c.fail(exitFailure, "netlink interface initialization failed, subcommand not supported by ioctl")
}

// showEEPROM is -e.
func (c *call) showEEPROM() int {
	if !pairs(0, or(fields(isBool, "raw"), fields(isNumber, "offset", "length")))(c.args) {
		return c.badArgs()
	}
	info, err := c.driver()
	if err != nil {
		return c.fail(exitEEPROM, "Cannot get driver information: %s", errText(err))
	}
	at, n, raw := int64(0), int64(-1), false
	for i := 0; i < len(c.args); i += 2 {
		switch v := wordValue(c.args[i+1]); c.args[i] {
		case "raw":
			raw = v == 1
		case "offset":
			at = int64(uint32(v))
		case "length":
			n = v
		}
	}
	there := int64(min(word(info, driverEEPROM), maxDump))
	if n < 0 || at+n > there {
		n = max(there-at, 0)
	}
	b := request(16+int(n), layout.GEEPROM, 0, uint32(at), uint32(n))
	if err := c.ask(b); err != nil {
		return c.fail(exitEEPROM, "Cannot get EEPROM data: %s", errText(err))
	}
	c.printDump(b[16:], raw, int(at))
	return 0
}

// changeEEPROM is -E. Nothing is in bounds of what is not there; what would be read from
// stdin is not.
func (c *call) changeEEPROM() int {
	if !pairs(0, or(fields(isByte, "value"), fields(isNumber, "magic", "offset", "length")))(c.args) {
		return c.badArgs()
	}
	info, err := c.driver()
	if err != nil {
		return c.fail(exitEEPROM, "Cannot get driver information: %s", errText(err))
	}
	if word(info, driverEEPROM) > 0 {
		return c.notShown("an EEPROM")
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
	names, err := c.strings(layout.SetTest)
	if err != nil {
		return c.fail(exitEEPROM, "Cannot get strings: %s", errText(err))
	}
	flags := uint32(testOffline)
	switch {
	case slices.Contains(c.args, "online"):
		flags = 0
	case slices.Contains(c.args, "external_lb"):
		flags |= testExternal
	}
	b := request(16+8*len(names), layout.TEST, flags, 0, uint32(len(names)))
	if err := c.ask(b); err != nil {
		return c.fail(exitEEPROM, "Cannot test: %s", errText(err))
	}
	done, result := word(b, 4), "PASS"
	if done&testFailed != 0 {
		result = "FAIL"
	}
	c.printf("The test result is %s\n", result)
	if flags&testExternal != 0 {
		not := "not "
		if done&testExternalDone != 0 {
			not = ""
		}
		c.printf("External loopback test was %sexecuted\n", not)
	}
	if len(names) > 0 {
		c.printf("The test extra info:\n")
	}
	for i, name := range names {
		c.printf("%s\t %d\n", name, order.Uint64(b[16+8*i:]))
	}
	c.printf("\n")
	return 0
}

// Flags of a test: how it is to be done, and how it was.
const (
	testOffline = 1 << iota
	testFailed
	testExternal
	testExternalDone
)

// strings returns the strings of a set that a kernel's device has.
func (c *call) strings(set uint32) ([]string, error) {
	d, err := c.lookup(c.name)
	if err != nil {
		return nil, err
	}
	if a, ok := d.(Asker); ok {
		return StringSet(a, set)
	}
	return nil, nil
}

// maxFlags is how many private flags there can be.
const maxFlags = 32

// privateNames returns the names of a device's private flags, or says why there are none.
func (c *call) privateNames() (names []string, ok bool) {
	names, err := c.strings(layout.SetPrivate)
	switch {
	case err != nil:
		c.fail(0, "Cannot get private flag names: %s", errText(err))
	case len(names) == 0:
		c.fail(0, "No private flags defined")
	}
	return names[:min(len(names), maxFlags)], len(names) > 0
}

// showPrivateFlags is --show-priv-flags.
func (c *call) showPrivateFlags() int {
	if len(c.args) > 0 {
		return c.badArgs()
	}
	names, ok := c.privateNames()
	if !ok {
		return exitFailure
	}
	b := request(8, layout.GPFLAGS)
	if err := c.ask(b); err != nil {
		return c.fail(exitFailure, "Cannot get private flags: %s", errText(err))
	}
	width := 0
	for _, n := range names {
		width = max(width, len(n))
	}
	c.printf("Private flags for %s:\n", c.name)
	for i, n := range names {
		c.printf("%-*s: %s\n", width, n, onOff(word(b, 4)>>i&1 != 0))
	}
	return 0
}

// setPrivateFlags is --set-priv-flags.
func (c *call) setPrivateFlags() int {
	names, ok := c.privateNames()
	if !ok {
		return exitFailure
	}
	if !pairs(2, fields(isBool, names...))(c.args) {
		return c.badArgs()
	}
	b := request(8, layout.GPFLAGS)
	if err := c.ask(b); err != nil {
		return c.fail(exitFailure, "Cannot get private flags: %s", errText(err))
	}
	bits := word(b, 4)
	for i := 0; i < len(c.args); i += 2 {
		bit := slices.Index(names, c.args[i])
		bits = bits&^(1<<bit) | uint32(wordValue(c.args[i+1]))<<bit
	}
	if err := c.ask(request(8, layout.SPFLAGS, bits)); err != nil {
		return c.fail(exitFailure, "Cannot set private flags: %s", errText(err))
	}
	return 0
}

// showPHYStats is --phy-statistics.
func (c *call) showPHYStats() int {
	if len(c.args) > 0 {
		return c.badArgs()
	}
	return c.printStats("PHY statistics", layout.SetPHYStats, layout.GPHYSTATS)
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
	b := request(8, layout.RESET, bits)
	if err := c.ask(b); err != nil {
		return c.fail(exitFailure, "Cannot issue ETHTOOL_RESET: %s", errText(err))
	}
	left := word(b, 4)
	c.printf("Components reset:     0x%x\n", bits&^left)
	if left != 0 {
		c.printf("Components not reset: 0x%x\n", left)
	}
	return 0
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
		_, n, err := c.channels()
		if err != nil {
			return c.fail(exitPerQueue, "Cannot get number of queues: %s", errText(err))
		}
		c.printf("The sub commands will be applied to all %d queues\n", max(n.now[0], n.now[1])+n.now[3])
	}
	switch {
	case len(args) == 0 || find(args[0]) == nil:
		return c.badArgs()
	case args[0] != "--show-coalesce" && args[0] != "--coalesce":
		return c.fail(exitSubcommand, "The subcommand is not supported yet: Success")
	}
	const room = 1 << 16 // more than the answers of all queues
	b := request(room, layout.PERQUEUE, layout.GCOALESCE)
	b[8] = 1 // the first queue
	err := c.ask(b)
	if err == nil {
		return c.notShown("settings of queues")
	}
	c.fail(0, "Cannot get device per queue parameters: %s", errText(err))
	return c.fail(exitPerQueue, "Cannot get device per queue parameters: %s", errText(nic.ErrInvalid))
}
