package host

import (
	"hvnet/rule"
	"hvnet/vmbus"
)

func (m *machine) openResult(relid, openID, status uint32) {
	m.send(vmbus.OpenResult{Relid: relid, OpenID: openID, Status: status}.Append(nil))
}

// openChannel is OPENCHANNEL. A channel that is still closing opens afterwards; a
// revoked one gets no answer, since its guest is about to see RESCIND.
func (m *machine) openChannel(o vmbus.OpenChannel) {
	ch := m.channels[o.Relid]
	switch {
	case ch == nil:
		m.drop(vmbus.TypeOpenChannel, rule.RelidOffered.Broken("unknown relid"))
		return
	case ch.state == closing && ch.reopen == nil && !ch.rescind && !ch.release:
		ch.reopen = &o
		return
	case ch.state == revoked || ch.rescind:
		return
	case ch.state != closed || ch.release:
		m.drop(vmbus.TypeOpenChannel, rule.ChannelState.Broken("the channel is %v", ch.state))
		return
	}
	g := m.gpadls[o.GPADL]
	up, down, why := m.rings(ch, g, o)
	if why != nil {
		m.drop(vmbus.TypeOpenChannel, why)
		m.openResult(o.Relid, o.OpenID, vmbus.StatusUnsuccessful)
		return
	}
	ch.state = opening
	ch.ring = g.id
	ch.openID = o.OpenID
	ch.dev.used = true
	vp := -1
	if o.TargetVP != vmbus.NoVP {
		vp = int(o.TargetVP)
	}
	m.do(openChannel{
		dev: ch.dev.id, relid: ch.relid, index: ch.index, vp: vp,
		up: up, down: down,
	})
}

// rings checks what OPENCHANNEL says and splits the ring GPADL. Each ring is a
// header page and at least one page of data.
func (m *machine) rings(ch *chanState, g *gpadl, o vmbus.OpenChannel) (up, down []uint64, why error) {
	switch {
	case g == nil || g.list != nil || g.tearing || g.ch != ch:
		return nil, nil, rule.OpenRings.Broken("the rings are no GPADL of the channel")
	case g.pfns == nil:
		return nil, nil, rule.OpenRings.Broken("the rings are not one range of whole pages")
	case o.DownOffset < 2 || uint64(o.DownOffset)+2 > uint64(len(g.pfns)):
		return nil, nil, rule.OpenOffset.Broken("the rings are too small: downstream at page %d of %d", o.DownOffset, len(g.pfns))
	case o.TargetVP >= uint32(m.vps) && o.TargetVP != vmbus.NoVP:
		return nil, nil, rule.TargetVP.Broken("no such virtual processor")
	case ch.index != 0 && (ch.dev.primary == nil || ch.dev.primary.state != open):
		return nil, nil, rule.OpenPrimary.Broken("the primary channel is not open")
	}
	return g.pfns[:o.DownOffset], g.pfns[o.DownOffset:], nil
}

// lets reports whether the guest may let go of a channel that was taken away while it
// was open.
func (ch *chanState) lets() bool { return ch.state == open && ch.told }

// closeChannel is CLOSECHANNEL, which has no answer; one that crosses RESCIND of a
// channel that is not open means nothing. With the primary go the sub-channels; the guest asks for new ones when it
// opens the device again.
func (m *machine) closeChannel(c vmbus.CloseChannel) {
	ch := m.channels[c.Relid]
	switch {
	case ch == nil:
		m.drop(vmbus.TypeCloseChannel, rule.RelidOffered.Broken("unknown relid"))
		return
	case ch.state == revoked || ch.rescind && !ch.lets():
		return
	case ch.state != open:
		m.drop(vmbus.TypeCloseChannel, rule.ChannelState.Broken("the channel is %v", ch.state))
		return
	}
	m.letGo(ch)
}

// letGo closes an open channel, the primary with all sub-channels.
func (m *machine) letGo(ch *chanState) {
	if ch.index == 0 {
		m.rescindSubs(ch.dev)
	}
	m.shut(ch)
	m.settle(ch.dev)
}

// modifyChannel is MODIFYCHANNEL: another VP for the interrupts. The response came
// with 5.3.
func (m *machine) modifyChannel(c vmbus.ModifyChannel) {
	ch := m.channels[c.Relid]
	status := uint32(vmbus.StatusUnsuccessful)
	if ch != nil && ch.state == open && c.TargetVP < uint32(m.vps) {
		status = vmbus.StatusSuccess
		m.do(retarget{ch.dev.id, ch.relid, int(c.TargetVP)})
	}
	switch {
	case m.version.HasModifyChannelResponse():
		m.send(vmbus.ModifyChannelResponse{Relid: c.Relid, Status: status}.Append(nil))
	case status != vmbus.StatusSuccess && (ch == nil || !ch.rescind):
		m.drop(vmbus.TypeModifyChannel, rule.TargetVP.Broken("the channel is not open, or there is no such virtual processor"))
	}
}
