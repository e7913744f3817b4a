package netvsc

import (
	"context"
	"fmt"

	"hvnet/nic"
	"hvnet/offload"
)

// flowTypes translates the flows of a NIC.
var flowTypes = [...]offload.HashTypes{
	nic.FlowTCPv4: offload.HashTCPv4, nic.FlowUDPv4: offload.HashUDPv4,
	nic.FlowTCPv6: offload.HashTCPv6, nic.FlowUDPv6: offload.HashUDPv6,
}

// HashLevels returns what the channel of a flow is chosen by when it is sent:
// addresses and ports, until [NIC.SetHashLevel] says otherwise.
func (n *NIC) HashLevels() (l nic.HashLevels) {
	for f, t := range flowTypes {
		l[f] = nic.HashL4
		if n.levels()&t == 0 {
			l[f] = nic.HashL3
		}
	}
	return l
}

// SetHashLevel changes what the channel of a kind of flows is chosen by when they are
// sent: nic.HashL3, addresses, or nic.HashL4, addresses and ports. Anything else is
// refused with nic.ErrNotSupported. As with hv_netvsc the host hears nothing of it,
// so received frames are spread as before; it works without a device; and it stays,
// whatever the device goes through.
//
// A flow that goes over to another channel keeps its order: senders pause until the
// host has what they have sent.
func (n *NIC) SetHashLevel(ctx context.Context, f nic.Flow, level nic.HashKind) error {
	if int(f) >= len(flowTypes) || level != nic.HashL3 && level != nic.HashL4 {
		return fmt.Errorf("netvsc: set hash level %d of %v: %w", level, f, nic.ErrNotSupported)
	}
	release, err := n.take(ctx)
	if err != nil {
		return err
	}
	defer release()
	if n.HashLevels()[f] == level {
		return nil
	}
	n.pauseSending(ctx, func() { n.byAddress.Store(n.byAddress.Load() ^ uint32(flowTypes[f])) })
	return nil
}

// levels returns the protocols whose ports count.
func (n *NIC) levels() offload.HashTypes {
	return offload.HashAll &^ offload.HashTypes(n.byAddress.Load())
}

// pauseSending calls change while nothing that was sent is under way, or after the
// time that the host has for everything: a host that is slower is not waited for,
// since what is at stake is the order of a few frames. The caller owns the NIC.
func (n *NIC) pauseSending(ctx context.Context, change func()) {
	if !n.up || !n.attached {
		change()
		return
	}
	n.gate.Lock()
	n.flowing = false
	n.gate.Unlock()
	if err := n.session.Load().idle(ctx); err != nil {
		n.log.Warn("netvsc: frames may be out of order", "err", err)
	}
	change()
	n.gate.Lock()
	n.flowing = true
	n.gate.Unlock()
	n.wakePumps()
}

// idle waits until the host has completed every frame that was sent.
func (s *session) idle(ctx context.Context) error {
	ctx, cancel := s.n.bound(ctx)
	defer cancel()
	s.draining.Store(true)
	defer s.draining.Store(false)
	for _, q := range s.queues {
		for q.sending() {
			if err := s.pause(ctx); err != nil {
				return fmt.Errorf("wait for the host to finish what was sent on channel %d: %w", q.index, err)
			}
		}
	}
	return nil
}

// sending reports whether frames that were sent on the channel are under way.
func (q *queue) sending() bool {
	q.ch.Lock()
	defer q.ch.Unlock()
	return q.outstanding > 0 || len(q.waiting) > 0
}
