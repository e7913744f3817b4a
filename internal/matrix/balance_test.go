package matrix

import (
	"context"
	"maps"
	"runtime"
	"slices"
	"testing"
)

// drops are the counters of a driver that count frames that are lost, or what
// neither half should ever do.
var drops = []string{"tx_scattered", "tx_no_memory", "tx_no_space", "tx_too_big", "rx_no_memory",
	"vlan_error", "tx_malformed", "tx_lost", "rx_checksum_bad",
	"host_refused", "host_bad_packet", "host_bad_message", "host_bad_completion"}

// balanced checks that after a case all sections are back on both halves, and that
// nobody has dropped anything. What is on its way at the end gets a moment.
func (w *world) balanced(ctx context.Context, t *testing.T, c Case) {
	t.Helper()
	for {
		err := w.unsettled()
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			t.Errorf("%v: the account: %v", c, err)
			break
		}
		runtime.Gosched()
	}
	for _, g := range w.guests {
		for _, s := range g.NIC.Stats() {
			if s.Value != 0 && slices.Contains(drops, s.Name) {
				t.Errorf("%v: guest %v: %s is %d", c, g.NIC.MAC(), s.Name, s.Value)
			}
		}
	}
	for _, p := range w.host.Ports() {
		lost := p.Drops()
		for _, reason := range slices.Sorted(maps.Keys(lost)) {
			if !w.explained(reason) {
				t.Errorf("%v: port %s: %d frames dropped: %s", c, p.Switch.Name, lost[reason], reason)
			}
		}
		if p.Guest != nil && (p.Guest.Faults != 0 || p.Guest.Failures != 0) {
			t.Errorf("%v: port %s: %d faults, %d failures", c, p.Switch.Name, p.Guest.Faults, p.Guest.Failures)
		}
	}
}

// unsettled returns an error while a section is not where it belongs.
func (w *world) unsettled() error {
	for _, g := range w.guests {
		for _, a := range g.NIC.Accounts() {
			if err := a.AtRest(); err != nil {
				return err
			}
		}
	}
	for _, p := range w.host.Ports() {
		if p.Guest != nil {
			if err := p.Guest.Receive.AtRest(); err != nil {
				return err
			}
		}
	}
	return nil
}

// explained tells of the drops that belong to a case: the gateway tells all stations
// of itself, also those that are not up yet.
func (w *world) explained(reason string) bool {
	return w.rated && reason == "for guest: no section" ||
		slices.Contains([]string{"for guest: no guest", "for guest: no receive buffer", "for guest: filter"}, reason)
}
