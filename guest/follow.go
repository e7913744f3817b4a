package guest

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"hvnet/link/tap"
	"hvnet/nic"
)

// A driver is what a follower does to a NIC; netvsc.NIC is one.
type driver interface {
	MAC() nic.MAC
	MTU() int
	SetMAC(context.Context, nic.MAC) error
	SetMTU(context.Context, int) error
	SetPromiscuous(context.Context, bool) error
	Up(context.Context, nic.Sink) error
	Down(context.Context) error
}

// An iface is what a follower takes back at the interface; tap.TAP is one.
type iface interface {
	SetMAC(nic.MAC) error
	SetMTU(int) error
	SetNormal() error
	SetDown() error
}

// A follower has a NIC do what users do to its kernel interface, and takes back at
// the interface what cannot be. The interface has changed before anyone can object, as the
// kernel asks no one in user space.
type follower struct {
	nic   driver
	iface iface
	sink  nic.Sink // when up

	mu      sync.Mutex
	seen    bool // whether there is a state before
	state   tap.State
	promisc bool // as the NIC last took it
}

// follow has the NIC follow the interface until ctx ends, and the interface the NIC
// when another host has it.
func (g *Guest) follow(ctx context.Context, t *tap.TAP, sink nic.Sink, features *mirror) error {
	f := &follower{nic: g.NIC, iface: t, sink: sink}
	tell := func(list []error) { g.refused(ctx, t, list...) }
	ctx, stop := context.WithCancel(ctx)
	var back sync.WaitGroup
	defer back.Wait()
	defer stop()
	back.Go(func() {
		for {
			select {
			case <-g.back:
				tell(f.returned())
			case <-ctx.Done():
				return
			}
		}
	})
	err := t.Watch(ctx, func(s tap.State) {
		tell(f.apply(ctx, s))
		g.refused(ctx, t, features.take(ctx))
	})
	if errors.Is(err, tap.ErrRemoved) {
		err = nil // the queues tell
	}
	return err
}

// refused tells what could not be, until ctx ends.
func (g *Guest) refused(ctx context.Context, t *tap.TAP, list ...error) {
	for _, err := range list {
		if err != nil && g.cfg.Refused != nil && ctx.Err() == nil {
			g.cfg.Refused(fmt.Errorf("%s: %w", t.Name(), err))
		}
	}
}

// apply makes the NIC be as the interface is, and returns what could not be.
//
// The NIC is up from the beginning, and the interface comes up when it has its
// addresses: only an interface that was up takes the NIC down.
func (f *follower) apply(ctx context.Context, s tap.State) (refused []error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	took := func(what string, err, back error) {
		if err != nil {
			refused = append(refused, shown(what, err, back))
		}
	}
	if f.seen && f.state.Up && !s.Up {
		took("stays up at the host", f.nic.Down(ctx), nil)
	}
	// What is as before is not the user's wish, but what the NIC had before it was lost.
	if s.MTU != f.state.MTU {
		if err := f.mtu(ctx, s.MTU); err != nil {
			now := f.nic.MTU()
			took(fmt.Sprintf("MTU %d refused, it is %d", s.MTU, now), err, f.iface.SetMTU(now))
		}
	}
	if s.MAC != f.state.MAC && !s.MAC.IsZero() && s.MAC != f.nic.MAC() {
		if err := f.nic.SetMAC(ctx, s.MAC); err != nil {
			now := f.nic.MAC()
			took(fmt.Sprintf("address %v refused, it is %v", s.MAC, now), err, f.iface.SetMAC(now))
		}
	}
	if s.Promiscuous != f.promisc {
		err := f.nic.SetPromiscuous(ctx, s.Promiscuous)
		f.promisc = s.Promiscuous // refused once is enough
		if err != nil && s.Promiscuous {
			took("promiscuous refused, it is not", err, f.iface.SetNormal())
		} else {
			took("stays promiscuous at the host", err, nil)
		}
	}
	if f.seen && !f.state.Up && s.Up {
		if err := f.nic.Up(ctx, f.sink); err != nil {
			took("up refused, it is down", err, f.iface.SetDown())
			s.Up = false
		}
	}
	f.seen, f.state = true, s
	return refused
}

// returned makes the interface be as a NIC that is back, which may have come back with
// other limits and another address: the host decides on those. It returns what is
// different.
func (f *follower) returned() (changed []error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.seen {
		return nil
	}
	if was, now := f.state.MTU, f.nic.MTU(); now != was {
		changed = append(changed, shown(fmt.Sprintf("MTU %d, it was %d", now, was), errHost, f.iface.SetMTU(now)))
		f.state.MTU = now
	}
	if was, now := f.state.MAC, f.nic.MAC(); now != was {
		changed = append(changed, shown(fmt.Sprintf("address %v, it was %v", now, was), errHost, f.iface.SetMAC(now)))
		f.state.MAC = now
	}
	return changed
}

// shown returns what is to be said, and why; back tells why the interface does not show it.
func shown(what string, why, back error) error {
	if back != nil {
		return fmt.Errorf("%s: %w; the interface does not show it: %w", what, why, back)
	}
	return fmt.Errorf("%s: %w", what, why)
}

// errHost says why the interface changes without its user.
var errHost = errors.New("the host has it so now")

// errLowered says that the host allows less than was asked for.
var errLowered = errors.New("the host allows no more")

// mtu gives the NIC another MTU. The host may lower it.
func (f *follower) mtu(ctx context.Context, want int) error {
	if want == 0 || want == f.nic.MTU() {
		return nil
	}
	if err := f.nic.SetMTU(ctx, want); err != nil {
		return err
	}
	if f.nic.MTU() != want {
		return errLowered
	}
	return nil
}
