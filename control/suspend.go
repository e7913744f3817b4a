package control

import (
	"context"

	"hvnet/ethtool"
)

// Methods of a driver's socket, without arguments and result.
const (
	methodSuspend = "suspend"
	methodResume  = "resume"
)

// A Suspender is a device that can be taken apart and brought up again with its
// settings. [ServeDevice] lets clients do it.
type Suspender interface {
	Suspend(ctx context.Context) error
	Resume(ctx context.Context) error
}

// serveSuspend adds the methods of a device that is a Suspender.
func serveSuspend(handlers map[string]Handler, d ethtool.Device) {
	if s, ok := d.(Suspender); ok {
		handlers[methodSuspend] = func(ctx context.Context, _ []byte) (any, error) { return nil, s.Suspend(ctx) }
		handlers[methodResume] = func(ctx context.Context, _ []byte) (any, error) { return nil, s.Resume(ctx) }
	}
}

var _ Suspender = (*Client)(nil)

// Suspend implements [Suspender]. The error is [ErrUnknownMethod] for a driver that
// can't.
func (c *Client) Suspend(ctx context.Context) error {
	return Call(ctx, c.path, methodSuspend, nil, nil)
}

// Resume implements [Suspender].
func (c *Client) Resume(ctx context.Context) error {
	return Call(ctx, c.path, methodResume, nil, nil)
}
