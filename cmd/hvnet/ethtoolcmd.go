package main

import (
	"context"

	"hvnet/control"
	"hvnet/ethtool"
)

// ethtoolCmd is ethtool's own command line, for the interfaces of drivers that run
// in this network namespace.
type ethtoolCmd struct {
	Args []string `arg:"" optional:"" passthrough:"" help:"As ethtool takes them."`
}

// Run answers as ethtool does, exit status included.
func (c *ethtoolCmd) Run(ctx context.Context, s streams) error {
	inode, err := control.NetNSInode()
	if err != nil {
		return err
	}
	lookup := func(name string) (ethtool.Device, error) { return control.Device(ctx, inode, name) }
	if status := ethtool.Run(ctx, c.Args, lookup, s.out, s.err); status != 0 {
		return exitError{status: status}
	}
	return nil
}

// thisNamespace returns the network namespace of this process.
func thisNamespace() (here, error) {
	inode, err := control.NetNSInode()
	return here{inode}, err
}
