package netvsc

import (
	"context"
	"fmt"
	"slices"

	"hvnet/counter"
	"hvnet/netvsc/vf"
	"hvnet/nic"
	"hvnet/nvsp"
)

// Up lets frames through: the host passes on what is for the NIC's address, all
// multicast and broadcast, and sink gets them, from one goroutine per channel. Up
// of a NIC that is up changes the sink. One that has lost its device lets frames
// through as soon as it has another.
func (n *NIC) Up(ctx context.Context, sink nic.Sink) error {
	release, err := n.take(ctx)
	if err != nil {
		return err
	}
	defer release()
	n.setSink(sink)
	if n.up || !n.attached {
		n.up = true
		n.vf.post(vf.Event{Kind: vf.UserUp}, nil)
		return nil
	}
	if err := n.resume(ctx); err != nil && !n.session.Load().broken() {
		n.setSink(nil)
		return fmt.Errorf("netvsc: up: %w", err)
	}
	n.up = true
	n.vf.post(vf.Event{Kind: vf.UserUp}, nil)
	return nil
}

// Down stops frames in both directions, waits until the host has finished what it
// has, and lets go of the sink: when Down returns, it is not called any more. It
// must not be called from the sink.
func (n *NIC) Down(ctx context.Context) error {
	release, err := n.take(ctx)
	if err != nil {
		return err
	}
	defer release()
	if !n.up {
		return nil
	}
	n.vf.do(ctx, vf.Event{Kind: vf.UserDown}, n.session.Load())
	n.up = false
	if s := n.session.Load(); n.attached {
		if err = n.quiesce(ctx, s); s.broken() {
			err = nil // nothing goes in any direction
		}
	}
	n.setSink(nil)
	if err != nil {
		return fmt.Errorf("netvsc: down: %w", err)
	}
	return nil
}

// setSink changes where received frames go, and waits until nothing goes any more
// where they went before.
func (n *NIC) setSink(sink nic.Sink) {
	if sink == nil {
		n.outlet.Store(nil)
	} else {
		n.outlet.Store(newOutlet(sink))
	}
	for _, q := range n.session.Load().queues {
		q.delivering.Lock() // waits for a call that is going on
		//lint:ignore SA2001 taking the lock is the wait
		q.delivering.Unlock()
	}
	if p := n.vf.port.Load(); p != nil {
		p.quiet()
	}
}

// DriverInfo returns what `ethtool -i` shows: hv_netvsc's own, but for the version,
// which is not a kernel's.
func (n *NIC) DriverInfo() nic.DriverInfo {
	return nic.DriverInfo{Driver: "hv_netvsc", Version: Version(), Firmware: "N/A", Stats: true, RegisterDump: true}
}

// Channels returns how many channels the NIC can have, by host, processors and
// protocol, and how many it has. A frame is sent on the channel that the host's
// table has for its flow hash, and the frames of a flow keep their order whatever
// happens to table and channels.
func (n *NIC) Channels() nic.Channels {
	s := n.session.Load()
	return nic.Channels{Max: s.maxQueues(), Combined: len(s.queues)}
}

// SetChannels changes the number of channels. It is refused as Linux refuses it:
// nic.ErrInvalid below 1, above the maximum, which is 1 if the host's protocol is
// older than NVSP 5, and if a table that was set by [NIC.SetRSS] has channels that
// would be dropped. The host may grant fewer than asked for. If the change
// fails, the NIC has as many as before.
func (n *NIC) SetChannels(ctx context.Context, count int) error {
	release, err := n.own(ctx)
	if err != nil {
		return err
	}
	defer release()
	s := n.session.Load()
	switch {
	case count == len(s.queues) && n.attached:
		return nil
	case count < 1 || count > s.maxQueues():
		return fmt.Errorf("netvsc: set %d channels: %w, want 1 to %d", count, nic.ErrInvalid, s.maxQueues())
	case !fits(n.want.table, count):
		return fmt.Errorf("netvsc: set %d channels: %w, the receive table has channel %d", count, nic.ErrInvalid, slices.Max(n.want.table))
	}
	want := n.want
	want.queues = count
	if err := n.reconfigure(ctx, want); err != nil {
		return fmt.Errorf("netvsc: set %d channels: %w", count, err)
	}
	return nil
}

// Rings returns the sizes of the receive and the send buffer in sections: what they
// are, and what they could be with sections as long as the host has them.
func (n *NIC) Rings() nic.Rings {
	s := n.session.Load()
	return nic.Rings{
		RxMax: s.version.MaxReceiveBuffer() / s.rxSectionSize, TxMax: nvsp.MaxSendBuffer / s.txSectionSize,
		Rx: s.rxSections, Tx: s.txSections,
	}
}

// Stats returns the counters in the order of `ethtool -S`. Those of channels begin
// anew with every change of settings, as hv_netvsc's do.
func (n *NIC) Stats() []nic.Stat {
	s := n.session.Load()
	queues := s.queues
	counts := make([]*counter.Queue, len(queues))
	for i, q := range queues {
		counts[i] = q.count
	}
	if p := n.vf.port.Load(); p != nil {
		p.countDropped()
	}
	return counter.Stats(&n.count, counts, s.dev.VPs())
}
