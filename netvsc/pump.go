package netvsc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"

	"hvnet/nic"
)

// pumpBatch is how many frames a pump reads before it hands them on, so that a
// busy source can't delay its own frames or a change of settings.
const pumpBatch = 64

// pumpRounds is how many batches a pump moves without a pause before it has the
// scheduler look who else has something to do: a thread that never waits does not hear
// doorbells, and it may be the only one that is awake.
const pumpRounds = 8

// A pump moves frames from one source to the channels. It holds sections and page
// runs only while it is inside a round, so that between rounds the device can be
// taken apart below it.
type pump struct {
	n    *NIC
	src  nic.Source
	via  nic.Relay     // src, if it is one
	wake chan struct{} // capacity 1: something changed that a starved pump waits for
	send *sender
	vf   *vfRound // memory for frames that go by a virtual function
	at   int      // number of the pump

	blocked *queue // that the last round filled
}

// errStarved says that the source is not read now: the NIC is down, the host is
// behind, or there is no memory to read into.
var errStarved = errors.New("netvsc: nothing to read into")

// Pump reads frames from src straight into guest memory and sends them until ctx
// ends or the source is closed, when it returns nil, or the NIC is closed, when it
// returns ErrClosed. While the NIC is down, has lost its device, is being
// reconfigured, or the host is behind, the source is not read.
//
// Each Pump is called in a goroutine of its own; every source has one.
func (n *NIC) Pump(ctx context.Context, src nic.Source) error {
	p := &pump{n: n, src: src, wake: make(chan struct{}, 1)}
	p.via, _ = src.(nic.Relay)
	if !n.addPump(p) {
		return ErrClosed
	}
	defer n.removePump(p)
	defer p.drop()
	defer context.AfterFunc(ctx, src.Wake)()
	for busy := 0; ; busy++ {
		if busy == pumpRounds {
			busy = 0
			runtime.Gosched()
		}
		if ctx.Err() != nil {
			return nil
		}
		if n.closed() {
			return ErrClosed
		}
		err := p.round()
		switch {
		case err == errStarved:
			p.await(ctx)
			busy = 0
			continue
		case err == nic.ErrNoFrame:
			err = src.Wait()
			busy = 0
		}
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("netvsc: read from source: %w", err)
		}
	}
}

// round reads and sends up to pumpBatch frames. It returns nil if there may be
// more, else why it stopped.
func (p *pump) round() error {
	n := p.n
	n.gate.RLock()
	defer n.gate.RUnlock()
	s := n.session.Load()
	if !n.open() || s.broken() {
		return errStarved
	}
	if port := n.vf.active.Load(); port != nil {
		return p.roundVF(port, s)
	}
	if p.send == nil || p.send.s != s {
		if p.send != nil {
			p.send.dropKept()
		}
		p.send = newSender(s)
		p.send.keeps = true
	}
	if p.blocked = s.blocked(p.blocked); p.blocked != nil {
		return errStarved
	}
	t := p.send
	t.begin()
	if t.waits() {
		return errStarved
	}
	src := p.src
	if p.via != nil {
		src = p.via.Batch()
	}
	var err error
	if !t.sendKept() || t.waits() {
		err = errStarved
	}
	for i := 0; err == nil && i < pumpBatch; i++ {
		first, rest := t.land()
		if first == nil {
			err = errStarved
			break
		}
		var k int
		var m nic.Offload
		if k, m, err = src.ReadFrame(first, rest); err != nil {
			break
		}
		ok := t.landed(first, k, m)
		t.curing.count()
		if !ok || t.waits() {
			err = errStarved
		}
	}
	p.blocked = t.flush()
	t.leave()
	if p.blocked != nil && (err == nil || err == nic.ErrNoFrame) {
		return errStarved
	}
	return err
}

// drop counts what the pump has read and not sent.
func (p *pump) drop() {
	p.n.gate.RLock()
	defer p.n.gate.RUnlock()
	if p.send != nil {
		p.send.dropKept()
	}
}

// blocked returns q if it is a queue of this attachment and stopped.
func (s *session) blocked(q *queue) *queue {
	if q != nil && q.s == s && q.stopped.Load() {
		return q
	}
	return nil
}

// await blocks until a round may do something, or for no reason.
func (p *pump) await(ctx context.Context) {
	p.n.starving.Add(1)
	defer p.n.starving.Add(-1)
	if p.ready() {
		return
	}
	select {
	case <-p.wake:
	case <-ctx.Done():
	case <-p.n.done:
	}
}

// ready reports whether a round may do something. It is asked after the pump has
// declared itself starving: whoever frees something later sees that.
func (p *pump) ready() bool {
	n := p.n
	n.gate.RLock()
	defer n.gate.RUnlock()
	if n.closed() {
		return true
	}
	s := n.session.Load()
	if !n.open() || s.broken() {
		return false
	}
	if n.vf.active.Load() != nil {
		return true
	}
	if t := p.send; t != nil && t.s == s && !t.settled() {
		return false
	}
	if s.blocked(p.blocked) != nil {
		return false
	}
	if p.send != nil && p.send.s == s && p.send.kept.waiting() {
		return s.runs.idle() > 0 // which takes whatever comes next of it
	}
	return s.landable()
}

// landable reports whether there is memory for another frame.
func (s *session) landable() bool {
	if s.needRun {
		return s.runs.idle() > 0
	}
	return s.sections.idle() > 0 || s.runs.idle() > 0
}

// addPump registers a pump. It returns false if the NIC is closed.
func (n *NIC) addPump(p *pump) bool {
	n.pumpMu.Lock()
	defer n.pumpMu.Unlock()
	select {
	case <-n.done:
		return false
	default:
	}
	p.at = len(n.pumps)
	n.pumps[p] = struct{}{}
	return true
}

func (n *NIC) removePump(p *pump) {
	n.pumpMu.Lock()
	defer n.pumpMu.Unlock()
	delete(n.pumps, p)
}

// wakePumps has starved pumps look again.
func (n *NIC) wakePumps() {
	n.pumpMu.Lock()
	defer n.pumpMu.Unlock()
	for p := range n.pumps {
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
}

// interruptPumps has all pumps look again, those too that wait for their source.
func (n *NIC) interruptPumps() {
	n.wakePumps()
	n.pumpMu.Lock()
	defer n.pumpMu.Unlock()
	for p := range n.pumps {
		p.src.Wake()
	}
}
