package tap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"hvnet/link/rtnl"
	"hvnet/nic"
)

// A State is what users have made of the interface, with `ip link` or otherwise.
type State struct {
	Up          bool // administratively
	MTU         int
	MAC         nic.MAC
	Promiscuous bool // somebody wants all frames: the user, a bridge, a packet socket
}

// Watch calls changed with the state of the interface now and, until ctx ends,
// whenever the kernel has told of a change. Of changes in quick succession changed
// sees only the last; it may see the same state twice. Watch returns nil at the end
// of ctx, net.ErrClosed after Close, ErrRemoved when the interface is gone. Between
// changes it costs nothing. A TAP has one watch at a time, and none without ctl.
func (t *TAP) Watch(ctx context.Context, changed func(State)) error {
	if t.ctl == nil {
		return fmt.Errorf("watch %s: %w", t.name, nic.ErrNotSupported)
	}
	index, err := t.index()
	if err == nil {
		err = rtnl.Watch(ctx, t.ctl, rtnl.Interface{Index: index}, func(s rtnl.State) error {
			if s.Removed {
				return ErrRemoved
			}
			changed(State{Up: s.Up, MTU: s.MTU, MAC: s.MAC, Promiscuous: s.Promiscuous})
			return nil
		})
	}
	switch {
	case err == nil || ctx.Err() != nil:
		return nil
	case errors.Is(err, os.ErrClosed):
		return net.ErrClosed
	}
	return fmt.Errorf("watch %s: %w", t.name, err)
}
