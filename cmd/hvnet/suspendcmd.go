package main

import (
	"context"
	"errors"
	"fmt"

	"hvnet/control"
	"hvnet/nic"
)

// suspendCmd takes a NIC apart, resumeCmd brings it up again.
type (
	suspendCmd struct{ ifaceArg }
	resumeCmd  struct{ ifaceArg }
)

// ifaceArg names an interface of this network namespace.
type ifaceArg struct {
	Iface string `arg:"" optional:"" default:"eth0" help:"The interface; eth0 if none is named."`
}

// driver finds the driver of the interface.
func (a *ifaceArg) driver(ctx context.Context) (*control.Client, error) {
	inode, err := control.NetNSInode()
	if err != nil {
		return nil, err
	}
	d, err := control.Device(ctx, inode, a.Iface)
	if errors.Is(err, nic.ErrNoDevice) {
		return nil, fmt.Errorf("%w; interfaces that 'hvnet run' and 'hvnet up' of the same user make here have one", err)
	}
	return d, err
}

// Run returns when the host has let go of the NIC.
func (c *suspendCmd) Run(ctx context.Context) error {
	d, err := c.driver(ctx)
	if err != nil {
		return err
	}
	return d.Suspend(ctx)
}

// Run returns when traffic can flow again.
func (c *resumeCmd) Run(ctx context.Context) error {
	d, err := c.driver(ctx)
	if err != nil {
		return err
	}
	return d.Resume(ctx)
}
