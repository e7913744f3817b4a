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
	present, running, carrier               bool
	serial                                  uint32
	mac, device                             nic.MAC // of the NIC and of the device
	resting                                 bool

	using     Path // by the actions
	held      bool // the machine has a device, which it has not let go of
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
	{Kind: Attached, On: true, MAC: mine}, {Kind: Attached, MAC: mine}, {Kind: Attached, On: true, MAC: others},
	{Kind: Leaving}, {Kind: Stays}, {Kind: Detached}, {Kind: Rescinded},
	{Kind: Associated, On: true, Serial: 1}, {Kind: Associated, On: true, Serial: 2}, {Kind: Associated, Serial: 1},
	{Kind: TakenBack}, {Kind: Confirmed}, {Kind: Refused}, {Kind: Silent},
	{Kind: Appeared, MAC: mine, Serial: 1}, {Kind: Appeared, MAC: others, Serial: 1},
	{Kind: Changed, On: true, Carrier: true}, {Kind: Changed, On: true}, {Kind: Changed, Carrier: true},
	{Kind: Removed}, {Kind: UserUp}, {Kind: UserDown}, {Kind: Settings}, {Kind: Rested},
}

// possible reports whether an event can come now: a NIC attaches when it is not attached.
// Answers may come to no question: a host says what it likes.
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
		w.attached, w.sriov, w.mac = true, e.On, e.MAC
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
		w.present, w.running, w.carrier = false, false, false
	case Associated:
		if w.sriov {
			w.allocated, w.serial = e.On, e.Serial
		}
		w.word, w.mute = false, false
	case TakenBack:
		if w.sriov {
			w.confirmed, w.word = Synthetic, true
		}
	case Confirmed, Refused, Silent:
		w.answer(e.Kind)
	case Appeared:
		w.present, w.held, w.device = true, true, e.MAC
	case Changed:
		w.running, w.carrier = e.On, e.Carrier
	case Removed:
		w.present, w.running, w.carrier = false, false, false
	case UserUp, UserDown:
		w.up = e.Kind == UserUp
	case Rested:
		w.resting = false
	}
	switch e.Kind {
	case Attached, Leaving, Stays, Detached, Rescinded, Appeared, Changed, Removed, UserUp, UserDown:
		before.pending, before.confirmed, before.held = w.pending, w.confirmed, w.held
		if *w != before {
			w.word, w.mute = false, false
		}
	}
}

// answer notes the host's answer, if it is one.
func (w *world) answer(k Kind) {
	if !w.pending {
		return
	}
	switch k {
	case Confirmed:
		w.confirmed, w.pending = w.asked, false
	case Refused:
		w.pending, w.word, w.mute = false, true, w.asked == Synthetic
	case Silent:
		w.confirmed, w.pending, w.word, w.mute = Unknown, false, true, w.asked == Synthetic
	}
}

// ours reports whether there is a device with the NIC's address.
func (w *world) ours() bool { return w.present && w.device == w.mac }

// good reports whether all facts speak for the VF, and should whether the host does too.
func (w *world) good() bool {
	return w.attached && !w.leaving && w.sriov && w.up && w.allocated && w.ours() && w.running && w.carrier
}

func (w *world) should() bool { return w.good() && !w.word && !w.resting }

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
			if w.using == VF {
				return fmt.Errorf("moves the host first, while it uses the VF")
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
			w.held = false
		case Mirror:
			if !w.ours() || a.On != w.up {
				return fmt.Errorf("sets up a device that is not there, or not its own, or not as the NIC is")
			}
		case Rest:
			w.resting = true
		}
	}
	ready, bySerial := w.m.Ready()
	switch {
	case w.held != w.present:
		return fmt.Errorf("has a device: %v, there is one: %v", w.held, w.present)
	case ready != (w.attached && w.sriov && w.allocated && w.ours()):
		return fmt.Errorf("says of the VF, ready: %v", ready)
	case ready && bySerial != (w.serial == 1):
		return fmt.Errorf("says of the VF, by its serial number: %v", bySerial)
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

// duly returns an error if what the machine does at an event lacks something, or has too
// much: the device is given the NIC's settings when one of the two is new or they change,
// and left alone for a while when it is lost.
func (w *world) duly(e Event, was bool, damped bool, acts []Action) error {
	var mirrors, rests int
	for _, a := range acts {
		switch a.Do {
		case Mirror:
			mirrors++
		case Rest:
			rests++
		}
	}
	want := 0
	switch e.Kind {
	case Attached, Appeared, UserUp, UserDown, Settings:
		if w.ours() {
			want = 1
		}
	}
	if mirrors != want {
		return fmt.Errorf("gives the device the settings %d times, want %d", mirrors, want)
	}
	want = 0
	if damped && was && !w.good() && e.Kind != UserDown && e.Kind != Leaving {
		want = 1
	}
	if rests != want {
		return fmt.Errorf("leaves the device alone %d times, want %d", rests, want)
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
// before; in short, of up to 10 events. The VF is used only when the host has confirmed it last, never while a switch is
// under way, and not after it is gone; and when the host has answered everything, both are
// where the facts say.
func TestModel(t *testing.T) {
	for _, damped := range []bool{false, true} {
		most := 100
		if testing.Short() {
			most = 10
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
		used, at, depth := 0, 0, 0
		for ; at < len(states) && depth < most; depth++ {
			for end := len(states); at < end; at++ {
				for _, e := range events {
					w := states[at]
					if !w.possible(e) {
						continue
					}
					was := w.good()
					w.happen(e)
					acts := w.m.Handle(e)
					err := w.do(acts)
					if err == nil {
						err = w.duly(e, was, damped, acts)
					}
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
		t.Logf("damped %v: %d states by up to %d events, the VF in use in %d", damped, len(states), depth, used)
		if used == 0 || depth < 10 || most > 10 && at < len(states) {
			t.Errorf("%d of %d states were looked at, in %d the VF was used", at, len(states), used)
		}
	}
}
