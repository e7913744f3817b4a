package conform

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"hvnet/hv"
	"hvnet/ring"
	"hvnet/vmbus/channel"
)

// retry is how often a relay looks for room by itself, for guests that don't signal
// when they make some.
const retry = 5 * time.Millisecond

// A relay carries the packets of a channel between the guest and the device.
type relay struct {
	d     *device
	guest *channel.Channel // the bus's
	near  *channel.Channel // our end of the detour
	far   *channel.Channel // the device's

	up, down way
	offer    atomic.Int32 // sub-channels to offer when what the device has said is on its way

	asked        chan chan struct{} // somebody waits until everything is carried
	quit, exited chan struct{}
	once         sync.Once
	contents     contents
}

// A way is one direction of a relay.
type way struct {
	from     Side
	in, out  *channel.Channel
	packet   []byte
	waiting  []byte // a packet that did not fit; of packet
	reported bool   // that the ring is corrupt
}

func newRelay(d *device, c *channel.Channel) (*relay, error) {
	r := &relay{d: d, guest: c, asked: make(chan chan struct{}), quit: make(chan struct{}), exited: make(chan struct{})}
	// The detour has room for what the guest's rings have room for.
	up, down := make([]byte, ring.HeaderSize+c.In.Size()), make([]byte, ring.HeaderSize+c.Out.Size())
	ring.Init(up)
	ring.Init(down)
	var err error
	r.far, err = channel.New(channel.Params{Relid: c.Relid, Index: c.Index, VP: c.VP(), Out: down, In: up,
		Signal: func() { r.near.Wake() }})
	if err != nil {
		return nil, fmt.Errorf("watch channel %d: %w", c.Relid, err)
	}
	r.near, err = channel.New(channel.Params{Relid: c.Relid, Index: c.Index, VP: c.VP(), Out: up, In: down,
		Signal: func() { r.far.Wake() }})
	if err != nil {
		return nil, fmt.Errorf("watch channel %d: %w", c.Relid, err)
	}
	r.up = way{from: Guest, in: c, out: r.near, packet: make([]byte, min(len(up), ring.MaxPacket))}
	r.down = way{from: Host, in: r.near, out: c, packet: make([]byte, min(len(down), ring.MaxPacket))}
	r.contents.d = d
	return r, nil
}

func (r *relay) start() {
	go func() {
		defer close(r.exited)
		if err := hv.Guard(r.run); err != nil {
			r.d.fault(err)
		}
	}()
}

func (r *relay) stop() {
	r.once.Do(func() { close(r.quit) })
	<-r.exited
}

// catchUp has the relay carry what there is, and waits for it.
func (r *relay) catchUp() {
	done := make(chan struct{})
	select {
	case r.asked <- done:
	case <-r.exited:
		return
	}
	select {
	case <-done:
	case <-r.exited:
	}
}

// run carries packets until the relay is stopped.
func (r *relay) run() {
	timer := time.NewTimer(retry)
	timer.Stop()
	defer timer.Stop()
	var done chan struct{} // who waits for the next round
	for {
		if done == nil {
			select {
			case done = <-r.asked:
			default:
			}
		}
		r.guest.In.Mask()
		r.near.In.Mask()
		// What the device said before it wanted to offer goes out before the offer.
		offer := r.offer.Swap(0)
		up := r.carry(&r.up)
		down := r.carry(&r.down)
		if done != nil {
			close(done)
			done = nil
		}
		switch {
		case offer > 0 && r.down.waiting != nil:
			r.offer.CompareAndSwap(0, offer) // not yet
		case offer > 0:
			r.d.Bus.OfferSubChannels(int(offer)) // no error but for a number that the device does not ask for
		}
		if up && r.guest.In.Err() == nil && r.guest.In.Unmask() || down && r.near.In.Err() == nil && r.near.In.Unmask() {
			continue
		}
		var tick <-chan time.Time
		if !up || !down {
			timer.Reset(retry)
			tick = timer.C
		}
		select {
		case done = <-r.asked:
		case <-r.guest.Event():
		case <-r.near.Event():
		case <-tick:
		case <-r.guest.Closed():
			r.far.Close()
			r.idle()
			return
		case <-r.quit:
			return
		}
	}
}

// idle waits until the relay is stopped; there is nothing to carry any more.
func (r *relay) idle() {
	for {
		select {
		case done := <-r.asked:
			close(done)
		case <-r.quit:
			return
		}
	}
}

// carry takes what is there in one direction to the other side. It returns false if
// something is left for want of room.
func (r *relay) carry(w *way) (all bool) {
	w.out.Lock()
	defer w.out.Unlock()
	defer w.in.Release()
	defer w.out.Flush()
	for {
		if w.waiting == nil {
			b, err := w.in.In.Next(w.packet)
			if err == ring.ErrCorrupt && !w.reported && w.from == Guest {
				w.reported = true
				r.d.corrupt(w.in.In.Err())
			}
			if err != nil {
				return true
			}
			r.d.w.Packet(w.from, r.guest.Relid, b, r.contents.of(w.from, b))
			w.waiting = b
		}
		switch err := w.out.Out.Put(w.waiting, nil); err {
		case ring.ErrFull:
			w.out.Flush()
			if !w.out.Out.AwaitRoom(ring.Need(len(w.waiting))) {
				return false
			}
		case nil:
			w.waiting = nil
			w.out.Out.StopAwaiting()
		default: // the other side's ring is dead, or can never hold this
			w.waiting = nil
			if err == ring.ErrCorrupt && !w.reported && w.from == Host {
				w.reported = true
				r.d.corrupt(w.out.Out.Err())
			}
		}
	}
}
