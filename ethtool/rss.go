package ethtool

import (
	"math"
	"slices"

	"hvnet/ethtool/layout"
	"hvnet/nic"
)

// hashFunctions are those that Linux 6.1 knows. A NIC of Hyper-V has the first.
var hashFunctions = []string{"toeplitz", "xor", "crc32"}

// maxContext is the largest number of an RSS context. The one above is a new one.
const maxContext = math.MaxUint32 - 1

// showRSS is -x.
func (c *call) showRSS() int {
	context := uint32(0)
	for args := c.args; len(args) > 0; args = args[2:] {
		if len(args) < 2 || args[0] != "context" {
			return c.badArgs()
		}
		n, ok := scanInt(args[1])
		if !ok || n < 1 || n > maxContext {
			return c.badArgs()
		}
		context = uint32(n)
	}
	rings, err := c.rxRings()
	if err != nil {
		return c.fail(exitFailure, "Cannot get RX ring count: %s", errText(err))
	}
	r, functions, err := c.spread(context)
	if err != nil {
		return c.fail(exitFailure, "Cannot get RX flow hash indir size and/or key size: %s", errText(err))
	}
	c.printf("RX flow hash indirection table for %s with %d RX ring(s):\n", c.name, rings)
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
	if len(r.Key) == 0 {
		c.printf("Operation not supported")
	}
	for i, b := range r.Key {
		if i > 0 {
			c.printf(":")
		}
		c.printf("%02x", b)
	}
	c.printf("\nRSS hash function:\n")
	if r.Functions == 0 {
		c.printf("    Operation not supported\n")
		return 0
	}
	for i, name := range functions {
		c.printf("    %s: %s\n", name, onOff(r.Functions>>i&1 != 0))
	}
	return 0
}

// spread returns what -x shows, and the names of the hash functions.
func (c *call) spread(context uint32) (s Spread, functions []string, err error) {
	d, err := c.lookup(c.name)
	if err != nil {
		return s, nil, err
	}
	if a, ok := d.(Asker); ok {
		if s, err = ReadSpread(a, context); err != nil {
			return s, nil, err
		}
		functions, err = StringSet(a, layout.SetHashFuncs)
		return s, functions, err
	}
	if context != 0 { // there are none
		return s, nil, nic.ErrNotSupported
	}
	return Spread{d.RSS(), 1}, hashFunctions, nil
}

// An rssRequest is the command line of -X.
type rssRequest struct {
	equal, start int64    // 0: not given
	weights      []string // nil: not given
	even         bool     // "default"
	key, hfunc   *string  // nil: not given
	context      uint32   // 0: the device's own; Hyper-V has no others
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
			if len(args) > 0 && args[0] == "new" {
				r.context, args = maxContext+1, args[1:]
			} else {
				r.context = uint32(number(1, maxContext))
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
	case r.even && r.context != 0:
		return "Default and context options are mutually exclusive"
	case r.remove && r.context == 0:
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
	rings, err := c.rxRings()
	if err != nil {
		return c.fail(exitFailure, "Cannot get RX ring count: %s", errText(err))
	}
	now, functions, err := c.spread(0)
	if err != nil {
		return c.fail(exitFailure, "Cannot get RX flow hash indir size and/or key size: %s", errText(err))
	}
	change := nic.RSSChange{Default: r.even}
	if r.key != nil {
		var text string
		if change.Key, text = parseKey(*r.key, len(now.Key)); text != "" {
			return c.fail(exitKey, "%s", text)
		}
	}
	function := -1
	if r.hfunc != nil {
		if function = slices.Index(functions, *r.hfunc); function < 0 {
			return c.fail(exitFailure, "Unknown hash function: %s", *r.hfunc)
		}
	}
	table, text := r.table(len(now.Table))
	switch {
	case text == badWeight:
		return c.badArgs()
	case text != "":
		return c.fail(exitFailure, "%s", text)
	}
	change.Table = table
	if err := r.apply(c, change, rings, function, len(now.Table)); err != nil {
		return c.fail(exitFailure, "Cannot set RX flow hash configuration: %s", errText(err))
	}
	return 0
}

// apply has the device change. A NIC of Hyper-V has the checks made for it that the kernel
// makes for its drivers.
func (r *rssRequest) apply(c *call, change nic.RSSChange, rings, function, entries int) error {
	d, err := c.lookup(c.name)
	if err != nil {
		return err
	}
	if a, ok := d.(Asker); ok {
		b := r.request(change, function, entries)
		_, err := a.Ask(b)
		if err == nil && r.context == maxContext+1 {
			c.printf("New RSS context is %d\n", word(b, layout.RSSContext))
		}
		return err
	}
	switch {
	case r.context != 0:
		return nic.ErrNotSupported
	case change.Table == nil && !change.Default && change.Key == nil && r.hfunc == nil:
		return nic.ErrInvalid
	case slices.ContainsFunc(change.Table, func(c uint32) bool { return int64(c) >= int64(rings) }):
		return nic.ErrInvalid
	case function > 0:
		return nic.ErrNotSupported
	}
	return d.SetRSS(c.ctx, change)
}

// request is that for a kernel: no entries are the default table, or with "delete" no
// context; the key is behind the room for a table of so many.
func (r *rssRequest) request(change nic.RSSChange, function, entries int) []byte {
	size := uint32(layout.RSSTableStays)
	room := 0
	switch {
	case change.Table != nil:
		size, room = uint32(len(change.Table)), len(change.Table)
	case r.remove:
		size = 0
	case change.Default:
		size, room = 0, entries
	}
	b := request(layout.RSSEnd+4*room, layout.SRSSH, r.context, size, uint32(len(change.Key)))
	for i, channel := range change.Table {
		order.PutUint32(b[layout.RSSEnd+4*i:], channel)
	}
	if function >= 0 {
		b[layout.RSSFunction] = 1 << function
	}
	return append(b, change.Key...)
}
