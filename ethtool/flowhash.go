package ethtool

import (
	"math"
	"slices"

	"hvnet/ethtool/layout"
	"hvnet/nic"
)

// A flowKind is a kind of flows that ethtool can ask the hash of.
type flowKind struct {
	name, title string
	number      uint32 // the kernel's
}

// flowTypes are all of them. Only the first four are known to a NIC of Hyper-V: nothing of
// the others is hashed.
var flowTypes = []flowKind{
	nic.FlowTCPv4: {"tcp4", "TCP over IPV4 flows", layout.FlowTCPv4},
	nic.FlowUDPv4: {"udp4", "UDP over IPV4 flows", layout.FlowUDPv4},
	nic.FlowTCPv6: {"tcp6", "TCP over IPV6 flows", layout.FlowTCPv6},
	nic.FlowUDPv6: {"udp6", "UDP over IPV6 flows", layout.FlowUDPv6},
	{"sctp4", "SCTP over IPV4 flows", layout.FlowSCTPv4},
	{"ah4", "IPSEC AH/ESP over IPV4 flows", layout.FlowAHESP4},
	{"esp4", "IPSEC AH/ESP over IPV4 flows", layout.FlowAHESP4},
	{"sctp6", "SCTP over IPV6 flows", layout.FlowSCTPv6},
	{"ah6", "IPSEC AH/ESP over IPV6 flows", layout.FlowAHESP6},
	{"esp6", "IPSEC AH/ESP over IPV6 flows", layout.FlowAHESP6},
	{"ether", "", layout.FlowEther},
}

// flowType returns the place of a name in flowTypes, -1 if it is not there.
func flowType(name string) int {
	return slices.IndexFunc(flowTypes, func(t flowKind) bool { return t.name == name })
}

// A hashField is something that a hash is over.
type hashField struct {
	letter rune // of -N
	bit    uint64
	text   string // of -n
}

// hashFields are all of them.
var hashFields = []hashField{
	{'m', layout.HashL2Dst, "L2DA"},
	{'v', layout.HashVLAN, "VLAN tag"},
	{'t', layout.HashL3Proto, "L3 proto"},
	{'s', layout.HashIPSrc, "IP SA"},
	{'d', layout.HashIPDst, "IP DA"},
	{'f', layout.HashL4First, "L4 bytes 0 & 1 [TCP/UDP src port]"},
	{'n', layout.HashL4Next, "L4 bytes 2 & 3 [TCP/UDP dst port]"},
	{'r', layout.HashDiscard, ""},
}

// The only sets of them that a NIC of Hyper-V has.
const (
	hashL3 = layout.HashIPSrc | layout.HashIPDst
	hashL4 = hashL3 | layout.HashL4First | layout.HashL4Next
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
		err := c.ask(request(rulesLen, layout.GRXCLSRULE))
		if err == nil {
			return c.notShown("rules for flows")
		}
		c.fail(0, "rxclass: Cannot get RX class rule: %s", errText(err))
		return c.fail(exitFailure, "Cannot get RX classification rule")
	case len(c.args) < 2 || c.args[0] != "rx-flow-hash":
		return c.badArgs()
	}
	context, none, ok := rssContext(c.args[2:])
	t := flowType(c.args[1])
	if !ok || t < 0 {
		return c.badArgs()
	}
	over, err := c.hashOver(t, context, none)
	if err != nil {
		return c.fail(exitFailure, "Cannot get RX network flow hashing options: %s", errText(err))
	}
	if !none {
		c.printf("For RSS context %d:\n", context)
	}
	c.printf("%s use these fields for computing Hash flow key:\n", flowTypes[t].title)
	switch {
	case over&layout.HashDiscard != 0:
		c.printf("All matching flows discarded on RX\n")
		return 0
	case over == 0:
		c.printf("None\n")
		return 0
	}
	for _, f := range hashFields {
		if over&f.bit != 0 {
			c.printf("%s\n", f.text)
		}
	}
	c.printf("\n")
	return 0
}

// hashOver returns what the hash of a kind of flows is over.
func (c *call) hashOver(t int, context uint32, none bool) (uint64, error) {
	d, err := c.lookup(c.name)
	if err != nil {
		return 0, err
	}
	if a, ok := d.(Asker); ok {
		b := hashRequest(layout.GRXFH, t, context, none, 0)
		_, err := a.Ask(b)
		return order.Uint64(b[8:]), err
	}
	levels := d.HashLevels()
	switch {
	case t >= len(levels) || !none: // hv_netvsc takes a context for a kind of flow that it does not know
		return 0, nil
	case levels[t] == nic.HashL4:
		return hashL4, nil
	}
	return hashL3, nil
}

// rulesLen is the length of struct ethtool_rxnfc, without the places of rules.
const rulesLen = 192

// hashRequest is the request of GRXFH or SRXFH.
func hashRequest(cmd uint32, t int, context uint32, none bool, over uint64) []byte {
	b := request(rulesLen, cmd, flowTypes[t].number)
	if !none {
		order.PutUint32(b[4:], flowTypes[t].number|layout.FlowContext)
		order.PutUint32(b[184:], context)
	}
	order.PutUint64(b[8:], over)
	return b
}

// showRules is -n without more. No NIC of Hyper-V has rules, nor a way to have any.
func (c *call) showRules() int {
	if n, err := c.rxRings(); err != nil {
		c.fail(0, "Cannot get RX rings: %s", errText(err))
	} else {
		c.printf("%d RX rings available\n", n)
	}
	b := request(rulesLen, layout.GRXCLSRLCNT)
	if err := c.ask(b); err != nil {
		c.fail(0, "rxclass: Cannot get RX class rule count: %s", errText(err))
		return c.fail(exitFailure, "RX classification rule retrieval failed")
	}
	const ruleCount = 184
	if word(b, ruleCount) > 0 {
		return c.notShown("rules for flows")
	}
	c.printf("Total 0 rules\n\n")
	return 0
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
		n, ok := scanInt(c.args[1])
		if !ok || n < 0 || n > math.MaxInt32 {
			return c.badArgs()
		}
		const location = 176
		b := request(rulesLen, layout.SRXCLSRLDEL)
		order.PutUint32(b[location:], uint32(n))
		if err := c.ask(b); err != nil {
			c.fail(0, "rmgr: Cannot delete RX class rule: %s", errText(err))
			return c.fail(exitFailure, "Cannot delete classification rule")
		}
		return 0
	}
	return c.badArgs()
}

// setHashLevel is -N rx-flow-hash. What the device refuses is said, but no failure:
// so it is in ethtool.
func (c *call) setHashLevel(args []string) int {
	if len(args) < 2 {
		return c.badArgs()
	}
	context, none, ok := rssContext(args[2:])
	t := flowType(args[0])
	over := uint64(0)
	for _, l := range args[1] {
		i := slices.IndexFunc(hashFields, func(f hashField) bool { return f.letter == l })
		ok = ok && i >= 0
		over |= hashFields[max(i, 0)].bit
	}
	if !ok || t < 0 {
		return c.badArgs()
	}
	d, err := c.lookup(c.name)
	if a, isKernel := d.(Asker); isKernel && err == nil {
		_, err = a.Ask(hashRequest(layout.SRXFH, t, context, none, over))
	} else if err == nil {
		err = nic.ErrNotSupported
		level := map[uint64]nic.HashKind{hashL3: nic.HashL3, hashL4: nic.HashL4}[over]
		if none && t < len(nic.HashLevels{}) && level != nic.HashNone {
			err = d.SetHashLevel(c.ctx, nic.Flow(t), level)
		}
	}
	if err != nil {
		c.fail(0, "Cannot change RX network flow hashing options: %s", errText(err))
	}
	return 0
}

// insertRule is -N flow-type. No rule can be inserted in a NIC of Hyper-V, so the rest of
// it is not looked at.
func (c *call) insertRule(kind string) int {
	if flowType(kind) < 0 && kind != "ip4" && kind != "ip6" {
		c.fail(0, "Add rule, invalid syntax")
		return c.badArgs()
	}
	if err := c.ask(request(rulesLen, layout.GRXCLSRLCNT)); err != nil {
		c.fail(0, "rxclass: Cannot get RX class rule count: %s", errText(err))
		return c.fail(exitFailure, "Cannot insert classification rule")
	}
	return c.notShown("rules for flows")
}
