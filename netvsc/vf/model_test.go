package vf

import (
	"fmt"
	"testing"

	"hvnet/nic"
)

// A world is what a model test knows of the truth, kept apart from the machine: what has
// happened, and what a host that keeps to the protocol has done.
type world struct {
	m Machine

	attached, leaving, sriov, up, allocated bool
	present, ours, running, carrier         bool
	resting                                 bool

	using     Path // by the actions
	confirmed Path // what the host has said last
	asked     Path
	pending   bool // a switch is not answered
	word      bool // the host has spoken against the VF, and nothing has changed since
	mute      bool // nor does it go back to the synthetic device
}

var (
	mine   = nic.MAC{2, 0, 0, 0, 0, 1}
	others = nic.MAC{2, 0, 0, 0, 0, 2}
)

// events are all that can happen next.
var events = []Event{
	{Kind: Attached, On: true, MAC: mine}, {Kind: Attached, MAC: mine},
	{Kind: Leaving}, {Kind: Stays}, {Kind: Detached}, {Kind: Rescinded},
	{Kind: Associated, On: true, Serial: 1}, {Kind: Associated, On: true, Serial: 2}, {Kind: Associated, Serial: 1},
	{Kind: TakenBack}, {Kind: Confirmed}, {Kind: Refused}, {Kind: Silent},
	{Kind: Appeared, MAC: mine, Serial: 1}, {Kind: Appeared, MAC: others, Serial: 1},
	{Kind: Changed, On: true, Carrier: true}, {Kind: Changed, On: true}, {Kind: Changed, Carrier: true},
	{Kind: Removed}, {Kind: UserUp}, {Kind: UserDown}, {Kind: Settings}, {Kind: Rested},
}

// possible reports whether an event can come now: answers come to questions, and a NIC
// attaches when it is not attached.
func (w *world) possible(e Event) bool {
	switch e.Kind {
	case Attached:
		return !w.attached
	case Leaving:
		return w.attached && !w.leaving
	case Stays:
		return w.leaving
	case Detached:
		return w.leaving
	case Rescinded, Associated, TakenBack:
		return w.attached
	case Confirmed, Refused, Silent:
		return w.pending
	case Appeared:
		return !w.present
	case Changed, Removed:
		return w.present
	case UserUp:
		return !w.up
	case UserDown:
		return w.up
	case Rested:
		return w.resting
	}
	return true
}

// happen notes an event in the world.
func (w *world) happen(e Event) {
	before := *w
	switch e.Kind {
	case Attached:
		w.attached, w.sriov = true, e.On
		w.allocated = w.allocated && e.On
		w.confirmed = Synthetic
	case Leaving:
		w.leaving = true
	case Stays:
		w.leaving = false
	case Detached:
		w.attached, w.leaving, w.pending, w.confirmed = false, false, false, Synthetic
	case Rescinded:
		w.attached, w.leaving, w.pending, w.confirmed = false, false, false, Synthetic
		w.sriov, w.allocated = false, false
		w.present, w.ours, w.running, w.carrier = false, false, false, false
	case Associated:
		if w.sriov {
			w.allocated = e.On
		}
		w.word, w.mute = false, false
	case TakenBack:
		if w.sriov {
			w.confirmed, w.word = Synthetic, true
		}
	case Confirmed:
		w.confirmed, w.pending = w.asked, false
	case Refused:
		w.pending, w.word, w.mute = false, true, w.asked == Synthetic
	case Silent:
		w.confirmed, w.pending, w.word, w.mute = Unknown, false, true, w.asked == Synthetic
	case Appeared:
		w.present, w.ours = true, e.MAC == mine
	case Changed:
		w.running, w.carrier = e.On, e.Carrier
	case Removed:
		w.present, w.ours, w.running, w.carrier = false, false, false, false
	case UserUp, UserDown:
		w.up = e.Kind == UserUp
	case Rested:
		w.resting = false
	}
	switch e.Kind {
	case Attached, Leaving, Stays, Detached, Rescinded, Appeared, Changed, Removed, UserUp, UserDown:
		before.pending, before.confirmed = w.pending, w.confirmed
		if *w != before {
			w.word, w.mute = false, false
		}
	}
}

// should reports whether everything speaks for the VF.
func (w *world) should() bool {
	return w.attached && !w.leaving && w.sriov && w.up && w.allocated && w.present && w.ours && w.running && w.carrier &&
		!w.word && !w.resting
}

// do carries out what the machine wants, and returns an error where that is wrong.
func (w *world) do(acts []Action) error {
	for _, a := range acts {
		switch a.Do {
		case Switch:
			if w.pending || !w.attached || !w.sriov {
				return fmt.Errorf("asks the host for %v when it can't", a.Path)
			}
			if w.mute {
				return fmt.Errorf("asks again a host that has not answered")
			}
			w.pending, w.asked = true, a.Path
		case UseVF:
			if w.using == VF {
				return fmt.Errorf("uses the VF twice")
			}
			w.using = VF
		case UseSynthetic:
			if w.using != VF {
				return fmt.Errorf("leaves a VF that it doesn't use")
			}
			w.using = Synthetic
		case Forget:
			if w.present {
				return fmt.Errorf("forgets a device that is there")
			}
			if w.using == VF {
				return fmt.Errorf("forgets the device that it uses")
			}
		case Mirror:
			if !w.ours {
				return fmt.Errorf("sets up a device that is not there, or not its own")
			}
		case Rest:
			w.resting = true
		}
	}
	switch {
	case w.using != w.m.Using():
		return fmt.Errorf("uses %v and says %v", w.using, w.m.Using())
	case w.using == VF && w.confirmed != VF:
		return fmt.Errorf("uses the VF, and the host has %v", w.confirmed)
	case w.using == VF && w.pending:
		return fmt.Errorf("uses the VF while the host moves to %v", w.asked)
	case w.using == VF && !w.should():
		return fmt.Errorf("uses a VF that it should not")
	case w.pending == w.m.Settled():
		return fmt.Errorf("a switch is pending: %v, and it is settled: %v", w.pending, w.m.Settled())
	}
	return nil
}

// converges has the host confirm everything from here on, and reports whether the path
// becomes what the facts say, on both sides.
func (w world) converges() error {
	for range 4 {
		if !w.pending {
			break
		}
		w.happen(Event{Kind: Confirmed})
		if err := w.do(w.m.Handle(Event{Kind: Confirmed})); err != nil {
			return err
		}
	}
	want := Synthetic
	if w.should() {
		want = VF
	}
	switch {
	case w.pending:
		return fmt.Errorf("asks forever")
	case w.using != want:
		return fmt.Errorf("stays on %v, want %v", w.using, want)
	case w.attached && w.confirmed != want && !w.word:
		return fmt.Errorf("leaves the host on %v, want %v", w.confirmed, want)
	}
	return nil
}

// TestModel lets everything happen in every order, until no state comes that was not there
// before; in short, to a depth of 8. The VF is used only when the host has confirmed it last,
// never while a switch is under way, and not after it is gone; and when the host has answered
// everything, both are where the facts say.
func TestModel(t *testing.T) {
	for _, damped := range []bool{false, true} {
		depth := 1000
		if testing.Short() {
			depth = 8
		}
		type step struct {
			from int
			e    Event
		}
		start := world{m: Machine{Damped: damped}}
		states, how := []world{start}, []step{{from: -1}}
		known := map[world]bool{start: true}
		story := func(i int) (s string) {
			for ; how[i].from >= 0; i = how[i].from {
				s = fmt.Sprintf("\n\t%+v (%v)%s", how[i].e, how[i].e.Kind, s)
			}
			return s
		}
		used := 0
		at := 0
		for level := 0; level < depth && at < len(states); level++ {
			for end := len(states); at < end; at++ {
				for _, e := range events {
					w := states[at]
					if !w.possible(e) {
						continue
					}
					w.happen(e)
					err := w.do(w.m.Handle(e))
					if err == nil {
						err = w.converges()
					}
					if err != nil {
						t.Fatalf("damped %v: it %v, after%s\n\t%+v (%v)", damped, err, story(at), e, e.Kind)
					}
					if !known[w] {
						known[w] = true
						states, how = append(states, w), append(how, step{at, e})
						if w.using == VF {
							used++
						}
					}
				}
			}
		}
		t.Logf("damped %v: %d states, the VF in use in %d", damped, len(states), used)
		if used == 0 || !testing.Short() && at < len(states) {
			t.Errorf("%d of %d states were looked at, in %d the VF was used", at, len(states), used)
		}
	}
}
