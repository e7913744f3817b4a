package netvsc

import (
	"context"
	"fmt"

	"hvnet/nvsp"
	"hvnet/rndis"
)

// openChannels opens as many channels as are wanted, as the guest has processors,
// and as the host allows, and has received frames spread over them. A host that
// grants fewer gets fewer.
func (s *session) openChannels(ctx context.Context) error {
	s.hostQueues = 1
	if s.version >= nvsp.V5 {
		if err := s.askQueues(ctx); err != nil {
			return err
		}
		if n := min(s.want.queues, s.maxQueues()); n > 1 {
			if err := s.openSubChannels(ctx, n-1); err != nil {
				return err
			}
		}
	}
	if err := s.startRSS(ctx); err != nil {
		return err
	}
	s.senders = make([]*sender, len(s.queues))
	for i := range s.senders {
		s.senders[i] = newSender(s)
	}
	return nil
}

// maxQueues is how many channels the device can have.
func (s *session) maxQueues() int { return min(s.hostQueues, s.dev.VPs(), MaxChannels) }

// askQueues asks how many channels the host allows.
func (s *session) askQueues(ctx context.Context) error {
	h := rndis.RSSCapabilitiesQuery()
	ask := make([]byte, h.Size)
	h.Append(ask[:0])
	b, err := s.query(ctx, rndis.OIDReceiveScaleCaps, ask)
	if err == nil {
		var c rndis.RSSCapabilities
		if c, err = rndis.ParseRSSCapabilities(b); err == nil {
			s.hostQueues = int(min(max(c.Queues, 1), MaxChannels))
			if s.hostQueues > 1 {
				s.tableEntries = c.TableEntries()
			}
			return nil
		}
	}
	if refused(err) {
		return nil // one channel
	}
	return err
}

// openSubChannels asks for n channels more and opens what is granted, as far as it
// can be opened.
func (s *session) openSubChannels(ctx context.Context, n int) error {
	m, err := s.ask(ctx, "answer to SUBCHANNEL",
		nvsp.SubChannelRequest{Op: nvsp.SubChannelAllocate, Count: uint32(n)}.Append(nil), nvsp.TypeSubChannel)
	if err != nil {
		return err
	}
	c, err := nvsp.ParseSubChannelComplete(m)
	if err != nil {
		return err
	}
	if c.Status != nvsp.StatusSuccess {
		s.n.log.Warn("netvsc: the host grants no sub-channels", "wanted", n, "status", c.Status)
		return nil
	}
	if c.Count > uint32(n) {
		return fmt.Errorf("open %d sub-channels: the host grants %d: %w", n, c.Count, nvsp.ErrMalformed)
	}
	for i := range int(c.Count) {
		err := s.openQueue(ctx, i+1)
		if err != nil && (ctx.Err() != nil || s.broken()) {
			return err
		}
		if err != nil {
			s.n.log.Warn("netvsc: using fewer channels", "granted", c.Count, "err", err)
			break
		}
	}
	return nil
}
