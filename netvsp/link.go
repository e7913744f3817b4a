package netvsp

import (
	"encoding/binary"

	"hvnet/nic"
	"hvnet/nvsp"
	"hvnet/rndis"
	"hvnet/rule"
)

// Link returns the state of the link.
func (d *Device) Link() nic.LinkState {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.link
}

// SetLink changes the state of the link, as pulling or plugging a cable does, or its
// speed, and tells the guest. Of the speed only guests of NVSP 5 hear that announce
// to be ready for teaming; Linux does.
func (d *Device) SetLink(l nic.LinkState) {
	d.mu.Lock()
	d.link = l
	d.mu.Unlock()
	if s := d.live.Load(); s != nil {
		s.follow()
	}
}

// NetworkChange tells the guest that its NIC is in another network now. Linux takes
// the link down for two seconds, so that everybody asks for addresses again.
func (d *Device) NetworkChange() {
	if s := d.live.Load(); s != nil {
		s.indicate(func(a *adapter) [][]byte {
			return a.indications(rndis.IndicateStatus{Status: rndis.StatusNetworkChange})
		})
	}
}

// follow makes the session's link that of the device.
func (s *session) follow() {
	s.indicate(func(a *adapter) [][]byte { return a.setLink(s.d.Link()) })
}

// indicate sends the guest what the adapter has to tell.
func (s *session) indicate(what func(a *adapter) [][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.primary()
	for _, m := range what(&s.rndis) {
		if !q.reply(m) {
			q.bad(rule.RNDISAnswers.Broken("indications are left lying"))
		}
	}
	q.ch.Wake()
}

// setLink changes the state of the link and returns what to tell the guest.
func (a *adapter) setLink(l nic.LinkState) [][]byte {
	was := a.link
	a.link = l
	var list []rndis.IndicateStatus
	if was.Up != l.Up {
		m := rndis.IndicateStatus{Status: rndis.StatusMediaDisconnect}
		if l.Up {
			m.Status = rndis.StatusMediaConnect
		}
		list = append(list, m)
	}
	if was.Mbps != l.Mbps && a.ctl.version >= nvsp.V5 && a.ctl.config.Capabilities&nvsp.CapTeaming != 0 {
		list = append(list, rndis.IndicateStatus{
			Status: rndis.StatusLinkSpeedChange, Info: rndis.AppendUint32(nil, rndis.LinkSpeed(l.Mbps)),
		})
	}
	return a.indications(list...)
}

// indications returns messages for a guest that wants any. Old switches leave the
// payload out of a message's length, though they send it.
func (a *adapter) indications(list ...rndis.IndicateStatus) (messages [][]byte) {
	if !a.initialized {
		return nil
	}
	for _, m := range list {
		b := m.Append(nil)
		if a.ctl.profile.UncountedPayload {
			binary.LittleEndian.PutUint32(b[4:], uint32(len(b)-len(m.Info)))
		}
		messages = append(messages, b)
	}
	return messages
}
