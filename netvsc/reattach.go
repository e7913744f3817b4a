package netvsc

import (
	"context"
	"errors"
	"fmt"

	"hvnet/netvsc/vf"
	"hvnet/nic"
	"hvnet/vmbus/channel"
)

// ErrSilent is why a device is lost whose host does not answer any more, and why what
// was asked of it has failed.
var ErrSilent = nic.ErrTimeout

// errDetached is why a device is lost that the NIC was told to let go of.
var errDetached = errors.New("let go of")

// Lost returns a channel that gets the reason when the NIC has lost its device: the
// host has taken it away, is gone, does not answer, or has broken the rules. The NIC
// is as if it was unplugged then. Its link is down and its sources are not read, but
// pumps, sink and settings stay for [NIC.Reattach].
//
// The channel holds one reason, and is empty while the NIC has a device.
func (n *NIC) Lost() <-chan error { return n.lost }

// lose tells that the NIC has lost a session, if it is the one in use.
func (n *NIC) lose(s *session) {
	n.lostMu.Lock()
	defer n.lostMu.Unlock()
	if n.session.Load() != s {
		return // one that never came into use, or is out of it
	}
	err := s.err
	if !s.broken() {
		err = nic.ErrNoDevice
	}
	n.link.set(nic.LinkState{})
	n.vf.post(vf.Event{Kind: vf.Rescinded}, s)
	n.log.Error("netvsc: device lost", "err", err)
	select {
	case n.lost <- err:
	default:
	}
}

// adopt makes s the session in use.
func (n *NIC) adopt(s *session) {
	n.lostMu.Lock()
	defer n.lostMu.Unlock()
	select {
	case <-n.lost: // of the one before
	default:
	}
	n.session.Store(s)
}

// Detach lets go of the device that the NIC has lost, or of one that it is to lose:
// it closes the channels, takes the memory back and counts frames that the host has
// not confirmed as tx_lost. Only then a bus can offer the same device again.
func (n *NIC) Detach(ctx context.Context) error {
	release, err := n.take(ctx)
	if err != nil {
		return err
	}
	defer release()
	return n.drop(ctx)
}

// drop ends the session, whatever the host says.
func (n *NIC) drop(ctx context.Context) error {
	n.session.Load().fail(errDetached) // if it is not lost already
	return n.detach(ctx)
}

// Reattach has the NIC go on with dev, in place of a device that it has lost: with
// the same settings, and up if it was up. It goes the way of all changes of settings.
// If dev does not come up the error says at what, and the NIC stays without a device.
func (n *NIC) Reattach(ctx context.Context, dev channel.Device) error {
	release, err := n.take(ctx)
	if err != nil {
		return err
	}
	defer release()
	if err := n.drop(ctx); err != nil {
		return err
	}
	n.dev = dev
	if err := n.start(ctx, n.want); err != nil {
		return fmt.Errorf("netvsc: reattach: %w", err)
	}
	return nil
}
