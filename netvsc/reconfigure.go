package netvsc

import (
	"context"
	"errors"
	"fmt"

	"hvnet/netvsc/vf"
	"hvnet/rndis"
)

// own waits for the right to change settings, and returns the function that gives
// it up again. It fails for a NIC that has lost its device.
func (n *NIC) own(ctx context.Context) (release func(), err error) {
	release, err = n.take(ctx)
	if err != nil {
		return nil, err
	}
	if err := n.failure(); err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// take is own for what works without a device too.
func (n *NIC) take(ctx context.Context) (release func(), err error) {
	select {
	case <-n.done:
		return nil, ErrClosed
	default:
	}
	select {
	case n.owner <- struct{}{}:
	case <-n.done:
		return nil, ErrClosed
	case <-ctx.Done():
		return nil, fmt.Errorf("netvsc: wait for another change of settings: %w", ctx.Err())
	}
	return func() { <-n.owner }, nil
}

// reconfigure is the one way in which settings of a NIC change: everything under
// way is finished, the device is detached and attached anew with what is wanted,
// or, if that fails, with what was. Senders and sources pause meanwhile, and then
// go on. The caller owns the NIC.
//
// If neither attaches, the NIC has lost its device; another change of settings
// tries again.
func (n *NIC) reconfigure(ctx context.Context, want settings) error {
	if n.suspended.Load() {
		return errSuspended
	}
	if err := n.detach(ctx); err != nil {
		return err
	}
	if err := n.failure(); err != nil {
		return err // lost on the way
	}
	err := n.start(ctx, want)
	if err == nil {
		n.want = want
		return nil
	}
	n.log.Warn("netvsc: change of settings failed, going back", "err", err)
	ctx, cancel := n.ownTime(ctx) // the caller's may be what ran out
	defer cancel()
	if e := n.start(ctx, n.want); e != nil {
		err = errors.Join(err, fmt.Errorf("go back to the settings before: %w", e))
		n.lose(n.session.Load())
	}
	return err
}

// start attaches the device and, if the NIC is up, lets frames through.
func (n *NIC) start(ctx context.Context, want settings) error {
	s, err := n.attach(ctx, want)
	if err != nil {
		return err
	}
	n.adopt(s)
	n.attached = true
	switch {
	case s.broken():
		err = s.err
	case n.up:
		err = n.resume(ctx)
	}
	if err != nil {
		ctx, cancel := n.ownTime(ctx)
		defer cancel()
		n.attached = false
		return errors.Join(err, s.close(ctx))
	}
	n.vf.post(vf.Event{Kind: vf.Attached, On: s.sriov.Load(), MAC: s.mac}, s)
	n.tellFeatures()
	return nil
}

// detach finishes everything under way and takes the session apart; what a lost
// device has under way is lost. If the host doesn't let it finish, the NIC goes on as
// it was, or has lost its device, which is for whoever is told so by [NIC.Lost].
func (n *NIC) detach(ctx context.Context) error {
	if !n.attached {
		return nil
	}
	s := n.session.Load()
	n.vf.do(ctx, vf.Event{Kind: vf.Leaving}, s)
	if n.up {
		lost := s.broken()
		if err := n.quiesce(ctx, s); err != nil && !lost {
			if s.broken() {
				return err
			}
			tctx, cancel := n.ownTime(ctx)
			defer cancel()
			err = errors.Join(err, n.resume(tctx))
			n.vf.post(vf.Event{Kind: vf.Stays}, s)
			return err
		}
	}
	n.attached = false
	n.vf.post(vf.Event{Kind: vf.Detached}, s)
	if err := s.close(ctx); err != nil {
		n.log.Warn("netvsc: detach", "err", err)
	}
	return nil
}

// quiesce stops frames in both directions and waits until the host has finished
// what it has.
func (n *NIC) quiesce(ctx context.Context, s *session) error {
	n.gate.Lock()
	n.flowing = false
	n.gate.Unlock()
	if err := s.filter(ctx, 0); err != nil {
		return err
	}
	return s.drain(ctx)
}

// resume lets frames through again.
func (n *NIC) resume(ctx context.Context) error {
	s := n.session.Load()
	s.draining.Store(false)
	if err := s.filter(ctx, n.passes()); err != nil {
		return err
	}
	n.gate.Lock()
	n.flowing = true
	n.gate.Unlock()
	n.wakePumps()
	return nil
}

// passes returns the packet filter of a NIC that is up, as hv_netvsc has it:
// everything, or what is for this station and for groups. Which groups is left to
// whoever gets the frames.
func (n *NIC) passes() uint32 {
	if n.promisc {
		return rndis.FilterPromiscuous
	}
	return rndis.FilterDirected | rndis.FilterAllMulticast | rndis.FilterBroadcast
}

// filter sets which frames the host passes on.
func (s *session) filter(ctx context.Context, bits uint32) error {
	return s.set(ctx, rndis.OIDCurrentPacketFilter, rndis.AppendUint32(nil, bits))
}

// Close takes the NIC down and gives everything back: memory, channels, goroutines.
// Pumps return. It does so even if the host doesn't answer or ctx has ended, for the
// caller goes on to unmap that memory, and then says what the host did not confirm. A
// host that keeps it waiting for a second is asked nothing more; [NIC.Lost] tells.
// The device can be opened again. Closing twice is harmless.
func (n *NIC) Close(ctx context.Context) error {
	n.owner <- struct{}{} // a change of settings that is under way has an end of its own
	defer func() { <-n.owner }()
	select {
	case <-n.done:
		return nil
	default:
	}
	close(n.done)
	n.look.end()
	n.interruptPumps()
	n.vf.do(ctx, vf.Event{Kind: vf.UserDown}, n.session.Load())
	defer n.vf.end()
	if !n.attached {
		return nil
	}
	s := n.session.Load()
	lost := s.broken()
	var err error
	if n.up {
		if err = n.quiesce(ctx, s); lost {
			err = nil
		}
	}
	err = errors.Join(err, s.close(ctx))
	n.attached, n.up = false, false
	n.setSink(nil)
	n.log.Info("netvsc: device closed", "mac", s.mac)
	if !lost && s.broken() && errors.Is(s.err, ErrSilent) {
		err = errors.Join(err, s.err)
	}
	if err != nil {
		return fmt.Errorf("netvsc: close: %w", err)
	}
	return nil
}
