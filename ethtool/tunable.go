package ethtool

import (
	"slices"

	"hvnet/ethtool/layout"
)

// tunables are those of a device, in the order in which they are set, with the length of
// their values in bytes.
var tunables = []struct {
	name   string
	number uint32
	size   int
}{
	{"rx-copybreak", 1, 4}, {"tx-copybreak", 2, 4}, {"tx-buf-size", 4, 4}, {"pfc-prevention-tout", 3, 2},
}

// Where the value of a tunable is, and what types of values are called.
const tunableValue = 16

var tunableTypes = map[int]uint32{1: 1, 2: 2, 4: 3}

func tunableRequest(cmd, number uint32, size int) []byte {
	return request(tunableValue+size, cmd, number, tunableTypes[size], uint32(size))
}

// tunableWord returns the value, of one, two or four bytes.
func tunableWord(b []byte) uint32 {
	switch v := b[tunableValue:]; len(v) {
	case 1:
		return uint32(v[0])
	case 2:
		return uint32(order.Uint16(v))
	}
	return word(b, tunableValue)
}

func putTunable(b []byte, value uint32) {
	switch v := b[tunableValue:]; len(v) {
	case 1:
		v[0] = byte(value)
	case 2:
		order.PutUint16(v, uint16(value))
	default:
		order.PutUint32(v, value)
	}
}

func tunableNames() (names []string) {
	for _, t := range tunables {
		names = append(names, t.name)
	}
	return names
}

// getTunable is --get-tunable. Why it can't be got is not said.
func (c *call) getTunable() int {
	names := tunableNames()
	if len(c.args) == 0 || !slices.Contains(names, c.args[0]) {
		return c.badArgs()
	}
	for _, name := range c.args {
		i := slices.Index(names, name)
		if i < 0 {
			return c.badArgs()
		}
		b := tunableRequest(layout.GTUNABLE, tunables[i].number, tunables[i].size)
		if err := c.ask(b); err != nil {
			return c.fail(exitMinus, "%s: Cannot get tunable", name)
		}
		c.printf("%s: %d\n", name, tunableWord(b))
	}
	return 0
}

// setTunable is --set-tunable.
func (c *call) setTunable() int {
	if !pairs(2, fields(isNumber, tunableNames()...))(c.args) {
		return c.badArgs()
	}
	for _, t := range tunables {
		for i := 0; i < len(c.args); i += 2 {
			if c.args[i] != t.name {
				continue
			}
			b := tunableRequest(layout.STUNABLE, t.number, t.size)
			putTunable(b, uint32(wordValue(c.args[i+1])))
			if err := c.ask(b); err != nil {
				return c.fail(exitMinus, "%s: %s", t.name, errText(err))
			}
		}
	}
	return 0
}

// phyTunables are the names of --get-phy-tunable and --set-phy-tunable, what is said of
// them, and the name of the number that may follow.
var phyTunables = []struct {
	name, get, set, number string
	size                   int    // of the value
	off, on                uint32 // what stands for "off", and for "on" without a number
	show                   func(c *call, v uint32)
}{
	{"downshift", "Cannot Get PHY downshift count", "Cannot Set PHY downshift count", "count", 1, 0, 0xff, (*call).printDownshift},
	{"fast-link-down", "Cannot Get PHY Fast Link Down value", "Cannot Set PHY Fast Link Down value", "msecs", 1, 0xff, 0, (*call).printFastDown},
	{"energy-detect-power-down", "Cannot Get PHY Energy Detect Power Down value", "Cannot Set PHY Energy Detect Power Down", "msecs", 2, 0, 0xffff, (*call).printPowerDown},
}

func (c *call) printDownshift(v uint32) {
	if v == 0 {
		c.printf("Downshift disabled\n")
		return
	}
	c.printf("Downshift count: %d\n", v)
}

func (c *call) printFastDown(v uint32) {
	switch v {
	case 0:
		c.printf("Fast Link Down enabled\n")
	case 0xff:
		c.printf("Fast Link Down disabled\n")
	default:
		c.printf("Fast Link Down enabled, %d msecs\n", v)
	}
}

func (c *call) printPowerDown(v uint32) {
	switch v {
	case 0:
		c.printf("Energy Detect Power Down: disabled\n")
	case 0xfffe:
		c.printf("Energy Detect Power Down: enabled, TX disabled\n")
	default:
		c.printf("Energy Detect Power Down: enabled, TX %d msecs\n", v)
	}
}

func (c *call) getPHYTunable() int {
	for i, t := range phyTunables {
		if len(c.args) == 0 || c.args[0] != t.name {
			continue
		}
		b := tunableRequest(layout.PHYGTUNABLE, uint32(i+1), t.size)
		if err := c.ask(b); err != nil {
			return c.fail(exitPHYTunable, "%s: %s", t.get, errText(err))
		}
		t.show(c, tunableWord(b))
		return 0
	}
	return c.badArgs()
}

func (c *call) setPHYTunable() int {
	for i, t := range phyTunables {
		if len(c.args) < 2 || c.args[0] != t.name {
			continue
		}
		number := len(c.args) > 3 && c.args[2] == t.number
		value := t.off
		switch {
		case !isBool(c.args[1]) || number && !isNumber(c.args[3]):
			return c.badArgs()
		case t.name == "energy-detect-power-down" && c.args[1] == "on" && !number:
			c.fail(0, "'msecs' max value is 65533.")
			return c.badArgs()
		case c.args[1] == "on" && number:
			value = uint32(wordValue(c.args[3]))
		case c.args[1] == "on":
			value = t.on
		}
		b := tunableRequest(layout.PHYSTUNABLE, uint32(i+1), t.size)
		putTunable(b, value)
		if err := c.ask(b); err != nil {
			return c.fail(exitPHYTunable, "%s: %s", t.set, errText(err))
		}
		return 0
	}
	return c.badArgs()
}
