package guest

import (
	"errors"
	"fmt"

	"hvnet/vmbus"
	"hvnet/vmbus/channel"
)

// beginOpen reserves a channel for opening.
func (m *machine) beginOpen(ch *chanState) error {
	switch {
	case ch.rescinded:
		return channel.ErrRescinded
	case ch.state != offered:
		return fmt.Errorf("the channel is %s", ch.state)
	}
	ch.state = reserved
	return nil
}

// open asks the host to open a reserved channel whose rings it knows. The answer
// is OPENCHANNEL_RESULT. Each attempt has its own open id, so that a late answer
// to an earlier one is recognised.
func (m *machine) open(ch *chanState, ring uint32, downOffset int) (wait, error) {
	if ch.rescinded {
		return wait{}, channel.ErrRescinded
	}
	m.nextOpen++
	ch.state = opening
	relid := ch.offer.Relid
	m.post(vmbus.OpenChannel{
		Relid: relid, OpenID: m.nextOpen, GPADL: ring,
		TargetVP: uint32(ch.vp), DownOffset: uint32(downOffset),
	}.Append(nil, 0))
	return m.wait(wait{vmbus.TypeOpenResult, relid, m.nextOpen}), nil
}

func (m *machine) openResult(r vmbus.OpenResult) error {
	err := statusError(r.Status)
	if e := m.answer(wait{vmbus.TypeOpenResult, r.Relid, r.OpenID}, err); e != nil {
		return e
	}
	if ch := m.channels[r.Relid]; ch != nil && ch.state == opening {
		if ch.state = open; err != nil {
			ch.state = reserved
		}
	}
	return nil
}

// close begins to close a channel that is open, may be, or was to be.
func (m *machine) close(ch *chanState) {
	asked := ch.state == opening || ch.state == open
	ch.state = closing
	if ch.primary == nil {
		for _, sub := range m.channels {
			if sub.primary == ch {
				sub.stale = true
				m.leave(sub.vp)
			}
		}
	}
	if asked && !ch.rescinded {
		m.post(vmbus.CloseChannel{Relid: ch.offer.Relid}.Append(nil))
	}
}

// closed ends closing, or an attempt to open: nothing uses the rings any more.
func (m *machine) closed(ch *chanState) {
	ch.state = offered
	m.release(ch)
}

// modify asks the host to interrupt another virtual processor for an open channel.
// The answer, from version 5.3 on, is MODIFYCHANNEL_RESPONSE; then the channel has moved.
func (m *machine) modify(ch *chanState, vp int) (wait, error) {
	w := wait{message: vmbus.TypeModifyChannelResponse, relid: ch.offer.Relid}
	switch {
	case ch.rescinded:
		return w, channel.ErrRescinded
	case !m.version.HasModifyChannel():
		return w, fmt.Errorf("version %s has no way to move a channel", m.version)
	case ch.state != open:
		return w, fmt.Errorf("the channel is %s", ch.state)
	case m.waiting[w]:
		return w, errors.New("the channel is being moved")
	}
	m.post(vmbus.ModifyChannel{Relid: ch.offer.Relid, TargetVP: uint32(vp)}.Append(nil))
	if m.version.HasModifyChannelResponse() {
		m.wait(w)
	}
	return w, nil
}

// moved is the event of a channel that interrupts another virtual processor from now
// on.
func (m *machine) moved(ch *chanState, vp int) {
	old := ch.vp
	ch.vp = vp
	m.placement.taken[vp] = true
	m.leave(old)
}
