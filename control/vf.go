package control

import (
	"context"

	"hvnet/ethtool"
	"hvnet/nic"
)

// methodVFTimeline → []nic.VFMove
const methodVFTimeline = "vf-timeline"

// A Mover is a device that moves its data path between two devices, and remembers when.
// [ServeDevice] lets clients ask.
type Mover interface{ VFTimeline() []nic.VFMove }

// serveTimeline adds the method of a device that is a Mover.
func serveTimeline(handlers map[string]Handler, d ethtool.Device) {
	if v, ok := d.(Mover); ok {
		handlers[methodVFTimeline] = func(context.Context, []byte) (any, error) { return v.VFTimeline(), nil }
	}
}

// VFTimeline returns the last moves of the driver's data path, the oldest first. The error
// is [ErrUnknownMethod] for a driver that has only one.
func (c *Client) VFTimeline(ctx context.Context) (moves []nic.VFMove, err error) {
	err = Call(ctx, c.path, methodVFTimeline, nil, &moves)
	return moves, err
}
