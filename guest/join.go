package guest

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"hvnet/link/tap"
	"hvnet/nic"
	"hvnet/offload"
)

// Join connects the guest's NIC to a kernel interface: what the kernel sends goes
// to the host and back, and the interface shows the link that the host reports. It
// returns when traffic can flow; ctx bounds that alone. What is received goes to
// also, too, if that is not nil. leave, which is called once, disconnects them again;
// it neither closes the NIC nor the interface. A host that is gone, or does not answer
// within a second, is no error of it.
//
// From then on the NIC follows what users do to the interface with `ip link`: MTU,
// address, promiscuity, down and up; and what they switch with `ethtool -K`, as the
// interface shows what the NIC does. What the host refuses is taken back on the
// interface, and Config.Refused told. When the NIC has been lost and is back, the
// interface gets the MTU and the address that the host has it with now. How long frames
// may be that the kernel leaves to be cut is what the path in use takes.
func (g *Guest) Join(ctx context.Context, t *tap.TAP, also nic.Sink) (leave func(context.Context) error, err error) {
	var sink nic.Sink = t
	if also != nil {
		sink = both{t, offload.NewSink(also)}
	}
	sink = g.frames.Sink(sink, inbound)
	pctx, stop := context.WithCancel(context.Background())
	var pumps sync.WaitGroup
	errs := make(chan error, t.Queues()+1)
	leave = func(ctx context.Context) error {
		g.NIC.OnLink(nil)
		g.NIC.OnPath(nil)
		stop()
		pumps.Wait()
		close(errs)
		err := g.down(ctx)
		for e := range errs {
			err = errors.Join(err, e)
		}
		return err
	}
	features := &mirror{nic: g.NIC, iface: t}
	if err := g.NIC.OnFeatures(ctx, func(f nic.Features) { g.refused(pctx, t, features.show(f)) }); err != nil {
		return nil, errors.Join(err, leave(ctx))
	}
	g.NIC.OnLink(func(l nic.LinkState) { t.SetLink(l) })
	g.NIC.OnPath(func() { g.refused(pctx, t, t.SetLargest(g.NIC.LargeSend())) })
	if err := t.SetLink(g.NIC.Link()); err != nil {
		return nil, errors.Join(err, leave(ctx))
	}
	if err := g.NIC.Up(ctx, sink); err != nil {
		return nil, errors.Join(err, leave(ctx))
	}
	pumps.Go(func() {
		if err := g.follow(pctx, t, sink, features); err != nil {
			errs <- err
		}
	})
	for i := range t.Queues() {
		pumps.Go(func() {
			if err := g.NIC.Pump(pctx, g.frames.Source(t.Queue(i), g.sending)); err != nil && pctx.Err() == nil && !lost(err) {
				errs <- fmt.Errorf("queue %d of %s: %w", i, t.Name(), err)
			}
		})
	}
	return leave, nil
}

// down takes the NIC down, whether the host is there and answers in time or not.
func (g *Guest) down(ctx context.Context) error {
	soon, cancel := context.WithTimeout(ctx, leaveTime)
	defer cancel()
	err := errors.Join(g.NIC.OnFeatures(soon, nil), g.NIC.Down(soon))
	if lost(err) || soon.Err() != nil && ctx.Err() == nil {
		return nil
	}
	return err
}

// both are two sinks that get the same frames; the second one whole ones.
type both struct{ first, second nic.Sink }

// Takes is what the first one takes.
func (b both) Takes() nic.Offloads {
	if t, ok := b.first.(nic.Taker); ok {
		return t.Takes()
	}
	return 0
}

func (b both) WriteFrames(frames []nic.Frame) {
	b.first.WriteFrames(frames)
	b.second.WriteFrames(frames)
}

// A Sender is a guest's NIC as a sink: what is written to it is sent, as far as
// the host takes it now.
type Sender struct{ *Guest }

// WriteFrames sends frames and drops what the host has no room for.
func (s Sender) WriteFrames(frames []nic.Frame) {
	s.frames.Pass(frames, &s.sending)
	s.NIC.Send(0, frames)
}
