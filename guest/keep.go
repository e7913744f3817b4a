package guest

import (
	"context"
	"errors"
	"time"

	"hvnet/hv"
	"hvnet/netvsc"
	"hvnet/vmbus"
	"hvnet/vmbus/channel"
	vmbusguest "hvnet/vmbus/guest"
)

// Why a guest's NIC has no device, besides netvsc.ErrSilent. See [Guest.OnChange].
var (
	ErrHostGone  = errors.New("the host is gone")
	ErrTakenAway = errors.New("the host has taken the NIC away")
)

// An attachment is one connection to a host.
type attachment struct {
	part hv.Partition
	bus  *vmbusguest.Bus
	dev  channel.Device
}

// connect joins the bus of the host on the other side of p, which it owns, and takes
// the NIC there.
func connect(ctx context.Context, p hv.Partition, cfg Config) (*attachment, error) {
	soon, done := bounded(ctx, p)
	bus, err := vmbusguest.Connect(soon, p, vmbusguest.Config{Nodes: cfg.Nodes, Log: cfg.Log})
	done()
	if err != nil {
		return nil, err
	}
	at := &attachment{part: p, bus: bus}
	if at.dev, err = bus.Device(ctx, vmbus.ClassNIC); err != nil {
		return nil, errors.Join(err, at.close())
	}
	return at, nil
}

// answerTime bounds a conversation with the host that takes some milliseconds.
const answerTime = 10 * time.Second

// tidyTime is what a conversation that took too long gets to end by itself, which
// gives the better reason.
const tidyTime = 100 * time.Millisecond

// bounded returns a context for such a conversation. Soon after it took too long, or
// ctx has ended, the host is left: it is as if it was gone then, and nobody waits for
// its answers any more, not even to tidy up.
func bounded(ctx context.Context, p hv.Partition) (soon context.Context, done func()) {
	soon, cancel := context.WithTimeout(ctx, answerTime)
	over := make(chan struct{})
	go func() {
		select {
		case <-over:
			return
		case <-soon.Done():
		}
		select {
		case <-over:
		case <-time.After(tidyTime):
			p.Leave()
		}
	}()
	return soon, func() {
		close(over)
		cancel()
	}
}

// close ends the attachment. The NIC has let go of the device.
func (at *attachment) close() error { return errors.Join(at.bus.Close(), at.part.Close()) }

// OnChange has f called when the NIC has lost its device, with the reason
// (ErrHostGone, ErrTakenAway, netvsc.ErrSilent or what went wrong), and with nil when
// it is back. f is called with the state now, too. There is one f; it must not call
// the guest's methods.
func (g *Guest) OnChange(f func(lost error)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.onChange = f
	f(g.lost)
}

func (g *Guest) change(lost error) {
	if lost == nil {
		select {
		case g.back <- struct{}{}:
		default:
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lost = lost
	if g.onChange != nil {
		g.onChange(lost)
	}
}

// keep gives the NIC a device again whenever it has lost it, until the guest is
// closed or there is no way to the host any more.
func (g *Guest) keep() {
	defer close(g.ended)
	for {
		select {
		case why := <-g.NIC.Lost():
			if !g.restore(why) {
				return
			}
		case <-g.ctx.Done():
			return
		}
	}
}

// restore waits for the device to be offered again, where it was only taken away, or
// attaches anew. It returns false when that is of no use any more.
func (g *Guest) restore(why error) bool {
	for {
		why = g.reason(why)
		g.change(why)
		if why != ErrTakenAway {
			break
		}
		if why = g.retake(); why == nil {
			g.change(nil)
			return true
		}
		if g.ctx.Err() != nil {
			return false
		}
	}
	g.abandon()
	if g.dial == nil {
		return false
	}
	if !g.redial() {
		return false
	}
	g.change(nil)
	return true
}

// reason finds out what an error of the NIC comes from.
func (g *Guest) reason(err error) error {
	gone := func(c <-chan struct{}) bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	}
	switch {
	case gone(g.at.part.Done()):
		return ErrHostGone
	case gone(g.at.dev.Rescinded()), errors.Is(err, channel.ErrRescinded):
		return ErrTakenAway
	case errors.Is(err, netvsc.ErrSilent):
		return netvsc.ErrSilent
	}
	return err
}

// retake waits for the device on the same bus, unless it is still there.
func (g *Guest) retake() error {
	// The host offers the device again when nothing of the old one is left.
	soon, done := bounded(g.ctx, g.at.part)
	err := g.NIC.Detach(soon)
	done()
	if err != nil {
		return err
	}
	// A host may have taken nothing but a sub-channel: the device is there still.
	dev := g.at.dev
	select {
	case <-dev.Rescinded():
		if dev, err = g.at.bus.Device(g.ctx, vmbus.ClassNIC); err != nil {
			return err
		}
		g.at.dev = dev
	default:
	}
	soon, done = bounded(g.ctx, g.at.part)
	err = g.NIC.Reattach(soon, dev)
	done()
	if err != nil {
		// A host that is just taking the device away again refuses before it says so.
		select {
		case <-dev.Rescinded():
		case <-time.After(lastPause):
		case <-g.ctx.Done():
		}
	}
	return err
}

// abandon ends the attachment, whatever the host says.
func (g *Guest) abandon() {
	g.at.part.Leave()
	<-g.at.dev.Rescinded() // by the partition's end
	// Also if the guest is being closed: the memory goes next. There is nobody to
	// wait for, and no error but that the NIC is closed.
	g.NIC.Detach(context.Background())
	g.at.close()
	g.at = nil
}

// The pause between attempts to attach.
const (
	firstPause = 50 * time.Millisecond
	lastPause  = 500 * time.Millisecond
)

// redial attaches until it works, and returns false if guest or NIC are closed before.
func (g *Guest) redial() bool {
	said := ""
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		at, err := g.attempt()
		if err == nil {
			g.at = at
			return true
		}
		if errors.Is(err, netvsc.ErrClosed) {
			return false
		}
		g.logFailure(err, &said)
		select {
		case <-time.After(pause):
		case <-g.ctx.Done():
			return false
		}
	}
}

// logFailure logs why attaching has failed, unless that was said last.
func (g *Guest) logFailure(err error, said *string) {
	if g.cfg.Log != nil && err.Error() != *said {
		*said = err.Error()
		g.cfg.Log.Info("attach anew", "err", err)
	}
}

// attempt attaches once, and goes on with the NIC there.
func (g *Guest) attempt() (*attachment, error) {
	p, err := g.dial(g.ctx)
	if err != nil {
		return nil, err
	}
	at, err := connect(g.ctx, p, g.cfg)
	if err != nil {
		return nil, err
	}
	soon, done := bounded(g.ctx, p)
	defer done()
	if err := g.NIC.Reattach(soon, at.dev); err != nil {
		return nil, errors.Join(err, at.close())
	}
	return at, nil
}
