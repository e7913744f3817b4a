package main

import (
	"context"
	"errors"

	"hvnet/control"
	"hvnet/ethtool"
	"hvnet/ethtool/kernel"
	"hvnet/nic"
)

// ethtoolCmd is ethtool's own command line, for the interfaces of this network namespace:
// those of drivers of ours, and the kernel's own.
type ethtoolCmd struct {
	Args []string `arg:"" optional:"" passthrough:"" help:"As ethtool takes them."`
}

// Run answers as ethtool does, exit status included.
func (c *ethtoolCmd) Run(ctx context.Context, s streams) error {
	inode, err := control.NetNSInode()
	if err != nil {
		return err
	}
	lookup := func(name string) (ethtool.Device, error) { return anyDevice(ctx, inode, name) }
	if len(c.Args) > 0 && c.Args[0] == "--monitor" {
		names, err := control.Interfaces(inode)
		if err != nil {
			return err
		}
		if status := ethtool.Monitor(ctx, c.Args[1:], names, lookup, s.out, s.err); status != 0 {
			return exitError{status: status}
		}
		return nil
	}
	if status := ethtool.Run(ctx, c.Args, lookup, s.out, s.err); status != 0 {
		return exitError{status: status}
	}
	return nil
}

// anyDevice finds the driver of ours that serves an interface, or else the kernel's own.
func anyDevice(ctx context.Context, netns uint64, name string) (ethtool.Device, error) {
	ours, err := control.Device(ctx, netns, name)
	if err == nil {
		return ours, nil
	}
	if !errors.Is(err, nic.ErrNoDevice) {
		return nil, err
	}
	theirs, kernelErr := kernel.Device(name)
	if kernelErr == nil {
		return theirs, nil
	}
	return nil, kernelErr
}

// thisNamespace returns the network namespace of this process.
func thisNamespace() (here, error) {
	inode, err := control.NetNSInode()
	return here{inode}, err
}
