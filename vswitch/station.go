package vswitch

import (
	"sync/atomic"
	"time"

	"hvnet/nic"
)

// An address is that of a station, in one VLAN: another VLAN is another network.
type address struct {
	mac  nic.MAC
	vlan uint16
}

// A station is an address that was learned and where it is. Everything but seen changes
// only with the switch's lock held for writing.
type station struct {
	port *Port
	seen atomic.Int64 // the coarse second in which it was last heard from
}

// expired reports whether a station is too old to be believed.
func (s *Switch) expired(st *station, now int64) bool {
	return time.Duration(now-st.seen.Load())*time.Second >= s.cfg.Ageing
}

// hear notes that a frame from a came in on p, with the lock held for reading.
// forged means that its address is the fixed one of another port; news that the table
// must change, which learn does.
func (s *Switch) hear(p *Port, a address, now int64) (forged, news bool) {
	if a.mac == p.mac {
		return false, false
	}
	if s.fixed[a.mac] != nil {
		return true, false
	}
	if !p.mac.IsZero() {
		return false, false
	}
	st := s.stations[a]
	if st == nil || st.port != p {
		return false, true
	}
	// Stamped once a second at most, so that many goroutines that read the entry
	// do not fight for its cache line.
	if st.seen.Load() != now {
		st.seen.Store(now)
	}
	return false, false
}

// learn puts what a batch taught into the table. in is what the port's VLANs were.
func (s *Switch) learn(p *Port, in *VLAN, news []address, now int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.closed.Load() || p.vlan.Load() != in {
		return // its stations are forgotten already
	}
	for _, a := range news {
		st := s.stations[a]
		if s.fixed[a.mac] != nil || st != nil && st.port == p {
			continue
		}
		if !s.room(p, st != nil, now) {
			p.count.notLearned.Add(1)
			continue
		}
		if st = s.stations[a]; st != nil {
			// The station has moved; readers see the old entry or the new one.
			s.forget(a, st)
			p.count.moves.Add(1)
		}
		st = &station{port: p}
		st.seen.Store(now)
		s.stations[a] = st
		p.learned++
	}
}

// room reports whether p may have one more station. A moved one takes the place
// of its old entry in the table, but counts for p. If there is none, stations that
// have expired go first; they are looked for once a second at most, so a flood of
// addresses does not make every frame cost a walk.
func (s *Switch) room(p *Port, moved bool, now int64) bool {
	free := func() bool {
		return p.learned < s.cfg.StationsPerPort && (moved || len(s.stations) < s.cfg.Stations)
	}
	if free() {
		return true
	}
	if s.swept == now {
		return false
	}
	s.swept = now
	s.forgetAll(func(_ address, st *station) bool { return s.expired(st, now) })
	return free()
}

// forget takes a station out of the table.
func (s *Switch) forget(a address, st *station) {
	delete(s.stations, a)
	st.port.learned--
}

// forgetAll takes those stations out of the table for which f says so.
func (s *Switch) forgetAll(f func(a address, st *station) bool) {
	for a, st := range s.stations {
		if f(a, st) {
			s.forget(a, st)
		}
	}
}
