package control

import (
	"context"
	"encoding/json"
	"fmt"

	"hvnet/ethtool"
	"hvnet/nic"
)

// Methods of a driver's socket.
const (
	methodPlacement = "placement"
	methodMove      = "move"
)

// A Placer is a device that tells which processor each of its channels interrupts, and
// can move them. [ServeDevice] lets clients do it.
type Placer interface {
	Placement() []nic.Place
	Move(ctx context.Context, channel, vp int) error
}

// moveArgs are those of methodMove.
type moveArgs struct{ Channel, VP int }

// servePlacement adds the methods of a device that is a Placer.
func servePlacement(handlers map[string]Handler, d ethtool.Device) {
	p, ok := d.(Placer)
	if !ok {
		return
	}
	handlers[methodPlacement] = func(context.Context, []byte) (any, error) { return p.Placement(), nil }
	handlers[methodMove] = func(ctx context.Context, args []byte) (any, error) {
		var a moveArgs
		if err := json.Unmarshal(args, &a); err != nil {
			return nil, fmt.Errorf("arguments of %s: %w", methodMove, err)
		}
		return nil, p.Move(ctx, a.Channel, a.VP)
	}
}

// Placement returns where the driver's channels interrupt their guest, in their order. The
// error is [ErrUnknownMethod] for a driver that can't tell.
func (c *Client) Placement(ctx context.Context) (places []nic.Place, err error) {
	err = Call(ctx, c.path, methodPlacement, nil, &places)
	return places, err
}

// Move has the host interrupt another processor for a channel, as [Placer] does.
func (c *Client) Move(ctx context.Context, channel, vp int) error {
	return Call(ctx, c.path, methodMove, moveArgs{channel, vp}, nil)
}
