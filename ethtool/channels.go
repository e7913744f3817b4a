package ethtool

import "hvnet/nic"

// setChannels is -L.
func (c *call) setChannels() int {
	kinds := [...]string{"rx", "tx", "other", "combined"}
	const combined = 3
	wanted, ok := c.numbers(kinds)
	if !ok {
		return c.badArgs()
	}

	d, err := c.lookup(c.name)
	if err != nil {
		return c.fail(exitFailure, "Cannot get device channel parameters: %s", errText(err))
	}
	current := [...]int{combined: d.Channels().Combined}
	if !c.changes(kinds, &wanted, current) {
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
