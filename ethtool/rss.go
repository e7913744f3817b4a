package ethtool

import (
	"context"
	"math"
	"slices"

	"hvnet/nic"
)

// hashFunctions are those that the kernel knows. A NIC of Hyper-V has the first.
var hashFunctions = []string{"toeplitz", "xor", "crc32"}

// maxContext is the largest number of an RSS context. The one above is a new one.
const maxContext = math.MaxUint32 - 1

// showRSS is -x.
func (c *call) showRSS() int {
	context := false
	for args := c.args; len(args) > 0; args = args[2:] {
		if len(args) < 2 || args[0] != "context" {
			return c.badArgs()
		}
		if n, ok := scanInt(args[1]); !ok || n < 1 || n > maxContext {
			return c.badArgs()
		}
		context = true
	}
	d, err := c.lookup(c.name)
	if err != nil {
		return c.fail(exitFailure, "Cannot get RX ring count: %s", errText(err))
	}
	if context { // there are none
		return c.fail(exitFailure, "Cannot get RX flow hash indir size and/or key size: %s", errText(nic.ErrNotSupported))
	}
	r := d.RSS()
	c.printf("RX flow hash indirection table for %s with %d RX ring(s):\n", c.name, d.Channels().Combined)
	if len(r.Table) == 0 {
		c.printf("Operation not supported\n")
	}
	const columns = 8
	for i, channel := range r.Table {
		if i%columns == 0 {
			c.printf("%5d: ", i)
		}
		c.printf(" %5d", channel)
		if i%columns == columns-1 || i == len(r.Table)-1 {
			c.printf("\n")
		}
	}
	c.printf("RSS hash key:\n")
	for i, b := range r.Key {
		if i > 0 {
			c.printf(":")
		}
		c.printf("%02x", b)
	}
	c.printf("\nRSS hash function:\n")
	for i, name := range hashFunctions {
		state := "off"
		if i == 0 {
			state = "on"
		}
		c.printf("    %s: %s\n", name, state)
	}
	return 0
}

// An rssRequest is the command line of -X.
type rssRequest struct {
	equal, start int64    // 0: not given
	weights      []string // nil: not given
	even         bool     // "default"
	key, hfunc   *string  // nil: not given
	context      bool     // of which there are none
	remove       bool     // "delete", of a context
}

// parse reads the words behind the name of the interface.
func (r *rssRequest) parse(args []string) (ok bool) {
	number := func(least, most int64) (n int64) {
		if ok = len(args) > 0; !ok {
			return 0
		}
		n, ok = scanInt(args[0])
		ok = ok && n >= least && n <= most
		args = args[1:]
		return n
	}
	word := func() *string {
		if ok = len(args) > 0; !ok {
			return nil
		}
		w := args[0]
		args = args[1:]
		return &w
	}
	ok = len(args) > 0
	for ok && len(args) > 0 {
		option := args[0]
		args = args[1:]
		switch option {
		case "equal":
			r.equal = number(1, math.MaxInt32)
		case "start":
			r.start = number(0, math.MaxInt32)
		case "weight":
			n := 0
			for n < len(args) && args[n] != "" && digit(args[n][0]) < 10 {
				n++
			}
			ok = n > 0 && r.weights == nil
			r.weights, args = args[:n], args[n:]
		case "default":
			r.even = true
		case "hkey":
			r.key = word()
		case "hfunc":
			r.hfunc = word()
		case "context":
			r.context = true
			if len(args) > 0 && args[0] == "new" {
				args = args[1:]
			} else {
				number(1, maxContext)
			}
		case "delete":
			r.remove = true
		default:
			return false
		}
	}
	return ok
}

// contradiction says what of the request does not go together, "" if all does.
func (r *rssRequest) contradiction() string {
	switch {
	case r.equal > 0 && r.weights != nil:
		return "Equal and weight options are mutually exclusive"
	case r.equal > 0 && r.even:
		return "Equal and default options are mutually exclusive"
	case r.weights != nil && r.even:
		return "Weight and default options are mutually exclusive"
	case r.start > 0 && r.even:
		return "Start and default options are mutually exclusive"
	case r.start > 0 && r.equal == 0 && r.weights == nil:
		return "Start must be used with equal or weight options"
	case r.even && r.context:
		return "Default and context options are mutually exclusive"
	case r.remove && !r.context:
		return "Delete option requires context option"
	case r.remove && r.weights != nil:
		return "Delete and weight options are mutually exclusive"
	case r.remove && r.equal > 0:
		return "Delete and equal options are mutually exclusive"
	case r.remove && r.key != nil:
		return "Delete and hkey options are mutually exclusive"
	}
	return ""
}

// setRSS is -X.
func (c *call) setRSS() int {
	var r rssRequest
	if !r.parse(c.args) {
		return c.badArgs()
	}
	if text := r.contradiction(); text != "" {
		return c.fail(exitFailure, "%s", text)
	}
	d, err := c.lookup(c.name)
	if err != nil {
		return c.fail(exitFailure, "Cannot get RX ring count: %s", errText(err))
	}
	now := d.RSS()
	change := nic.RSSChange{Default: r.even}
	if r.key != nil {
		var text string
		if change.Key, text = parseKey(*r.key, len(now.Key)); text != "" {
			return c.fail(exitKey, "%s", text)
		}
	}
	if r.hfunc != nil && !slices.Contains(hashFunctions, *r.hfunc) {
		return c.fail(exitFailure, "Unknown hash function: %s", *r.hfunc)
	}
	table, text := r.table(len(now.Table))
	switch {
	case text == badWeight:
		return c.badArgs()
	case text != "":
		return c.fail(exitFailure, "%s", text)
	}
	change.Table = table
	if err := r.apply(c.ctx, d, change); err != nil {
		return c.fail(exitFailure, "Cannot set RX flow hash configuration: %s", errText(err))
	}
	return 0
}

// apply has the device change, with the checks that the kernel makes for it.
func (r *rssRequest) apply(ctx context.Context, d Device, change nic.RSSChange) error {
	channels := d.Channels().Combined
	switch {
	case r.context:
		return nic.ErrNotSupported
	case change.Table == nil && !change.Default && change.Key == nil && r.hfunc == nil:
		return nic.ErrInvalid
	case slices.ContainsFunc(change.Table, func(c uint32) bool { return int64(c) >= int64(channels) }):
		return nic.ErrInvalid
	case r.hfunc != nil && *r.hfunc != hashFunctions[0]:
		return nic.ErrNotSupported
	}
	return d.SetRSS(ctx, change)
}
