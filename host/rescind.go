package host

import (
	"errors"
	"fmt"
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
	return h.change("rescind", name, func(p *port) error {
		if p.offered == nil {
			return errors.New("the NIC is taken away already")
		}
		takeAway(p)
		p.offered = nil
		return nil
	})
}

// takeAway takes NICs from their guests. First nothing more goes to the guests, and only
// when they have returned the receive sections that they had are they told: once it has been
// told, Linux can't send a receive completion any more, and waits for ever until it has.
func takeAway(ports ...*port) {
	for _, p := range ports {
		p.dev.Unplug()
	}
	end := time.Now().Add(drainTime)
	for _, p := range ports {
		for p.dev.Info().Receive.InFlight > 0 && time.Now().Before(end) {
			time.Sleep(time.Millisecond)
		}
		p.offered.Rescind()
	}
}

// drainTime is how long guests get to return their receive sections.
const drainTime = time.Second

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
