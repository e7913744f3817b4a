package ethtool

import (
	"slices"

	"hvnet/ethtool/layout"
)

// coalesceKinds are the words of struct ethtool_coalesce.
var coalesceKinds = []string{
	"rx-usecs", "rx-frames", "rx-usecs-irq", "rx-frames-irq",
	"tx-usecs", "tx-frames", "tx-usecs-irq", "tx-frames-irq",
	"stats-block-usecs", "adaptive-rx", "adaptive-tx",
	"pkt-rate-low", "rx-usecs-low", "rx-frames-low", "tx-usecs-low", "tx-frames-low",
	"pkt-rate-high", "rx-usecs-high", "rx-frames-high", "tx-usecs-high", "tx-frames-high",
	"sample-interval",
}

// coalesceShown are those that -c prints each in a line of its own, in its order, below
// the first line; "" is an empty line.
var coalesceShown = []string{
	"stats-block-usecs", "sample-interval", "pkt-rate-low", "pkt-rate-high", "",
	"rx-usecs", "rx-frames", "rx-usecs-irq", "rx-frames-irq", "",
	"tx-usecs", "tx-frames", "tx-usecs-irq", "tx-frames-irq", "",
	"rx-usecs-low", "rx-frames-low", "tx-usecs-low", "tx-frames-low", "",
	"rx-usecs-high", "rx-frames-high", "tx-usecs-high", "tx-frames-high", "",
}

// coalesceSaid is the order in which -C looks at them.
var coalesceSaid = append([]string{"adaptive-rx", "adaptive-tx", "sample-interval", "stats-block-usecs"},
	slices.DeleteFunc(slices.Clone(coalesceShown[2:]), func(name string) bool { return name == "" })...)

func coalesceRequest() []byte { return request(4+4*len(coalesceKinds), layout.GCOALESCE) }

// showCoalesce is -c.
func (c *call) showCoalesce() int {
	if len(c.args) != 0 {
		return c.badArgs()
	}
	c.printf("Coalesce parameters for %s:\n", c.name)
	b := coalesceRequest()
	if err := c.ask(b); err != nil {
		return c.fail(exitCoalesce, "Cannot get device coalesce settings: %s", errText(err))
	}
	values := map[string]uint32{}
	for i, name := range coalesceKinds {
		values[name] = word(b, 4+4*i)
	}
	c.printf("Adaptive RX: %s  TX: %s\n", onOff(values["adaptive-rx"] != 0), onOff(values["adaptive-tx"] != 0))
	for _, name := range coalesceShown {
		if name == "" {
			c.printf("\n")
			continue
		}
		c.printf("%s: %d\n", name, values[name])
	}
	return 0
}

// setCoalesce is -C.
func (c *call) setCoalesce() int {
	values := fields(isNumber, coalesceKinds...)
	for n, f := range fields(isBool, "adaptive-rx", "adaptive-tx") {
		values[n] = f
	}
	if !pairs(0, values)(c.args) {
		return c.badArgs()
	}
	b := coalesceRequest()
	if err := c.ask(b); err != nil {
		return c.fail(exitRings, "Cannot get device coalesce settings: %s", errText(err))
	}
	if !c.changeWords(b, coalesceKinds, coalesceSaid) {
		return c.fail(exitRingsSame, "no coalesce parameters changed, aborting")
	}
	order.PutUint32(b, layout.SCOALESCE)
	if err := c.ask(b); err != nil {
		return c.fail(exitSetRings, "Cannot set device coalesce parameters: %s", errText(err))
	}
	return 0
}
