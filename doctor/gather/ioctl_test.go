package gather

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"hvnet/doctor"
)

// TestLoopback asks the kernel for lo, which every machine has.
func TestLoopback(t *testing.T) {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(socket)
	c := collector{socket: socket}
	if d, err := c.driver("lo"); err == nil {
		t.Errorf("lo has the driver %+v", d)
	}
	i := doctor.Interface{Name: "lo"}
	c.settings(&i)
	if !slices.Contains(i.Features, "loopback") || slices.Contains(i.Off, "loopback") || !slices.Contains(i.Features, "tx-scatter-gather") {
		t.Errorf("lo has the features %v, not %v", i.Features, i.Off)
	}
	if i.Channels != 0 || i.RxSections != 0 || len(i.Hash) != 0 || i.RSSEntries != 0 || len(i.Counters) != 0 {
		t.Errorf("lo is more than that: %+v", i)
	}
	nosuch := doctor.Interface{Name: "no-such-device0"}
	c.settings(&nosuch)
	if len(nosuch.Features) != 0 {
		t.Errorf("no interface has features: %+v", nosuch)
	}
}

// TestWord: an answer that ends early is no number.
func TestWord(t *testing.T) {
	b := native.AppendUint32(nil, 7)
	if word(b, 0) != 7 || word(b, 1) != 0 || word(nil, 0) != 0 || word(b[:3], 0) != 0 {
		t.Error("not the numbers that are there")
	}
}
