package e2e

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hvnet/guest"
	"hvnet/host"
	"hvnet/hv/attach"
	"hvnet/nic"
	"hvnet/vswitch"
)

// TestTrapTwoGuestsWithOneMAC has a guest ask for the address of another: it is
// told why it can't have it, and the other one's frames go on as before. So do they
// when a guest with an address of its own sends with the other's.
func TestTrapTwoGuestsWithOneMAC(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), devicePatience)
	defer cancel()
	path := filepath.Join(t.TempDir(), "s")
	h := host.New(host.Config{})
	defer h.Close(ctx)
	l, err := h.Listen(path, attach.ListenConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepting, stop := context.WithCancel(ctx)
	defer stop()
	go h.Accept(accepting, l)
	outside := newDriverPort()
	other := nic.MAC{0x00, 0x15, 0x5d, 9, 9, 9} // to whom driverFrame sends
	p, err := h.Switch().Connect("outside", outside, vswitch.PortOptions{MAC: other})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()

	dial := func(name string, mac nic.MAC) (*guest.Guest, error) {
		return guest.Dial(ctx, path, guest.Config{Name: name, MAC: mac, VPs: 1}, nil)
	}
	g1, err := dial("g1", driverMAC)
	if err != nil {
		t.Fatal(err)
	}
	defer g1.Close(ctx)
	if g, err := dial("g2", driverMAC); err == nil {
		g.Close(ctx)
		t.Fatal("two guests have one address")
	} else if !strings.Contains(err.Error(), "belongs to port g1") {
		t.Errorf("refused with: %v", err)
	}
	g3, err := dial("g3", nic.MAC{})
	if err != nil {
		t.Fatal(err)
	}
	defer g3.Close(ctx)
	sink := newDriverPort()
	for g, s := range map[*guest.Guest]*driverPort{g1: sink, g3: newDriverPort()} {
		if err := g.NIC.Up(ctx, s); err != nil {
			t.Fatal(err)
		}
	}
	raw, frames := driverFrames(0, 10, func(i int) int { return 60 + i })
	if n := g3.NIC.Send(0, frames); n != 10 { // with g1's source
		t.Fatalf("took %d frames", n)
	}
	if n := g1.NIC.Send(0, frames); n != 10 {
		t.Fatalf("took %d frames", n)
	}
	sameSet(t, "from the owner", outside.wait(t, "from the owner", 10), raw)
	for i := range raw {
		copy(raw[i], driverMAC[:])
		copy(raw[i][6:], other[:])
	}
	p.WriteFrames(frames)
	sameSet(t, "to the owner", sink.wait(t, "to the owner", 10), raw)
	forged := uint64(0)
	for deadline := time.Now().Add(devicePatience); forged != 10; {
		for _, p := range h.Ports() {
			if p.Switch.Name == "g3" {
				forged = p.Drops()["from guest: bad source"]
				if forged == 0 && time.Now().After(deadline) {
					t.Fatalf("drops of g3: %v", p.Drops())
				}
			}
		}
	}
	if got := len(outside.wait(t, "all", 10)); got != 10 {
		t.Errorf("%d frames outside, want 10", got)
	}
}
