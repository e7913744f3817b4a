package netvsp

import (
	"hvnet/hv"
	"hvnet/rule"
)

// handleNVSP does what one NVSP message asks for and answers with the payload of its
// completion.
func (s *session) handleNVSP(msg []byte, answer func(payload []byte)) {
	s.mu.Lock()
	e := s.ctl.handle(msg)
	if e.op == opMapReceive || e.op == opMapSend {
		s.mapping = e.gpadl
	}
	s.mu.Unlock()
	switch e.op {
	case opMapReceive, opMapSend:
		m, err := s.bus.Map(e.gpadl)
		err = rule.BufferGPADL.Err(err)
		s.mu.Lock()
		e = s.install(e.op, e.gpadl, m, err)
		s.mu.Unlock()
	case opRevokeReceive:
		s.mu.Lock()
		s.dropReceive()
		s.mu.Unlock()
	case opRevokeSend:
		s.mu.Lock()
		s.dropSend()
		s.mu.Unlock()
	case opSubChannels:
		// Offered when the answer is on its way: Linux ignores a sub-channel that
		// comes before it knows how many there are.
		s.primary().offer = e.n
	case opSwitchToVF, opSwitchToSynthetic:
		s.switchPath(e.op == opSwitchToVF, func(fault error) {
			if fault != nil {
				s.primary().bad(fault)
			}
			answer(nil)
		})
		return
	}
	if e.fault != nil {
		s.primary().bad(e.fault)
	}
	answer(e.reply)
}

// install takes a mapped buffer into use, or not, and returns the answer. If the
// guest tore the GPADL down while it was being mapped, it is not there any more.
// The caller holds mu.
func (s *session) install(o op, gpadl uint32, m *hv.Mapping, err error) (e effect) {
	if err == nil && s.mapping != gpadl {
		m.Close()
		m, err = nil, rule.BufferGPADL.Broken("map GPADL %#x: torn down meanwhile", gpadl)
	}
	s.mapping = 0
	var length int
	if m != nil {
		length = len(m.Bytes)
	}
	b := buffer{gpadl: gpadl, mapping: m}
	if o == opMapReceive {
		b.count, b.size, e = s.ctl.receiveMapped(length, err)
	} else {
		b.count, b.size, e = s.ctl.sendMapped(length, err)
	}
	if b.count == 0 {
		if m != nil {
			m.Close()
		}
		return e
	}
	if o == opMapReceive {
		s.receive = b
		s.takeReceive()
	} else {
		s.send = b
		s.takeSend()
	}
	return e
}

// takeReceive brings a new receive buffer into use: control sections first, the
// rest for data. The caller holds mu.
func (s *session) takeReceive() {
	b := &s.receive
	next := make([]int32, b.count)
	for _, q := range s.queues {
		if q != nil {
			q.ch.Lock()
			q.setReceive(b, next, &s.ctl)
			q.ch.Unlock()
		}
	}
	p := s.primary()
	k := controlSections(b.count)
	p.ch.Lock()
	p.control.add(0, k)
	p.ch.Unlock()
	s.pool = newPool(k, b.count)
	for _, q := range s.queues {
		s.join(q)
	}
	p.work.Lock()
	p.limits(&s.ctl)
	p.work.Unlock()
}

// join lets a queue, if there is one, take part in the sections for frames. The caller
// holds mu.
func (s *session) join(q *queue) {
	if q == nil || s.pool == nil {
		return
	}
	q.ch.Lock()
	s.pool.join(&q.data, s.ctl.subChannels+1)
	q.ch.Unlock()
}

// takeSend brings a new send buffer, or none, into use. The caller holds mu.
func (s *session) takeSend() {
	for _, q := range s.queues {
		if q != nil {
			q.work.Lock()
			q.setSend(&s.send)
			q.limits(&s.ctl)
			q.work.Unlock()
		}
	}
}

// dropReceive ends the use of the receive buffer. The caller holds mu.
func (s *session) dropReceive() {
	if s.receive.mapping == nil {
		return
	}
	for _, q := range s.queues {
		if q != nil {
			q.ch.Lock()
			q.dropReceive()
			q.ch.Unlock()
		}
	}
	s.receive.mapping.Close()
	s.receive, s.pool = buffer{}, nil
	s.ctl.revoked(opRevokeReceive)
}

// dropSend ends the use of the send buffer. It waits for batches with frames in
// it. The caller holds mu.
func (s *session) dropSend() {
	m := s.send.mapping
	if m == nil {
		return
	}
	s.send = buffer{}
	s.takeSend()
	m.Close()
	s.ctl.revoked(opRevokeSend)
}

// revoke is the end of a GPADL: whatever buffer it is, it is no longer used.
func (s *session) revoke(gpadl uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mapping == gpadl {
		s.mapping = 0
	}
	if s.receive.mapping != nil && s.receive.gpadl == gpadl {
		s.dropReceive()
	}
	if s.send.mapping != nil && s.send.gpadl == gpadl {
		s.dropSend()
	}
}
