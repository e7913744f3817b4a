package ethtool

import (
	"fmt"
	"math"
)

// badWeight says that a weight is no number.
const badWeight = "bad weight"

// table returns the table of n entries that is asked for, nil if none is, or what is
// wrong with it.
func (r *rssRequest) table(n int) (table []uint32, text string) {
	switch {
	case r.equal > 0:
		table = make([]uint32, n)
		for i := range table {
			table[i] = uint32(r.start + int64(i)%r.equal)
		}
		return table, ""
	case r.weights != nil:
		return r.weighted(n)
	}
	return nil, ""
}

// weighted divides a table in blocks, one for each weight and in proportion to it.
func (r *rssRequest) weighted(n int) (table []uint32, text string) {
	weights := make([]int64, len(r.weights))
	sum := int64(0)
	for i, w := range r.weights {
		v, ok := scanInt(w)
		if !ok || v < 0 || v > math.MaxUint32 {
			return nil, badWeight
		}
		weights[i] = v
		sum += v
	}
	switch {
	case sum == 0:
		return nil, "At least one weight must be non-zero"
	case sum > int64(n):
		return nil, "Total weight exceeds the size of the indirection table"
	}
	table = make([]uint32, n)
	block, partial := int64(-1), int64(0)
	for i := range table {
		for int64(i) >= int64(n)*partial/sum {
			block++
			partial += weights[block]
		}
		table[i] = uint32(r.start + block)
	}
	return table, ""
}

// parseKey parses a key of n bytes, "6d:5a:…", as ethtool does, which takes a sign or
// an x for the first digit, and a colon at the end. text says what is wrong with it.
func parseKey(s string, n int) (key []byte, text string) {
	const format = "Invalid RSS hash key format"
	for {
		if len(key) == n {
			return nil, fmt.Sprintf("Key is too long for device (%d > %d)", n+1, n)
		}
		if len(s) < 2 {
			return nil, format
		}
		b, ok := keyByte(s[0], s[1])
		if !ok || len(s) > 2 && s[2] != ':' {
			return nil, format
		}
		key = append(key, b)
		if len(s) <= 3 {
			break
		}
		s = s[3:]
	}
	if len(key) < n {
		return nil, fmt.Sprintf("Key is too short for device (%d < %d)", len(key), n)
	}
	return key, ""
}

// keyByte is C's scanf with "%2hhx".
func keyByte(first, second byte) (b byte, ok bool) {
	hi, lo := digit(first), digit(second)
	switch {
	case lo < 16 && hi < 16:
		return byte(hi<<4 | lo), true
	case lo < 16 && (first == '+' || first == ' '):
		return byte(lo), true
	case lo < 16 && first == '-':
		return byte(-lo), true
	case first == '0' && second|0x20 == 'x':
		return 0, true
	}
	return 0, false
}
