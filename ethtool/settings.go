package ethtool

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"hvnet/ethtool/layout"
	"hvnet/nic"
)

// messageBits are ethtool's names of the bits of the message level.
var messageBits = [...]string{
	"drv", "probe", "link", "timer", "ifdown", "ifup", "rx_err", "tx_err",
	"tx_queued", "intr", "tx_done", "rx_status", "pktdata", "hw", "wol",
}

// showSettings is the command without a name. What there is of it is what a virtual
// device has: a speed and a duplex that somebody has set; and all else at a kernel's.
func (c *call) showSettings() int {
	if len(c.args) != 0 {
		return c.badArgs()
	}
	c.printf("Settings for %s:\n", c.name)
	d, err := c.lookup(c.name)
	some := false
	// part prints one, or says why it can't be shown. What is not supported is
	// nothing to speak of.
	part := func(what string, show func() error) {
		e := err
		if e == nil {
			e = show()
		}
		if e == nil {
			some = true
		} else if !errors.Is(e, nic.ErrNotSupported) {
			c.fail(0, "Cannot get %s: %s", what, errText(e))
		}
	}
	part("device settings", func() error {
		l, err := c.link(d)
		if err == nil {
			c.printLink(l)
		}
		return err
	})
	part("wake-on-lan settings", func() error {
		b := request(wakeLen, layout.GWOL)
		err := c.ask(b)
		if err == nil {
			c.printWake(b)
		}
		return err
	})
	part("message level", func() error {
		d, err := c.deviceFor(request(8, layout.GMSGLVL))
		if err == nil {
			m := d.MessageLevel()
			c.printf("\tCurrent message level: 0x%08x (%d)\n\t\t\t       %s\n", m, m, messageText(m))
		}
		return err
	})
	part("link status", func() error {
		d, err := c.deviceFor(request(8, layout.GLINK))
		if err == nil {
			c.printf("\tLink detected: %s\n", yesNo(d.LinkSettings().Detected))
		}
		return err
	})
	if !some {
		c.printf("No data available\n")
		return exitSettings
	}
	return 0
}

func speedText(mbps uint32) string {
	if mbps == 0 || mbps == math.MaxUint16 || mbps == nic.SpeedUnknown {
		return "Unknown!"
	}
	return strconv.FormatUint(uint64(mbps), 10) + "Mb/s"
}

func duplexText(d nic.Duplex) string {
	switch d {
	case nic.DuplexHalf:
		return "Half"
	case nic.DuplexFull:
		return "Full"
	}
	return fmt.Sprintf("Unknown! (%d)", d)
}

// messageText returns the names of bits. Those without a name are in one number.
func messageText(bits uint32) string {
	var names []string
	for i, name := range messageBits {
		if bits>>i&1 != 0 {
			names = append(names, name)
		}
	}
	if rest := bits >> len(messageBits) << len(messageBits); rest != 0 {
		names = append(names, fmt.Sprintf("%#x", rest))
	}
	return strings.Join(names, " ")
}

// A settingsWish is what a command line of -s asks for; -1 is what it does not.
type settingsWish struct {
	speed, duplex, port, autoneg, phy, transceiver, mdix int64

	link           bool     // something of these, or of what is advertised, is asked for
	advertise      modeMask // nil: not asked for
	wol, password  []byte   // letters and six bytes; nil: not asked for
	setMessages    bool
	messages, mask uint32
	netlinkOnly    string // a name that only netlink has
}

// oneOf returns the number of a word, its place in the list.
func oneOf(list ...string) func(string) (int64, bool) {
	return func(s string) (int64, bool) {
		i := slices.Index(list, s)
		return int64(i), i >= 0
	}
}

func anyInt(s string) (int64, bool) {
	n, ok := scanInt(s)
	return n, ok && n >= math.MinInt32 && n <= math.MaxInt32
}

// parse reads the arguments of -s.
func (w *settingsWish) parse(args []string) (ok bool) {
	*w = settingsWish{speed: -1, duplex: -1, port: -1, autoneg: -1, phy: -1, transceiver: -1, mdix: -1}
	fields := map[string]struct {
		value *int64
		parse func(string) (int64, bool)
	}{
		"speed":   {&w.speed, decimal},
		"duplex":  {&w.duplex, oneOf("half", "full")},
		"port":    {&w.port, oneOf("tp", "aui", "mii", "fibre", "bnc")},
		"mdix":    {&w.mdix, oneOf("", "off", "on", "auto")},
		"autoneg": {&w.autoneg, oneOf("off", "on")},
		"phyad":   {&w.phy, anyInt},
		"xcvr":    {&w.transceiver, oneOf("internal", "external")},
	}
	for i := 0; i < len(args); i += 2 {
		name := args[i]
		if name == "master-slave" {
			w.netlinkOnly = name
			return true
		}
		if i+1 == len(args) {
			return false
		}
		value := args[i+1]
		f, isField := fields[name]
		switch {
		case isField:
			w.link = true
			*f.value, ok = f.parse(value)
		case name == "advertise":
			w.link = true
			w.advertise, ok = parseMask(value)
		case name == "wol":
			w.wol, ok = append([]byte{}, value...), strings.Trim(value, wakeLetters+"d") == ""
		case name == "sopass":
			w.password, ok = parsePassword(value)
		case name == "msglvl":
			w.setMessages = true
			if value == "" || value[0] < '0' || value[0] > '9' {
				return w.parseMessages(args[i+1:]) // to the end
			}
			var n int64
			n, ok = scanInt(value)
			w.messages, w.mask, ok = uint32(n), math.MaxUint32, ok && n <= math.MaxUint32
		default:
			ok = false
		}
		if !ok {
			return false
		}
	}
	return true
}

// parseMessages reads arguments of the form "type on|off".
func (w *settingsWish) parseMessages(args []string) bool {
	for i := 0; i < len(args); i += 2 {
		bit := slices.Index(messageBits[:], args[i])
		if bit < 0 || i+1 == len(args) {
			return false
		}
		on, ok := oneOf("off", "on")(args[i+1])
		if !ok {
			return false
		}
		w.mask |= 1 << bit
		w.messages = w.messages&^(1<<bit) | uint32(on)<<bit
	}
	return true
}

// decimal reads a number as C's strtoll with base 10 does.
func decimal(s string) (int64, bool) {
	if s == "" {
		return 0, true
	}
	n, err := strconv.ParseInt(strings.TrimLeft(s, " \t\n\v\f\r"), 10, 32)
	return n, err == nil
}

// isMask reports whether s is a mask of link modes, in hexadecimal. There are 93 modes.
func isMask(s string) bool {
	if len(s) > 1 && (strings.HasPrefix(s, "0x") || strings.HasPrefix(s, "0X")) {
		s = s[2:]
	}
	return s != "" && len(s) <= 24 && !strings.ContainsFunc(s, func(r rune) bool { return !strings.ContainsRune("0123456789abcdefABCDEF", r) })
}

// parseMask parses a mask of link modes.
func parseMask(s string) (modeMask, bool) {
	n, ok := new(big.Int).SetString(strings.TrimPrefix(strings.ToLower(s), "0x"), 16)
	if !ok || !isMask(s) {
		return nil, false
	}
	m := make(modeMask, 12)
	for i := range 8 * len(m) {
		m.set(i, n.Bit(i) != 0)
	}
	return m, true
}

// parsePassword parses six bytes, aa:bb:cc:dd:ee:ff.
func parsePassword(s string) (b []byte, ok bool) {
	for _, p := range strings.Split(s, ":") {
		n, err := strconv.ParseUint(p, 16, 8)
		if err != nil {
			return nil, false
		}
		b = append(b, byte(n))
	}
	return b, len(b) == 6
}

// change is -s. What the device refuses is said, but no failure: so it is in ethtool.
func (c *call) change() int {
	var w settingsWish
	if !w.parse(c.args) {
		return c.badArgs()
	}
	if w.netlinkOnly != "" {
		return c.fail(exitFailure, "ethtool: parameter '%s' can be used only with netlink", w.netlinkOnly)
	}
	d, err := c.lookup(c.name)
	if w.link {
		c.changeLink(d, err, &w)
	}
	if w.wol != nil || w.password != nil {
		c.changeWake(&w)
	}
	if w.setMessages {
		if d, err = c.deviceFor(request(8, layout.GMSGLVL)); err != nil {
			c.fail(0, "Cannot get msglvl: %s", errText(err))
		} else if err := d.SetMessageLevel(c.ctx, d.MessageLevel()&^w.mask|w.messages&w.mask); err != nil {
			c.fail(0, "Cannot set new msglvl: %s", errText(err))
		}
	}
	return 0
}
