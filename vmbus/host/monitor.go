package host

import (
	"fmt"
	"sync/atomic"
	"time"

	"hvnet/hv"
	"hvnet/vmbus"
)

// monitors is what the machine knows of the guest's monitor page.
type monitors struct {
	wanted  bool // by the host's configuration
	watched bool // the guest has given a page
	taken   [hv.MonitorIDs]bool
}

// noMonitor is the monitor id of a channel that has none.
const noMonitor = 0xff

// monitorLatency is how late the host may notice a signal, as it tells its guests.
// Hyper-V's NICs have the same.
const monitorLatency = 100 * time.Microsecond

// watchMonitor begins with a guest's monitor pages, which were found acceptable. The
// one that the host could trigger is of no use: event flags are as cheap.
func (m *machine) watchMonitor(c vmbus.InitiateContact) {
	if !m.monitors.wanted || c.ChildToParent == 0 {
		return
	}
	m.monitors.watched = true
	m.do(watch{c.ChildToParent / hv.PageSize})
}

func (m *machine) unwatchMonitor() {
	if m.monitors.watched {
		m.do(unwatch{})
	}
	m.monitors = monitors{wanted: m.monitors.wanted}
}

// takeMonitor returns a monitor id for a new channel. When there is none left the
// channel is signalled by hypercall.
func (m *machine) takeMonitor(relid uint32) uint8 {
	if !m.monitors.watched {
		return noMonitor
	}
	for id, taken := range m.monitors.taken {
		if !taken {
			m.monitors.taken[id] = true
			m.do(monitor{uint8(id), relid})
			return uint8(id)
		}
	}
	return noMonitor
}

func (m *machine) giveMonitor(id uint8) {
	if id != noMonitor {
		m.monitors.taken[id] = false
		m.do(unmonitor{id})
	}
}

// A monitorWatch is the runner's side: who looks at the page, and what its bits
// mean. The guest may write to all of the page, so nothing that is in it is
// believed.
type monitorWatch struct {
	relids [hv.MonitorIDs]atomic.Uint32
	page   *hv.Mapping
	m      *hv.Monitor
	done   chan struct{} // closed when nobody looks any more
}

// startWatch begins to look at a page of the guest.
func (s *Server) startWatch(pfn uint64) error {
	page, err := s.g.Memory().Map([]uint64{pfn})
	if err != nil {
		return fmt.Errorf("watch the monitor page: %w", err)
	}
	w := &s.watch
	if err := hv.Guard(func() { w.m = hv.NewMonitor(page.Bytes) }); err != nil {
		page.Close()
		return fmt.Errorf("watch the monitor page: %w", err)
	}
	w.page, w.done = page, make(chan struct{})
	go func(m *hv.Monitor, done chan struct{}) {
		defer close(done)
		if err := hv.Guard(func() { m.Run(func(id uint8) { s.wake(w.relids[id].Load()) }) }); err != nil {
			s.fail(err)
		}
	}(w.m, w.done)
	return nil
}

func (s *Server) stopWatch() {
	w := &s.watch
	if w.page == nil {
		return // it could not be started
	}
	w.m.Stop()
	<-w.done
	w.page.Close()
	w.page, w.m, w.done = nil, nil, nil
}

func (s *Server) enableMonitor(a monitor) {
	w := &s.watch
	if w.page == nil {
		return
	}
	w.relids[a.id].Store(a.relid)
	if err := hv.Guard(func() { w.m.Enable(a.id, eventConn+a.relid, monitorLatency) }); err != nil {
		s.fail(err)
	}
}

func (s *Server) disableMonitor(id uint8) {
	if s.watch.page != nil {
		s.watch.m.Disable(id)
	}
}
