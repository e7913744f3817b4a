// Package guest is a whole guest: it connects to the bus of a host, opens the NIC
// that it is offered, and joins the NIC to a kernel interface or to an IP stack in
// the process. When the host takes the NIC away or is gone, the guest waits for it
// and goes on with the same NIC.
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
	"sync"
	"time"

	"hvnet/hv"
	"hvnet/hv/attach"
	"hvnet/link/pcap"
	"hvnet/netvsc"
	"hvnet/nic"
	"hvnet/vmbus/channel"
)

// DefaultVPs returns how many virtual processors a guest has by default: as many as
// the machine, but at least 4, so that a small machine shows several channels too.
func DefaultVPs() int { return min(max(runtime.NumCPU(), 4), hv.MaxVPs) }

// A Config says what the guest is. The zero value asks for all defaults.
type Config struct {
	Name   string  // of its port; empty: the host chooses
	MAC    nic.MAC // zero: the host chooses
	VPs    int     // virtual processors, for Dial; 0: DefaultVPs
	Nodes  int     // NUMA nodes that they are divided over, in equal runs; 0: 1
	Pin    bool    // see netvsc.Config
	Queues int     // channels at first; 0: min(8, VPs)
	MTU    int     // 0: 1500
	Log    *slog.Logger
	// NoFragmentCure is as in [netvsc.Config].
	NoFragmentCure bool
	// VF and VFRest are as in [netvsc.Config]; a VF is joined by NIC.AddVF.
	VF     bool
	VFRest time.Duration
	// Refused, if not nil, is told of each change of a kernel interface that the
	// NIC could not follow, and that was taken back, and of each that the host of a
	// NIC that has returned makes; see [Guest.Join].
	Refused func(error)
}

// A Guest is a connected guest with its NIC.
type Guest struct {
	NIC *netvsc.NIC // the same for the life of the guest

	frames  pcap.Point // where those of Join and of Senders pass
	sending pcap.Place // of those that are sent

	cfg  Config
	dial func(context.Context) (hv.Partition, error) // attaches anew; nil if nobody can

	ctx   context.Context // ends with Close
	stop  context.CancelFunc
	ended chan struct{} // closed when keep has ended

	at *attachment // keep's until it has ended; nil while there is none

	back chan struct{} // capacity 1: the NIC has a device again

	mu       sync.Mutex
	lost     error // why there is no device
	onChange func(lost error)
}

// Dial attaches to the host at path and starts a guest there. While there is no
// host at path, or it goes or falls silent before the NIC is up, it tries again until
// ctx ends; waiting, if not nil, is called once then. A guest that is refused does not
// try again, unless it was let in before: the host may not have seen the end of that.
//
// When the host is gone later, or does not answer, the guest attaches anew, for as
// long as it takes: see [Guest.OnChange].
func Dial(ctx context.Context, path string, cfg Config, waiting func()) (*Guest, error) {
	g := &Guest{cfg: cfg}
	g.dial = func(ctx context.Context) (hv.Partition, error) { return attach.Dial(ctx, path, g.hello()) }
	var why error // the last try was in vain
	attached, said := false, ""
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		p, err := g.dial(ctx)
		if err == nil {
			attached = true
			err = g.start(ctx, p)
		}
		if err == nil {
			break
		}
		var connect *net.OpError
		switch {
		case errors.Is(err, os.ErrNotExist):
			why = fmt.Errorf("no host at %s: %w", path, os.ErrNotExist)
		case errors.Is(err, attach.ErrNoHost):
			why = fmt.Errorf("no host at %s: %w", path, attach.ErrNoHost)
		case why != nil && errors.As(err, &connect) && connect.Op == "dial" && connect.Timeout():
			// Too late for another try: the last one counts.
		case passing(err) && ctx.Err() == nil:
			why = err
		case attached && errors.Is(err, attach.ErrRefused) && ctx.Err() == nil:
			why = err // a host that was stopped has yet to see that an earlier try is over
		default:
			return nil, err
		}
		if waiting != nil {
			waiting()
			waiting = nil
		}
		g.logFailure(why, &said)
		select {
		case <-ctx.Done():
			return nil, why
		case <-time.After(pause):
		}
	}
	// From now on the guest is who it is now, also for a host that has never heard
	// of it. A host of ours has the port's name as the adapter's.
	g.cfg.Name = cmp.Or(g.cfg.Name, sayable(g.NIC.Info().Name))
	g.cfg.MAC = g.NIC.MAC()
	go g.keep()
	return g, nil
}

// sayable returns what a host calls the adapter, if a guest can be called that when it
// attaches anew, else nothing.
func sayable(name string) string {
	if (attach.Hello{Name: name, VPs: 1}).Check() != nil {
		return ""
	}
	return name
}

// hello is what the guest says of itself.
func (g *Guest) hello() attach.Hello {
	h := attach.Hello{Name: g.cfg.Name, VPs: cmp.Or(g.cfg.VPs, DefaultVPs())}
	if !g.cfg.MAC.IsZero() {
		h.Options = map[string]string{nic.OptionMAC: g.cfg.MAC.String()}
	}
	return h
}

// passing reports whether a failure may pass by itself: the host has just gone, or
// does not answer.
func passing(err error) bool {
	return lost(err) || errors.Is(err, netvsc.ErrSilent) || errors.Is(err, hv.StatusTimeout) ||
		errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded)
}

// Start connects a guest to the host on the other side of p, and owns p from then
// on, also if it fails. If that host goes, the guest stays without it.
func Start(ctx context.Context, p hv.Partition, cfg Config) (*Guest, error) {
	g := &Guest{cfg: cfg}
	if err := g.start(ctx, p); err != nil {
		return nil, err
	}
	go g.keep()
	return g, nil
}

// start opens the NIC that the host on the other side of p offers.
func (g *Guest) start(ctx context.Context, p hv.Partition) error {
	at, err := connect(ctx, p, g.cfg)
	if err != nil {
		return err
	}
	soon, done := bounded(ctx, p)
	defer done()
	g.NIC, err = netvsc.Open(soon, at.dev, netvsc.Config{Queues: g.cfg.Queues, MTU: g.cfg.MTU, Pin: g.cfg.Pin, VF: g.cfg.VF, VFRest: g.cfg.VFRest, NoFragmentCure: g.cfg.NoFragmentCure, Log: g.cfg.Log})
	if err != nil {
		return errors.Join(err, at.close())
	}
	g.sending = g.outbound()
	g.at, g.ended, g.back = at, make(chan struct{}), make(chan struct{}, 1)
	g.ctx, g.stop = context.WithCancel(context.Background())
	return nil
}

// Done is closed when the guest is at its end: it was closed, or its host is gone and
// there is no way to attach anew. All that is left to do then is Close.
func (g *Guest) Done() <-chan struct{} { return g.ended }

// leaveTime is how long a host may keep a guest waiting that leaves it, each time.
const leaveTime = time.Second

// Close closes the NIC, disconnects from the bus and detaches. It does all of it
// even if a step fails, and returns the first error. A host that is gone is none. One
// that does not answer is left without consent after about a second.
func (g *Guest) Close(ctx context.Context) error {
	g.stop()
	<-g.ended
	if g.at == nil {
		return g.NIC.Close(ctx)
	}
	leave := sync.OnceFunc(g.at.part.Leave)
	defer context.AfterFunc(ctx, leave)()
	closed := make(chan struct{})
	go func() {
		select {
		case why := <-g.NIC.Lost(): // keep, which would be told, has ended
			if errors.Is(why, netvsc.ErrSilent) {
				leave()
			}
		case <-closed:
		}
	}()
	errs := []error{g.NIC.Close(ctx), g.unload(ctx, leave), g.at.close()}
	close(closed)
	if err := ctx.Err(); err != nil {
		// Each step names what it did not get an answer to: one reason for all.
		return fmt.Errorf("leave the host: %w: %w", netvsc.ErrSilent, err)
	}
	for _, err := range errs {
		if errors.Is(err, netvsc.ErrSilent) {
			return fmt.Errorf("leave the host: %w", netvsc.ErrSilent)
		}
		if err != nil && !lost(err) {
			return err
		}
	}
	return nil
}

// unload ends the connection to the bus, in time or without consent.
func (g *Guest) unload(ctx context.Context, leave func()) error {
	soon, cancel := context.WithTimeout(ctx, leaveTime)
	defer cancel()
	defer context.AfterFunc(soon, leave)()
	err := g.at.bus.Unload(soon)
	if err != nil && soon.Err() != nil {
		return netvsc.ErrSilent
	}
	return err
}

// lost tells whether a step failed for no other reason than that the host is gone or
// has taken the NIC away.
func lost(err error) bool {
	return errors.Is(err, channel.ErrRescinded) || errors.Is(err, hv.ErrGone)
}
