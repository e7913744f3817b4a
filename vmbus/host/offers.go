package host

import (
	"bytes"
	"slices"

	"hvnet/rule"
	"hvnet/vmbus"
)

// add is the event of a new device, before or during a connection. No other
// device that isn't withdrawn has the same class and instance.
func (m *machine) add(id deviceID, o vmbus.Offer) {
	d := &devState{id: id, offer: o}
	// Sorted, so that relids stay the same from boot to boot.
	at, _ := slices.BinarySearchFunc(m.devices, d, compareDevices)
	m.devices = slices.Insert(m.devices, at, d)
	m.offerAll()
}

func compareDevices(a, b *devState) int {
	if c := bytes.Compare(a.offer.Class[:], b.offer.Class[:]); c != 0 {
		return c
	}
	if c := bytes.Compare(a.offer.Instance[:], b.offer.Instance[:]); c != 0 {
		return c
	}
	return int(a.id) - int(b.id)
}

// requestOffers sends all offers there are. More follow without a terminator.
func (m *machine) requestOffers() {
	if m.requested {
		m.drop(vmbus.TypeRequestOffers, rule.OffersOnce.Broken("offers were already requested"))
		return
	}
	m.requested = true
	m.offerAll()
	m.send(vmbus.AllOffersDelivered{}.Append(nil))
}

// offerAll offers every device that the guest should have and hasn't.
func (m *machine) offerAll() {
	if !m.requested || m.ending != nil {
		return
	}
	for _, d := range m.devices {
		if d.primary == nil && !d.withdrawn && !d.refused && !m.lingers(d) {
			d.primary = m.offer(d, 0)
		}
	}
}

// lingers says whether the guest still holds an earlier device with the identity
// of d. A guest takes a second primary of one identity for a broken sub-channel.
func (m *machine) lingers(d *devState) bool {
	return slices.ContainsFunc(m.devices, func(e *devState) bool {
		return e != d && e.primary != nil && e.offer.Class == d.offer.Class && e.offer.Instance == d.offer.Instance
	})
}

// offer sends one offer. It returns nil if the guest has no relid left.
func (m *machine) offer(d *devState, index int) *chanState {
	relid := uint32(1)
	for m.channels[relid] != nil {
		relid++
	}
	if relid >= vmbus.RelidLimit {
		m.drop(vmbus.TypeOffer, rule.RelidLimit.Broken("all relids are in use"))
		return nil
	}
	ch := &chanState{relid: relid, dev: d, index: index, monitor: m.takeMonitor(relid)}
	m.channels[relid] = ch
	o := d.offer
	o.Relid = relid
	o.SubChannel = uint16(index)
	o.MonitorID, o.Monitored = ch.monitor, ch.monitor != noMonitor
	o.Dedicated = true
	o.ConnID = eventConn + relid
	m.send(o.Append(nil, m.version))
	return ch
}

// offerSubs is the order to offer sub-channels 1 to n. Those that the guest has
// stay as they are.
func (m *machine) offerSubs(id deviceID, n int) {
	d := m.device(id)
	if d == nil || d.primary == nil || d.primary.state != open || d.withdrawn || m.ending != nil {
		return // the guest has just closed the device, or is about to
	}
	for i := 1; i <= n; i++ {
		if slices.ContainsFunc(d.subs, func(ch *chanState) bool { return ch.index == i }) {
			continue
		}
		ch := m.offer(d, i)
		if ch == nil {
			return
		}
		d.subs = append(d.subs, ch)
	}
}

// withdraw is the order to take a device away, the sub-channels first. Channels that
// are open stay so until the guest closes them, tears the rings down or releases the
// relid: it waits for the completion of what it has sent (Linux, in
// rndis_filter_halt_device, with the network configuration locked and for ever).
func (m *machine) withdraw(id deviceID) {
	d := m.device(id)
	if d == nil || d.withdrawn {
		return
	}
	d.withdrawn = true
	if d.primary == nil {
		m.discard(d)
		return
	}
	for _, ch := range append(slices.Clone(d.subs), d.primary) {
		ch.rescind = true
		ch.reopen = nil
	}
	m.settle(d)
}

func (m *machine) device(id deviceID) *devState {
	for _, d := range m.devices {
		if d.id == id {
			return d
		}
	}
	return nil
}

func (m *machine) discard(d *devState) {
	m.devices = slices.DeleteFunc(m.devices, func(e *devState) bool { return e == d })
	m.do(forget{d.id})
}

// rescindSubs begins to take the sub-channels away when the guest closes the primary.
func (m *machine) rescindSubs(d *devState) {
	for _, ch := range d.subs {
		ch.rescind = true
		m.shut(ch)
	}
}

// settle does for the channels of d what has waited until nothing holds them: the
// sub-channels first, then the primary, which waits until the guest has heard of all
// the others.
func (m *machine) settle(d *devState) {
	if m.ending != nil {
		return
	}
	d.subs = slices.DeleteFunc(d.subs, func(ch *chanState) bool {
		if ch.state == closed && ch.release {
			m.free(ch)
			return true
		}
		return m.rescindIdle(ch)
	})
	ch := d.primary
	if ch == nil || slices.ContainsFunc(d.subs, func(sub *chanState) bool { return !sub.told }) {
		return
	}
	if len(d.subs) > 0 {
		if ch.state == open {
			m.rescindIdle(ch)
		}
		return
	}
	if ch.release && (ch.state == closed || ch.state == revoked) {
		m.free(ch)
		d.primary = nil
		m.leave(d)
		d.refused = true
		if d.withdrawn {
			m.discard(d)
		}
		m.offerAll()
		return
	}
	if m.rescindIdle(ch) {
		m.leave(d)
	}
}

// rescindIdle sends RESCIND for a channel if it is to be sent and can be now, and
// reports whether the channel is revoked. What was asked about the GPADLs of a closed
// one is answered before; an open one can still answer.
func (m *machine) rescindIdle(ch *chanState) bool {
	if !ch.rescind || ch.state != closed && ch.state != open {
		return false
	}
	gpadls := m.gpadlsOf(ch)
	if ch.state == closed && slices.ContainsFunc(gpadls, func(g *gpadl) bool { return g.tearing }) {
		return false
	}
	if !ch.told {
		for _, g := range gpadls {
			if g.list != nil {
				m.refuse(g)
			}
		}
		ch.told = true
		m.send(vmbus.RescindOffer{Relid: ch.relid}.Append(nil))
	}
	if ch.state == open {
		return false
	}
	ch.state = revoked
	return true
}

// relidReleased ends a channel: after RESCIND, or because the guest doesn't want it.
func (m *machine) relidReleased(r vmbus.RelidReleased) {
	ch := m.channels[r.Relid]
	switch {
	case ch == nil:
		m.drop(vmbus.TypeRelidReleased, rule.RelidOffered.Broken("unknown relid"))
	case ch.lets() && !ch.release:
		ch.release = true
		m.letGo(ch)
	case ch.state == opening, ch.state == open, ch.release:
		m.drop(vmbus.TypeRelidReleased, rule.ChannelState.Broken("the channel is %v", ch.state))
	case ch.state == revoked && ch != ch.dev.primary:
		m.free(ch)
	default:
		ch.release, ch.reopen = true, nil
		m.settle(ch.dev)
	}
}

// free gives the relid back, and all GPADLs that were left on the channel.
func (m *machine) free(ch *chanState) {
	for _, g := range m.gpadlsOf(ch) {
		if g.list == nil && !g.tearing && ch.dev.used {
			m.do(revoke{ch.dev.id, g.id})
		}
		m.forget(g)
	}
	m.giveMonitor(ch.monitor)
	delete(m.channels, ch.relid)
}

// leave tells the backend that its guest is done with it.
func (m *machine) leave(d *devState) {
	if d.used {
		d.used = false
		m.do(remove{d.id})
	}
}
