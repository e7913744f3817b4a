package ethtool

import (
	"math"

	"hvnet/nic"
)

// setChannels is -L.
func (c *call) setChannels() int {
	kinds := [...]string{"rx", "tx", "other", "combined"}
	const combined = 3
	wanted := [...]int{-1, -1, -1, -1} // negative: not given
	for i := 0; i < len(c.args); i += 2 {
		k := 0
		for k < len(kinds) && kinds[k] != c.args[i] {
			k++
		}
		if k == len(kinds) || i+1 == len(c.args) {
			return c.badArgs()
		}
		n, ok := scanInt(c.args[i+1])
		if !ok || n < math.MinInt32 || n > math.MaxInt32 {
			return c.badArgs()
		}
		wanted[k] = int(n) // the last one counts
	}

	d, err := c.lookup(c.name)
	if err != nil {
		return c.fail(exitFailure, "Cannot get device channel parameters: %s", errText(err))
	}
	current := [...]int{combined: d.Channels().Combined}
	changed := false
	for k, n := range wanted {
		switch {
		case n < 0:
			wanted[k] = current[k]
		case n == current[k]:
			c.fail(0, "%s unmodified, ignoring", kinds[k])
		default:
			changed = true
		}
	}
	if !changed {
		c.fail(0, "no channel parameters changed, aborting")
		// These releases print the number of receive channels after "tx" and
		// the other way round. Both are 0.
		return c.fail(exitFailure, "current values: tx %d rx %d other %d combined %d", current[0], current[1], current[2], current[combined])
	}

	// There are combined channels only: the maximum of the others is 0.
	err = nic.ErrInvalid
	if wanted[0] == 0 && wanted[1] == 0 && wanted[2] == 0 {
		err = d.SetChannels(c.ctx, wanted[combined])
	}
	if err != nil {
		return c.fail(exitFailure, "Cannot set device channel parameters: %s", errText(err))
	}
	return 0
}
