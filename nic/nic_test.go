package nic

import (
	"encoding/json"
	"testing"
)

// TestMACText: an address is a string in JSON, any one, and nothing else is one.
func TestMACText(t *testing.T) {
	for _, m := range []MAC{{}, Broadcast, {0x00, 0x15, 0x5d, 0x01, 0x02, 0x03}} {
		b, err := json.Marshal(m)
		if want := `"` + m.String() + `"`; err != nil || string(b) != want {
			t.Errorf("%v is %s: %v", m, b, err)
		}
		back := MAC{9}
		if err := json.Unmarshal(b, &back); err != nil || back != m {
			t.Errorf("%s is read as %v: %v", b, back, err)
		}
	}
	for _, s := range []string{"", "00:15:5d:01:02", "00:15:5d:01:02:03:04:05", "x"} {
		m := MAC{9}
		if err := m.UnmarshalText([]byte(s)); err == nil || m != (MAC{9}) {
			t.Errorf("%q is read as %v", s, m)
		}
	}
}

// TestParseMAC: only what names one station is taken.
func TestParseMAC(t *testing.T) {
	if m, err := ParseMAC("00:15:5d:01:02:03"); err != nil || m != (MAC{0x00, 0x15, 0x5d, 1, 2, 3}) {
		t.Errorf("%v: %v", m, err)
	}
	for _, s := range []string{"00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "00:15:5d:01:02"} {
		if m, err := ParseMAC(s); err == nil || m != (MAC{}) {
			t.Errorf("%q is read as %v", s, m)
		}
	}
}
