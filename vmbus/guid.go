package vmbus

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// A GUID in the order of the wire: the first three fields little-endian, the rest
// as bytes.
type GUID [16]byte

// ClassNIC is the class of synthetic network adapters.
var ClassNIC = GUID{0x63, 0x51, 0x61, 0xf8, 0x3e, 0xdf, 0xc5, 0x46, 0x91, 0x3f, 0xf2, 0xd2, 0xf9, 0x65, 0xed, 0x0e}

// textOrder[i] is where the i-th byte of the text stands on the wire. It is its own
// inverse.
var textOrder = [16]int{3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15}

// String returns the usual form, "f8615163-df3e-46c5-913f-f2d2f965ed0e".
func (g GUID) String() string {
	var t GUID
	for i, w := range textOrder {
		t[i] = g[w]
	}
	return fmt.Sprintf("%x-%x-%x-%x-%x", t[:4], t[4:6], t[6:8], t[8:10], t[10:])
}

// IsZero reports whether all bytes are zero.
func (g GUID) IsZero() bool { return g == GUID{} }

// ParseGUID parses the form that String prints, in any case, with or without braces.
func ParseGUID(s string) (GUID, error) {
	t := s
	if strings.HasPrefix(t, "{") && strings.HasSuffix(t, "}") {
		t = t[1 : len(t)-1]
	}
	bad := len(t) != 36
	for _, i := range []int{8, 13, 18, 23} {
		bad = bad || t[i] != '-'
	}
	var b []byte
	if !bad {
		var err error
		b, err = hex.DecodeString(t[:8] + t[9:13] + t[14:18] + t[19:23] + t[24:])
		bad = err != nil
	}
	if bad {
		return GUID{}, fmt.Errorf("GUID %q: want the form f8615163-df3e-46c5-913f-f2d2f965ed0e", s)
	}
	var g GUID
	for i, w := range textOrder {
		g[w] = b[i]
	}
	return g, nil
}
