package netvsc

import (
	"context"
	"fmt"

	"hvnet/nic"
)

// Suspend takes the device apart, as before a machine is suspended: everything under
// way is finished, the host forgets buffers and channels, and the link is down. The
// settings stay, and senders and sources wait. It is refused with nic.ErrNoDevice if
// the NIC is suspended already; if the host doesn't let it finish, the NIC goes on as
// it was.
//
// Until Resume, settings that need the device are refused. Up, Down and Close work.
func (n *NIC) Suspend(ctx context.Context) error {
	release, err := n.own(ctx)
	if err != nil {
		return err
	}
	defer release()
	if n.suspended.Load() {
		return fmt.Errorf("netvsc: suspend: %w", errSuspended)
	}
	if err := n.detach(ctx); err != nil {
		return fmt.Errorf("netvsc: suspend: %w", err)
	}
	if err := n.failure(); err != nil {
		return fmt.Errorf("netvsc: suspend: %w", err) // lost on the way
	}
	n.suspended.Store(true)
	n.link.set(nic.LinkState{})
	n.log.Info("netvsc: device suspended")
	return nil
}

// Resume brings a suspended device up again with the settings that it had, and with
// the versions and limits that the host has now. Senders and sources go on. If it
// fails the NIC stays suspended.
func (n *NIC) Resume(ctx context.Context) error {
	release, err := n.own(ctx)
	if err != nil {
		return err
	}
	defer release()
	if !n.suspended.Load() {
		return fmt.Errorf("netvsc: resume: %w: the NIC is not suspended", nic.ErrNoDevice)
	}
	if err := n.start(ctx, n.want); err != nil {
		return fmt.Errorf("netvsc: resume: %w", err)
	}
	n.suspended.Store(false)
	return nil
}

// errSuspended is why a setting is refused between Suspend and Resume.
var errSuspended = fmt.Errorf("%w: the NIC is suspended", nic.ErrNoDevice)
