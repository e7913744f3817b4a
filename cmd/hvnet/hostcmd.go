package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"

	"hvnet/control"
	"hvnet/host"
	"hvnet/hv/attach"
)

// hostCmd is a host that guests attach to, and the commands to one.
type hostCmd struct {
	Serve hostServeCmd `cmd:"" default:"withargs" hidden:"" help:"An emulated Hyper-V network host that guests attach to; 'hvnet host ctl PATH ports' asks a running one."`
	Ctl   hostCtlCmd   `cmd:"" help:"Ask a running host."`
}

// hostServeCmd is a running host.
type hostServeCmd struct {
	Listen string `required:"" placeholder:"PATH" help:"Socket to make, on which guests attach."`
	hostFlags
	TrustMemory bool `help:"Accept guests whose memory can be taken away, such as files of QEMU."`
	logFlags
}

// Run serves guests until it is interrupted.
func (c *hostServeCmd) Run(ctx context.Context, s streams) (err error) {
	if c.Listen == "" {
		return usagef("--listen is empty: want the PATH of the socket to make")
	}
	log := c.logger()
	plan, err := c.plan(log)
	if err != nil {
		return err
	}
	h := host.New(host.Config{Profile: plan.profile, AllowSpoofing: c.AllowSpoofing, Log: log})
	defer closeIn(&err, h.Close)
	l, err := h.Listen(c.Listen, attach.ListenConfig{TrustMemory: c.TrustMemory, Log: log})
	if err != nil {
		return err
	}
	defer l.Close()
	if err := plan.connect(h); err != nil {
		return err
	}
	ctl, err := control.Serve(ctlPath(c.Listen), map[string]control.Handler{
		"ports": func(context.Context, []byte) (any, error) { return h.Ports(), nil },
	})
	if err != nil {
		return err
	}
	defer ctl.Close()
	fmt.Fprintf(s.out, "listening on %s\n", c.Listen)
	return h.Accept(ctx, l)
}

// ctlPath is where a host that listens on path takes commands.
func ctlPath(path string) string { return path + ".ctl" }

// hostCtlCmd are the commands to a running host.
type hostCtlCmd struct {
	Path hostCtlPath `arg:""`
}

// hostCtlPath is a running host, and what it can be asked.
type hostCtlPath struct {
	Path  string       `arg:"" help:"Socket of the host."`
	Ports hostPortsCmd `cmd:"" help:"List the ports of the switch."`
}

// hostPortsCmd lists ports.
type hostPortsCmd struct{}

// Run prints the ports of the host's switch and what was lost at each.
func (*hostPortsCmd) Run(ctx context.Context, c *commands, s streams) error {
	var ports []host.PortInfo
	path := c.Host.Ctl.Path.Path
	err := control.Call(ctx, ctlPath(path), "ports", nil, &ports)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("no host runs at %s", path)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("ask the host at %s: permission denied: only its own user and root may", path)
	case err != nil:
		return fmt.Errorf("ask the host at %s: %w", path, err)
	}
	return printPorts(s.out, ports)
}

// printPorts prints a table of ports.
func printPorts(w io.Writer, ports []host.PortInfo) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "PORT\tADDRESS\tSTATE\tVMBUS\tNVSP\tCHANNELS\tIN\tOUT\tDROPPED")
	for _, p := range ports {
		state, bus, nvsp, channels := "connected", "-", "-", "-"
		if g := p.Guest; g != nil {
			state, channels = string(g.Stage), fmt.Sprint(g.Channels)
			if g.VMBus != 0 {
				bus = g.VMBus.String()
			}
			if g.NVSP != 0 {
				nvsp = g.NVSP.String()
			}
		}
		var drops []string
		for reason, n := range p.Drops() {
			if n > 0 {
				drops = append(drops, fmt.Sprintf("%d %s", n, reason))
			}
		}
		slices.Sort(drops)
		if len(drops) == 0 {
			drops = []string{"0"}
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\n", p.Switch.Name, p.Address(), state, bus, nvsp, channels,
			p.Switch.InFrames, p.Switch.OutFrames, strings.Join(drops, ", "))
	}
	return t.Flush()
}
