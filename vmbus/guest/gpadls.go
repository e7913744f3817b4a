package guest

import (
	"errors"

	"hvnet/hv"
	"hvnet/vmbus"
	"hvnet/vmbus/channel"
)

// create makes a region known to the host, on behalf of a channel. The answer is
// GPADL_CREATED.
func (m *machine) create(ch *chanState, r hv.Region) (id uint32, w wait, err error) {
	if ch.rescinded {
		return 0, wait{}, channel.ErrRescinded
	}
	for id == 0 || m.gpadls[id] != nil {
		id = m.nextGPADL
		m.nextGPADL++
	}
	relid := ch.offer.Relid
	messages, err := vmbus.AppendGPADL(nil, relid, id, r.Pages(), r.PFN)
	if err != nil {
		return 0, wait{}, err
	}
	for _, b := range messages {
		m.post(b)
	}
	m.gpadls[id] = &gpadl{ch: ch, region: r}
	return id, m.wait(wait{vmbus.TypeGPADLCreated, relid, id}), nil
}

func (m *machine) gpadlCreated(c vmbus.GPADLCreated) error {
	g := m.gpadls[c.ID]
	if g == nil || g.created || g.ch.offer.Relid != c.Relid {
		return errUnasked
	}
	err := statusError(c.Status)
	if err != nil {
		m.end(c.ID, g)
	} else {
		g.created = true
	}
	if m.answer(wait{vmbus.TypeGPADLCreated, c.Relid, c.ID}, err) != nil && err == nil {
		// Too late: whoever wanted it has given up.
		m.teardown(c.ID)
	}
	return nil
}

// teardown takes a GPADL back. The answer is GPADL_TORNDOWN, also for a channel
// that was rescinded.
func (m *machine) teardown(id uint32) error {
	g := m.gpadls[id]
	switch {
	case g == nil:
		return errors.New("there is no such GPADL")
	case !g.created:
		return errors.New("the host has not confirmed the GPADL")
	case g.tearing:
		return errors.New("the GPADL is being torn down")
	}
	g.tearing = true
	m.post(vmbus.GPADLTeardown{Relid: g.ch.offer.Relid, ID: id}.Append(nil))
	return nil
}

// unshare is teardown for somebody who waits.
func (m *machine) unshare(id uint32) (wait, error) {
	if err := m.teardown(id); err != nil {
		return wait{}, err
	}
	return m.wait(wait{vmbus.TypeGPADLTorndown, m.gpadls[id].ch.offer.Relid, id}), nil
}

func (m *machine) gpadlTorndown(d vmbus.GPADLTorndown) error {
	g := m.gpadls[d.ID]
	if g == nil || !g.tearing {
		return errUnasked
	}
	m.end(d.ID, g)
	m.answer(wait{vmbus.TypeGPADLTorndown, g.ch.offer.Relid, d.ID}, nil)
	return nil
}

// end forgets a GPADL that the host does not hold.
func (m *machine) end(id uint32, g *gpadl) {
	delete(m.gpadls, id)
	if g.free && !m.shared(g.region) {
		m.do(free{g.region})
	}
	m.release(g.ch)
}

// shared says whether the host may hold the region.
func (m *machine) shared(r hv.Region) bool {
	for _, g := range m.gpadls {
		if g.region.GPA == r.GPA {
			return true
		}
	}
	return false
}

// freeLater says whether the host may hold the region; it is freed then when the
// host lets go, which may be never.
func (m *machine) freeLater(r hv.Region) bool {
	for _, g := range m.gpadls {
		if g.region.GPA == r.GPA {
			g.free = true
		}
	}
	return m.shared(r)
}
