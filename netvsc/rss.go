package netvsc

import (
	"context"
	"fmt"
	"slices"

	"hvnet/nic"
	"hvnet/rndis"
)

// RSS returns how the host spreads received frames over the channels: the table is
// empty if it has only one channel to offer.
func (n *NIC) RSS() nic.RSS {
	r := n.session.Load().rss.Load()
	return nic.RSS{Table: slices.Clone(r.Table), Key: slices.Clone(r.Key)}
}

// SetRSS changes the table and the key by which the host spreads received frames. A
// table that was set stays, whatever the device goes through, and channels that it
// names can't be dropped, see [NIC.SetChannels]; the default one follows the number of
// channels. A key stays too. Frames keep coming meanwhile; those of one flow may overtake
// each other while the host changes over.
//
// It is refused as Linux refuses it: nic.ErrNotSupported if there is no table, even
// for a key alone; nic.ErrInvalid for a table or a key of another size, for a channel
// that is not open, and if the host refuses. Then everything is as before.
func (n *NIC) SetRSS(ctx context.Context, c nic.RSSChange) error {
	release, err := n.own(ctx)
	if err != nil {
		return err
	}
	defer release()
	if n.suspended.Load() {
		return fmt.Errorf("netvsc: set RSS: %w", errSuspended)
	}
	s := n.session.Load()
	old := s.rss.Load()
	want := n.want
	switch {
	case len(old.Table) == 0:
		return fmt.Errorf("netvsc: set RSS: %w: the host takes no table", nic.ErrNotSupported)
	case c.Table != nil && len(c.Table) != len(old.Table):
		return fmt.Errorf("netvsc: set RSS: table of %d entries: %w, want %d", len(c.Table), nic.ErrInvalid, len(old.Table))
	case c.Table != nil && !fits(c.Table, len(s.queues)):
		return fmt.Errorf("netvsc: set RSS: table with channel %d: %w, there are %d", slices.Max(c.Table), nic.ErrInvalid, len(s.queues))
	case c.Key != nil && len(c.Key) != rndis.KeySize:
		return fmt.Errorf("netvsc: set RSS: key of %d bytes: %w, want %d", len(c.Key), nic.ErrInvalid, rndis.KeySize)
	case c.Table != nil:
		want.table = slices.Clone(c.Table)
	case c.Default:
		want.table = nil
	}
	if c.Key != nil {
		want.key = [rndis.KeySize]byte(c.Key)
	}
	next := s.receiveRSS(want)
	if slices.Equal(next.Table, old.Table) && slices.Equal(next.Key, old.Key) {
		n.want = want
		return nil
	}
	if err := s.tellRSS(ctx, next); err != nil {
		if refused(err) {
			// The host may have stopped to spread by now.
			err = fmt.Errorf("%w: refused by the host: %w", nic.ErrInvalid, err)
			if e := s.tellRSS(ctx, *old); e != nil {
				err = fmt.Errorf("%w; go back to what was: %w", err, e)
			}
		}
		return fmt.Errorf("netvsc: set RSS: %w", err)
	}
	s.rss.Store(&next)
	n.want = want
	return nil
}

// fits reports whether a table names none but the first channels.
func fits(table []uint32, channels int) bool {
	return !slices.ContainsFunc(table, func(c uint32) bool { return uint64(c) >= uint64(channels) })
}

// receiveRSS returns what the session spreads received frames by. A table that was
// made for another host's size, or for more channels than there are now, is of no use
// here, and the table is even.
func (s *session) receiveRSS(want settings) nic.RSS {
	r := nic.RSS{Key: want.key[:], Table: want.table}
	if len(want.table) != s.tableEntries || !fits(want.table, len(s.queues)) {
		r.Table = make([]uint32, s.tableEntries)
		for i := range r.Table {
			r.Table[i] = uint32(i % len(s.queues))
		}
	}
	return r
}

// startRSS has the host spread what it receives, if there are channels to choose from. A
// host that does not want to is no reason to be without a NIC.
func (s *session) startRSS(ctx context.Context) error {
	r := s.receiveRSS(s.want)
	s.rss.Store(&r)
	if len(s.queues) == 1 {
		return nil
	}
	if s.want.table != nil && !slices.Equal(r.Table, s.want.table) {
		s.n.log.Warn("netvsc: the receive table that was set does not fit, it is even", "entries", s.tableEntries, "channels", len(s.queues))
	}
	err := s.tellRSS(ctx, r)
	if err != nil && refused(err) {
		s.n.log.Warn("netvsc: received frames come on one channel", "err", err)
		return nil
	}
	return err
}

// tellRSS tells the host table and key. It is told twice, as hv_netvsc does: first to
// stop spreading, then how.
func (s *session) tellRSS(ctx context.Context, r nic.RSS) error {
	p := rndis.RSSParameters{Flags: rndis.RSSDisable, HashInfo: rndis.HashDefault, Table: r.Table, Key: r.Key}
	if err := s.set(ctx, rndis.OIDReceiveScaleParameters, p.Append(nil)); err != nil {
		return err
	}
	p.Flags = 0
	return s.set(ctx, rndis.OIDReceiveScaleParameters, p.Append(nil))
}
