package ethtool

import (
	"math"
	"slices"
	"strings"
)

// scanInt reads a number as C's strtoll with base 0 does, and is false unless it
// takes all of s: blanks, a sign, digits, octal after "0", hexadecimal after "0x".
// The empty string is 0. What does not fit is the nearest number that does.
func scanInt(s string) (n int64, ok bool) {
	if s == "" {
		return 0, true
	}
	s = strings.TrimLeft(s, " \t\n\v\f\r")
	negative := strings.HasPrefix(s, "-")
	if negative || strings.HasPrefix(s, "+") {
		s = s[1:]
	}
	base := int64(10)
	switch {
	case strings.HasPrefix(s, "0x") || strings.HasPrefix(s, "0X"):
		s, base = s[2:], 16
	case strings.HasPrefix(s, "0"):
		base = 8
	}
	if s == "" {
		return 0, false
	}
	for _, c := range []byte(s) {
		d := digit(c)
		if d >= base {
			return 0, false
		}
		// Counted downwards, because there is one more negative number.
		if n < (math.MinInt64+d)/base {
			n = math.MinInt64
		} else {
			n = n*base - d
		}
	}
	switch {
	case negative:
		return n, true
	case n == math.MinInt64:
		return math.MaxInt64, true
	}
	return -n, true
}

// digit returns a digit's value, or one that is none in any base.
func digit(c byte) int64 {
	switch {
	case '0' <= c && c <= '9':
		return int64(c - '0')
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return int64(c|0x20-'a') + 10
	}
	return 99
}

// numbers reads arguments of the form "kind N": for each kind its number, negative if
// it is not given, which is what ethtool takes a negative one for. Of two the last
// one counts.
func (c *call) numbers(kinds [4]string) (wanted [4]int, ok bool) {
	wanted = [4]int{-1, -1, -1, -1}
	for i := 0; i < len(c.args); i += 2 {
		k := slices.Index(kinds[:], c.args[i])
		if k < 0 || i+1 == len(c.args) {
			return wanted, false
		}
		n, ok := scanInt(c.args[i+1])
		if !ok || n < math.MinInt32 || n > math.MaxInt32 {
			return wanted, false
		}
		wanted[k] = int(n)
	}
	return wanted, true
}

// changes reports whether anything wanted differs from what is. It fills in what was
// not given, and says of what was that it is so already.
func (c *call) changes(kinds [4]string, wanted *[4]int, current [4]int) (changed bool) {
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
	return changed
}
