package netvsc

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"hvnet/counter"
	"hvnet/netvsc/vf"
	"hvnet/nic"
	"hvnet/nvsp"
	"hvnet/vmbus"
)

// A vfPath moves a NIC's frames between the synthetic device and a VF. What happens is told
// to a goroutine, which asks a vf.Machine what to do and does it. So senders look at one
// pointer, and neither host nor device is waited for by anybody who has frames.
type vfPath struct {
	n    *NIC
	on   bool          // Config.VF; if not, nothing of this is in use
	rest time.Duration // Config.VFRest

	active   atomic.Pointer[VFPort] // what senders use; nil: the synthetic device
	port     atomic.Pointer[VFPort] // the VF that there is
	promisc  atomic.Bool
	onPath   atomic.Pointer[func()]        // see NIC.OnPath
	moved    atomic.Pointer[chan struct{}] // closed, and another one, when the path has moved
	timeline timeline
	status   atomic.Pointer[nic.VFStatus] // what the machine knows; nil: nothing yet

	mu      sync.Mutex
	inbox   []vfEvent
	fromUs  int // of the inbox, events that are not the host's
	running bool
	wake    chan struct{} // capacity 1
	quit    chan struct{}
	ended   chan struct{}

	// Of the goroutine.
	machine vf.Machine
	session *session // that the machine knows of
	waiting []chan struct{}
	request vfRequest
	resting *time.Timer
}

// A vfEvent is an event with what it belongs to.
type vfEvent struct {
	vf.Event
	session *session      // that it is of; nil: of none
	settled chan struct{} // closed when the host has been told what follows from it; or nil
}

// A vfRequest is what the host was told last of the path.
type vfRequest struct {
	path  vf.Path
	begun time.Time
	took  time.Duration // until the host confirmed it
	sent  bool          // it is in the ring,
	id    uint64        // with this id
	timer *time.Timer   // runs out, or says to try again
}

const (
	// switchTimeout is the time that the host has to move the path. Meanwhile frames go
	// by the synthetic one.
	switchTimeout = 5 * time.Second
	// switchRetry is the time to the next try if the ring is full or senders pause.
	switchRetry = time.Millisecond
	// vfDrain is for how long senders are held until the host has completed what was sent,
	// so that frames that go by the VF don't overtake it.
	vfDrain = time.Second
	// maxVFEvents is how many events of the host may wait.
	maxVFEvents = 32
)

func (v *vfPath) init(n *NIC, cfg *Config) {
	v.n, v.on, v.rest = n, cfg.VF, cfg.VFRest
	v.machine.Damped = cfg.VFRest > 0
	moved := make(chan struct{})
	v.moved.Store(&moved)
	v.wake, v.quit, v.ended = make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
}

// start starts the goroutine.
func (v *vfPath) start() {
	if !v.on {
		return
	}
	v.running = true
	v.request.timer, v.resting = time.NewTimer(time.Hour), time.NewTimer(time.Hour)
	v.request.timer.Stop()
	v.resting.Stop()
	go v.run()
}

// post tells what has happened. s is the session that an event is of, if it is of one.
func (v *vfPath) post(e vf.Event, s *session) { v.put(vfEvent{Event: e, session: s}) }

// do tells what has happened and waits until senders have changed over, if they have to,
// and the host has answered.
func (v *vfPath) do(ctx context.Context, e vf.Event, s *session) error {
	if !v.on || s != nil && s.broken() {
		v.post(e, s)
		return nil
	}
	settled := make(chan struct{})
	v.put(vfEvent{e, s, settled})
	select {
	case <-settled:
	case <-v.ended:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// put puts an event into the inbox. Only the last state of a device counts, and of a host
// that tells more than anybody can follow the rest is dropped.
func (v *vfPath) put(e vfEvent) {
	if !v.on {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	host := e.Kind == vf.Associated || e.Kind == vf.TakenBack
	switch last := len(v.inbox) - 1; {
	case host && len(v.inbox)-v.fromUs >= maxVFEvents:
		v.n.count.Add(counter.HostBadMessage, 1)
		return
	case e.Kind == vf.Changed && last >= 0 && v.inbox[last].Kind == vf.Changed && v.inbox[last].settled == nil:
		v.inbox[last] = e
		return
	case !host:
		v.fromUs++
	}
	v.inbox = append(v.inbox, e)
	select {
	case v.wake <- struct{}{}:
	default:
	}
}

// next takes an event out of the inbox.
func (v *vfPath) next() (e vfEvent, ok bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.inbox) == 0 {
		return e, false
	}
	e = v.inbox[0]
	if v.inbox = v.inbox[1:]; e.Kind != vf.Associated && e.Kind != vf.TakenBack {
		v.fromUs--
	}
	return e, true
}

// vfMessage takes a message of the host about a VF, and returns false if it makes no sense.
func (q *queue) vfMessage(t nvsp.MessageType, b []byte) bool {
	s := q.s
	if !s.sriov.Load() {
		return true // of no use to a driver that has not announced SR-IOV
	}
	if t == nvsp.TypeVFAssociation {
		m, err := nvsp.ParseVFAssociation(b)
		if err == nil {
			s.association.Store(&m)
			s.n.vf.post(vf.Event{Kind: vf.Associated, On: m.Allocated, Serial: m.Serial}, s)
		}
		return err == nil
	}
	m, err := nvsp.ParseSwitchDataPath(b)
	if err != nil || m.Path != nvsp.PathSynthetic {
		return false // a host takes the path back; who wants it is the guest
	}
	s.n.vf.post(vf.Event{Kind: vf.TakenBack}, s)
	return true
}

// answered takes the host's completion of a switch. It says yes by one without a message.
func (v *vfPath) answered(s *session, yes bool) {
	kind := vf.Refused
	if yes {
		kind = vf.Confirmed
	}
	v.post(vf.Event{Kind: kind}, s)
}

// run is the goroutine.
func (v *vfPath) run() {
	defer close(v.ended)
	for {
		select {
		case <-v.wake:
		case <-v.request.timer.C:
			v.press()
		case <-v.resting.C:
			v.handle(vfEvent{Event: vf.Event{Kind: vf.Rested}})
		case <-v.quit:
			v.work()
			v.handle(vfEvent{Event: vf.Event{Kind: vf.Rescinded}})
			v.request.timer.Stop()
			v.resting.Stop()
			return
		}
		v.work()
	}
}

// work handles what is in the inbox.
func (v *vfPath) work() {
	for {
		e, ok := v.next()
		if !ok {
			return
		}
		v.handle(e)
	}
}

// end ends the goroutine, and lets go of the VF.
func (v *vfPath) end() {
	if v.running {
		close(v.quit)
		<-v.ended
	}
}

// handle handles an event.
func (v *vfPath) handle(e vfEvent) {
	switch e.Kind {
	case vf.Attached:
		v.session = e.session
		v.step(e.Event)
		if m := e.session.association.Load(); m != nil { // it comes while the NIC attaches
			v.step(vf.Event{Kind: vf.Associated, On: m.Allocated, Serial: m.Serial})
		}
	case vf.Associated, vf.TakenBack:
		if e.session == v.session {
			v.step(e.Event)
		}
	case vf.Confirmed, vf.Refused:
		if e.session == v.session && v.request.sent {
			v.over(e.Kind)
		}
	default:
		v.step(e.Event)
	}
	if e.settled != nil {
		v.waiting = append(v.waiting, e.settled)
	}
	if v.machine.Settled() {
		for _, c := range v.waiting {
			close(c)
		}
		v.waiting = nil
		v.request.sent = false // what comes now is of a session before
		v.request.timer.Stop()
	}
}

// step has the machine handle an event, and does what it says. Who follows the path is told
// last: that may take longer than the host is to wait.
func (v *vfPath) step(e vf.Event) {
	before := v.active.Load()
	for _, a := range v.machine.Handle(e) {
		switch a.Do {
		case vf.Switch:
			v.request.path, v.request.begun, v.request.sent, v.request.id = a.Path, time.Now(), false, 0
			v.press()
		case vf.UseVF:
			v.useVF(a.Why)
		case vf.UseSynthetic:
			v.useSynthetic(a.Why)
		case vf.Mirror:
			if p := v.port.Load(); p != nil {
				p.mirror(a)
			}
		case vf.Forget:
			if p := v.port.Load(); p != nil {
				p.forget()
			}
		case vf.Rest:
			v.resting.Reset(v.rest)
		}
	}
	known := v.machine.Status()
	v.status.Store(&known)
	if v.active.Load() != before {
		v.turned()
	}
}

// press has the host told of the path, as soon as that is possible, and gives up when it
// has not answered in its time.
func (v *vfPath) press() {
	r := &v.request
	if v.machine.Settled() {
		return
	}
	most := min(switchTimeout, v.n.timeout)
	if v.n.closed() {
		most = min(most, closeTimeout)
	}
	left := most - time.Since(r.begun)
	if left <= 0 {
		v.abandon()
		v.over(vf.Silent)
		return
	}
	if !r.sent {
		r.id, r.sent = v.tell(r.path)
	}
	if !r.sent {
		left = min(left, switchRetry)
	}
	r.timer.Reset(left)
}

// tell puts a switch into the ring. It returns false if there is no room now, or the session
// is being changed.
func (v *vfPath) tell(path vf.Path) (id uint64, ok bool) {
	n := v.n
	n.gate.RLock()
	defer n.gate.RUnlock()
	s := v.session
	if !n.flowing || n.session.Load() != s || s.broken() {
		return 0, false
	}
	m := nvsp.SwitchDataPath{Path: nvsp.PathSynthetic}
	if path == vf.VF {
		m.Path = nvsp.PathVF
	}
	q := s.queues[0]
	q.ch.Lock()
	defer q.ch.Unlock()
	id, t := q.txns.begin()
	if t == nil {
		return 0, false
	}
	t.kind = kindSwitch
	if q.ch.Out.Put(appendMessage(q.scratch[:0], vmbus.FlagCompletionRequested, id, m.Append(nil)), nil) != nil {
		q.txns.end(id)
		q.checkRing()
		return 0, false
	}
	q.ch.Flush()
	q.checkRing()
	return id, true
}

// abandon no longer expects an answer: one that comes now answers nothing.
func (v *vfPath) abandon() {
	if !v.request.sent {
		return
	}
	q := v.session.queues[0]
	q.ch.Lock()
	defer q.ch.Unlock()
	if t := q.txns.find(v.request.id); t != nil {
		q.txns.end(v.request.id)
	}
}

// over takes what has become of the switch.
func (v *vfPath) over(kind vf.Kind) {
	r := &v.request
	r.took, r.sent = time.Since(r.begun), false
	if kind == vf.Confirmed && r.path == vf.Synthetic {
		v.timeline.took(r.took)
	}
	if kind != vf.Confirmed {
		v.n.log.Warn("netvsc: the data path does not move", "to", r.path, "err", kind)
		v.timeline.add(nic.VFMove{At: time.Now(), To: r.path.String(), First: kind.Who(), Why: kind.String(), Failed: failed(kind), Took: r.took})
	}
	v.step(vf.Event{Kind: kind})
}

func failed(kind vf.Kind) string {
	if kind == vf.Refused {
		return "refused"
	}
	return "no answer"
}

// useVF has senders use the VF, when the host has completed what was sent before: what goes
// by the VF would overtake it.
func (v *vfPath) useVF(why vf.Kind) {
	n, p := v.n, v.port.Load()
	if p == nil {
		return
	}
	begun := time.Now()
	n.hold(true)
	before := v.session.inFlight()
	ctx, cancel := context.WithTimeout(context.Background(), vfDrain)
	err := v.session.idle(ctx)
	cancel()
	left := 0
	if err != nil {
		left = v.session.inFlight()
		n.count.Add(counter.VFUndrained, uint64(left))
		n.log.Warn("netvsc: frames may be out of order", "err", err)
	}
	v.active.Store(p)
	n.hold(false)
	n.wakePumps()
	n.count.Add(counter.VFSwitches, 1)
	n.log.Info("netvsc: data path switched to the VF", "serial", p.dev.Serial())
	v.timeline.add(nic.VFMove{At: time.Now(), To: vf.VF.String(), First: why.Who(), Why: why.String(), Took: v.request.took,
		Held: time.Since(begun), InFlight: before, Undrained: left})
}

// useSynthetic has senders leave the VF: when it returns none is using it.
func (v *vfPath) useSynthetic(why vf.Kind) {
	n := v.n
	begun := time.Now()
	v.active.Store(nil)
	n.gate.Lock() // waits for those that have it
	//lint:ignore SA2001 taking the lock is the wait
	n.gate.Unlock()
	n.wakePumps()
	n.count.Add(counter.VFSwitches, 1)
	n.log.Info("netvsc: data path switched from the VF", "why", why)
	v.timeline.add(nic.VFMove{At: time.Now(), To: vf.Synthetic.String(), First: why.Who(), Why: why.String(), Held: time.Since(begun)})
}

// hold has senders wait, or go on.
func (n *NIC) hold(on bool) {
	n.gate.Lock()
	defer n.gate.Unlock()
	n.held = on
}

// inFlight returns how many frames the host has yet to complete.
func (s *session) inFlight() (frames int) {
	for _, q := range s.queues {
		q.ch.Lock()
		for _, t := range q.txns.slots {
			if t.kind == kindData {
				frames += int(t.frames)
			}
		}
		for i := range q.waiting {
			frames += int(q.waiting[i].frames)
		}
		q.ch.Unlock()
	}
	return frames
}
