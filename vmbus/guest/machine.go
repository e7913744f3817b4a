package guest

import (
	"errors"
	"fmt"

	"hvnet/hv"
	"hvnet/vmbus"
	"hvnet/vmbus/channel"
)

// A wait is an answer of the host that somebody waits for: the type of message
// and what it answers.
type wait struct {
	message   vmbus.MessageType
	relid, id uint32
}

// An action is what the machine wants done, in order.
type action interface{}

type (
	// post posts a message to the host.
	post struct {
		conn    uint32
		message []byte
	}
	// answer gives a waiter what it waits for, once. The wait is over.
	answer struct {
		wait    wait
		version vmbus.VersionResponse // for VERSION_RESPONSE
		err     error                 // refused by the host, or rescinded
	}
	// arrived wakes those who wait for an offer.
	arrived struct{}
	// lost closes a channel that the host has taken away, and its device if it
	// is a primary channel.
	lost struct{ ch *chanState }
	// free gives back memory that the host has just let go of.
	free struct{ region hv.Region }
	// drop reports a message of the host that has no effect.
	drop struct {
		message vmbus.MessageType
		why     string
	}
)

// A state is where a channel stands in the guest.
type state uint8

const (
	offered  state = iota
	reserved       // somebody prepares to open it
	opening        // OPENCHANNEL posted
	open
	closing // until its rings are the guest's own again
)

func (s state) String() string {
	return [...]string{"offered", "being opened", "opening", "open", "being closed"}[s]
}

// A chanState is an offered channel, until its relid is released.
type chanState struct {
	offer     vmbus.Offer
	primary   *chanState // nil if it is one
	state     state
	vp        int  // that the host interrupts for it
	rescinded bool // released as soon as nothing of it is left
	stale     bool // a sub-channel whose primary was closed: about to be rescinded
	claimed   bool // a primary that a driver has
}

// A gpadl is memory that the host knows, or may know.
type gpadl struct {
	ch      *chanState
	region  hv.Region
	created bool // else CREATED is to come
	tearing bool // TORNDOWN is to come
	free    bool // the region is to be freed when the host has let go
}

// The machine is the guest's side of the control plane. Its methods are the
// events; what is to be done about one is in out afterwards.
type machine struct {
	version vmbus.Version // 0 while there is no connection
	asked   vmbus.Version // of the last INITIATE_CONTACT
	conn    uint32        // that messages are posted to
	monitor [2]uint64     // GPAs of the monitor pages: the host's to trigger, ours to trigger; or 0

	waiting   map[wait]bool
	channels  map[uint32]*chanState // by relid
	gpadls    map[uint32]*gpadl
	nextGPADL uint32
	nextOpen  uint32
	placement *placement

	out []action
}

// firstGPADL is where ids begin. Any number does but zero; this one is Linux's,
// and easy to recognise in a trace.
const firstGPADL = 0xe1e10

func newMachine(p *placement) *machine {
	return &machine{
		waiting:   make(map[wait]bool),
		channels:  make(map[uint32]*chanState),
		gpadls:    make(map[uint32]*gpadl),
		nextGPADL: firstGPADL,
		placement: p,
	}
}

func (m *machine) do(a action) { m.out = append(m.out, a) }

func (m *machine) post(b []byte) { m.do(post{m.conn, b}) }

func (m *machine) drop(t vmbus.MessageType, why string) { m.do(drop{t, why}) }

// wait registers a wait; expected ends it if it is there.
func (m *machine) wait(w wait) wait {
	m.waiting[w] = true
	return w
}

func (m *machine) expected(w wait) bool {
	was := m.waiting[w]
	delete(m.waiting, w)
	return was
}

// abandon is the event of a waiter that gave up. A late answer then still tells
// the machine what the host holds.
func (m *machine) abandon(w wait) { delete(m.waiting, w) }

// errRefused is in every error of a request that the host refused.
var errRefused = errors.New("the host refused")

func statusError(status uint32) error {
	if status == vmbus.StatusSuccess {
		return nil
	}
	return fmt.Errorf("%w: status %#x", errRefused, status)
}

// message is the event of a message of the host.
func (m *machine) message(b []byte) {
	t, err := vmbus.PeekType(b)
	if err == nil {
		err = m.dispatch(t, b)
	}
	if err != nil {
		m.drop(t, err.Error())
	}
}

var (
	errUnasked = errors.New("nobody waits for it")
	errRelid   = errors.New("unknown relid")
)

func (m *machine) dispatch(t vmbus.MessageType, b []byte) error {
	if t == vmbus.TypeVersionResponse {
		return m.versionResponse(b)
	}
	if m.version == 0 {
		return errors.New("no connection")
	}
	switch t {
	case vmbus.TypeOffer:
		o, err := vmbus.ParseOffer(b, m.version)
		if err != nil {
			return err
		}
		return m.offer(o)
	case vmbus.TypeRescindOffer:
		r, err := vmbus.ParseRescindOffer(b)
		if err != nil {
			return err
		}
		return m.rescind(r)
	case vmbus.TypeAllOffersDelivered:
		return m.answer(wait{message: t}, nil)
	case vmbus.TypeOpenResult:
		r, err := vmbus.ParseOpenResult(b)
		if err != nil {
			return err
		}
		return m.openResult(r)
	case vmbus.TypeGPADLCreated:
		c, err := vmbus.ParseGPADLCreated(b)
		if err != nil {
			return err
		}
		return m.gpadlCreated(c)
	case vmbus.TypeGPADLTorndown:
		d, err := vmbus.ParseGPADLTorndown(b)
		if err != nil {
			return err
		}
		return m.gpadlTorndown(d)
	case vmbus.TypeModifyChannelResponse:
		r, err := vmbus.ParseModifyChannelResponse(b)
		if err != nil {
			return err
		}
		return m.answer(wait{message: t, relid: r.Relid}, statusError(r.Status))
	case vmbus.TypeUnloadResponse:
		if err := m.answer(wait{message: t}, nil); err != nil {
			return err
		}
		m.disconnected()
		return nil
	}
	return errors.New("not for the guest")
}

// answer passes an answer on to its waiter.
func (m *machine) answer(w wait, err error) error {
	if !m.expected(w) {
		return errUnasked
	}
	m.do(answer{wait: w, err: err})
	return nil
}

// disconnected forgets everything of a connection that has ended, by UNLOAD or
// because the host is gone: there is nobody left who holds our memory.
func (m *machine) disconnected() {
	for _, relid := range sortedKeys(m.channels) {
		if ch := m.channels[relid]; !ch.rescinded {
			ch.rescinded = true
			m.do(lost{ch})
		}
	}
	for _, w := range m.waits() {
		m.answer(w, channel.ErrRescinded)
	}
	for _, id := range sortedKeys(m.gpadls) {
		if g := m.gpadls[id]; g.free {
			m.do(free{g.region})
		}
	}
	clear(m.channels)
	clear(m.gpadls)
	clear(m.placement.taken)
	m.version, m.conn = 0, 0
	m.do(arrived{})
}
