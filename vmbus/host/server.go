package host

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"hvnet/hv"
	"hvnet/rule"
	"hvnet/vmbus"
	"hvnet/vmbus/channel"
)

// Config says what kind of host a [Server] is.
type Config struct {
	// Versions are the VMBus versions that the host accepts. Guests try theirs
	// newest first and take the first match. Nil means 2.4 to 5.3. Versions
	// before 2.4, which signal by another way, are never accepted.
	Versions []vmbus.Version
	// Monitor has guests that give a monitor page signal by it: a store in place
	// of a hypercall. The host has to look at the page then all the time, about
	// every 100 µs, and every millisecond when nothing comes. Without it the host
	// sleeps while its guests are idle.
	Monitor bool
	// Log, if not nil, gets what is wrong with a guest at info level.
	Log *slog.Logger
	// Broken, if not nil, is called for each rule of the bus that the guest breaks:
	// the error is a [rule.Fault]. It must not block for long: the bus waits.
	Broken func(error)
}

// ErrFlooded is why a guest was detached that posted requests and did not take
// the answers.
var ErrFlooded = errors.New("the guest does not take its messages")

// inboxSize is how many messages of a guest may wait. A guest that meets a full
// inbox is told to try again, as by a real message port.
const inboxSize = 256

// A Server is the VMBus of one guest.
type Server struct {
	g   hv.Guest
	cfg Config
	log *slog.Logger

	machine *machine // the owner goroutine's
	inbox   chan hv.Message

	// channels routes doorbells; it is read for each of them.
	channels [vmbus.RelidLimit]atomic.Pointer[channel.Channel]
	watch    monitorWatch
	version  atomic.Uint32
	dropped  atomic.Uint64

	contacts, refused uint64 // connections that were accepted, channels that were not; the owner goroutine's

	mu      sync.Mutex
	orders  []func(*machine)
	ordered chan struct{} // capacity 1: there are orders
	offered map[deviceID]*Offered
	nextID  deviceID
	failure error
}

// New returns the server of a guest. It does nothing before Serve.
func New(g hv.Guest, cfg Config) *Server {
	if cfg.Versions == nil {
		cfg.Versions = []vmbus.Version{
			vmbus.Version2_4, vmbus.Version3_0, vmbus.Version4_0, vmbus.Version4_1,
			vmbus.Version5_0, vmbus.Version5_1, vmbus.Version5_2, vmbus.Version5_3,
		}
	}
	cfg.Versions = slices.DeleteFunc(slices.Clone(cfg.Versions), func(v vmbus.Version) bool { return v < vmbus.Version2_4 })
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		g: g, cfg: cfg, log: log,
		inbox:   make(chan hv.Message, inboxSize),
		ordered: make(chan struct{}, 1),
		offered: make(map[deviceID]*Offered),
	}
	s.machine = newMachine(cfg.Versions, g.VPs(), s.hasPage)
	s.machine.monitors.wanted = cfg.Monitor
	return s
}

// hasPage looks up a page of the guest.
func (s *Server) hasPage(pfn uint64) bool {
	if pfn >= 1<<52 {
		return false
	}
	mem := s.g.Memory()
	mem.RLock()
	defer mem.RUnlock()
	_, err := mem.Bytes(hv.GPA(pfn*hv.PageSize), hv.PageSize)
	return err == nil
}

// Dropped returns how many messages of the guest made no sense. It stays zero with
// a guest that follows the protocol, but for a few that cross a rescind.
func (s *Server) Dropped() uint64 { return s.dropped.Load() }

// Serve serves the guest until it is gone or Close is called, and returns why. All
// backends that the guest has used have been told [channel.Backend.Removed] by then.
// It is called once.
func (s *Server) Serve() error {
	stop := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		s.own(stop)
	}()
	err := s.g.Serve((*hypercalls)(s))
	close(stop)
	<-stopped
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure != nil {
		return s.failure // it is why the guest was closed
	}
	return err
}

// Close detaches the guest; Serve returns.
func (s *Server) Close() error { return s.g.Close() }

// hypercalls is the Server as the guest's hypercalls see it.
type hypercalls Server

func (h *hypercalls) Messages(conn uint32, m []hv.Message) hv.Status {
	if !takes(h.cfg.Versions, conn) {
		return hv.StatusInvalidConnectionID
	}
	for i := range m {
		if m[i].Type != hv.MessageVMBus {
			return hv.StatusInvalidParameter
		}
	}
	if cap(h.inbox)-len(h.inbox) < len(m) {
		return hv.StatusInsufficientBuffers
	}
	for _, c := range m {
		c.Type = conn // the one type is known; the owner needs the connection
		h.inbox <- c  // has room: nobody else puts anything in
	}
	return hv.StatusSuccess
}

func (h *hypercalls) Signal(conn uint32) {
	(*Server)(h).wake(conn - eventConn)
}

// wake has the backend look at an open channel.
func (s *Server) wake(relid uint32) {
	if relid >= vmbus.RelidLimit {
		return
	}
	if c := s.channels[relid].Load(); c != nil {
		c.Interrupt()
	}
}

// order has the owner do something between two messages.
func (s *Server) order(f func(*machine)) {
	s.mu.Lock()
	s.orders = append(s.orders, f)
	s.mu.Unlock()
	select {
	case s.ordered <- struct{}{}:
	default:
	}
}

func (s *Server) takeOrders() []func(*machine) {
	s.mu.Lock()
	defer s.mu.Unlock()
	orders := s.orders
	s.orders = nil
	return orders
}

// own is the owner goroutine: it alone touches the machine and calls backends.
func (s *Server) own(stop <-chan struct{}) {
	for {
		select {
		case msg := <-s.inbox:
			conn := msg.Type
			s.machine.message(conn, msg.Payload())
		case <-s.ordered:
			for _, f := range s.takeOrders() {
				f(s.machine)
			}
		case <-stop:
			s.machine.gone()
			s.perform()
			return
		}
		s.perform()
	}
}

// perform carries out what the machine wants done, and what it wants next.
func (s *Server) perform() {
	m := s.machine
	for len(m.out) > 0 {
		actions := m.out
		m.out = nil
		for _, a := range actions {
			s.act(a)
		}
	}
}

func (s *Server) act(a action) {
	m := s.machine
	switch a := a.(type) {
	case send:
		if err := s.post(a); err != nil {
			s.fail(err)
		}
	case watch:
		if err := s.startWatch(a.pfn); err != nil {
			s.fail(err)
		}
	case unwatch:
		s.stopWatch()
	case monitor:
		s.enableMonitor(a)
	case unmonitor:
		s.disableMonitor(a.id)
	case contact:
		s.version.Store(uint32(a.version))
		if s.contacts++; seldom(s.contacts) {
			s.log.Info("guest connected", "version", a.version.String(), "so far", s.contacts)
		}
	case share:
		s.device(a.dev).share(a.gpadl, a.pfns)
	case revoke:
		s.device(a.dev).revoke(a.gpadl)
		m.revoked(a.gpadl)
	case openChannel:
		err := s.device(a.dev).openChannel(a)
		if errors.Is(err, hv.ErrFault) {
			s.fail(err)
		}
		if err != nil {
			s.broken(err)
			if s.refused++; seldom(s.refused) {
				s.log.Info("channel refused", "relid", a.relid, "index", a.index, "err", err, "so far", s.refused)
			}
		}
		m.opened(a.relid, err == nil)
	case closeChannel:
		s.device(a.dev).closeChannel(a.relid)
		m.closed(a.relid)
	case retarget:
		s.device(a.dev).retarget(a.relid, a.vp)
	case remove:
		s.device(a.dev).remove()
	case forget:
		s.mu.Lock()
		close(s.offered[a.dev].gone)
		delete(s.offered, a.dev)
		s.mu.Unlock()
	case drop:
		s.broken(fmt.Errorf("%v: %w", a.message, a.why))
		if n := s.dropped.Add(1); seldom(n) {
			s.log.Info("message of the guest dropped", "type", a.message.String(), "why", a.why, "so far", n)
		}
	}
}

// seldom says whether the n-th line of a kind is to be logged. A guest must not be able to
// fill the log: the 1st, 2nd, 4th, 8th… is enough.
func seldom(n uint64) bool { return n&(n-1) == 0 }

// post puts a message into the guest's slot, which is memory that the guest can
// have truncated.
func (s *Server) post(a send) (err error) {
	fault := hv.Guard(func() { err = s.g.PostMessage(a.vp, a.message) })
	if errors.Is(err, hv.ErrQueueFull) {
		err = fmt.Errorf("%w: %w", ErrFlooded, err)
	}
	return errors.Join(fault, err)
}

// fail detaches the guest for a reason that Serve returns.
func (s *Server) fail(err error) {
	select {
	case <-s.g.Done():
		return // gone: nothing can be sent any more
	default:
	}
	s.mu.Lock()
	s.failure = err
	s.mu.Unlock()
	s.g.Close()
}

// broken tells of a rule that the guest broke, if that is what err is.
func (s *Server) broken(err error) {
	if s.cfg.Broken != nil && rule.Of(err) != nil {
		s.cfg.Broken(err)
	}
}

func (s *Server) device(id deviceID) *Offered {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.offered[id]
}
