package host_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"hvnet/netvsc"
	"hvnet/nic"
)

// A pairVF is the host's end of a virtual function without hardware: a queue each way, and
// a goroutine behind each. Its other end is a guestVF.
type pairVF struct {
	t        testing.TB
	down, up *line // to the guest, and from it
	guest    *guestVF
	closed   atomic.Bool

	// step, if not nil, is called at each step of a move, with what it is: "start", "drain" and
	// "close" of the host's end, "mtu", "up", "down", "first" (frame sent) of the guest's.
	step func(what string)
}

// newPair returns a function for the NIC with an address.
func newPair(t testing.TB, mac nic.MAC, serial uint32) *pairVF {
	v := &pairVF{t: t}
	v.guest = &guestVF{v: v, mac: mac, serial: serial, used: make(chan struct{})}
	v.down = newLine(v.guest.receive)
	return v
}

func (v *pairVF) at(what string) {
	if v.step != nil {
		v.step(what)
	}
}

func (v *pairVF) WriteFrames(frames []nic.Frame) {
	if v.closed.Load() {
		v.t.Error("the host wrote to a function that it has closed")
	}
	v.down.put(frames)
}

func (v *pairVF) Start(to nic.Sink) {
	v.up = newLine(func(b []byte) { to.WriteFrames([]nic.Frame{{Head: b}}) })
	v.at("start")
}

func (v *pairVF) Drain(ctx context.Context) error {
	v.at("drain")
	return errors.Join(v.down.drain(ctx), v.up.drain(ctx))
}

// Close loses what is in the queues, and has the guest's device vanish.
func (v *pairVF) Close() error {
	v.at("close")
	if v.closed.Swap(true) {
		v.t.Error("a function was closed twice")
	}
	v.down.close()
	if v.up != nil {
		v.up.close()
	}
	v.guest.vanish()
	return nil
}

// A guestVF is the guest's end: its device.
type guestVF struct {
	v      *pairVF
	mac    nic.MAC
	serial uint32

	dropped atomic.Uint64
	lost    func([]byte)  // if not nil, gets what it drops
	used    chan struct{} // closed when it has sent a frame
	once    sync.Once

	mu   sync.Mutex
	port *netvsc.VFPort // that it is joined by
}

// joinTo joins the device to a NIC and sets it going.
func (d *guestVF) joinTo(ctx context.Context, n *netvsc.NIC) error {
	port, err := n.AddVF(ctx, d)
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.port = port
	d.mu.Unlock()
	if d.v.closed.Load() {
		port.Gone()
		return nil
	}
	port.Changed(netvsc.VFState{Up: true, Carrier: true})
	return nil
}

// joined returns the port by which it is joined, nil if it is not.
func (d *guestVF) joined() *netvsc.VFPort {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.port
}

// vanish takes the device away from the guest.
func (d *guestVF) vanish() {
	if p := d.joined(); p != nil {
		p.Gone()
	}
}

// receive takes what comes from the host.
func (d *guestVF) receive(b []byte) {
	if p := d.joined(); p != nil {
		p.WriteFrames([]nic.Frame{{Head: b}})
	} else if d.lost != nil {
		d.lost(b)
	}
}

// WriteFrames sends. What is sent by a device that is gone is lost.
func (d *guestVF) WriteFrames(frames []nic.Frame) {
	select {
	case <-d.done():
		d.v.t.Error("the driver sends by a device that it has let go of")
	default:
	}
	d.once.Do(func() {
		close(d.used)
		d.v.at("first")
	})
	refused := d.v.up.put(frames)
	d.dropped.Add(uint64(len(refused)))
	if d.lost != nil {
		for _, b := range refused {
			d.lost(b)
		}
	}
}

// done is closed when the driver has let go of the device.
func (d *guestVF) done() <-chan struct{} {
	if p := d.joined(); p != nil {
		return p.Done()
	}
	return nil
}

func (d *guestVF) MAC() nic.MAC              { return d.mac }
func (d *guestVF) Serial() uint32            { return d.serial }
func (d *guestVF) Dropped() uint64           { return d.dropped.Load() }
func (d *guestVF) SetMTU(int) error          { d.v.at("mtu"); return nil }
func (d *guestVF) SetMAC(nic.MAC) error      { return nil }
func (d *guestVF) SetPromiscuous(bool) error { return nil }

func (d *guestVF) SetUp(up bool) error {
	what := "down"
	if up {
		what = "up"
	}
	d.v.at(what)
	return nil
}

// A line is a queue with a goroutine behind it.
type line struct {
	mu     sync.Mutex
	change sync.Cond // of what follows
	queue  [][]byte
	most   int  // that it was long
	held   bool // nothing leaves it
	closed bool
	done   chan struct{}
}

func newLine(pass func([]byte)) *line {
	l := &line{done: make(chan struct{})}
	l.change.L = &l.mu
	go func() {
		defer close(l.done)
		l.mu.Lock()
		defer l.mu.Unlock()
		for !l.closed {
			if len(l.queue) == 0 || l.held {
				l.change.Wait()
				continue
			}
			b := l.queue[0]
			l.mu.Unlock()
			pass(b)
			l.mu.Lock()
			l.queue = l.queue[1:]
			l.change.Broadcast()
		}
	}()
	return l
}

// put appends frames; it returns those that a line takes no more.
func (l *line) put(frames []nic.Frame) (refused [][]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range frames {
		b := make([]byte, frames[i].Len())
		frames[i].CopyTo(b)
		if l.closed {
			refused = append(refused, b)
			continue
		}
		l.queue = append(l.queue, b)
	}
	l.most = max(l.most, len(l.queue))
	l.change.Broadcast()
	return refused
}

// hold has everything stay in the line, until it is closed or let go.
func (l *line) hold(on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = on
	l.change.Broadcast()
}

// await waits until so many frames are in the line.
func (l *line) await(ctx context.Context, n int) error {
	return l.until(ctx, func() bool { return len(l.queue) >= n })
}

func (l *line) drain(ctx context.Context) error {
	return l.until(ctx, func() bool { return len(l.queue) == 0 })
}

func (l *line) until(ctx context.Context, is func() bool) error {
	defer context.AfterFunc(ctx, func() { l.mu.Lock(); defer l.mu.Unlock(); l.change.Broadcast() })()
	l.mu.Lock()
	defer l.mu.Unlock()
	for !is() && !l.closed && ctx.Err() == nil {
		l.change.Wait()
	}
	return ctx.Err()
}

// close loses what is in the queue, where it stays.
func (l *line) close() {
	l.mu.Lock()
	l.closed = true
	l.change.Broadcast()
	l.mu.Unlock()
	<-l.done
}
