package host

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"hvnet/vmbus"
)

// ErrNoGuest is returned for a port that no guest has.
var ErrNoGuest = errors.New("no guest has this port")

// ErrNoPort is returned for a name that no port has, of a guest or another one.
var ErrNoPort = errors.New("there is no such port")

// Rescind takes the NIC of a port away from its guest, in the middle of whatever the
// guest does with it. The guest stays attached.
func (h *Host) Rescind(name string) error {
	var leaving *port
	err := h.change("rescind", name, func(p *port) error {
		if p.offered == nil || p.leaving {
			return errors.New("the NIC is taken away already")
		}
		p.leaving, leaving = true, p
		return nil
	})
	if err != nil {
		return err
	}
	takeAway(context.Background(), leaving)
	h.mu.Lock()
	defer h.mu.Unlock()
	leaving.offered, leaving.leaving = nil, false
	return nil
}

// takeAway takes NICs from their guests. First the cable is pulled, and only when the guests
// have come to rest are they told: from then on Linux can neither complete what it has
// received nor take the completions of what it has sent, and waits for ever until it has.
func takeAway(ctx context.Context, ports ...*port) {
	ctx, cancel := context.WithTimeout(ctx, restTime)
	defer cancel()
	var all sync.WaitGroup
	for _, p := range ports {
		all.Go(func() {
			p.dev.Unplug()
			p.dev.Rest(ctx)
			p.offered.Rescind()
		})
	}
	all.Wait()
}

// restTime is how long guests get to come to rest. Linux looks at its link every two
// seconds at most.
const restTime = 3 * time.Second

// Offer gives the NIC of a port back to its guest, after Rescind. The guest sees it
// as soon as it has let go of it.
func (h *Host) Offer(name string) error {
	return h.change("offer", name, func(p *port) error {
		if p.offered != nil {
			return errors.New("the guest has the NIC")
		}
		return p.offer()
	})
}

// change does something to the port of an attached guest.
func (h *Host) change(what, name string, f func(*port) error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.ports[name]
	if p == nil {
		return fmt.Errorf("%s port %s: %w", what, name, ErrNoGuest)
	}
	if err := f(p); err != nil {
		return fmt.Errorf("%s port %s: %w", what, name, err)
	}
	return nil
}

// offer offers the port's NIC on its guest's bus.
func (p *port) offer() (err error) {
	backend := p.dev.Backend
	if p.watch != nil {
		backend = p.watch.Backend(backend)
	}
	p.offered, err = p.bus.Offer(vmbus.Offer{Class: vmbus.ClassNIC, Instance: portInstance(p.name)}, backend)
	return err
}
