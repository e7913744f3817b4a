package netvsc

import "hvnet/nic"

// Accounts says where the memory is that the NIC sends from: the sections of the send
// buffer, the runs of pages for what finds none, and the pages of control messages. In
// flight is what the host has not completed, held what a sender is filling. Senders
// are kept out while it counts; completions are not, so that for a moment a part may
// be held that is about to be free. After Close all is free.
func (n *NIC) Accounts() []nic.Account {
	n.gate.Lock()
	defer n.gate.Unlock()
	s := n.session.Load()
	sections, runs, pages := s.sections.account("send sections"), s.runs.account("page runs"), s.pages.account("control pages")
	one := func(a *nic.Account, part int32) {
		if part != none {
			a.InFlight++
		}
	}
	for _, q := range s.queues {
		q.ch.Lock()
		for i := range q.txns.slots {
			switch t := &q.txns.slots[i]; t.kind {
			case kindData:
				one(&sections, t.section)
				one(&runs, t.run)
			case kindControl:
				one(&pages, t.run)
			}
		}
		for i := range q.waiting {
			one(&sections, q.waiting[i].section)
			one(&runs, q.waiting[i].run)
		}
		q.ch.Unlock()
	}
	return []nic.Account{sections, runs, pages}
}

// account is what a pool knows of its parts.
func (p *pool) account(what string) nic.Account {
	return nic.Account{What: what, Total: p.max, Free: p.idle()}
}
