package ethtool

import "hvnet/nic"

// setRings is -G.
func (c *call) setRings() int {
	kinds := [...]string{"rx", "rx-mini", "rx-jumbo", "tx"}
	const rx, tx = 0, 3
	wanted, ok := c.numbers(kinds)
	if !ok {
		return c.badArgs()
	}

	d, err := c.lookup(c.name)
	if err != nil {
		return c.fail(exitRings, "Cannot get device ring settings: %s", errText(err))
	}
	r := d.Rings()
	current := [...]int{rx: r.Rx, tx: r.Tx}
	if !c.changes(kinds, &wanted, current) {
		return c.fail(exitRingsSame, "no ring parameters changed, aborting")
	}

	// There are no rings for mini and jumbo frames: the maximum of those is 0.
	err = nic.ErrInvalid
	if wanted[1] == 0 && wanted[2] == 0 && wanted[rx] <= r.RxMax && wanted[tx] <= r.TxMax {
		err = d.SetRings(c.ctx, wanted[rx], wanted[tx])
	}
	if err != nil {
		return c.fail(exitSetRings, "Cannot set device ring parameters: %s", errText(err))
	}
	return 0
}
