package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"hvnet/guest"
	"hvnet/link/function"
)

// upCmd attaches a guest to a host and makes its NIC a kernel interface here.
type upCmd struct {
	Path string `arg:"" help:"Socket of the host."`
	Name string `placeholder:"PORT" help:"Name of the switch port to have: a guest that comes back under its name has its MAC address again. Default: the host's next free one, guest1, guest2, ..."`
	guestFlags
	VF   string        `name:"vf" default:"use" enum:"use,ignore" placeholder:"use|ignore" help:"Whether a virtual function that the host adds beside the NIC is used: frames then go by it, and it shows no addresses of its own. 'ignore' leaves it to you. Default: use."`
	Wait time.Duration `default:"10s" help:"How long to wait for a host at PATH."`
	logFlags
}

// Run keeps the interface until it is interrupted. When the host takes the NIC away or
// is gone, the interface stays, without carrier, until the NIC is back.
func (c *upCmd) Run(ctx context.Context, s streams) (err error) {
	defer func() {
		if ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.Cause(ctx))) {
			err = nil // an interruption is how it ends, also before the interface is up
		}
	}()
	if c.Wait <= 0 {
		return usagef("--wait %v: want some time, such as 10s", c.Wait)
	}
	cfg, err := c.config(c.Name, c.logger())
	if err != nil {
		return err
	}
	if err := c.permitted(); err != nil {
		return err
	}
	cfg.Refused = func(err error) { fmt.Fprintf(s.err, "hvnet: %v\n", err) }
	addrs, dhcp, err := c.addresses()
	if err != nil {
		return err
	}
	at, err := thisNamespace()
	if err != nil {
		return err
	}
	var functions *function.Guest
	if c.VF == "use" {
		if functions, err = at.OpenFunctions(ctx, c.VFIO); err != nil && cfg.Log != nil { // for want of rights, say
			cfg.Log.Warn("no virtual functions will be used", "err", err)
		}
		cfg.VF = err == nil
	}
	g, err := c.dial(ctx, cfg, s)
	if ctx.Err() != nil && g == nil {
		return nil // interrupted while there was no host
	}
	if err != nil {
		return err
	}
	defer closeIn(&err, g.Close)
	start, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	e, err := newInterface(start, g, c.Iface, at)
	if err != nil {
		return err
	}
	defer closeIn(&err, e.close)
	if functions != nil {
		e.joinVFs(functions, cfg.Refused)
	}
	if err := e.configure(start, addrs, nil, dhcp, s.err); err != nil {
		return err
	}
	g.OnChange(func(lost error) { fmt.Fprintf(s.out, "%s %s\n", c.Iface, e.state(lost)) })
	<-ctx.Done()
	return nil
}

// dial attaches to the host, waiting for it if there is none yet.
func (c *upCmd) dial(ctx context.Context, cfg guest.Config, s streams) (*guest.Guest, error) {
	ctx, cancel := context.WithTimeout(ctx, c.Wait)
	defer cancel()
	return guest.Dial(ctx, c.Path, cfg, func() {
		fmt.Fprintf(s.err, "waiting for a host at %s\n", c.Path)
	})
}
