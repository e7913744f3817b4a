package vswitch

import (
	"sync/atomic"
	"time"

	"hvnet/nic"
)

// A station is an address and where it is. Everything but seen changes only with
// the switch's lock held for writing.
type station struct {
	port  *Port
	fixed bool         // the port's own address: not learned, never forgotten
	seen  atomic.Int64 // the coarse second in which it was last heard from
}

// expired reports whether a station that was learned is too old to be believed.
func (s *Switch) expired(st *station, now int64) bool {
	return !st.fixed && time.Duration(now-st.seen.Load())*time.Second >= s.cfg.Ageing
}

// hear notes that a frame from mac came in on p, with the lock held for reading.
// forged means that mac is another port's fixed address; news that the table
// must change, which learn does.
func (s *Switch) hear(p *Port, mac nic.MAC, now int64) (forged, news bool) {
	st := s.stations[mac]
	switch {
	case st == nil:
		return false, p.mac.IsZero()
	case st.port != p:
		return st.fixed, !st.fixed && p.mac.IsZero()
	case st.fixed:
		return false, false
	}
	// Stamped once a second at most, so that many goroutines that read the entry
	// do not fight for its cache line.
	if st.seen.Load() != now {
		st.seen.Store(now)
	}
	return false, false
}

// learn puts what a batch taught into the table.
func (s *Switch) learn(p *Port, macs []nic.MAC, now int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.closed.Load() {
		return // its stations are forgotten already
	}
	for _, mac := range macs {
		st := s.stations[mac]
		if st != nil && (st.fixed || st.port == p) {
			continue
		}
		if !s.room(p, st != nil, now) {
			p.count.notLearned.Add(1)
			continue
		}
		if st = s.stations[mac]; st != nil {
			// The station has moved; readers see the old entry or the new one.
			s.forget(mac, st)
			p.count.moves.Add(1)
		}
		st = &station{port: p}
		st.seen.Store(now)
		s.stations[mac] = st
		s.learned++
		p.learned++
	}
}

// room reports whether p may have one more station. A moved one takes the place
// of its old entry in the table, but counts for p. If there is none, stations that
// have expired go first; they are looked for once a second at most, so a flood of
// addresses does not make every frame cost a walk.
func (s *Switch) room(p *Port, moved bool, now int64) bool {
	free := func() bool {
		return p.learned < s.cfg.StationsPerPort && (moved || s.learned < s.cfg.Stations)
	}
	if free() {
		return true
	}
	if s.swept == now {
		return false
	}
	s.swept = now
	for mac, st := range s.stations {
		if s.expired(st, now) {
			s.forget(mac, st)
		}
	}
	return free()
}

// forget takes a station out of the table.
func (s *Switch) forget(mac nic.MAC, st *station) {
	delete(s.stations, mac)
	if !st.fixed {
		s.learned--
		st.port.learned--
	}
}
