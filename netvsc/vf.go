package netvsc

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"hvnet/counter"
	"hvnet/netvsc/vf"
	"hvnet/nic"
	"hvnet/offload"
)

// A VF is a virtual function: a network device of the guest's own that the host may
// associate with the NIC, so that frames go by it past the host's software. Its methods
// may be called from any goroutine, and don't wait for the NIC.
//
// As a sink it takes frames to send. It drops what it can't send, and waits for nobody,
// nor for who gets what the NIC receives. If it is a [nic.Taker],
// frames may leave to it what it says; else the driver completes and cuts them.
type VF interface {
	nic.Sink
	// MAC returns the permanent address, by which it is the NIC's.
	MAC() nic.MAC
	// Serial returns the serial number, by which the host associates it.
	Serial() uint32
	// Dropped returns how many frames it did not take to send so far.
	Dropped() uint64
	// SetUp sets it up or down, the others what the NIC has.
	SetUp(up bool) error
	SetMTU(mtu int) error
	SetMAC(mac nic.MAC) error
	SetPromiscuous(on bool) error
}

// VFState is what a VF's device says of itself.
type VFState struct {
	Up      bool // it is set up
	Carrier bool // and its link is up
}

// A VFPort is where a NIC and a VF are joined. What the VF receives is written to it.
type VFPort struct {
	n   *NIC
	dev VF
	out *offload.Sink // in front of dev

	delivering sync.RWMutex // held, shared, while frames are with the sink
	gone       bool         // under delivering
	done       chan struct{}

	mu      sync.Mutex // held to count
	dropped uint64     // by dev, as far as they are counted
}

// AddVF joins a VF to the NIC, which sends by it as soon as it is up, the host has
// associated one with the NIC and confirmed that it has moved the path; by the synthetic
// device otherwise. The VF gets the NIC's MTU, address and promiscuity, and is set up and
// down with it. It tells the port what it receives and its state.
//
// nic.ErrNotSupported is for a NIC that was opened without [Config.VF], nic.ErrInvalid for
// a device with another address than the NIC's permanent one, nic.ErrBusy for a NIC that
// has a VF.
func (n *NIC) AddVF(ctx context.Context, dev VF) (*VFPort, error) {
	p := &VFPort{n: n, dev: dev, out: offload.NewSink(dev), done: make(chan struct{}), dropped: dev.Dropped()}
	mac := n.session.Load().mac
	switch {
	case !n.vf.on:
		return nil, fmt.Errorf("netvsc: add VF: %w: the NIC was opened without", nic.ErrNotSupported)
	case n.closed():
		return nil, ErrClosed
	case dev.MAC() != mac:
		return nil, fmt.Errorf("netvsc: add VF: %w: its address is %v, the NIC's %v", nic.ErrInvalid, dev.MAC(), mac)
	case !n.vf.port.CompareAndSwap(nil, p):
		return nil, fmt.Errorf("netvsc: add VF: %w: the NIC has one", nic.ErrBusy)
	}
	n.vf.post(vf.Event{Kind: vf.Appeared, MAC: mac, Serial: dev.Serial()}, nil)
	if n.closed() { // meanwhile: perhaps nobody has heard of it any more
		<-n.vf.ended
		if n.vf.port.CompareAndSwap(p, nil) {
			return nil, ErrClosed
		}
	}
	return p, nil
}

// RemoveVF takes a VF away in order: the path moves to the synthetic device, the host
// confirms that, and only then nothing more is received from the VF. An error says that
// the host did not do so within ctx; the VF is removed all the same.
func (n *NIC) RemoveVF(ctx context.Context, p *VFPort) error {
	if n.vf.port.Load() != p {
		return nil // removed already
	}
	err := n.vf.do(ctx, vf.Event{Kind: vf.Changed}, nil)
	p.Gone()
	select {
	case <-p.done:
	case <-n.vf.ended:
	}
	if err != nil {
		return fmt.Errorf("netvsc: remove VF: wait for the host to move the path: %w", err)
	}
	return nil
}

// Changed tells the NIC what state the device is in now.
func (p *VFPort) Changed(s VFState) {
	if p.n.vf.port.Load() == p {
		p.n.vf.post(vf.Event{Kind: vf.Changed, On: s.Up, Carrier: s.Carrier}, nil)
	}
}

// Gone tells the NIC that the device is no longer there. [VFPort.Done] says when the NIC
// has let go of it.
func (p *VFPort) Gone() {
	if p.n.vf.port.Load() == p {
		p.n.vf.post(vf.Event{Kind: vf.Removed}, nil)
	}
}

// Done is closed when the NIC has let go of the VF: it was removed, the NIC has lost its
// own device, or was closed. The NIC calls no method of the VF any more.
func (p *VFPort) Done() <-chan struct{} { return p.done }

// WriteFrames takes frames that the VF has received, whichever path the NIC sends on: a
// host moves what it has for the NIC when it likes. Their Channel is the VF's queue.
func (p *VFPort) WriteFrames(frames []nic.Frame) {
	p.delivering.RLock()
	defer p.delivering.RUnlock()
	out := p.n.outlet.Load()
	if out == nil || p.gone || len(frames) == 0 {
		return
	}
	bytes := 0
	for i := range frames {
		frames[i].VF = true
		bytes += frames[i].Len()
	}
	p.n.count.Add(counter.VFRxPackets, uint64(len(frames)))
	p.n.count.Add(counter.VFRxBytes, uint64(bytes))
	if q := p.n.session.Load().channel(int(frames[0].Channel)); q != nil {
		q.count.Add(counter.QueueVFRxPackets, uint64(len(frames)))
		q.count.Add(counter.QueueVFRxBytes, uint64(bytes))
		if spell := p.n.look.spell.Load(); spell != 0 {
			for i := range frames {
				q.rxFlows.note(frames[i].Head, spell)
			}
		}
	}
	out.sink.WriteFrames(frames)
}

// quiet waits until no call of the sink is going on.
func (p *VFPort) quiet() {
	p.delivering.Lock()
	//lint:ignore SA2001 taking the lock is the wait
	p.delivering.Unlock()
}

// forget lets go of the device. Nobody sends by it any more.
func (p *VFPort) forget() {
	p.delivering.Lock()
	p.gone = true
	p.delivering.Unlock()
	p.countDropped()
	p.n.vf.port.Store(nil)
	close(p.done)
}

// countDropped counts what the device has dropped since the last time.
func (p *VFPort) countDropped() {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := p.dev.Dropped()
	p.n.count.Add(counter.VFTxDropped, d-p.dropped)
	p.dropped = d
}

// mirror gives the device the NIC's settings. What it refuses does not keep it from being
// used, as with hv_netvsc. It is set up when it comes and with the NIC, and not for a change of
// settings, nor when the NIC attaches anew for one: a VF that its users have set down stays
// down.
func (p *VFPort) mirror(a vf.Action) {
	n := p.n
	err := errors.Join(p.dev.SetMTU(n.MTU()), p.dev.SetMAC(n.MAC()), p.dev.SetPromiscuous(n.vf.promisc.Load()))
	switch a.Why {
	case vf.Appeared, vf.UserUp, vf.UserDown:
		err = errors.Join(err, p.dev.SetUp(a.On))
	}
	if err != nil {
		n.log.Warn("netvsc: the VF does not take all settings", "err", err)
	}
}

// change changes the VF as the NIC is about to be, if there is one, and returns what undoes
// that. A VF that refuses is the end of the change, as with hv_netvsc.
func (v *vfPath) change(do, undo func(VF) error) (back func() error, err error) {
	p := v.port.Load()
	if p == nil {
		return func() error { return nil }, nil
	}
	if err := do(p.dev); err != nil {
		return nil, fmt.Errorf("of the VF: %w", err)
	}
	return func() error { return undo(p.dev) }, nil
}

// channel returns the channel with the number of a VF's queue, nil if there are no channels.
func (s *session) channel(queue int) *queue {
	if len(s.queues) == 0 {
		return nil
	}
	return s.queues[uint(queue)%uint(len(s.queues))]
}

// Path returns the path on which frames are sent now.
func (n *NIC) Path() vf.Path {
	if n.vf.active.Load() != nil {
		return vf.VF
	}
	return vf.Synthetic
}

// VFStatus returns what is there of a virtual function, and what is missing.
func (n *NIC) VFStatus() (s nic.VFStatus) {
	if known := n.vf.status.Load(); known != nil {
		s = *known
	}
	s.Wanted = n.vf.on
	return s
}

// OnPath has f called now, and whenever the path has changed, from one goroutine that
// moves it. There is one f; nil for none. It must not ask for changes of the NIC.
func (n *NIC) OnPath(f func()) {
	if f == nil {
		n.vf.onPath.Store(nil)
		return
	}
	n.vf.onPath.Store(&f)
	f()
}

// AwaitPath waits until frames are sent on a path, or ctx ends.
func (n *NIC) AwaitPath(ctx context.Context, path vf.Path) error {
	for {
		moved := *n.vf.moved.Load()
		if n.Path() == path {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return fmt.Errorf("netvsc: wait for the data path to move: %w", context.Cause(ctx))
		}
	}
}

// turned tells that the path has moved.
func (v *vfPath) turned() {
	next := make(chan struct{})
	close(*v.moved.Swap(&next))
	if f := v.onPath.Load(); f != nil {
		(*f)()
	}
}
