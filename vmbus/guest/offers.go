package guest

import (
	"errors"

	"hvnet/hv"
	"hvnet/vmbus"
	"hvnet/vmbus/channel"
)

// offer takes an offer: at REQUESTOFFERS, when a device is added, and for
// sub-channels. An offer that makes no sense is refused by releasing its relid,
// unless that would release another channel.
func (m *machine) offer(o vmbus.Offer) error {
	if o.Relid == 0 || o.Relid >= vmbus.RelidLimit {
		return errors.New("a relid that can't be")
	}
	if m.channels[o.Relid] != nil {
		return errors.New("the relid is in use")
	}
	ch := &chanState{offer: o}
	primary := m.primaryOf(o)
	switch {
	case o.Monitored && o.MonitorID >= hv.MonitorIDs:
		return m.refuse(o, "a monitor id that can't be")
	case o.Monitored && m.monitor[1] == 0:
		return m.refuse(o, "to be signalled by a monitor page that it hasn't got")
	case o.SubChannel == 0 && primary != nil:
		return m.refuse(o, "the device is there already")
	case o.SubChannel != 0 && (primary == nil || primary.rescinded):
		return m.refuse(o, "a sub-channel without a primary")
	case o.SubChannel != 0 && m.sub(primary, int(o.SubChannel)) != nil:
		return m.refuse(o, "the sub-channel is there already")
	}
	if o.SubChannel != 0 {
		ch.primary = primary
	}
	ch.vp = m.placement.place(int(o.SubChannel), func(vp int) bool { return m.has(ch.primary, vp) })
	m.channels[o.Relid] = ch
	m.do(arrived{})
	return nil
}

func (m *machine) refuse(o vmbus.Offer, why string) error {
	m.post(vmbus.RelidReleased{Relid: o.Relid}.Append(nil))
	return errors.New(why)
}

// primaryOf returns the primary channel with the identity of o.
func (m *machine) primaryOf(o vmbus.Offer) *chanState {
	for _, ch := range m.channels {
		if ch.primary == nil && ch.offer.Class == o.Class && ch.offer.Instance == o.Instance {
			return ch
		}
	}
	return nil
}

// sub returns the channel of a device with the given index that can still be
// used, or nil.
func (m *machine) sub(primary *chanState, index int) *chanState {
	if index == 0 {
		return primary
	}
	for _, ch := range m.channels {
		if ch.primary == primary && int(ch.offer.SubChannel) == index && !ch.rescinded && !ch.stale {
			return ch
		}
	}
	return nil
}

// has reports whether a device has a channel that interrupts a processor, but for those
// that go with its primary.
func (m *machine) has(primary *chanState, vp int) bool {
	for _, ch := range m.channels {
		if ch.vp == vp && !ch.stale && (ch == primary || ch.primary == primary) {
			return true
		}
	}
	return false
}

// leave frees a processor that a channel has left, unless another one is there.
func (m *machine) leave(vp int) {
	for _, ch := range m.channels {
		if ch.vp == vp && !ch.stale {
			return
		}
	}
	m.placement.taken[vp] = false
}

// claim returns a device of the class that no driver has, and gives it to one.
func (m *machine) claim(class vmbus.GUID) *chanState {
	for _, relid := range sortedKeys(m.channels) {
		ch := m.channels[relid]
		if ch.primary == nil && ch.offer.Class == class && !ch.claimed && !ch.rescinded {
			ch.claimed = true
			return ch
		}
	}
	return nil
}

// rescind takes an offer away, at any moment. With a primary go its sub-channels,
// which a host rescinds before.
func (m *machine) rescind(r vmbus.RescindOffer) error {
	ch := m.channels[r.Relid]
	if ch == nil {
		return errRelid
	}
	if ch.rescinded {
		return errors.New("rescinded already")
	}
	if ch.primary == nil {
		for _, relid := range sortedKeys(m.channels) {
			if sub := m.channels[relid]; sub.primary == ch && !sub.rescinded {
				m.lose(sub)
			}
		}
	}
	m.lose(ch)
	return nil
}

// lose ends a channel from the host's side: nobody waits any longer for what the
// host will not answer, and what is held of it is let go by whoever holds it.
func (m *machine) lose(ch *chanState) {
	ch.rescinded = true
	m.do(lost{ch})
	for _, w := range m.waits() {
		// The end of a GPADL is answered for rescinded channels too; it is the
		// only proof that memory is ours again.
		if w.relid == ch.offer.Relid && w.message != vmbus.TypeGPADLTorndown {
			m.answer(w, channel.ErrRescinded)
		}
	}
	m.release(ch)
}

// release gives the relid of a rescinded channel back, if nothing of the channel is
// left: no ring, no GPADL, no sub-channel.
func (m *machine) release(ch *chanState) {
	relid := ch.offer.Relid
	if !ch.rescinded || ch.state != offered || m.channels[relid] != ch {
		return
	}
	for _, g := range m.gpadls {
		if g.ch == ch {
			return
		}
	}
	for _, sub := range m.channels {
		if sub.primary == ch {
			return
		}
	}
	delete(m.channels, relid)
	m.leave(ch.vp)
	m.post(vmbus.RelidReleased{Relid: relid}.Append(nil))
	if ch.primary != nil {
		m.release(ch.primary)
	}
}
