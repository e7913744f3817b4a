// Package vf decides by which of two paths a NIC sends: by its synthetic device, or by a
// virtual function (VF, SR-IOV) beside it. It is a value: an event goes in, actions come
// out. Frames, clocks and the host are whoever's who runs it.
//
// The rules are those of Linux hv_netvsc: a VF is used when the host has associated one
// with the NIC (SEND_VF_ASSOCIATION), a device with the NIC's address is there and runs,
// and the host has confirmed that it has moved the path (SWITCH_DATA_PATH). The other way
// the driver moves first and tells the host then: the synthetic path can always be sent on.
// What is received is taken from both at any time.
package vf

import "hvnet/nic"

// A Path is a way for frames between guest and host.
type Path uint8

// The paths. Unknown is what a host has that did not answer.
const (
	Synthetic Path = iota
	VF
	Unknown
)

// String returns "synthetic", "vf" or "unknown".
func (p Path) String() string { return [...]string{"synthetic", "vf", "unknown"}[min(p, Unknown)] }

// A Kind is what an Event tells.
type Kind uint8

// The kinds, and which fields of the event count.
const (
	// Attached: the NIC has a device, with an address (MAC); On says that SR-IOV is
	// announced to the host. A host begins with the synthetic path.
	Attached Kind = iota
	// Leaving: the NIC is about to let go of its device, to attach anew or to sleep.
	Leaving
	// Stays: it does not after all.
	Stays
	// Detached: it has.
	Detached
	// Rescinded: the host has taken the NIC's device away, or is gone. The VF goes with it.
	Rescinded
	// Associated: the host has associated a VF with the NIC (On, Serial), or no longer.
	Associated
	// TakenBack: the host has moved the path to the synthetic device by itself.
	TakenBack
	// Confirmed: the host has completed the last switch; Refused: it has said no;
	// Silent: it has not answered in its time.
	Confirmed
	Refused
	Silent
	// Appeared: there is a device (MAC, Serial), which does not run as yet.
	Appeared
	// Changed: the device is set up, or down (On), and has carrier, or not (Carrier).
	Changed
	// Removed: the device is gone, or somebody takes it away.
	Removed
	// UserUp, UserDown: frames are let through by the NIC, or not.
	UserUp
	UserDown
	// Settings: MTU, address or promiscuity of the NIC have changed.
	Settings
	// Rested: the time is over for which a VF is left alone after a loss.
	Rested

	numKinds = iota
)

// An Event is something that has happened.
type Event struct {
	Kind    Kind
	On      bool
	Carrier bool
	Serial  uint32
	MAC     nic.MAC
}

// A Do is something to be done.
type Do uint8

// What there is to do.
const (
	// Switch: tell the host to use Path, and tell the machine what becomes of it.
	Switch Do = iota
	// UseVF: send by the VF, once nothing is under way on the synthetic path.
	UseVF
	// UseSynthetic: send nothing more by the VF.
	UseSynthetic
	// Mirror: give the device MTU, address, promiscuity of the NIC and, but for Attached and
	// Settings, set it up or down: its users may have set it down.
	Mirror
	// Forget: let go of the device.
	Forget
	// Rest: tell the machine Rested after a while, counted from now.
	Rest
)

// An Action is something to be done, and the event that led to it.
type Action struct {
	Do   Do
	Path Path
	On   bool // Mirror: the device is to be up
	Why  Kind
}

// A Machine knows what has happened so far. The zero value is a NIC without a device that
// nobody has set up.
type Machine struct {
	// Damped has a VF that was lost left alone until Rested. It is set before the
	// first event.
	Damped bool

	attached, leaving bool
	sriov, up         bool
	mac               nic.MAC

	allocated bool // by the host
	serial    uint32

	present, running, carrier bool // of the device
	deviceSerial              uint32
	deviceMAC                 nic.MAC

	using   Path
	host    Path // what it has confirmed last
	asked   Path // what it was told last
	pending bool // and has not answered
	why     Kind // it was asked
	barred  bool // the host does not want the VF: until something changes
	mute    bool // nor answers: nothing more is asked until then
	resting bool
}

// Using returns the path to send on.
func (m *Machine) Using() Path { return m.using }

// Settled reports whether the host was told all there is to tell.
func (m *Machine) Settled() bool { return !m.pending }

// Ready reports whether there is a VF that the host has associated and that is the NIC's,
// and bySerial whether that is by its serial number: else by the address alone, as Linux
// has it for hosts that number otherwise.
func (m *Machine) Ready() (ready, bySerial bool) {
	ready = m.attached && m.sriov && m.allocated && m.ours()
	return ready, ready && m.serial == m.deviceSerial
}

// Status returns what there is of a VF, as far as the machine knows.
func (m *Machine) Status() nic.VFStatus {
	return nic.VFStatus{
		Announced: m.attached && m.sriov, Associated: m.allocated, Serial: m.serial,
		Device: m.ours(), DeviceSerial: m.deviceSerial, Up: m.running, Carrier: m.carrier,
		Unwilling: m.barred, Resting: m.resting, Active: m.using == VF,
	}
}

// ours reports whether the device has the NIC's address.
func (m *Machine) ours() bool { return m.present && m.deviceMAC == m.mac }

// good reports whether all facts speak for the VF.
func (m *Machine) good() bool {
	ready, _ := m.Ready()
	return ready && m.running && m.carrier && m.up && !m.leaving
}

// wants is the path that should be in use.
func (m *Machine) wants() Path {
	if m.good() && !m.barred && !m.resting {
		return VF
	}
	return Synthetic
}

// Handle takes an event and returns what is to be done, in order.
func (m *Machine) Handle(e Event) []Action {
	before, good := *m, m.good()
	acts := m.take(e)
	if m.facts() != before.facts() || e.Kind == Associated {
		m.barred, m.mute = false, false
	}
	m.learn(e)
	if m.Damped && good && !m.good() && e.Kind != UserDown && e.Kind != Leaving {
		m.resting = true
		acts = append(acts, Action{Do: Rest, Why: e.Kind})
	}
	return m.settle(e.Kind, acts)
}

// facts returns what others have said, without what the machine thinks of it.
func (m *Machine) facts() Machine {
	f := *m
	f.using, f.host, f.asked, f.pending, f.why = 0, 0, 0, false, 0
	f.barred, f.mute, f.resting = false, false, false
	return f
}

// take notes the facts of an event.
func (m *Machine) take(e Event) (acts []Action) {
	switch e.Kind {
	case Attached:
		m.attached, m.leaving, m.sriov, m.mac = true, false, e.On, e.MAC
		m.host, m.pending = Synthetic, false
		m.allocated = m.allocated && e.On
	case Leaving:
		m.leaving = m.attached
	case Stays:
		m.leaving = false
	case Detached:
		m.attached, m.leaving, m.pending, m.host = false, false, false, Synthetic
	case Rescinded:
		m.attached, m.leaving, m.pending, m.host = false, false, false, Synthetic
		m.sriov, m.allocated = false, false
		if m.present {
			m.forget()
			acts = append(acts, Action{Do: Forget, Why: e.Kind})
		}
	case Associated:
		if m.sriov {
			m.allocated, m.serial = e.On, e.Serial
		}
	case Appeared:
		m.present, m.running, m.carrier = true, false, false
		m.deviceSerial, m.deviceMAC = e.Serial, e.MAC
	case Changed:
		if m.present {
			m.running, m.carrier = e.On, e.Carrier
		}
	case Removed:
		if m.present {
			m.forget()
			acts = append(acts, Action{Do: Forget, Why: e.Kind})
		}
	case UserUp, UserDown:
		m.up = e.Kind == UserUp
	case Rested:
		m.resting = false
	}
	switch e.Kind {
	case Attached, Appeared, UserUp, UserDown, Settings:
		if m.ours() {
			acts = append(acts, Action{Do: Mirror, On: m.up, Why: e.Kind})
		}
	}
	return acts
}

// forget forgets the device.
func (m *Machine) forget() {
	m.present, m.running, m.carrier = false, false, false
	m.deviceSerial, m.deviceMAC = 0, nic.MAC{}
}

// learn notes what the host has made of the switch.
func (m *Machine) learn(e Event) {
	switch {
	case e.Kind == TakenBack && m.sriov:
		m.host, m.barred = Synthetic, true
	case !m.pending:
	case e.Kind == Confirmed:
		m.host, m.pending = m.asked, false
	case e.Kind == Refused:
		m.pending, m.barred, m.mute = false, true, m.asked == Synthetic
	case e.Kind == Silent:
		m.host, m.pending, m.barred, m.mute = Unknown, false, true, m.asked == Synthetic
	}
}

// settle moves to the path that should be in use, as far as the host has confirmed it, and
// has the host told of it.
func (m *Machine) settle(why Kind, acts []Action) []Action {
	want := m.wants()
	if m.using == VF && want != VF {
		m.using = Synthetic
		// First of all, before anybody lets go of the device.
		acts = append([]Action{{Do: UseSynthetic, Path: Synthetic, Why: why}}, acts...)
	}
	if m.using == Synthetic && want == VF && m.host == VF && !m.pending {
		m.using = VF
		if why == Confirmed {
			why = m.why
		}
		acts = append(acts, Action{Do: UseVF, Path: VF, Why: why})
	}
	if m.attached && m.sriov && !m.pending && !m.mute && m.host != want {
		m.pending, m.asked, m.why = true, want, why
		acts = append(acts, Action{Do: Switch, Path: want, Why: why})
	}
	return acts
}
