package netvsp

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"hvnet/nvsp"
	"hvnet/rule"
)

// Errors of a device's virtual function. Test with errors.Is.
var (
	ErrNoSRIOV = errors.New("the host has no SR-IOV")
	ErrVF      = errors.New("the NIC has a virtual function")
	ErrNoVF    = errors.New("the NIC has no virtual function")
)

// The transaction ids of what a host says of a virtual function, as Hyper-V has them.
const (
	associationTID = 1 << 63
	noticeTID      = 1<<63 | 1
)

// A VF is a virtual function that the guest gets beside the NIC.
type VF struct {
	// Serial is the number by which the guest knows the function when it sees it: that
	// of the PCI slot.
	Serial uint32
	// Use moves what goes to the guest to the function, or back to the device. When it
	// returns nothing is on its way by the other. It is called from goroutines of the
	// device, one at a time, and must not call the device.
	Use func(vf bool)
}

// function is what a device knows of its virtual function. What a guest has been told,
// and which path it has confirmed, is forgotten with its session.
//
// Its lock may be taken before that of a session, not the other way round.
type function struct {
	mu      sync.Mutex
	vf      *VF      // nil: there is none
	leaving bool     // it is being taken away
	known   *session // whose guest has been told of a function, now or before
	told    bool     // that guest believes that it has one
	active  bool     // that guest has confirmed it as its data path
	idle    chan struct{}

	switches, refused uint64
}

// move makes the function the path to the guest, or the device.
func (f *function) move(vf bool) {
	if f.active == vf {
		return
	}
	f.active = vf
	f.switches++
	f.vf.Use(vf)
	if !vf && f.idle != nil {
		close(f.idle)
		f.idle = nil
	}
}

// AddVF gives the NIC a virtual function. A guest that has asked for SR-IOV is told of it,
// now and whenever it brings its NIC up. The error is ErrNoSRIOV or ErrVF.
func (d *Device) AddVF(vf VF) error {
	f := &d.function
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case !d.cfg.SRIOV:
		return fmt.Errorf("add a virtual function: %w", ErrNoSRIOV)
	case f.vf != nil:
		return fmt.Errorf("add a virtual function: %w", ErrVF)
	}
	f.vf = &vf
	if s := d.live.Load(); s != nil {
		f.announce(s)
	}
	return nil
}

// RemoveVF takes the function away, announced: the guest is told, and what it sends and
// gets may go by the function until it has confirmed that it uses it no more. If it has
// not when ctx ends, the path is taken back and the guest told so; moved reports which.
// The error is ErrNoVF.
func (d *Device) RemoveVF(ctx context.Context) (moved bool, err error) {
	f := &d.function
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.vf == nil || f.leaving {
		return false, fmt.Errorf("remove the virtual function: %w", ErrNoVF)
	}
	f.leaving = true
	f.withdraw()
	moved = true
	if f.active {
		idle := make(chan struct{})
		f.idle = idle
		f.mu.Unlock()
		select {
		case <-idle:
		case <-ctx.Done():
		}
		f.mu.Lock()
		moved = !f.active
		f.takeBack()
	}
	f.vf, f.leaving, f.idle = nil, false, nil
	return moved, nil
}

// LoseVF says that the function is gone. The path is taken back, and the guest told so
// after the fact. The error is ErrNoVF.
func (d *Device) LoseVF() error {
	f := &d.function
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.vf == nil || f.leaving {
		return fmt.Errorf("lose the virtual function: %w", ErrNoVF)
	}
	f.takeBack()
	f.withdraw()
	f.vf = nil
	return nil
}

// takeBack moves the path back without having been asked to.
func (f *function) takeBack() {
	if f.active {
		f.move(false)
		f.known.primary().post(outgoing{tid: noticeTID, payload: nvsp.SwitchDataPath{Path: nvsp.PathSynthetic}.Append(nil)})
	}
}

// announce tells a guest of the function if there is one, and it is one that wants to know.
func (f *function) announce(s *session) {
	if f.vf == nil || f.leaving || f.known == s && f.told {
		return
	}
	s.mu.Lock()
	wants := s.rndis.initialized && s.ctl.sriov()
	s.mu.Unlock()
	if !wants {
		return
	}
	if f.known != s {
		f.move(false)
		f.known = s
	}
	f.told = true
	f.tell(true)
}

// withdraw tells the guest that it has no function any more.
func (f *function) withdraw() {
	if f.told {
		f.told = false
		f.tell(false)
	}
}

// tell sends the association. Hyper-V asks for a completion; Linux sends none.
func (f *function) tell(allocated bool) {
	m := nvsp.VFAssociation{Allocated: allocated, Serial: f.vf.Serial}
	f.known.primary().post(outgoing{ask: true, tid: associationTID, payload: f.known.ctl.pad(m.Append(nil))})
}

// forget ends what a session knows of the function.
func (f *function) forget(s *session) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.known == s {
		f.move(false)
		f.known, f.told = nil, false
	}
}

// followVF makes the function follow what RNDIS has come to: the guest is told of it after
// INITIALIZE, and has none after HALT.
func (s *session) followVF() {
	s.mu.Lock()
	initialized := s.rndis.initialized
	s.mu.Unlock()
	f := &s.d.function
	if !initialized {
		f.forget(s)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.announce(s)
}

// switchPath moves the path to the guest where the guest asks for it, and answers. A guest
// that asks for a function which was taken back meanwhile is answered too, and has been
// told before. It is a fault to ask for one that was never announced.
func (s *session) switchPath(vf bool, answer func(fault error)) {
	f := &s.d.function
	f.mu.Lock()
	defer f.mu.Unlock()
	var fault error
	switch {
	case !vf:
		if f.known == s {
			f.move(false)
		}
	case f.known != s:
		f.refused++
		fault = rule.DataPath.Broken("SWITCH_DATA_PATH to a virtual function that was not announced")
	case !f.told:
		f.refused++
	default:
		f.move(true)
	}
	answer(fault) // what is said of the function from now on comes after the answer
}

// sriov reports whether the guest has asked for SR-IOV, in a version that has it.
func (c *control) sriov() bool {
	return c.version.Allows(nvsp.TypeVFAssociation) && c.config.Capabilities&nvsp.CapSRIOV != 0
}

// switchPath checks the message of a guest that moves its data path.
func (c *control) switchPath(msg []byte) effect {
	m, err := nvsp.ParseSwitchDataPath(msg)
	switch {
	case err != nil:
		return effect{fault: layout(nvsp.TypeSwitchDataPath, err)}
	case m.Path > nvsp.PathVF:
		return effect{fault: rule.DataPath.Broken("SWITCH_DATA_PATH to path %d", m.Path)}
	case m.Path == nvsp.PathVF:
		return effect{op: opSwitchToVF}
	}
	return effect{op: opSwitchToSynthetic}
}

// A VFInfo tells about SR-IOV at a device: what there is of it and what is missing.
type VFInfo struct {
	Host      bool   // the host has SR-IOV
	Guest     bool   // the guest has asked for it, in an NVSP version that has it
	Present   bool   // there is a function
	Serial    uint32 // its number
	Announced bool   // the guest has been told of it
	Active    bool   // the guest has confirmed it as its data path
	Switches  uint64 // changes of the path so far
	Refused   uint64 // times that a guest asked for a function that was not there
}

// String says how far it has come, and what is missing, in a few words.
func (v VFInfo) String() string {
	switch {
	case !v.Host && !v.Guest:
		return "no SR-IOV"
	case !v.Host:
		return "the guest asks for SR-IOV, which the host does not have"
	case !v.Present:
		return "no virtual function"
	case !v.Guest:
		return fmt.Sprintf("VF %d, but the guest has not asked for SR-IOV", v.Serial)
	case !v.Announced:
		return fmt.Sprintf("VF %d, not announced yet", v.Serial)
	case !v.Active:
		return fmt.Sprintf("VF %d announced", v.Serial)
	}
	return fmt.Sprintf("VF %d in use", v.Serial)
}

// info describes the function; guest says that the guest of the live session wants it.
func (f *function) info(host, guest bool, live *session) VFInfo {
	f.mu.Lock()
	defer f.mu.Unlock()
	info := VFInfo{Host: host, Guest: guest, Present: f.vf != nil, Switches: f.switches, Refused: f.refused}
	if f.vf != nil {
		info.Serial = f.vf.Serial
		info.Announced, info.Active = f.told && f.known == live, f.active
	}
	return info
}
