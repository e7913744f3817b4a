// Package vswitch is a learning Ethernet switch: frames that come in on one port
// go out on the port where the destination was last seen, and on all other ports
// if that is unknown or the destination is a group. It can be used alone: a port
// is anything that takes batches of frames ([nic.Sink]).
//
// The switch has no goroutine and no queue of its own. The goroutine that calls
// [Port.WriteFrames] sorts its batch by destination and hands each destination one
// batch; a destination that can't keep up drops and counts by itself, so no port
// can hold up another.
//
// Ports may be hostile: the table of stations is bounded, in all and for each
// port, group and zero source addresses are refused, and a port's fixed address
// can't be taken over by another port. The rules are those of a transparent bridge
// (IEEE 802.1Q, "Learning" and "Forwarding") without spanning tree; which VLANs a port is in,
// and with what tags, is its [VLAN]. What is behind a port may have a second way to it, of which
// one is in use at a time: [Path].
package vswitch

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"hvnet/nic"
	"hvnet/offload"
)

// The defaults of Config.
const (
	DefaultAgeing          = 300 * time.Second // IEEE 802.1Q recommends 300 s
	DefaultStations        = 1024
	DefaultStationsPerPort = 256
)

// MaxPorts is the largest number of ports of a switch.
const MaxPorts = 256

// Errors of Connect. Test with errors.Is.
var (
	ErrMACInUse = errors.New("the address belongs to another port")
	ErrFull     = errors.New("the switch has no free port")
)

// A Config holds the limits of a switch. The zero value means the defaults.
type Config struct {
	// Ageing is how long a learned station that is not heard from stays known.
	// Seconds are the resolution.
	Ageing time.Duration
	// Stations bounds the table of learned stations, StationsPerPort the part of
	// it that one port may take.
	Stations, StationsPerPort int
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// A Switch joins ports. Its methods may be called from any goroutine.
type Switch struct {
	cfg   Config
	start time.Time

	mu       sync.RWMutex
	ports    []*Port              // by slot, nil where free; replaced when it changes, never written to
	fixed    map[nic.MAC]*Port    // by their own address: not learned, never forgotten, in all their VLANs
	stations map[address]*station // that were learned
	swept    int64                // when expired stations were last looked for

	staging  sync.Pool // of *staging
	retagged sync.Pool // of *retagging
}

// New returns a switch without ports.
func New(cfg Config) *Switch {
	if cfg.Ageing <= 0 {
		cfg.Ageing = DefaultAgeing
	}
	if cfg.Stations <= 0 {
		cfg.Stations = DefaultStations
	}
	if cfg.StationsPerPort <= 0 {
		cfg.StationsPerPort = DefaultStationsPerPort
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Switch{cfg: cfg, start: cfg.Now(), fixed: map[nic.MAC]*Port{}, stations: map[address]*station{}}
	s.staging.New = func() any { return new(staging) }
	s.retagged.New = func() any { return new(retagging) }
	return s
}

// PortOptions are the properties of one port.
type PortOptions struct {
	// MAC is the address of the one station behind the port, known from the
	// start, never aged and never taken over by another port. Other addresses
	// are not learned there, and frames for unknown stations don't go there.
	// Zero: the port learns.
	MAC nic.MAC
	// VLAN says which frames the port exchanges with the switch; see [Port.SetVLAN].
	VLAN VLAN
}

// Connect adds a port. Frames for the port go to out, completed and cut unless it is a
// [nic.Taker]; it is called from the
// goroutines that write to other ports, without a lock held, so it may itself
// write to its port. The name is for people and need not be unique.
func (s *Switch) Connect(name string, out nic.Sink, opt PortOptions) (*Port, error) {
	if opt.MAC.Multicast() {
		return nil, fmt.Errorf("connect port %s: address %v: not the address of one station", name, opt.MAC)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	slot := slices.Index(s.ports, nil)
	if slot < 0 {
		slot = len(s.ports)
	}
	if slot >= MaxPorts {
		return nil, fmt.Errorf("connect port %s: %w (%d ports)", name, ErrFull, MaxPorts)
	}
	p := &Port{sw: s, name: name, mac: opt.MAC, out: offload.NewSink(out), slot: slot}
	p.vlan.Store(&opt.VLAN)
	p.way.Store(&way{out: p.out})
	if !opt.MAC.IsZero() {
		if q := s.fixed[opt.MAC]; q != nil {
			return nil, fmt.Errorf("connect port %s: address %v: %w %s", name, opt.MAC, ErrMACInUse, q.name)
		}
		s.forgetAll(func(a address, _ *station) bool { return a.mac == opt.MAC })
		s.fixed[opt.MAC] = p
	}
	ports := slices.Clone(s.ports)
	if slot == len(ports) {
		ports = append(ports, p)
	} else {
		ports[slot] = p
	}
	s.ports = ports
	return p, nil
}

// SetVLAN changes the VLANs of all ports of a name; see [Port.SetVLAN]. It returns whether there
// are any.
func (s *Switch) SetVLAN(name string, v VLAN) (found bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.ports {
		if p != nil && p.name == name {
			p.setVLAN(v)
			found = true
		}
	}
	return found
}

// disconnect takes the port and its stations away.
func (s *Switch) disconnect(p *Port) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.slot >= len(s.ports) || s.ports[p.slot] != p {
		return
	}
	delete(s.fixed, p.mac)
	s.forgetAll(func(_ address, st *station) bool { return st.port == p })
	ports := slices.Clone(s.ports)
	ports[p.slot] = nil
	s.ports = ports
}

// seconds is the switch's coarse clock.
func (s *Switch) seconds() int64 { return int64(s.cfg.Now().Sub(s.start) / time.Second) }
