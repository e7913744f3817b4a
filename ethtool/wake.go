package ethtool

import (
	"strings"

	"hvnet/ethtool/layout"
)

// struct ethtool_wolinfo: what can wake the machine, what does, and a password.
const (
	wakeSupported = 4
	wakeOn        = 8
	wakePassword  = 12
	wakeLen       = 20
)

// wakeLetters are those of the bits, and wakeSecure is the one that has a password.
const (
	wakeLetters = "pumbagsf"
	wakeSecure  = 1 << 6
)

// wakeText returns the letters of bits, "d" for none.
func wakeText(bits uint32) (text string) {
	for i, l := range wakeLetters {
		if bits>>i&1 != 0 {
			text += string(l)
		}
	}
	if text == "" {
		return "d"
	}
	return text
}

func (c *call) printWake(b []byte) {
	c.printf("\tSupports Wake-on: %s\n\tWake-on: %s\n", wakeText(word(b, wakeSupported)), wakeText(word(b, wakeOn)))
	if word(b, wakeSupported)&wakeSecure != 0 {
		p := b[wakePassword:]
		c.printf("        SecureOn password: %02x:%02x:%02x:%02x:%02x:%02x\n", p[0], p[1], p[2], p[3], p[4], p[5])
	}
}

// changeWake changes what wakes the machine.
func (c *call) changeWake(w *settingsWish) {
	b := request(wakeLen, layout.GWOL)
	err := c.ask(b)
	what := "get current"
	if err == nil {
		what = "set new"
		order.PutUint32(b, layout.SWOL)
		if w.wol != nil {
			order.PutUint32(b[wakeOn:], wakeBits(string(w.wol)))
		}
		copy(b[wakePassword:wakePassword+6], w.password)
		err = c.ask(b)
	}
	if err == nil {
		return
	}
	c.fail(0, "Cannot %s wake-on-lan settings: %s", what, errText(err))
	if w.wol != nil {
		c.fail(0, "  not setting wol")
	}
	if w.password != nil {
		c.fail(0, "  not setting sopass")
	}
}

// wakeBits returns the bits of letters; "d" takes those before it back.
func wakeBits(letters string) (bits uint32) {
	for _, l := range letters {
		if i := strings.IndexRune(wakeLetters, l); i >= 0 {
			bits |= 1 << i
		} else {
			bits = 0
		}
	}
	return bits
}
