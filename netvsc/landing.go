package netvsc

import (
	"hvnet/counter"
	"hvnet/nic"
)

// land returns where the source shall put the next frame: the free part of the
// section that the last frame went to, for frames of one flow come together, and
// behind it a page run if the section can't take the longest frame. Room for the
// RNDIS header is kept in front. first is nil if there is no memory.
func (t *sender) land() (first, rest []byte) {
	s := t.s
	// All or nothing: what is taken without a frame being read is given back, and
	// then wakes who waits for it.
	if s.needRun && !t.openRun() {
		return nil, nil
	}
	b := &t.spare
	if l := t.cur; l != nil {
		b = &l.open
		if b.frames >= s.maxPackets || s.next(b)+s.landing > s.limit || !t.reserve() {
			t.post(l) // and so t.cur is nil
			b = &t.spare
		}
	}
	if b.section == none && !t.openSection(b) {
		if !t.openRun() {
			return nil, nil
		}
		return s.runs.bytes(t.run)[headroom:], nil
	}
	if s.needRun {
		rest = s.runs.bytes(t.run)
	}
	return b.mem[s.next(b)+headroom : s.limit], rest
}

// reserve makes sure that there is a section to copy a frame to that turns out to be
// for another channel: on the wrong one it could overtake others of its flow.
func (t *sender) reserve() bool {
	return len(t.lanes) == 1 || t.spare.section != none || t.openSection(&t.spare)
}

// openRun makes sure that there is a page run to land in.
func (t *sender) openRun() bool {
	if t.run == none {
		t.run = t.s.runs.take()
	}
	return t.run != none
}

// landed takes a frame of n bytes that the source has put where land said. Only
// now its flow is known, and with it the channel: a frame for another one than
// that of the batch it landed in is copied over, but what lies in a page run is
// only handed over. It returns false if there is no memory for another one.
func (t *sender) landed(first []byte, n int, m nic.Offload) bool {
	s := t.s
	if !s.sendable(n, m) {
		return true
	}
	here := min(n, len(first))
	to, e := &t.lanes[0], entrySet(0)
	// The host sees this memory too: a private copy decides.
	look := nic.HeaderLen + nic.TagLen
	if len(t.lanes) > 1 || t.spell != 0 || m.Checksum == nic.ChecksumPartial {
		look = nic.HeadLen
	}
	head := t.head[:copy(t.head[:look], first[:here])]
	if !t.tell(head) {
		return true
	}
	if len(t.lanes) > 1 {
		to, e = t.lane(t.flow(head))
		t.held |= e & t.moving
		t.curing.hold()
	}
	if t.spell != 0 {
		to.q.txFlows.note(head, t.spell)
	}
	if m.Checksum == nic.ChecksumPartial {
		if !t.offloads.ask(&t.info, head, n, m) {
			return t.landedOffload(to, e, first[:here], n, m)
		}
		copy(first, head)
	}
	switch {
	case t.cur == nil && t.spare.section == none:
		if headroom+n <= s.limit {
			s.n.count.Add(counter.TxSendFull, 1)
		}
		t.post(to)
		to.open.run, t.run = t.run, none
		t.commit(to, n, e)
		return true
	case to == t.cur:
	case t.steer(to, first[:here], n):
	default: // the section it landed in is nobody's yet
		t.post(to)
		to.open, t.spare = t.spare, emptyBatch
		t.cur = to
	}
	t.commitLanded(to, n, here, e)
	return true
}

// steer copies the first bytes of a frame of n to a batch of the lane it belongs
// to, and has the next frame land there. It returns false if the frame is better left
// where it is, in the spare section.
func (t *sender) steer(to *lane, first []byte, n int) bool {
	s := t.s
	b := &to.open
	at := s.next(b)
	if b.section == none || b.frames >= s.maxPackets || at+headroom+len(first) > s.limit {
		if t.cur == nil {
			return false
		}
		t.post(to)
		*b, t.spare = t.spare, emptyBatch // land has seen to it
		at = 0
	}
	copy(b.mem[at+headroom:], first)
	s.n.count.Add(counter.TxSteerCopy, 1)
	t.cur = to
	return true
}

// commitLanded accounts for a frame of n bytes whose first here bytes are in the
// lane's open section and the rest in the page run.
func (t *sender) commitLanded(l *lane, n, here int, e entrySet) {
	t.touch(l)
	l.open.entries |= e
	t.s.message(&l.open, n, here, &t.info)
	if here < n {
		l.open.run, l.open.runLen, t.run = t.run, n-here, none
		t.post(l)
	}
}

// leave gives back what the next frame would have landed in. It may be all that
// another pump waits for.
func (t *sender) leave() {
	if t.spare.section == none && t.run == none {
		return
	}
	t.s.discard(&t.spare)
	t.spare = emptyBatch
	if t.run != none {
		t.s.runs.give(t.run)
		t.run = none
	}
	if t.s.n.starving.Load() > 0 {
		t.s.n.wakePumps()
	}
}
