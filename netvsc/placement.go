package netvsc

import (
	"context"
	"fmt"

	"hvnet/hv"
	"hvnet/nic"
)

// Placement returns which virtual processor the host interrupts for each channel. The
// bus chooses it when the channel is offered.
func (n *NIC) Placement() []nic.Place {
	s := n.session.Load()
	places := make([]nic.Place, len(s.queues))
	for i, q := range s.queues {
		vp := q.ch.VP()
		places[i] = nic.Place{Channel: i, Relid: q.ch.Relid, VP: vp, Node: s.dev.Node(vp)}
	}
	return places
}

// Move has the host interrupt another virtual processor for a channel, as a write to
// channels/N/cpu below /sys/bus/vmbus does it in Linux. It holds until the channel is
// opened anew. Traffic goes on meanwhile. It is refused with nic.ErrInvalid if there is
// no such channel or processor, and fails before VMBus 4.1, which has no message for it.
func (n *NIC) Move(ctx context.Context, channel, vp int) error {
	release, err := n.own(ctx)
	if err != nil {
		return err
	}
	defer release()
	s := n.session.Load()
	switch {
	case n.suspended.Load():
		return fmt.Errorf("netvsc: move channel %d: %w", channel, errSuspended)
	case channel < 0 || channel >= len(s.queues):
		return fmt.Errorf("netvsc: move channel %d: %w, there are %d", channel, nic.ErrInvalid, len(s.queues))
	case vp < 0 || vp >= s.dev.VPs():
		return fmt.Errorf("netvsc: move channel %d to processor %d: %w, there are %d", channel, vp, nic.ErrInvalid, s.dev.VPs())
	}
	q := s.queues[channel]
	ctx, cancel := n.bound(ctx)
	defer cancel()
	if err := s.dev.Retarget(ctx, q.ch, vp); err != nil {
		return fmt.Errorf("netvsc: %w", err)
	}
	q.count.CPU.Store(int32(vp))
	q.ch.Wake() // to move its goroutine too
	return nil
}

// pin keeps the queue's goroutine on the processor of its channel, if that is wanted. It
// is called in that goroutine, whose thread ends with it.
func (q *queue) pin() {
	vp := q.ch.VP()
	if !q.s.n.pinned || vp == q.at {
		return
	}
	q.at = vp
	if err := hv.Pin(vp); err != nil {
		q.s.n.log.Warn("netvsc: a queue's goroutine is not pinned", "channel", q.index, "err", err)
	}
}
