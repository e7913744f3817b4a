package main

import (
	"context"
	"encoding/json"
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
	linkiface "hvnet/link/iface"
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
	impairFlags
	vlanFlags
	ivshmemFlags
	VFIO        linkiface.Way `name:"vf-io" default:"auto" enum:"auto,packet,xdp" placeholder:"auto|packet|xdp" help:"What guests join the virtual functions by that this host makes: frames by AF_XDP have to be complete. Default: auto, for packet sockets."`
	TrustMemory bool          `help:"Accept guests whose memory can be taken away, such as files of QEMU."`
	watchFlags
	logFlags
}

// Run serves guests until it is interrupted.
func (c *hostServeCmd) Run(ctx context.Context, s streams) (err error) {
	if c.Listen == "" {
		return usagef("--listen is empty: want the PATH of the socket to make")
	}
	log := c.logger()
	bad, err := c.badLines()
	if err != nil {
		return err
	}
	vlans, err := c.vlans()
	if err != nil {
		return err
	}
	plan, err := c.plan(log)
	if err != nil {
		return err
	}
	vms, err := c.vms(log)
	if err != nil {
		return err
	}
	cfg := host.Config{Profile: plan.profile, SRIOV: c.SRIOV, Monitor: c.Monitor, AllowSpoofing: c.AllowSpoofing, VLANs: vlans, Log: log}
	ctx, verdict, err := c.begin(ctx, s.out)
	if err != nil {
		return err
	}
	if verdict != nil {
		cfg.Watch = verdict.watch
		defer func() { err = errors.Join(err, verdict.err(ctx, &c.watchFlags)) }()
	}
	h := host.New(cfg)
	defer closeIn(&err, h.Close)
	if err := c.impair(h, bad, s.out); err != nil {
		return err
	}
	l, err := h.Listen(c.Listen, attach.ListenConfig{TrustMemory: c.TrustMemory, Log: log})
	if err != nil {
		return err
	}
	defer l.Close()
	if err := plan.connect(ctx, h); err != nil {
		return err
	}
	ctl, err := control.Serve(ctlPath(c.Listen), hostHandlers(h, &vfs{host: h, make: vfNextTo(c.VFIO == linkiface.XDP)}))
	if err != nil {
		return err
	}
	defer ctl.Close()
	ctl.Stream(methodCapture, capturePort(h))
	closeVMs, err := listenVMs(ctx, h, vms)
	if err != nil {
		return err
	}
	defer closeVMs()
	fmt.Fprintf(s.out, "listening on %s\n", c.Listen)
	return h.Accept(ctx, l)
}

// hostHandlers are the commands that a host takes.
func hostHandlers(h *host.Host, vf *vfs) map[string]control.Handler {
	return map[string]control.Handler{
		"ports":   func(context.Context, []byte) (any, error) { return h.Ports(), nil },
		"link":    linkHandler(h),
		"vlan":    vlanHandler(h),
		"vf":      vf.handle,
		"rescind": onPort(h.Rescind),
		"offer":   onPort(h.Offer),
	}
}

// ctlPath is where a host that listens on path takes commands.
func ctlPath(path string) string { return path + ctlSuffix }

const ctlSuffix = ".ctl"

// hostCtlCmd are the commands to a running host.
type hostCtlCmd struct {
	Path hostCtlPath `arg:""`
}

// hostCtlPath is a running host, and what it can be asked.
type hostCtlPath struct {
	Path    string         `arg:"" help:"Socket of the host."`
	Ports   hostPortsCmd   `cmd:"" help:"List the ports of the switch."`
	Link    hostLinkCmd    `cmd:"" help:"Change the link of a guest's port: up, down, to another network, or to another speed."`
	VLAN    hostVLANCmd    `cmd:"" name:"vlan" help:"Change the VLANs of a port."`
	VF      hostVFCmd      `cmd:"" name:"vf" help:"Add, remove, flap or lose the virtual function of a port; the host was started with --sriov."`
	Rescind hostRescindCmd `cmd:"" help:"Take the NIC of a port away from its guest."`
	Capture hostCaptureCmd `cmd:"" help:"Write the frames of a port to a file that Wireshark opens."`
	Offer   hostOfferCmd   `cmd:"" help:"Give the NIC of a port back to its guest."`
}

// ask calls a method of the host.
func (p *hostCtlPath) ask(ctx context.Context, method string, args, result any) error {
	return p.explain(control.Call(ctx, ctlPath(p.Path), method, args, result))
}

// explain says what an error of a call means.
func (p *hostCtlPath) explain(err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("no host runs at %s", p.Path)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("ask the host at %s: permission denied: only its own user and root may", p.Path)
	case err != nil:
		return fmt.Errorf("ask the host at %s: %w", p.Path, err)
	}
	return nil
}

// portArgs is what commands about one port take.
type portArgs struct {
	Port string `arg:"" help:"Name of the port."`
}

// onPort makes a handler of what is done to a port.
func onPort(do func(port string) error) control.Handler {
	return func(_ context.Context, args []byte) (any, error) {
		var a portArgs
		if err := json.Unmarshal(args, &a); err != nil {
			return nil, fmt.Errorf("arguments: %w: %w", control.ErrMalformed, err)
		}
		return nil, do(a.Port)
	}
}

// hostRescindCmd takes a NIC away.
type hostRescindCmd struct{ portArgs }

// Run has the host rescind the NIC's channels.
func (r *hostRescindCmd) Run(ctx context.Context, c *commands) error {
	return c.Host.Ctl.Path.ask(ctx, "rescind", r.portArgs, nil)
}

// hostOfferCmd gives it back.
type hostOfferCmd struct{ portArgs }

// Run has the host offer the NIC again.
func (o *hostOfferCmd) Run(ctx context.Context, c *commands) error {
	return c.Host.Ctl.Path.ask(ctx, "offer", o.portArgs, nil)
}

// hostPortsCmd lists ports.
type hostPortsCmd struct {
	JSON bool `name:"json" help:"All that is known of the ports, as JSON."`
}

// Run prints the ports of the host's switch and what was lost at each.
func (p *hostPortsCmd) Run(ctx context.Context, c *commands, s streams) error {
	var ports []host.PortInfo
	if err := c.Host.Ctl.Path.ask(ctx, "ports", nil, &ports); err != nil {
		return err
	}
	if p.JSON {
		return printJSON(s.out, withDrops(ports))
	}
	return printPorts(s.out, ports)
}

// A portJSON is what is known of a port, and what was lost at it, by reason.
type portJSON struct {
	host.PortInfo
	Drops map[string]uint64
}

func withDrops(ports []host.PortInfo) []portJSON {
	list := make([]portJSON, len(ports))
	for i := range ports {
		list[i] = portJSON{ports[i], ports[i].Drops()}
	}
	return list
}

// printPorts prints a table of ports.
func printPorts(w io.Writer, ports []host.PortInfo) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "PORT\tADDRESS\tSTATE\tVMBUS\tNVSP\tCHANNELS\tVLAN\tIN\tOUT\tDROPPED")
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
		if p.NIC != nil {
			state = p.NIC.State
			if p.NIC.Way == linkiface.XDP {
				state += ", xdp"
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
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\n", p.Switch.Name, p.Address(), state, bus, nvsp, channels, p.Switch.VLAN,
			p.Switch.InFrames, p.Switch.OutFrames, strings.Join(drops, ", "))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if err := printVFs(w, ports); err != nil {
		return err
	}
	return printLines(w, ports)
}
