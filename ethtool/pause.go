package ethtool

import (
	"slices"

	"hvnet/ethtool/layout"
)

// pauseKinds are the parts of struct ethtool_pauseparam, a word each.
var pauseKinds = []string{"autoneg", "rx", "tx"}

const pauseLen = 16

// showPause is -a.
func (c *call) showPause() int {
	if len(c.args) != 0 {
		return c.badArgs()
	}
	c.printf("Pause parameters for %s:\n", c.name)
	b := request(pauseLen, layout.GPAUSEPARAM)
	if err := c.ask(b); err != nil {
		return c.fail(exitRings, "Cannot get device pause settings: %s", errText(err))
	}
	rx, tx := "", ""
	if word(b, 4) != 0 {
		// The older form of the settings of the link, which is of 32 modes.
		const advertised, peer = 8, 32
		old := request(44, layout.GSET)
		if err := c.ask(old); err != nil {
			return c.fail(exitFailure, "Cannot get device settings: %s", errText(err))
		}
		if word(old, peer) != 0 {
			rx, tx = negotiated(modeMask(old[advertised:]), modeMask(old[peer:]))
		}
	}
	c.printf("Autonegotiate:\t%s\nRX:\t\t%s\nTX:\t\t%s\n", onOff(word(b, 4) != 0), onOff(word(b, 8) != 0), onOff(word(b, 12) != 0))
	if rx != "" {
		c.printf("RX negotiated:\t%s\nTX negotiated:\t%s\n", rx, tx)
	}
	c.printf("\n")
	return 0
}

// negotiated says what comes out if both ends of a link advertise what they do (IEEE
// 802.3, table 28B-3).
func negotiated(own, peer modeMask) (rx, tx string) {
	both := own.has(modePause) && peer.has(modePause)
	asym := own.has(modeAsym) && peer.has(modeAsym)
	return onOff(both || asym && own.has(modePause)), onOff(both || asym && peer.has(modePause))
}

// setPause is -A.
func (c *call) setPause() int {
	if !pairs(0, fields(isBool, pauseKinds...))(c.args) {
		return c.badArgs()
	}
	b := request(pauseLen, layout.GPAUSEPARAM)
	if err := c.ask(b); err != nil {
		return c.fail(exitSetPause, "Cannot get device pause settings: %s", errText(err))
	}
	if !c.changeWords(b, pauseKinds, pauseKinds) {
		return c.fail(exitPauseSame, "no pause parameters changed, aborting")
	}
	order.PutUint32(b, layout.SPAUSEPARAM)
	if err := c.ask(b); err != nil {
		return c.fail(exitPauseRefused, "Cannot set device pause parameters: %s", errText(err))
	}
	return 0
}

// changeWords changes a structure of words, which are called so, as the arguments say, and
// reports whether that changes anything. What is so already it says, in an order. A
// negative number asks for nothing.
func (c *call) changeWords(b []byte, names, said []string) (changed bool) {
	for _, name := range said {
		wanted := int64(-1)
		for i := 0; i+1 < len(c.args); i += 2 { // of two the last one counts
			if c.args[i] == name {
				wanted = wordValue(c.args[i+1])
			}
		}
		at := 4 + 4*slices.Index(names, name)
		switch {
		case wanted < 0:
		case uint32(wanted) == word(b, at):
			c.fail(0, "%s unmodified, ignoring", name)
		default:
			order.PutUint32(b[at:], uint32(wanted))
			changed = true
		}
	}
	return changed
}

// wordValue returns the value of an argument that is a number, "on" or "off".
func wordValue(arg string) int64 {
	switch arg {
	case "on":
		return 1
	case "off":
		return 0
	}
	n, _ := scanInt(arg)
	return n
}
