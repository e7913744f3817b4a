package netvsp

import (
	"errors"
	"fmt"

	"hvnet/vmbus/channel"
)

// A backend is the device for one guest: a session for each time that the guest
// has the primary channel open. Its methods come one at a time.
type backend struct {
	d      *Device
	bus    channel.Bus
	number int      // of the device's backends, from 1
	s      *session // nil while the primary channel is closed
}

var (
	errInUse = errors.New("another guest uses the device")
	errOpen  = errors.New("the channel is open")
)

// Open starts a session with the primary channel, or adds a sub-channel to it.
func (b *backend) Open(c *channel.Channel) error {
	if c.Index == 0 {
		return b.openPrimary(c)
	}
	if b.s == nil {
		return fmt.Errorf("open channel %d: the primary channel is closed", c.Index)
	}
	return b.s.addChannel(c)
}

func (b *backend) openPrimary(c *channel.Channel) error {
	if b.s != nil {
		return fmt.Errorf("open primary channel: %w", errOpen)
	}
	port, err := b.d.open(b)
	if err != nil {
		return fmt.Errorf("open primary channel: %w", err)
	}
	s := newSession(b.d, b.bus, port, c)
	if !b.d.live.CompareAndSwap(nil, s) {
		return fmt.Errorf("open primary channel: %w", errInUse)
	}
	b.d.opened.Add(1) // now that Info shows the session
	b.s = s
	s.follow() // the link may have changed while the session was not to be seen
	if b.d.unplugged(b) {
		s.unplug()
	}
	s.primary().start()
	return nil
}

// Close takes a channel away; the primary takes the whole session with it.
func (b *backend) Close(c *channel.Channel) {
	if b.s == nil {
		return
	}
	if c.Index != 0 {
		b.s.dropChannel(c)
		return
	}
	b.end()
}

// Revoke takes a buffer away.
func (b *backend) Revoke(gpadl uint32) {
	if b.s != nil {
		b.s.revoke(gpadl)
	}
}

// Removed ends everything: the guest is gone.
func (b *backend) Removed() {
	b.end()
	b.d.disconnect()
}

// end ends the session. Nothing touches its rings or buffers any more when it
// returns.
func (b *backend) end() {
	if b.s == nil {
		return
	}
	b.d.live.CompareAndSwap(b.s, nil)
	b.s.close()
	b.d.function.forget(b.s)
	b.s = nil
}
