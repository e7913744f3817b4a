package main

import (
	"os"
	"strings"
	"testing"
	"time"

	"hvnet/host"
	"hvnet/nic"
)

func TestMain(m *testing.M) {
	if what := os.Getenv(environment); what != "" {
		os.Exit(stationMain(what))
	}
	os.Exit(m.Run())
}

// TestSoak is a short one.
func TestSoak(t *testing.T) {
	var out strings.Builder
	if err := soak(t.Context(), 1, 3*time.Second, true, &out); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
}

// TestChecks: what the soak is to find, it finds.
func TestChecks(t *testing.T) {
	frame := func(n int, l label) []byte {
		b := make([]byte, n)
		l.mark = markTraffic
		l.write(b, host.PortMAC(names[1]), host.PortMAC(names[l.sender]), 1)
		return b
	}
	good := frame(100, label{seq: 5, life: 2})
	if l, err := read(good); err != nil || l != (label{mark: markTraffic, seq: 5, life: 2}) {
		t.Errorf("%+v, %v", l, err)
	}
	for bit := 8 * nic.HeaderLen; bit < 8*len(good); bit++ {
		bad := append([]byte(nil), good...)
		bad[bit/8] ^= 1 << (bit % 8)
		if _, err := read(bad); err == nil {
			t.Errorf("bit %d is changed, and nobody notices", bit)
		}
	}
	if _, err := read(good[:99]); err == nil {
		t.Error("a byte is missing, and nobody notices")
	}
}
