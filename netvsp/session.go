package netvsp

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"hvnet/hv"
	"hvnet/nic"
	"hvnet/nvsp"
	"hvnet/offload"
	"hvnet/rule"
	"hvnet/vmbus/channel"
)

// A session is one conversation with the guest, from the opening of the primary
// channel to its closing: the protocols' state, the buffers, the queues.
//
// Locks, in the order in which they may be taken: mu, then a queue's work, or a
// channel's producer lock. Calls of the bus are made without any, for the bus calls
// back with its own lock held.
type session struct {
	d     *Device
	bus   channel.Bus
	mem   *hv.Memory
	port  Port
	first *queue // of the primary channel

	mu        sync.Mutex
	ctl       control
	rndis     adapter
	queues    []*queue // by channel index, nil where not open
	unplugged bool     // nothing comes from the port any more
	active    bool     // all sub-channels that were granted are open
	mapping   uint32   // the GPADL that is being mapped at this moment, see install
	receive   buffer
	pool      *pool // its sections for frames, nil without
	send      buffer
	faulted   sync.Once

	// What the data path looks at, once per batch.
	filter atomic.Uint32 // packet filter; 0: nothing is indicated
	open   atomic.Bool   // RNDIS is initialized: the guest may send
	halted atomic.Bool   // RNDIS was, until the guest has halted it
	mac    atomic.Pointer[nic.MAC]
	sums   atomic.Uint32                // rxSums
	in     atomic.Pointer[offload.Sink] // in front of the steering: cuts what the guest does not coalesce
	steer  atomic.Pointer[steering]

	stagings sync.Pool // of *staging
}

// A buffer is a GPADL that the guest has shared for its sections.
type buffer struct {
	gpadl   uint32
	mapping *hv.Mapping // nil: not mapped
	count   int         // sections
	size    int         // of a section, in bytes
}

func newSession(d *Device, bus channel.Bus, port Port, primary *channel.Channel) *session {
	s := &session{d: d, bus: bus, mem: bus.Memory(), port: port}
	s.stagings.New = func() any { return new(staging) }
	s.ctl = control{profile: d.cfg.Profile, vps: bus.VPs()}
	s.rndis = adapter{
		ctl: &s.ctl, name: d.cfg.Name, permanent: d.cfg.MAC, mac: d.cfg.MAC, freeMAC: d.cfg.AllowSpoofing,
		link: d.Link(), total: s.total,
	}
	s.mac.Store(&d.cfg.MAC)
	s.first = newQueue(s, primary)
	s.queues = []*queue{s.first}
	s.primary().limits(&s.ctl)
	s.steer.Store(&steering{queues: s.queues[:1:1]})
	s.takes()
	return s
}

// primary returns the queue of the primary channel. It needs no lock.
func (s *session) primary() *queue { return s.first }

// total returns the frames of all guests that have had the device. The caller holds mu.
func (s *session) total() *counters {
	var sum counters
	s.d.lost.addTo(&sum)
	for _, q := range s.queues {
		if q != nil {
			q.count.addTo(&sum)
		}
	}
	return &sum
}

// close ends the session: all queues, then the buffers.
func (s *session) close() {
	s.mu.Lock()
	queues := slices.Clone(s.queues)
	s.mu.Unlock()
	for _, q := range queues {
		if q != nil {
			q.closing.Store(true)
		}
	}
	s.filter.Store(0)
	s.open.Store(false)
	for _, q := range slices.Backward(queues) {
		if q != nil {
			q.stop()
			q.count.addTo(&s.d.lost)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropReceive()
	s.dropSend()
}

// addChannel starts the queue of a sub-channel. When the last one that was granted
// is there, all of them come into use and the guest is told the table for sending.
func (s *session) addChannel(c *channel.Channel) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.Index < 0 || c.Index > s.ctl.subChannels {
		return rule.SubChannels.Broken("open channel %d: %d sub-channels were granted", c.Index, s.ctl.subChannels)
	}
	for len(s.queues) <= c.Index {
		s.queues = append(s.queues, nil)
	}
	if s.queues[c.Index] != nil {
		return fmt.Errorf("open channel %d: %w", c.Index, errOpen)
	}
	q := newQueue(s, c)
	s.queues[c.Index] = q
	s.fit(q)
	q.start()
	if len(s.queues) == s.ctl.subChannels+1 && !slices.Contains(s.queues, nil) {
		s.activate()
	}
	return nil
}

// fit gives a new queue the buffers that are there. The caller holds mu.
func (s *session) fit(q *queue) {
	q.ch.Lock()
	if s.receive.mapping != nil {
		q.setReceive(&s.receive, s.primary().data.next, &s.ctl)
	}
	q.ch.Unlock()
	s.join(q)
	q.work.Lock()
	q.setSend(&s.send)
	q.limits(&s.ctl)
	q.work.Unlock()
}

// activate starts to steer frames to all queues, and sends the guest its table for
// sending. The caller holds mu.
func (s *session) activate() {
	s.active = true
	s.steering()
	table := nvsp.IndirectionTable{Offset: 12}
	for i := range table.Table {
		table.Table[i] = uint32(i % len(s.queues))
	}
	s.primary().post(outgoing{payload: table.Append(nil)})
}

// dropChannel stops the queue of a sub-channel. Its sections go back to the pool, those
// too that the guest did not return on it, and its flows to the primary queue.
func (s *session) dropChannel(c *channel.Channel) {
	s.mu.Lock()
	if c.Index >= len(s.queues) || s.queues[c.Index] == nil || s.queues[c.Index].ch != c {
		s.mu.Unlock()
		return
	}
	q := s.queues[c.Index]
	q.closing.Store(true)
	s.queues[c.Index] = nil
	s.steering()
	s.mu.Unlock()
	q.ch.Lock()
	if q.data.pool != nil {
		q.data.reclaim()
		q.data.pool.leave(&q.data)
	}
	q.dropReceive()
	q.ch.Unlock()
	q.stop()
	q.count.addTo(&s.d.lost)
}

// apply makes the data path follow what an RNDIS message has changed. The caller
// holds mu.
func (s *session) apply(ch change) {
	if ch&changedRSS != 0 {
		s.steering()
	}
	if ch&changedMAC != 0 {
		mac := s.rndis.mac
		s.mac.Store(&mac)
	}
	if ch&changedOffload != 0 {
		s.sums.Store(uint32(s.rndis.sums))
		s.takes()
	}
	open := s.rndis.initialized
	if was := s.open.Swap(open); was || open {
		s.halted.Store(!open)
	}
	if ch&changedFilter == 0 {
		return
	}
	if s.rndis.filter != 0 && s.unplugged {
		return
	}
	s.filter.Store(s.rndis.filter)
	if s.rndis.filter == 0 {
		s.settle()
	}
}

// unplug keeps frames from the guest from now on, those too that are on their way, and
// tells it that the link is down, so that it stops sending.
func (s *session) unplug() {
	s.mu.Lock()
	s.unplugged = true
	s.filter.Store(0)
	s.settle()
	s.mu.Unlock()
	s.indicate(func(a *adapter) [][]byte { return a.setLink(nic.LinkState{Mbps: a.link.Mbps}) })
}

// settle waits until everyone who saw an older packet filter or steering has delivered:
// they hold a producer lock while they look and while they do. The caller holds mu.
func (s *session) settle() {
	for _, q := range s.queues {
		if q != nil {
			q.ch.Lock()
			//lint:ignore SA2001 taking the lock is the wait
			q.ch.Unlock()
		}
	}
}

// fault tells the device's owner, once, that guest memory is gone.
func (s *session) fault(err error) {
	s.faulted.Do(func() {
		s.d.log.Warn("guest memory is gone", "err", err)
		s.filter.Store(0)
		s.open.Store(false)
		if f := s.d.cfg.Fault; f != nil {
			go f(err)
		}
	})
}

// handleRNDIS answers one RNDIS control message.
func (s *session) handleRNDIS(msg []byte) (status nvsp.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.primary()
	if !s.ctl.started() {
		q.bad(rule.RNDISBuffers.Broken("RNDIS before the receive buffer"))
		return nvsp.StatusFail
	}
	reply, ch, fault := s.rndis.handle(msg)
	s.apply(ch)
	if fault != nil {
		q.bad(fault)
	}
	switch {
	case reply != nil && !q.reply(reply):
		q.bad(rule.RNDISAnswers.Broken("answers are left lying"))
		return nvsp.StatusFail
	case reply == nil && fault != nil:
		return nvsp.StatusFail
	}
	return nvsp.StatusSuccess
}
