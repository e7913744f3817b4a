package ethtool

import (
	"math"
	"slices"
	"strings"

	"hvnet/nic"
)

// flowTypes are the flows that ethtool can ask the hash of, with its titles. Only the
// first four are known to a NIC: nothing of the others is hashed.
var flowTypes = []struct{ name, title string }{
	nic.FlowTCPv4: {"tcp4", "TCP over IPV4 flows"},
	nic.FlowUDPv4: {"udp4", "UDP over IPV4 flows"},
	nic.FlowTCPv6: {"tcp6", "TCP over IPV6 flows"},
	nic.FlowUDPv6: {"udp6", "UDP over IPV6 flows"},
	{"sctp4", "SCTP over IPV4 flows"},
	{"ah4", "IPSEC AH/ESP over IPV4 flows"},
	{"esp4", "IPSEC AH/ESP over IPV4 flows"},
	{"sctp6", "SCTP over IPV6 flows"},
	{"ah6", "IPSEC AH/ESP over IPV6 flows"},
	{"esp6", "IPSEC AH/ESP over IPV6 flows"},
	{"ether", ""},
}

// flowType returns the place of a name in flowTypes, -1 if it is not there.
func flowType(name string) int {
	return slices.IndexFunc(flowTypes, func(t struct{ name, title string }) bool { return t.name == name })
}

// hashFields are the letters for what a hash is over, and hashL3 and hashL4 the only
// sets of them that there are.
const (
	hashFields = "mvtsdfnr"
	hashL3     = 1<<3 | 1<<4          // s and d: addresses
	hashL4     = hashL3 | 1<<5 | 1<<6 // f and n: ports
)

// rssContext reads "context N", the words at the end of a command. none says that there
// are no words.
func rssContext(words []string) (n uint32, none, ok bool) {
	if len(words) == 0 {
		return 0, true, true
	}
	if len(words) != 2 || words[0] != "context" {
		return 0, false, false
	}
	v, ok := scanInt(words[1])
	return uint32(v), false, ok && v >= 0 && v <= math.MaxUint32
}

// showFlowHash is -n.
func (c *call) showFlowHash() int {
	switch {
	case len(c.args) == 0:
		return c.showRules()
	case len(c.args) == 2 && c.args[0] == "rule":
		if n, ok := scanInt(c.args[1]); !ok || n < 0 || n > math.MaxInt32 {
			return c.badArgs()
		}
		c.fail(0, "rxclass: Cannot get RX class rule: %s", errText(c.noRules()))
		return c.fail(exitFailure, "Cannot get RX classification rule")
	case len(c.args) < 2 || c.args[0] != "rx-flow-hash":
		return c.badArgs()
	}
	context, none, ok := rssContext(c.args[2:])
	t := flowType(c.args[1])
	if !ok || t < 0 {
		return c.badArgs()
	}
	d, err := c.lookup(c.name)
	if err != nil {
		return c.fail(exitFailure, "Cannot get RX network flow hashing options: %s", errText(err))
	}
	if !none { // hv_netvsc takes it for a kind of flow that it does not know
		c.printf("For RSS context %d:\n", context)
	}
	c.printf("%s use these fields for computing Hash flow key:\n", flowTypes[t].title)
	levels := d.HashLevels()
	if t >= len(levels) || !none {
		c.printf("None\n")
		return 0
	}
	c.printf("IP SA\nIP DA\n")
	if levels[t] == nic.HashL4 {
		c.printf("L4 bytes 0 & 1 [TCP/UDP src port]\nL4 bytes 2 & 3 [TCP/UDP dst port]\n")
	}
	c.printf("\n")
	return 0
}

// showRules is -n without more. There are no rules, and no way to have any.
func (c *call) showRules() int {
	if ch, err := c.channels(); err != nil {
		c.fail(0, "Cannot get RX rings: %s", errText(err))
	} else {
		c.printf("%d RX rings available\n", ch.Combined)
	}
	c.fail(0, "rxclass: Cannot get RX class rule count: %s", errText(c.noRules()))
	return c.fail(exitFailure, "RX classification rule retrieval failed")
}

// noRules returns the answer of a device to everything about rules.
func (c *call) noRules() error {
	if _, err := c.lookup(c.name); err != nil {
		return err
	}
	return nic.ErrNotSupported
}

// setFlowHash is -N.
func (c *call) setFlowHash() int {
	if len(c.args) < 2 {
		return c.badArgs()
	}
	switch c.args[0] {
	case "rx-flow-hash":
		return c.setHashLevel(c.args[1:])
	case "flow-type":
		return c.insertRule(c.args[1])
	case "delete":
		if n, ok := scanInt(c.args[1]); !ok || n < 0 || n > math.MaxInt32 {
			return c.badArgs()
		}
		c.fail(0, "rmgr: Cannot delete RX class rule: %s", errText(c.noRules()))
		return c.fail(exitFailure, "Cannot delete classification rule")
	}
	return c.badArgs()
}

// setHashLevel is -N rx-flow-hash. What the device refuses is said, but no failure:
// so it is in ethtool.
func (c *call) setHashLevel(args []string) int {
	if len(args) < 2 {
		return c.badArgs()
	}
	_, none, ok := rssContext(args[2:])
	t := flowType(args[0])
	fields := 0
	for _, l := range args[1] {
		i := strings.IndexRune(hashFields, l)
		ok = ok && i >= 0
		fields |= 1 << max(i, 0)
	}
	if !ok || t < 0 {
		return c.badArgs()
	}
	d, err := c.lookup(c.name)
	if err == nil {
		err = nic.ErrNotSupported
		level := map[int]nic.HashKind{hashL3: nic.HashL3, hashL4: nic.HashL4}[fields]
		if none && t < len(nic.HashLevels{}) && level != nic.HashNone {
			err = d.SetHashLevel(c.ctx, nic.Flow(t), level)
		}
	}
	if err != nil {
		c.fail(0, "Cannot change RX network flow hashing options: %s", errText(err))
	}
	return 0
}

// insertRule is -N flow-type. No rule can be inserted, so the rest of it is not looked
// at.
func (c *call) insertRule(kind string) int {
	if flowType(kind) < 0 && kind != "ip4" && kind != "ip6" {
		c.fail(0, "Add rule, invalid syntax")
		return c.badArgs()
	}
	c.fail(0, "rxclass: Cannot get RX class rule count: %s", errText(c.noRules()))
	return c.fail(exitFailure, "Cannot insert classification rule")
}
