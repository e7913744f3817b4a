package main

import (
	"context"
	"fmt"

	"hvnet/control"
	"hvnet/ethtool"
	"hvnet/sandbox"
)

// execCmd runs a command to which hvnet's interfaces are what a kernel's driver is to
// ethtool.
type execCmd struct {
	Cmd []string `arg:"" passthrough:"partial" name:"cmd" help:"What to run. It, and all that it starts, has ethtool's system call answered by the drivers of hvnet's interfaces, and by the kernel for all others."`
}

// Run runs the command and returns its exit status.
func (c *execCmd) Run(ctx context.Context, s streams) error {
	argv := c.Cmd
	if len(argv) > 0 && argv[0] == "--" {
		argv = argv[1:]
	}
	if len(argv) == 0 || argv[0] == "" {
		return usagef("CMD is missing: want a program to run, as in: hvnet exec -- ethtool -l eth0")
	}
	// The command gets the signals, so the context must not end by them.
	return exited(sandbox.Exec(context.WithoutCancel(ctx), served(sandbox.Command{Args: argv}, s)))
}

// served returns the command with all drivers of the machine serving it.
func served(cmd sandbox.Command, s streams) sandbox.Command {
	cmd.Devices = func(ctx context.Context, netns uint64, name string) (ethtool.Device, error) {
		return control.Device(ctx, netns, name)
	}
	cmd.Unserved = func(err error) {
		fmt.Fprintf(s.err, "hvnet: the real ethtool sees no more than the kernel does: %v\n", err)
	}
	return cmd
}

// exited returns the error that makes a command's exit status that of hvnet.
func exited(status int, err error) error {
	if status == 0 && err == nil {
		return nil
	}
	return exitError{status, err}
}
