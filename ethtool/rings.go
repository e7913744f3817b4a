package ethtool

import (
	"hvnet/ethtool/layout"
	"hvnet/nic"
)

// setRings is -G.
func (c *call) setRings() int {
	const rx, mini, jumbo, tx = 0, 1, 2, 3
	wanted, ok := c.numbers(ringKinds)
	if !ok {
		return c.badArgs()
	}

	d, n, err := c.rings()
	if err != nil {
		return c.fail(exitRings, "Cannot get device ring settings: %s", errText(err))
	}
	if !c.changes(ringKinds, &wanted, n.now) {
		return c.fail(exitRingsSame, "no ring parameters changed, aborting")
	}

	if kernel, ok := d.(Asker); ok {
		err = setCounts(kernel, layout.SRINGPARAM, counts{n.most, wanted})
	} else if wanted[mini] != 0 || wanted[jumbo] != 0 || wanted[rx] > n.most[rx] || wanted[tx] > n.most[tx] {
		err = nic.ErrInvalid
	} else {
		err = d.SetRings(c.ctx, wanted[rx], wanted[tx])
	}
	if err != nil {
		return c.fail(exitSetRings, "Cannot set device ring parameters: %s", errText(err))
	}
	return 0
}
