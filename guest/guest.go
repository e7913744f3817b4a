// Package guest is a whole guest: it connects to the bus of a host, opens the NIC
// that it is offered, and joins the NIC to a kernel interface or to an IP stack in
// the process.
package guest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"time"

	"hvnet/hv"
	"hvnet/hv/attach"
	"hvnet/netvsc"
	"hvnet/nic"
	"hvnet/vmbus"
	"hvnet/vmbus/channel"
	vmbusguest "hvnet/vmbus/guest"
)

// DefaultVPs returns how many virtual processors a guest has by default: as many as
// the machine, but at least 4, so that a small machine shows several channels too.
func DefaultVPs() int { return min(max(runtime.NumCPU(), 4), hv.MaxVPs) }

// A Config says what the guest is. The zero value asks for all defaults.
type Config struct {
	Name   string  // of its port; empty: the host chooses
	MAC    nic.MAC // zero: the host chooses
	VPs    int     // virtual processors, for Dial; 0: DefaultVPs
	Queues int     // channels at first; 0: min(8, VPs)
	MTU    int     // 0: 1500
	Log    *slog.Logger
	// Refused, if not nil, is told of each change of a kernel interface that the
	// NIC could not follow, and that was taken back; see [Guest.Join].
	Refused func(error)
}

// A Guest is a connected guest with its NIC.
type Guest struct {
	NIC *netvsc.NIC

	part hv.Partition
	bus  *vmbusguest.Bus
	dev  channel.Device

	refused func(error)
}

// Dial attaches to the host at path and starts a guest there. While there is no
// host at path it waits, until ctx ends; waiting, if not nil, is called once then.
func Dial(ctx context.Context, path string, cfg Config, waiting func()) (*Guest, error) {
	hello := attach.Hello{Name: cfg.Name, VPs: cmp.Or(cfg.VPs, DefaultVPs())}
	if !cfg.MAC.IsZero() {
		hello.Options = map[string]string{nic.OptionMAC: cfg.MAC.String()}
	}
	var none error // why there was no host at the last try
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		p, err := attach.Dial(ctx, path, hello)
		if err == nil {
			return Start(ctx, p, cfg)
		}
		var connect *net.OpError
		switch {
		case errors.Is(err, os.ErrNotExist):
			none = os.ErrNotExist
		case errors.Is(err, attach.ErrNoHost):
			none = attach.ErrNoHost
		case none != nil && errors.As(err, &connect) && connect.Op == "dial" && connect.Timeout():
			// Too late for another try: the last one counts.
		default:
			return nil, err
		}
		if waiting != nil {
			waiting()
			waiting = nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("no host at %s: %w", path, none)
		case <-time.After(pause):
		}
	}
}

// Start connects a guest to the host on the other side of p, and owns p from then
// on, also if it fails.
func Start(ctx context.Context, p hv.Partition, cfg Config) (*Guest, error) {
	g := &Guest{part: p, refused: cfg.Refused}
	err := g.start(ctx, cfg)
	if err != nil {
		if g.bus != nil {
			g.bus.Close()
		}
		p.Close()
		return nil, err
	}
	return g, nil
}

func (g *Guest) start(ctx context.Context, cfg Config) (err error) {
	g.bus, err = vmbusguest.Connect(ctx, g.part, vmbusguest.Config{Log: cfg.Log})
	if err != nil {
		return err
	}
	g.dev, err = g.bus.Device(ctx, vmbus.ClassNIC)
	if err != nil {
		return err
	}
	g.NIC, err = netvsc.Open(ctx, g.dev, netvsc.Config{Queues: cfg.Queues, MTU: cfg.MTU, Log: cfg.Log})
	return err
}

// Done is closed when the host is gone or has taken the NIC away. All that is left
// to do then is Close.
func (g *Guest) Done() <-chan struct{} { return g.dev.Rescinded() }

// Close closes the NIC, disconnects from the bus and detaches. It does all of it
// even if a step fails, and returns the first error. A host that is gone is none.
func (g *Guest) Close(ctx context.Context) error {
	errs := []error{g.NIC.Close(ctx), g.bus.Unload(ctx), g.bus.Close(), g.part.Close()}
	if err := ctx.Err(); err != nil {
		// Each step names what it did not get an answer to: one reason for all.
		return fmt.Errorf("leave the host: it does not answer: %w", err)
	}
	for _, err := range errs {
		if err != nil && !lost(err) {
			return err
		}
	}
	return nil
}

// lost tells whether a step failed for no other reason than that the host is gone or
// has taken the NIC away.
func lost(err error) bool {
	return errors.Is(err, channel.ErrRescinded) || errors.Is(err, hv.ErrGone)
}
