package host

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"hvnet/hv"
	"hvnet/rule"
	"hvnet/vmbus"
	"hvnet/vmbus/channel"
)

// ErrOffered is returned for a device whose class and instance are offered already.
var ErrOffered = errors.New("the device is offered already")

// Offered is a device that the guest is, or will be, offered. It is the
// [channel.Bus] of the device's backend.
type Offered struct {
	s       *Server
	id      deviceID
	offer   vmbus.Offer
	backend channel.Backend
	open    map[uint32]*openRings // by relid; the owner goroutine's
	gone    chan struct{}         // closed when it was withdrawn and the guest has let go

	withdrawn bool // under the server's lock

	mu     sync.Mutex
	shared map[uint32]*sharedPages // by GPADL id
}

// openRings is what an open channel holds.
type openRings struct {
	c  *channel.Channel
	up *hv.Mapping
	dn *hv.Mapping
	vp atomic.Int32 // to interrupt, -1 for none
}

// sharedPages is a GPADL that the guest has made on the device.
type sharedPages struct {
	pfns   []uint64 // nil if it is not one range of whole pages
	mapped bool     // the backend has asked for it
}

// Offer adds a device, before Serve or while the guest is served (the guest then
// sees it arrive). Of o, class, instance, flags, MMIO and user data count; the
// rest is assigned. open is called once, before Offer returns, and makes the
// backend, which lives through all connections of the guest. The error is
// ErrOffered for a device that is offered already.
func (s *Server) Offer(o vmbus.Offer, open func(channel.Bus) channel.Backend) (*Offered, error) {
	d := &Offered{s: s, offer: o, open: make(map[uint32]*openRings), shared: make(map[uint32]*sharedPages),
		gone: make(chan struct{})}
	s.mu.Lock()
	for _, e := range s.offered {
		if !e.withdrawn && e.offer.Class == o.Class && e.offer.Instance == o.Instance {
			s.mu.Unlock()
			return nil, fmt.Errorf("offer %s: %w", o.Instance, ErrOffered)
		}
	}
	s.nextID++
	d.id = s.nextID
	s.offered[d.id] = d
	s.mu.Unlock()

	d.backend = open(d)
	s.order(func(m *machine) { m.add(d.id, o) })
	return d, nil
}

// Rescind takes the device away from the guest. It returns at once; the backend's
// Removed tells the end, if the guest ever used it. Rescinding twice is harmless.
// The same device may then be offered anew: the guest sees it when it has
// released the old one.
func (d *Offered) Rescind() {
	d.s.mu.Lock()
	d.withdrawn = true
	d.s.mu.Unlock()
	d.s.order(func(m *machine) { m.withdraw(d.id) })
}

// Released is closed when the guest has let go of the device after Rescind. A guest
// that leaves instead ends Serve.
func (d *Offered) Released() <-chan struct{} { return d.gone }

// Version returns the negotiated VMBus version.
func (d *Offered) Version() vmbus.Version { return vmbus.Version(d.s.version.Load()) }

// VPs returns the number of virtual processors of the guest.
func (d *Offered) VPs() int { return d.s.g.VPs() }

// Memory returns the guest's memory.
func (d *Offered) Memory() *hv.Memory { return d.s.g.Memory() }

// OfferSubChannels offers sub-channels 1 to n to the guest, but for those that it
// has. Nothing happens if the guest is just closing the device.
func (d *Offered) OfferSubChannels(n int) error {
	if n < 1 || n > vmbus.RelidLimit-2 {
		return fmt.Errorf("offer %d sub-channels: want 1 to %d", n, vmbus.RelidLimit-2)
	}
	d.s.order(func(m *machine) { m.offerSubs(d.id, n) })
	return nil
}

// Map maps a GPADL that the guest has made on the device. A backend calls it
// under the lock that its Revoke takes, so that it is either told of the end of
// the GPADL or doesn't get it.
func (d *Offered) Map(gpadl uint32) (*hv.Mapping, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	g := d.shared[gpadl]
	switch {
	case g == nil:
		return nil, fmt.Errorf("map GPADL %#x: the guest has made none with this id", gpadl)
	case g.pfns == nil:
		return nil, fmt.Errorf("map GPADL %#x: it is not one range of whole pages", gpadl)
	}
	p, err := d.s.g.Memory().Map(g.pfns)
	if err != nil {
		return nil, fmt.Errorf("map GPADL %#x: %w", gpadl, err)
	}
	g.mapped = true
	return p, nil
}

// What follows is called by the owner goroutine.

func (d *Offered) share(gpadl uint32, pfns []uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shared[gpadl] = &sharedPages{pfns: pfns}
}

func (d *Offered) revoke(gpadl uint32) {
	d.mu.Lock()
	g := d.shared[gpadl]
	delete(d.shared, gpadl)
	d.mu.Unlock()
	if g != nil && g.mapped {
		d.backend.Revoke(gpadl)
	}
}

func (d *Offered) openChannel(a openChannel) (err error) {
	r := &openRings{}
	r.vp.Store(int32(a.vp))
	mem := d.s.g.Memory()
	if r.up, err = mem.Map(a.up); err != nil {
		return err
	}
	if r.dn, err = mem.Map(a.down); err != nil {
		r.up.Close()
		return err
	}
	relid := int(a.relid)
	p := channel.Params{
		Relid: a.relid, Index: a.index, VP: a.vp,
		Out: r.dn.Bytes, In: r.up.Bytes,
		Signal: func() {
			if vp := r.vp.Load(); vp >= 0 {
				d.s.g.SetFlag(int(vp), relid) // no error but a guest that is gone
			}
		},
	}
	// The guest can have truncated the memory below us.
	fault := hv.Guard(func() { r.c, err = channel.New(p) })
	if err = errors.Join(fault, rule.Ring.Err(err)); err != nil {
		r.unmap()
		return err
	}
	// The guest may signal as soon as it knows, and the backend before.
	d.open[a.relid] = r
	d.s.channels[a.relid].Store(r.c)
	if err := d.backend.Open(r.c); err != nil {
		d.release(a.relid)
		return err
	}
	// Anything that the guest has put in before we listened.
	r.c.Wake()
	return nil
}

func (d *Offered) closeChannel(relid uint32) {
	r := d.open[relid]
	r.c.Close()
	d.backend.Close(r.c)
	d.release(relid)
}

func (d *Offered) release(relid uint32) {
	d.s.channels[relid].Store(nil)
	r := d.open[relid]
	delete(d.open, relid)
	r.c.Close()
	r.unmap()
}

func (r *openRings) unmap() {
	r.up.Close()
	r.dn.Close()
}

func (d *Offered) remove() {
	d.mu.Lock()
	clear(d.shared)
	d.mu.Unlock()
	d.backend.Removed()
}

// retarget makes an open channel interrupt another virtual processor.
func (d *Offered) retarget(relid uint32, vp int) { d.open[relid].vp.Store(int32(vp)) }
