package vf

import (
	"slices"
	"testing"
)

// run has a machine handle events and returns what it did, in short.
func run(m *Machine, events ...Event) (did []string) {
	for _, e := range events {
		for _, a := range m.Handle(e) {
			s := [...]string{"switch", "use", "use", "mirror", "forget", "rest"}[a.Do]
			if a.Do <= UseSynthetic {
				s += " " + a.Path.String()
			}
			did = append(did, s)
		}
	}
	return did
}

func expect(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

// joined is a machine with everything that a VF needs but the host's answer.
func joined(t *testing.T) *Machine {
	m := &Machine{}
	expect(t, "join", run(m, Event{Kind: UserUp}, Event{Kind: Attached, On: true, MAC: mine}, Event{Kind: Associated, On: true, Serial: 7},
		Event{Kind: Appeared, MAC: mine, Serial: 7}, Event{Kind: Changed, On: true, Carrier: true}), "mirror", "switch vf")
	return m
}

func TestJoin(t *testing.T) {
	m := joined(t)
	if ready, bySerial := m.Ready(); !ready || !bySerial {
		t.Errorf("ready %v, by serial %v", ready, bySerial)
	}
	expect(t, "confirmed", run(m, Event{Kind: Confirmed}), "use vf")
	expect(t, "carrier lost", run(m, Event{Kind: Changed, On: true}), "use synthetic", "switch synthetic")
	expect(t, "carrier back before the host has answered", run(m, Event{Kind: Changed, On: true, Carrier: true}))
	expect(t, "answers", run(m, Event{Kind: Confirmed}, Event{Kind: Confirmed}), "switch vf", "use vf")
	expect(t, "removed", run(m, Event{Kind: Removed}), "use synthetic", "forget", "switch synthetic")
	expect(t, "there again", run(m, Event{Kind: Confirmed}, Event{Kind: Appeared, MAC: mine, Serial: 9},
		Event{Kind: Changed, On: true, Carrier: true}, Event{Kind: Confirmed}), "mirror", "switch vf", "use vf")
	if ready, bySerial := m.Ready(); !ready || bySerial {
		t.Errorf("with another serial number: ready %v, by serial %v", ready, bySerial)
	}
}

func TestReattach(t *testing.T) {
	m := joined(t)
	run(m, Event{Kind: Confirmed})
	expect(t, "leaving", run(m, Event{Kind: Leaving}), "use synthetic", "switch synthetic")
	expect(t, "detached", run(m, Event{Kind: Confirmed}, Event{Kind: Detached}))
	expect(t, "attached", run(m, Event{Kind: Attached, On: true, MAC: mine}), "mirror", "switch vf")
	expect(t, "confirmed", run(m, Event{Kind: Confirmed}), "use vf")
	expect(t, "rescinded", run(m, Event{Kind: Rescinded}), "use synthetic", "forget")
	expect(t, "attached to another", run(m, Event{Kind: Attached, On: true, MAC: mine}))
}

func TestHostSaysNo(t *testing.T) {
	m := joined(t)
	expect(t, "refused", run(m, Event{Kind: Refused}))
	expect(t, "nothing new", run(m, Event{Kind: Settings}, Event{Kind: Changed, On: true, Carrier: true}), "mirror")
	expect(t, "associated again", run(m, Event{Kind: Associated, On: true, Serial: 7}), "switch vf")
	expect(t, "silent", run(m, Event{Kind: Silent}), "switch synthetic")
	expect(t, "silent again", run(m, Event{Kind: Silent}))
	expect(t, "there again", run(m, Event{Kind: Changed, Carrier: true}, Event{Kind: Confirmed}), "switch synthetic")
	expect(t, "up", run(m, Event{Kind: Changed, On: true, Carrier: true}, Event{Kind: Confirmed}), "switch vf", "use vf")
	expect(t, "taken back", run(m, Event{Kind: TakenBack}), "use synthetic")
	expect(t, "no longer associated", run(m, Event{Kind: Associated, Serial: 7}))
}

func TestDamped(t *testing.T) {
	m := joined(t)
	m.Damped = true
	expect(t, "confirmed", run(m, Event{Kind: Confirmed}), "use vf")
	down, up := Event{Kind: Changed, On: true}, Event{Kind: Changed, On: true, Carrier: true}
	expect(t, "lost", run(m, down, Event{Kind: Confirmed}), "use synthetic", "rest", "switch synthetic")
	expect(t, "flaps", run(m, up, down, up), "rest")
	expect(t, "rested", run(m, Event{Kind: Rested}), "switch vf")
	expect(t, "set down by the user", run(m, Event{Kind: Confirmed}, Event{Kind: UserDown}), "use vf", "use synthetic", "mirror", "switch synthetic")
}

// TestWords: each kind of event has words and one who moves.
func TestWords(t *testing.T) {
	for k := range Kind(numKinds) {
		if k.String() == "" || !slices.Contains([]string{"host", "device", "user", "driver"}, k.Who()) {
			t.Errorf("kind %d: %q by %q", k, k, k.Who())
		}
	}
	if Unknown.String() != "unknown" || Path(9).String() != "unknown" {
		t.Error("a path has no name")
	}
}
