package guest

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"hvnet/hv"
	"hvnet/ring"
	"hvnet/vmbus"
	"hvnet/vmbus/channel"
)

// A Device is an offered device. It implements [channel.Device].
type Device struct {
	b       *Bus
	ch      *chanState
	offer   vmbus.Offer
	version vmbus.Version
	gone    chan struct{}

	open map[*channel.Channel]*rings // under the bus's lock
}

var _ channel.Device = (*Device)(nil)

// rings is what an open channel holds.
type rings struct {
	ch     *chanState
	region hv.Region
	gpadl  uint32
}

// Offer returns the offer of the primary channel.
func (d *Device) Offer() vmbus.Offer { return d.offer }

// Version returns the negotiated VMBus version.
func (d *Device) Version() vmbus.Version { return d.version }

// VPs returns the number of virtual processors of the guest.
func (d *Device) VPs() int { return d.b.p.VPs() }

// Node returns the NUMA node of a virtual processor.
func (d *Device) Node(vp int) int { return d.b.m.placement.node[vp] }

// Rescinded is closed when the host has taken the device away or is gone.
func (d *Device) Rescinded() <-chan struct{} { return d.gone }

// Alloc allocates guest memory.
func (d *Device) Alloc(bytes int) (hv.Region, error) { return d.b.p.Alloc(bytes) }

// Free frees guest memory. Memory that the host may still hold, because it never
// confirmed the end of a GPADL, stays allocated until the host does.
func (d *Device) Free(r hv.Region) error { return d.b.free(r) }

func (b *Bus) free(r hv.Region) error {
	b.mu.Lock()
	later := b.m.freeLater(r)
	b.mu.Unlock()
	if later {
		return nil
	}
	err := b.p.Free(r)
	select {
	case <-b.p.Done():
		return nil // the memory went with the partition, or will
	default:
		return err
	}
}

// Share makes a region known to the host and returns its GPADL id.
func (d *Device) Share(ctx context.Context, r hv.Region) (uint32, error) {
	id, err := d.b.share(ctx, d.ch, r)
	if err != nil {
		return 0, fmt.Errorf("share %d bytes with the host: %w", len(r.Bytes), err)
	}
	return id, nil
}

func (b *Bus) share(ctx context.Context, ch *chanState, r hv.Region) (id uint32, err error) {
	_, err = b.ask(ctx, "GPADL_CREATED", func(m *machine) (w wait, err error) {
		id, w, err = m.create(ch, r)
		return w, err
	})
	return id, err
}

// Unshare takes a GPADL back: when it returns nil the host holds no reference. It
// works after the device was rescinded too.
func (d *Device) Unshare(ctx context.Context, gpadl uint32) error {
	err := d.b.unshare(ctx, d.ch, gpadl)
	if err != nil {
		return fmt.Errorf("take GPADL %#x back: %w", gpadl, err)
	}
	return nil
}

// errNothing ends an ask that has nothing to ask.
var errNothing = errors.New("nothing to do")

func (b *Bus) unshare(ctx context.Context, ch *chanState, id uint32) error {
	_, err := b.ask(ctx, "GPADL_TORNDOWN", func(m *machine) (wait, error) {
		g := m.gpadls[id]
		switch {
		case g == nil && ch.rescinded && m.channels[ch.offer.Relid] != ch:
			return wait{}, errNothing // the connection ended, and with it all GPADLs
		case g == nil || g.ch != ch:
			return wait{}, errors.New("the channel has no such GPADL")
		}
		return m.unshare(id)
	})
	if err == errNothing {
		return nil
	}
	return err
}

// Retarget has the host interrupt another virtual processor for an open channel.
// Before version 5.3 there is no confirmation, and events may come by the old one
// for a while; they find the channel all the same.
func (d *Device) Retarget(ctx context.Context, c *channel.Channel, vp int) error {
	err := d.retarget(ctx, c, vp)
	if err != nil {
		return fmt.Errorf("move channel %d to virtual processor %d: %w", c.Index, vp, err)
	}
	return nil
}

func (d *Device) retarget(ctx context.Context, c *channel.Channel, vp int) error {
	if vp < 0 || vp >= d.VPs() {
		return fmt.Errorf("the guest has %d virtual processors", d.VPs())
	}
	d.b.mu.Lock()
	r := d.open[c]
	confirmed := d.version.HasModifyChannelResponse()
	d.b.mu.Unlock()
	if r == nil {
		return errNotOpen
	}
	var err error
	if confirmed {
		_, err = d.b.ask(ctx, "MODIFYCHANNEL_RESPONSE", func(m *machine) (wait, error) { return m.modify(r.ch, vp) })
	} else if e := d.b.say(ctx, func(m *machine) { _, err = m.modify(r.ch, vp) }); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	d.b.mu.Lock()
	defer d.b.mu.Unlock()
	d.b.m.moved(r.ch, vp)
	c.Move(vp)
	return nil
}

var errNotOpen = errors.New("the channel is not open")

// Open opens a channel of the device. Which processor it interrupts was decided when it
// was offered, see [Config].
func (d *Device) Open(ctx context.Context, index, ringBytes int) (*channel.Channel, error) {
	c, err := d.openChannel(ctx, index, ringBytes)
	if err != nil {
		return nil, fmt.Errorf("open channel %d: %w", index, err)
	}
	return c, nil
}

func (d *Device) openChannel(ctx context.Context, index, ringBytes int) (*channel.Channel, error) {
	switch {
	case index < 0:
		return nil, errors.New("a negative index")
	case ringBytes < 2*hv.PageSize || ringBytes%hv.PageSize != 0 || 2*ringBytes/hv.PageSize > vmbus.MaxGPADLPages:
		return nil, fmt.Errorf("rings of %d bytes: want whole pages, two at least, and at most %d for both",
			ringBytes, vmbus.MaxGPADLPages)
	}
	ch, err := d.reserve(ctx, index)
	if err != nil {
		return nil, err
	}
	r := &rings{ch: ch}
	c, err := d.makeRings(ctx, r, ringBytes)
	if err != nil {
		return nil, errors.Join(err, d.b.abort(ctx, r, nil))
	}
	// The host may send and signal before its answer is here.
	d.b.relids[ch.offer.Relid].Store(c)
	_, err = d.b.ask(ctx, "OPENCHANNEL_RESULT", func(m *machine) (wait, error) {
		return m.open(ch, r.gpadl, ringBytes/hv.PageSize)
	})
	if err != nil {
		return nil, errors.Join(err, d.b.abort(ctx, r, c))
	}
	d.b.mu.Lock()
	d.open[c] = r
	d.b.mu.Unlock()
	return c, nil
}

// reserve waits for the offer of a channel and reserves it for opening.
func (d *Device) reserve(ctx context.Context, index int) (ch *chanState, err error) {
	ctx, cancel := context.WithTimeout(ctx, d.b.cfg.Timeout)
	defer cancel()
	err = d.b.await(ctx, func(m *machine) (bool, error) {
		if d.ch.rescinded {
			return false, channel.ErrRescinded
		}
		if ch = m.sub(d.ch, index); ch == nil {
			return false, nil
		}
		return true, m.beginOpen(ch)
	})
	if err != nil && ch == nil {
		err = fmt.Errorf("wait for its offer: %w", err)
	}
	return ch, err
}

// makeRings allocates and shares the rings and makes our end of the channel.
func (d *Device) makeRings(ctx context.Context, r *rings, ringBytes int) (c *channel.Channel, err error) {
	if r.region, err = d.b.p.Alloc(2 * ringBytes); err != nil {
		return nil, err
	}
	up, down := r.region.Bytes[:ringBytes], r.region.Bytes[ringBytes:]
	ring.Init(up)
	ring.Init(down)
	if r.gpadl, err = d.b.share(ctx, r.ch, r.region); err != nil {
		return nil, err
	}
	return channel.New(channel.Params{
		Relid: r.ch.offer.Relid, Index: int(r.ch.offer.SubChannel), VP: r.ch.vp,
		Out: up, In: down,
		Signal: d.b.signal(r.ch.offer),
	})
}

// signal returns how the host is signalled for a channel: by a hypercall, or by a bit
// in the monitor page where the host has asked for that.
func (b *Bus) signal(o vmbus.Offer) func() {
	if o.Monitored {
		page, id := b.monitor.Bytes[hv.PageSize:], o.MonitorID
		return func() { hv.TriggerMonitor(page, id) }
	}
	return func() { b.p.SignalEvent(o.ConnID) } // no error but a host that is gone
}

// abort takes back an attempt to open. The context of the attempt may have ended,
// so what must be said to the host has a time of its own.
func (b *Bus) abort(ctx context.Context, r *rings, c *channel.Channel) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.cfg.Timeout)
	defer cancel()
	if c == nil {
		b.mu.Lock()
		g := b.m.gpadls[r.gpadl]
		confirmed := g != nil && g.created
		b.mu.Unlock()
		if !confirmed {
			// If the host confirms it later the machine takes it back.
			err := b.say(ctx, func(m *machine) { m.closed(r.ch) })
			if r.region.Bytes != nil {
				err = errors.Join(err, b.free(r.region))
			}
			return err
		}
	}
	return b.shut(ctx, r, c)
}

// shut closes a channel that is open or may be, and frees its rings.
func (b *Bus) shut(ctx context.Context, r *rings, c *channel.Channel) error {
	if c != nil {
		b.relids[r.ch.offer.Relid].CompareAndSwap(c, nil)
		c.Close()
	}
	err := b.say(ctx, func(m *machine) { m.close(r.ch) })
	// Nothing answers CLOSECHANNEL: this is what tells that the host has let go.
	err = errors.Join(err, b.unshare(ctx, r.ch, r.gpadl))
	err = errors.Join(err, b.say(ctx, func(m *machine) { m.closed(r.ch) }))
	return errors.Join(err, b.free(r.region))
}

// Close closes a channel and frees its rings. The caller has stopped using it.
// Closing the primary closes all sub-channels first, together: each is a wait.
func (d *Device) Close(ctx context.Context, c *channel.Channel) error {
	subs := d.subs(c)
	errs := make([]error, len(subs), len(subs)+1)
	var closing sync.WaitGroup
	for i, sub := range subs {
		closing.Go(func() { errs[i] = d.closeChannel(ctx, sub) })
	}
	closing.Wait()
	return errors.Join(append(errs, d.closeChannel(ctx, c))...)
}

func (d *Device) closeChannel(ctx context.Context, c *channel.Channel) error {
	d.b.mu.Lock()
	r := d.open[c]
	delete(d.open, c)
	d.b.mu.Unlock()
	err := errNotOpen
	if r != nil {
		err = d.b.shut(ctx, r, c)
	}
	if err != nil {
		return fmt.Errorf("close channel %d: %w", c.Index, err)
	}
	return nil
}

// subs returns the open sub-channels if c is the primary channel.
func (d *Device) subs(c *channel.Channel) (subs []*channel.Channel) {
	if c.Index != 0 {
		return nil
	}
	d.b.mu.Lock()
	defer d.b.mu.Unlock()
	for sub := range d.open {
		if sub != c {
			subs = append(subs, sub)
		}
	}
	return subs
}
