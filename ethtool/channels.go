package ethtool

import (
	"hvnet/ethtool/layout"
	"hvnet/nic"
)

// setChannels is -L.
func (c *call) setChannels() int {
	const combined = 3
	wanted, ok := c.numbers(channelKinds)
	if !ok {
		return c.badArgs()
	}

	d, n, err := c.channels()
	if err != nil {
		return c.fail(exitFailure, "Cannot get device channel parameters: %s", errText(err))
	}
	kernel, isKernel := d.(Asker)
	if !c.changes(channelKinds, &wanted, n.now) {
		if isKernel {
			c.fail(0, "no channel parameters changed.")
			return c.fail(0, "current values: rx %d tx %d other %d combined %d", n.now[0], n.now[1], n.now[2], n.now[combined])
		}
		c.fail(0, "no channel parameters changed, aborting")
		// The releases with these words print the number of receive channels after
		// "tx" and the other way round. Both are 0.
		return c.fail(exitFailure, "current values: tx %d rx %d other %d combined %d", n.now[0], n.now[1], n.now[2], n.now[combined])
	}

	switch {
	case isKernel:
		err = setCounts(kernel, layout.SCHANNELS, counts{n.most, wanted})
	case wanted[0] != 0 || wanted[1] != 0 || wanted[2] != 0: // there are combined channels only
		err = nic.ErrInvalid
	default:
		err = d.SetChannels(c.ctx, wanted[combined])
	}
	if err != nil {
		return c.fail(exitFailure, "Cannot set device channel parameters: %s", errText(err))
	}
	return 0
}
