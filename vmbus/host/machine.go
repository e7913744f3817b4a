package host

import (
	"errors"
	"slices"

	"hvnet/rule"
	"hvnet/vmbus"
)

// A state is where a channel stands.
type state uint8

const (
	closed  state = iota // offered
	opening              // the backend has not answered yet
	open
	closing // the backend has not let go yet
	revoked // RESCIND sent and not open any more, RELID_RELEASED not seen
)

func (s state) String() string {
	return [...]string{"closed", "opening", "open", "closing", "revoked"}[s]
}

// A chanState is an offered channel, until the guest has released its relid.
type chanState struct {
	relid uint32
	dev   *devState
	index int // 0 for the primary
	state state

	monitor uint8 // id in the monitor page, or noMonitor

	ring    uint32             // GPADL of the rings, unless closed or revoked
	openID  uint32             // of the OPENCHANNEL being answered
	reopen  *vmbus.OpenChannel // while closing: what to do next
	release bool               // while closing: the guest has released the relid
	rescind bool               // taken away, or to be: see settle
	told    bool               // RESCIND was sent; while open, until the guest lets go
}

// A devState is a device that the host offers.
type devState struct {
	id      deviceID
	offer   vmbus.Offer
	primary *chanState   // nil while not offered to this connection
	subs    []*chanState // not yet revoked, in order of their index

	withdrawn bool // rescinded by the host: gone once its channels are
	refused   bool // released by the guest: offered again on its next connection
	used      bool // the backend has met this connection
}

// The machine is the host's side of the control plane. Its methods are the
// events; what is to be done about one is in out afterwards.
type machine struct {
	accepted []vmbus.Version
	vps      int
	hasPage  func(pfn uint64) bool // whether the guest has this page

	version   vmbus.Version // 0 while there is no connection
	vp        int           // where control messages go
	requested bool          // REQUESTOFFERS seen
	ending    *ending       // not nil while the connection is taken down
	monitors  monitors

	devices  []*devState
	channels map[uint32]*chanState
	gpadls   map[uint32]*gpadl
	pages    int // in all GPADLs
	partial  int // GPADLs not complete

	out []action
}

// An ending is what follows when everything of a connection is gone.
type ending struct {
	contact *vmbus.InitiateContact // a new connection
	unload  bool                   // the answer to UNLOAD
}

func newMachine(accepted []vmbus.Version, vps int, hasPage func(pfn uint64) bool) *machine {
	return &machine{
		accepted: accepted,
		vps:      vps,
		hasPage:  hasPage,
		channels: make(map[uint32]*chanState),
		gpadls:   make(map[uint32]*gpadl),
	}
}

func (m *machine) do(a action) { m.out = append(m.out, a) }

func (m *machine) send(b []byte) { m.do(send{m.vp, b}) }

// drop reports a message that is not for this moment; why carries the rule that it breaks.
func (m *machine) drop(t vmbus.MessageType, why error) { m.do(drop{t, why}) }

// message is the event of a message posted by the guest.
func (m *machine) message(conn uint32, b []byte) {
	t, err := vmbus.PeekType(b)
	if err != nil {
		m.drop(t, rule.MessageLayout.Err(err))
		return
	}
	// The two that a guest may send without a connection.
	switch t {
	case vmbus.TypeInitiateContact:
		if c, err := vmbus.ParseInitiateContact(b); m.valid(t, err) {
			m.initiateContact(conn, c)
		}
		return
	case vmbus.TypeCloseReserved:
		if c, err := vmbus.ParseCloseReserved(b); m.valid(t, err) {
			m.closeReserved(c)
		}
		return
	}
	switch {
	case t == vmbus.TypeRelidReleased && (m.version == 0 || m.ending != nil):
		// No rule is broken: Linux releases what it had after UNLOAD.
		m.drop(t, errors.New("the connection has ended"))
		return
	case m.version == 0:
		m.drop(t, rule.ContactFirst.Broken("not part of version %v", m.version))
		return
	case !t.ExistsIn(m.version, 0):
		m.drop(t, rule.MessageVersion.Broken("not part of version %v", m.version))
		return
	case m.ending != nil:
		m.drop(t, rule.ConnectionEnds.Broken("the connection is ending"))
		return
	}
	switch t {
	case vmbus.TypeRequestOffers:
		m.requestOffers()
	case vmbus.TypeOpenChannel:
		if o, err := vmbus.ParseOpenChannel(b, 0); m.valid(t, err) {
			m.openChannel(o)
		}
	case vmbus.TypeCloseChannel:
		if c, err := vmbus.ParseCloseChannel(b); m.valid(t, err) {
			m.closeChannel(c)
		}
	case vmbus.TypeGPADLHeader:
		if h, err := vmbus.ParseGPADLHeader(b); m.valid(t, err) {
			m.gpadlHeader(h)
		}
	case vmbus.TypeGPADLBody:
		if g, err := vmbus.ParseGPADLBody(b); m.valid(t, err) {
			m.gpadlBody(g)
		}
	case vmbus.TypeGPADLTeardown:
		if g, err := vmbus.ParseGPADLTeardown(b); m.valid(t, err) {
			m.gpadlTeardown(g)
		}
	case vmbus.TypeRelidReleased:
		if r, err := vmbus.ParseRelidReleased(b); m.valid(t, err) {
			m.relidReleased(r)
		}
	case vmbus.TypeModifyChannel:
		if c, err := vmbus.ParseModifyChannel(b); m.valid(t, err) {
			m.modifyChannel(c)
		}
	case vmbus.TypeUnload:
		m.end(ending{unload: true})
	case vmbus.TypeOpenReserved:
		if o, err := vmbus.ParseOpenReserved(b); m.valid(t, err) {
			m.openReserved(o)
		}
	case vmbus.TypeTLConnectRequest:
		if c, err := vmbus.ParseTLConnectRequest(b, m.version); m.valid(t, err) {
			m.tlConnect(c)
		}
	default:
		m.drop(t, rule.MessageDirection.Broken("not for the host"))
	}
}

// valid drops a message that can't be parsed.
func (m *machine) valid(t vmbus.MessageType, err error) bool {
	if err != nil {
		m.drop(t, rule.Layout(rule.MessageLayout, t.String(), err))
	}
	return err == nil
}

// opened is the end of openChannel.
func (m *machine) opened(relid uint32, ok bool) {
	ch := m.channels[relid]
	if ch == nil || ch.state != opening {
		return
	}
	switch {
	case ok && (m.ending != nil || ch.rescind):
		// Nobody waits for a result: the guest is starting anew, or is about to
		// hear RESCIND, before it could use the channel.
		ch.state = closing
		m.do(closeChannel{ch.dev.id, relid})
	case ok:
		ch.state = open
		m.openResult(ch.relid, ch.openID, vmbus.StatusSuccess)
	default:
		ch.state = closed
		ch.ring = 0
		if m.ending == nil && !ch.rescind {
			m.openResult(ch.relid, ch.openID, vmbus.StatusUnsuccessful)
		}
	}
	m.settle(ch.dev)
	m.finish()
}

// closed is the end of closeChannel.
func (m *machine) closed(relid uint32) {
	ch := m.channels[relid]
	if ch == nil || ch.state != closing {
		return
	}
	ring, reopen := ch.ring, ch.reopen
	ch.state, ch.ring, ch.reopen = closed, 0, nil
	if g := m.gpadls[ring]; g != nil && g.tearing {
		m.do(revoke{ch.dev.id, ring}) // it was asked for while we were closing
	}
	if reopen != nil && m.ending == nil {
		m.openChannel(*reopen)
	}
	m.settle(ch.dev)
	m.finish()
}

// revoked is the end of revoke.
func (m *machine) revoked(id uint32) {
	g := m.gpadls[id]
	if g == nil || !g.tearing {
		return
	}
	m.forget(g)
	if m.ending == nil {
		m.send(vmbus.GPADLTorndown{ID: id}.Append(nil))
	}
	m.settle(g.ch.dev)
	m.finish()
}

// gone is the event of the guest's end.
func (m *machine) gone() { m.end(ending{}) }

// end takes the connection down, then does what e says. An end on the way is
// replaced: only the last one counts. A backend loses its primary channel first: with
// that it stops, while one that lost a sub-channel would go on over the others, which
// the guest may still read, and out of order.
func (m *machine) end(e ending) {
	m.ending = &e
	for _, d := range m.devices {
		if d.primary != nil {
			m.shut(d.primary)
		}
		for _, ch := range d.subs {
			m.shut(ch)
		}
	}
	m.finish()
}

// shut begins to close a channel. A channel that is opening is closed by opened.
func (m *machine) shut(ch *chanState) {
	ch.reopen = nil
	if ch.state == open {
		ch.state = closing
		m.do(closeChannel{ch.dev.id, ch.relid})
	}
}

// finish completes an ending once no backend holds anything.
func (m *machine) finish() {
	if m.ending == nil {
		return
	}
	for _, ch := range m.channels {
		if ch.state == opening || ch.state == closing {
			return
		}
	}
	for _, d := range slices.Clone(m.devices) {
		m.leave(d)
		d.primary, d.subs, d.refused = nil, nil, false
		if d.withdrawn {
			m.discard(d)
		}
	}
	m.unwatchMonitor()
	clear(m.channels)
	clear(m.gpadls)
	m.pages, m.partial = 0, 0
	m.version, m.requested = 0, false

	e := *m.ending
	m.ending = nil
	switch {
	case e.unload:
		m.send(vmbus.UnloadResponse{}.Append(nil))
	case e.contact != nil:
		m.connect(*e.contact)
	}
}
