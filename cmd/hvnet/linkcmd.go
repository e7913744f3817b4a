package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strconv"

	"hvnet/control"
	"hvnet/host"
)

// hostLinkCmd changes the link of a port.
type hostLinkCmd struct {
	State string `arg:"" help:"up or down, as a cable that is plugged or pulled; move: the port is in another network now; or a speed in Mbit/s."`
	Port  string `arg:"" help:"Name of the guest's port."`
}

// linkArgs are the arguments of the method link.
type linkArgs struct {
	Port  string `json:"port"`
	State string `json:"state"`
}

// Run asks the host for the change.
func (l *hostLinkCmd) Run(ctx context.Context, c *commands) error {
	switch l.State {
	case "up", "down", "move":
	default:
		if _, err := linkSpeed(l.State); err != nil {
			return usagef("link %s: want up, down, move, or a speed in Mbit/s", l.State)
		}
	}
	return c.Host.Ctl.Path.ask(ctx, "link", linkArgs{l.Port, l.State}, nil)
}

// linkHandler does for a host what hostLinkCmd asks for.
func linkHandler(h *host.Host) control.Handler {
	return func(_ context.Context, b []byte) (any, error) {
		var a linkArgs
		if err := json.Unmarshal(b, &a); err != nil {
			return nil, fmt.Errorf("arguments: %w: %w", control.ErrMalformed, err)
		}
		switch a.State {
		case "up", "down":
			return nil, h.SetLink(a.Port, a.State == "up")
		case "move":
			return nil, h.NetworkChange(a.Port)
		}
		mbps, err := linkSpeed(a.State)
		if err != nil {
			return nil, err
		}
		return nil, h.SetSpeed(a.Port, mbps)
	}
}

// linkSpeed reads a speed: what a guest can be told of, in units of 100 bit/s.
func linkSpeed(s string) (mbps uint32, err error) {
	v, err := strconv.ParseUint(s, 10, 32)
	if err == nil && (v == 0 || v*10000 > math.MaxUint32) {
		err = fmt.Errorf("%s Mbit/s: want 1 to %d", s, math.MaxUint32/10000)
	}
	return uint32(v), err
}
