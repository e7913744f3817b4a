package linuxguest_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"hvnet/guest"
	"hvnet/host"
	"hvnet/hv"
	"hvnet/internal/linuxguest"
)

// TestPlacement: on NUMA nodes our driver's channels interrupt the processors that
// Linux's do, as they are at first and after changes of their number. (6.12 and 7.3 are
// like 6.1 here.)
func TestPlacement(t *testing.T) {
	const cpus, nodes = 8, 2
	cfg := host.Config{Profile: lookup(t, "azure")}
	r := newRig(t, linuxguest.Machine{CPUs: cpus, Nodes: nodes}, cfg)
	part, far, err := hv.Pipe(cpus)
	if err != nil {
		t.Fatal(err)
	}
	go r.host.Serve(far, host.PortConfig{Name: "ours"})
	g, err := guest.Start(t.Context(), part, guest.Config{Nodes: nodes})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close(context.Background())

	r.Run(t, "[ $(cat /sys/devices/system/node/node1/cpulist) = 4-7 ]")
	check := func(when string) {
		t.Helper()
		var ours []int
		for _, p := range g.NIC.Placement() {
			ours = append(ours, p.VP)
		}
		// Lines of relid:processor; relids count up with the channels.
		out := r.Run(t, "sort -n /sys/bus/vmbus/devices/$(lgv_dev)/channel_vp_mapping")
		var linux []int
		for line := range strings.Lines(out) {
			var relid, cpu int
			if _, err := fmt.Sscanf(line, "%d:%d", &relid, &cpu); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			linux = append(linux, cpu)
		}
		if !slices.Equal(ours, linux) {
			t.Errorf("%s: ours are on %v, Linux's on %v", when, ours, linux)
		}
		t.Logf("%s: %v", when, linux)
	}
	check("at first")
	for _, n := range []int{3, 8, 1, 5, 2, 7} {
		r.Run(t, fmt.Sprint("ethtool -L eth0 combined ", n))
		if err := g.NIC.SetChannels(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		check(fmt.Sprintf("%d channels", n))
	}
	r.content(t)
	r.Stop(t)
}
