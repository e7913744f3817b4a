package vswitch

import (
	"cmp"
	"slices"
	"sync/atomic"
	"time"

	"hvnet/nic"
)

// A Drop is a reason why the switch did not forward a frame.
type Drop int

// The reasons.
const (
	DropRunt    Drop = iota // shorter than an Ethernet header
	DropLong                // longer than nic.MaxFrame and a tag
	DropSource              // the source is a group address or zero
	DropForged              // the source is the fixed address of another port, or, by a second path, not the port's own
	DropLocal               // the destination is on the port that the frame came from
	DropClosed              // the port was closed
	DropOffload             // for the port: it could not be cut as its metadata say
	DropVLAN                // the tag, or that there is none, is not what the port's VLAN allows
	drops
)

var dropText = [drops]string{"runt", "too long", "bad source", "forged source", "local", "port closed", "not to be cut", "VLAN"}

// String returns the reason in a word or two.
func (d Drop) String() string {
	if d < 0 || d >= drops {
		return "unknown"
	}
	return dropText[d]
}

// counters are the counters of one port. "In" is from the port into the switch.
type counters struct {
	inFrames, inBytes   atomic.Uint64
	outFrames, outBytes atomic.Uint64
	flooded             atomic.Uint64
	moves, notLearned   atomic.Uint64
	dropped             [drops]atomic.Uint64
}

// A tally is what one batch adds to the counters, so that they are touched once
// per batch.
type tally struct {
	frames, bytes, flooded uint64
	dropped                [drops]uint64
}

func (c *counters) add(t *tally) {
	c.inFrames.Add(t.frames)
	c.inBytes.Add(t.bytes)
	if t.flooded > 0 {
		c.flooded.Add(t.flooded)
	}
	for i, n := range t.dropped {
		if n > 0 {
			c.dropped[i].Add(n)
		}
	}
}

// PortInfo describes a port for people.
type PortInfo struct {
	Name     string
	MAC      nic.MAC // fixed address, zero if the port learns
	VLAN     string  // as ParseVLAN reads it
	Stations []Station
	Path     *PathInfo // nil: the port has no second path

	InFrames, InBytes   uint64 // well-formed frames from the port
	OutFrames, OutBytes uint64 // frames handed to the port
	Flooded             uint64 // frames from the port that went to all others
	Moves               uint64 // stations that came here from another port
	NotLearned          uint64 // times that a bound kept a station from being learned
	Dropped             map[Drop]uint64
}

// A Station is an address that was learned on a port.
type Station struct {
	MAC  nic.MAC
	VLAN uint16
	Age  time.Duration // since it was last heard from, in whole seconds
}

// Ports describes all ports, in the order of their places on the switch, stations
// sorted by address.
func (s *Switch) Ports() []PortInfo {
	now := s.seconds()
	s.mu.RLock()
	defer s.mu.RUnlock()
	at := map[*Port][]Station{}
	for a, st := range s.stations {
		if s.expired(st, now) {
			continue
		}
		age := max(0, now-st.seen.Load())
		at[st.port] = append(at[st.port], Station{a.mac, a.vlan, time.Duration(age) * time.Second})
	}
	var infos []PortInfo
	for _, p := range s.ports {
		if p == nil {
			continue
		}
		list := at[p]
		slices.SortFunc(list, func(a, b Station) int { return cmp.Or(slices.Compare(a.MAC[:], b.MAC[:]), cmp.Compare(a.VLAN, b.VLAN)) })
		info := p.info()
		info.Stations = list
		infos = append(infos, info)
	}
	return infos
}

// info reads the port's counters.
func (p *Port) info() PortInfo {
	c := &p.count
	info := PortInfo{
		Name: p.name, MAC: p.mac, VLAN: p.vlan.Load().String(), Path: p.path(),
		InFrames: c.inFrames.Load(), InBytes: c.inBytes.Load(),
		OutFrames: c.outFrames.Load(), OutBytes: c.outBytes.Load(),
		Flooded: c.flooded.Load(), Moves: c.moves.Load(), NotLearned: c.notLearned.Load(),
		Dropped: map[Drop]uint64{},
	}
	for d := range c.dropped {
		if n := c.dropped[d].Load(); n > 0 {
			info.Dropped[Drop(d)] = n
		}
	}
	n := p.out.Malformed.Load()
	if x := p.second.Load(); x != nil {
		n += x.out.Malformed.Load()
	}
	if n > 0 {
		info.Dropped[DropOffload] = n
	}
	return info
}
