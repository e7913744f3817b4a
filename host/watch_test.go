package host_test

import (
	"slices"
	"strings"
	"sync"
	"testing"

	"hvnet/conform"
	"hvnet/host"
	"hvnet/link/netstack"
	"hvnet/nic"
	"hvnet/rule"
)

// TestWatch: guests that are watched have the same NIC as others, through every
// change, and their host hears what they say, by port.
func TestWatch(t *testing.T) {
	var mu sync.Mutex
	lines := map[string][]string{}
	stages := map[string][]conform.Stage{}
	subChannels := make(chan bool, 8)
	h := host.New(host.Config{Watch: func(port string) conform.Config {
		return conform.Config{
			Line: func(s string) {
				mu.Lock()
				defer mu.Unlock()
				lines[port] = append(lines[port], s)
			},
			Reached: func(s conform.Stage) {
				mu.Lock()
				defer mu.Unlock()
				stages[port] = append(stages[port], s)
				if port == "b" && s == conform.StageSubChannels {
					subChannels <- true
				}
			},
			Broken: func(err error) { t.Errorf("port %s: %s", port, rule.Explain(err)) },
		}
	}})
	defer func() {
		if err := h.Close(soon(t)); err != nil {
			t.Error(err)
		}
	}()
	if err := h.AddGateway(netstack.GatewayConfig{MAC: nic.MAC{0, 0x15, 0x5d, 0, 0, 1}, IPv4: prefix(1)}); err != nil {
		t.Fatal(err)
	}
	a := join(t, h, host.PortConfig{Name: "a"}, prefix(2))
	b := join(t, h, host.PortConfig{Name: "b"}, prefix(3))
	a.reach(t, prefix(3))
	b.reach(t, prefix(1))
	for _, change := range []func() error{
		func() error { return a.NIC.SetChannels(soon(t), 1) },
		func() error { return a.NIC.SetChannels(soon(t), 2) },
		func() error { return a.NIC.SetMTU(soon(t), 9000) },
		func() error { return a.NIC.SetRings(soon(t), 100, 20) },
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		a.reach(t, prefix(3))
	}
	if err := h.Rescind("b"); err != nil {
		t.Fatal(err)
	}
	if err := h.Offer("b"); err != nil {
		t.Fatal(err)
	}
	for range 2 { // at first, and after the offer
		await(t, subChannels, "the second channel of b")
	}
	b.reach(t, prefix(1))
	a.stop()
	b.stop()

	mu.Lock()
	defer mu.Unlock()
	for _, port := range []string{"a", "b"} {
		for _, s := range conform.Stages() {
			if !slices.Contains(stages[port], s) {
				t.Errorf("port %s: stage %s was not reached", port, s)
			}
		}
		text := strings.Join(lines[port], "\n")
		for _, want := range []string{"guest> INITIATE_CONTACT", "host<  VERSION_RESPONSE", "guest> relid 1: INIT ",
			"RNDIS INITIALIZE_COMPLETE", "RNDIS PACKET", "stage data reached", "guest> UNLOAD"} {
			if !strings.Contains(text, want) {
				t.Errorf("port %s: nothing of %q", port, want)
			}
		}
	}
	if !strings.Contains(strings.Join(lines["b"], "\n"), "RESCIND_CHANNELOFFER relid 1") {
		t.Error("port b: nothing of the rescind")
	}
}
