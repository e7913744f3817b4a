package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"hvnet/control"
	"hvnet/guest"
	"hvnet/host"
	"hvnet/hv"
	"hvnet/link/function"
	linkiface "hvnet/link/iface"
	"hvnet/link/netstack"
	"hvnet/netvsc/vf"
	"hvnet/sandbox"
)

// runCmd is a host, a guest and a namespace with eth0 in one process.
type runCmd struct {
	hostFlags
	impairFlags
	vlanFlags
	guestFlags
	VF bool `name:"vf" help:"Have a virtual function beside the NIC, which frames go by (implies --sriov). 'hvnet host ctl $HVNET_HOST vf remove guest1' takes it away, 'vf add guest1' gives another one."`
	logFlags
	Cmd []string `arg:"" optional:"" passthrough:"partial" name:"cmd" help:"What to run inside; default: a shell. It finds HVNET_IFACE, HVNET_ADDR, HVNET_GATEWAY, HVNET_GATEWAY6 and, for 'hvnet host ctl', HVNET_HOST in its environment."`
}

// Run runs the command and returns its exit status.
func (c *runCmd) Run(ctx context.Context, s streams) (err error) {
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
	gw := plan.gateway
	cfg, err := c.config("guest1", log)
	if err != nil {
		return err
	}
	if err := known("impair", bad, cfg.Name); err != nil {
		return err
	}
	if err := known("vlan", vlans, append(plan.ports(), cfg.Name)...); err != nil {
		return err
	}
	if err := c.permitted(); err != nil {
		return err
	}
	sriov := c.SRIOV || c.VF
	cfg.VF = sriov
	cfg.Refused = func(err error) { fmt.Fprintf(s.err, "hvnet: %v\n", err) }
	addrs, dhcp, err := c.addresses()
	if err != nil {
		return err
	}
	if dhcp && !plan.hasGateway && len(plan.uplinks) == 0 {
		return usagef("--addr dhcp: with --gateway none and no --uplink nobody answers DHCP")
	}
	argv, err := c.command()
	if err != nil {
		return err
	}
	if len(addrs) == 0 && !dhcp && plan.hasGateway {
		addrs = neighbours(gw)
	}

	box, err := sandbox.New(ctx, sandbox.Config{})
	if err != nil {
		return err
	}
	defer box.Close()
	h := host.New(host.Config{Profile: plan.profile, SRIOV: sriov, Monitor: c.Monitor, AllowSpoofing: c.AllowSpoofing, VLANs: vlans, Log: log})
	defer closeIn(&err, h.Close)
	if err := c.impair(h, bad, s.err); err != nil {
		return err
	}
	if err := plan.connect(ctx, h); err != nil {
		return err
	}
	functions := &vfs{host: h, make: vfIn(box, c.VFIO == linkiface.XDP)}
	ctl, err := control.ServeIn(box.NetNSInode(), hostSocket, hostHandlers(h, functions))
	if err != nil {
		return err
	}
	defer ctl.Close()
	var found *function.Guest
	if sriov {
		if found, err = box.OpenFunctions(ctx, c.VFIO); err != nil {
			return err
		}
	}
	part, far, err := hv.Pipe(cfg.VPs)
	if err != nil {
		return err
	}
	go h.Serve(far, host.PortConfig{Name: cfg.Name, MAC: cfg.MAC})
	g, err := guest.Start(ctx, part, cfg)
	if err != nil {
		return err
	}
	defer closeIn(&err, g.Close)
	e, err := newInterface(ctx, g, c.Iface, box)
	if err != nil {
		return err
	}
	defer closeIn(&err, e.close)
	if found != nil {
		e.joinVFs(found, cfg.Refused)
	}
	if c.VF {
		if err := functions.add(ctx, cfg.Name); err != nil {
			return err
		}
	}
	if err := e.configure(ctx, addrs, gateways(gw), dhcp, s.err); err != nil {
		return err
	}
	if plan.hasGateway {
		if err := box.SetResolver(ctx, gateways(gw)[0]); err != nil && log != nil {
			log.Warn("no resolver of its own", "error", err)
		}
	}
	if c.VF {
		if err := onVF(ctx, g); err != nil {
			return err
		}
	}
	env := []string{"HVNET_GATEWAY=" + addrString(gw.IPv4), "HVNET_GATEWAY6=" + addrString(gw.IPv6), "HVNET_HOST=" + strings.TrimSuffix(ctl.Path(), ctlSuffix)}
	return runInside(ctx, box, e, argv, env, s)
}

// hostSocket is the name of the socket of a run's host, among those of drivers.
const hostSocket = ".host" + ctlSuffix

// moveTime is how long the path may take to move to a virtual function that is there from
// the start.
const moveTime = 10 * time.Second

// onVF waits until frames go by the virtual function.
func onVF(ctx context.Context, g *guest.Guest) error {
	ctx, cancel := context.WithTimeout(ctx, moveTime)
	defer cancel()
	return g.NIC.AwaitPath(ctx, vf.VF)
}

// command returns what is to run inside.
func (c *runCmd) command() ([]string, error) {
	argv := c.Cmd
	if len(argv) > 0 && argv[0] == "--" {
		argv = argv[1:]
	}
	switch {
	case len(argv) == 0:
		return []string{cmp.Or(os.Getenv("SHELL"), "/bin/sh")}, nil
	case argv[0] == "":
		return nil, usagef("CMD is empty: want a program to run inside, or nothing for a shell")
	}
	return argv, nil
}

// runInside runs the command, and tells it where it is.
func runInside(ctx context.Context, box *sandbox.Sandbox, e *iface, argv, env []string, s streams) error {
	env = append(env, e.environment()...)
	// The command gets the signals, so the context must not end by them.
	status, err := box.Run(context.WithoutCancel(ctx), served(sandbox.Command{Args: argv, Env: env}, s))
	return exited(status, err)
}

// neighbours returns the guest's addresses: those next to the gateway's.
func neighbours(gw netstack.GatewayConfig) []netip.Prefix {
	var addrs []netip.Prefix
	for _, p := range []netip.Prefix{gw.IPv4, gw.IPv6} {
		if p.IsValid() {
			a := p.Addr().Next()
			if !p.Contains(a.Next()) { // the gateway has the last address, or a is the broadcast address
				a = p.Addr().Prev()
			}
			addrs = append(addrs, netip.PrefixFrom(a, p.Bits()))
		}
	}
	return addrs
}

// gateways returns the gateway's addresses.
func gateways(gw netstack.GatewayConfig) []netip.Addr {
	var addrs []netip.Addr
	for _, p := range []netip.Prefix{gw.IPv4, gw.IPv6} {
		if p.IsValid() {
			addrs = append(addrs, p.Addr())
		}
	}
	return addrs
}

// addrString returns a prefix's address, "" for none.
func addrString(p netip.Prefix) string {
	if !p.IsValid() {
		return ""
	}
	return p.Addr().String()
}

// closeTime bounds how long closing something may take.
const closeTime = 5 * time.Second

// closeIn closes something at the end of a command, also when the command's
// context has ended, and adds its error.
func closeIn(err *error, f func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	if e := f(ctx); e != nil {
		*err = errors.Join(*err, e)
	}
}
