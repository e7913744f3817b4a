package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"hvnet/guest"
	"hvnet/host"
	"hvnet/hv"
	"hvnet/link/function"
	"hvnet/link/iface"
	"hvnet/link/tap"
	"hvnet/netvsc/vf"
	"hvnet/netvsp"
	"hvnet/sandbox"
)

// vfPatience bounds each wait for what takes milliseconds.
const vfPatience = 30 * time.Second

// A vfBench is a host with a guest and a station.
type vfBench struct {
	near, far *sandbox.Sandbox // the guest's, and the station's
	h         *host.Host
	g         *guest.Guest
	serial    uint32         // of the last function
	undo      []func() error // last first
}

// Addresses of the guest and the station.
var vfAddrs = [2]netip.Prefix{netip.MustParsePrefix("198.18.0.2/24"), netip.MustParsePrefix("198.18.0.3/24")}

const vfPort = "guest1"

// open makes all of it. What there is has to be closed, also if it fails.
func (b *vfBench) open(ctx context.Context) (err error) {
	for _, s := range []**sandbox.Sandbox{&b.near, &b.far} {
		if *s, err = sandbox.New(ctx, sandbox.Config{}); err != nil {
			return err
		}
		b.later((*s).Close)
	}
	b.h = host.New(host.Config{SRIOV: true})
	b.later(soon(b.h.Close))
	outside, err := b.far.OpenTAP(ctx, tap.Config{Name: "eth0", Offloads: tap.Offloads})
	if err != nil {
		return err
	}
	if err := b.h.ConnectTAP(outside); err != nil {
		return err
	}
	part, end, err := hv.Pipe(guest.DefaultVPs())
	if err != nil {
		return err
	}
	go b.h.Serve(end, host.PortConfig{Name: vfPort})
	if b.g, err = guest.Start(ctx, part, guest.Config{Name: vfPort, VF: true}); err != nil {
		return err
	}
	b.later(soon(b.g.Close))
	n := b.g.NIC
	inside, err := b.near.OpenTAP(ctx, tap.Config{Name: "eth0", Queues: n.Channels().Max, MAC: n.MAC(), MTU: n.MTU(), Offloads: tap.Offloads, Largest: n.LargeSend()})
	if err != nil {
		return err
	}
	b.later(inside.Close)
	leave, err := b.g.Join(ctx, inside, nil)
	if err != nil {
		return err
	}
	b.later(soon(leave))
	found, err := b.near.OpenFunctions(ctx, iface.Packet)
	if err != nil {
		return err
	}
	joining, stop := context.WithCancel(context.Background())
	joined := make(chan error, 1)
	go func() { joined <- b.g.JoinVFs(joining, found) }()
	b.later(func() error {
		stop()
		return <-joined
	})
	for i, s := range []*sandbox.Sandbox{b.near, b.far} {
		if err := s.Configure(ctx, sandbox.Interface{Name: "eth0", Up: true, Addrs: []netip.Prefix{vfAddrs[i]}}); err != nil {
			return err
		}
	}
	return b.add(ctx)
}

// soon bounds the time of what closes something.
func soon(f func(context.Context) error) func() error {
	return func() error {
		ctx, cancel := context.WithTimeout(context.Background(), vfPatience)
		defer cancel()
		return f(ctx)
	}
}

func (b *vfBench) later(f func() error) { b.undo = append(b.undo, f) }

func (b *vfBench) close() (err error) {
	for _, f := range slices.Backward(b.undo) {
		err = errors.Join(err, f())
	}
	return err
}

// add gives the guest a function, and waits until it is in use.
func (b *vfBench) add(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, vfPatience)
	defer cancel()
	for {
		to, err := b.h.MayHaveVF(vfPort)
		if errors.Is(err, netvsp.ErrVF) && ctx.Err() == nil {
			// The host has yet to see that the last one is gone.
			select {
			case <-ctx.Done():
			case <-time.After(time.Millisecond):
			}
			continue
		}
		if err != nil {
			return err
		}
		b.serial++
		f, err := b.near.MakeFunction(ctx, function.Config{MAC: to.MAC, Serial: b.serial})
		if err != nil {
			return err
		}
		if err := b.h.AddVF(vfPort, b.serial, f); err != nil {
			return err
		}
		return b.g.NIC.AwaitPath(ctx, vf.VF)
	}
}

// take takes the function away, and waits until it is not in use.
func (b *vfBench) take(ctx context.Context, kind string) error {
	ctx, cancel := context.WithTimeout(ctx, vfPatience)
	defer cancel()
	var err error
	switch kind {
	case VFAnnounced:
		err = b.h.RemoveVF(ctx, vfPort)
	case VFVanished:
		err = b.h.LoseVF(vfPort)
	case VFDeleted:
		err = b.near.Configure(ctx, sandbox.Interface{Name: fmt.Sprint("vf", b.serial), Gone: true})
	}
	if err != nil {
		return err
	}
	return b.g.NIC.AwaitPath(ctx, vf.Synthetic)
}

// move takes the function away and gives it back, or another one. Every other announced
// removal is of a function that returns at once. VFStill is to do nothing, for as long as
// datagrams take to come.
func (b *vfBench) move(ctx context.Context, kind string, i int, between func() error) error {
	if kind == VFStill {
		return between()
	}
	if kind == VFAnnounced && i%2 == 1 {
		ctx, cancel := context.WithTimeout(ctx, vfPatience)
		defer cancel()
		if err := b.h.FlapVF(ctx, vfPort); err != nil {
			return err
		}
		return b.g.NIC.AwaitPath(ctx, vf.VF)
	}
	if err := b.take(ctx, kind); err != nil {
		return err
	}
	if err := between(); err != nil {
		return err
	}
	return b.add(ctx)
}
