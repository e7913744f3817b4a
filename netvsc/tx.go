package netvsc

import (
	"sync"

	"hvnet/counter"
	"hvnet/nic"
	"hvnet/offload"
	"hvnet/rndis"
)

// headroom is what is kept free in front of a frame: the RNDIS header, with the per-packet
// information that a frame may turn out to need when it has landed. That is one piece for what
// the host is to do, and one for a tag, which then is no longer in the frame.
const headroom = rndis.PacketHeaderSize + 2*rndis.PPISize - tagSize

// A batch is what one ring packet carries: RNDIS messages in a send section, the
// last of which may go on in a page run; or one message in a page run alone.
type batch struct {
	mem     []byte // of the section
	section int32  // or none
	run     int32  // or none
	runLen  int    // bytes in the run
	used    int    // where the last message ends in the section
	last    int    // where it begins
	frames  uint32
	bytes   uint32   // of the frames, without RNDIS
	entries entrySet // of the frames' flows, if there are several channels
}

// A lane is where a sender collects what goes to one channel.
type lane struct {
	q     *queue
	open  batch   // takes further frames if it has a section
	ready []batch // waits for the producer lock
	used  bool    // holds something since the last flush
}

// readyMax is how many ring packets a lane collects before it takes the lock.
const readyMax = 8

// A sender turns frames into batches. It belongs to one goroutine at a time and to
// one attachment of the device.
type sender struct {
	mu     sync.Mutex // taken by Send; a pump's sender has one user
	s      *session
	lanes  []lane
	used   []*lane            // the lanes with something in them
	told   *[tableSize]uint32 // the host's table
	table  [tableSize]*lane   // made from it
	moving entrySet           // whose lane is another one than the table's, as yet
	held   entrySet           // those of them that are waited for

	levels   offload.HashTypes // whose ports count
	offloads *offloads         // what the host is asked to do
	curing   curing
	spell    uint32 // in which flows are noted, or 0

	// Of a pump: where the next frame lands.
	cur   *lane             // in the open batch of this lane,
	spare batch             // or else in the section of this one, if it has one,
	run   int32             // and on, or alone, in this page run
	head  [nic.HeadLen]byte // private copy of what decides about the frame
	info  rndis.Info        // what the host is asked for the frame
	keeps bool              // what there is no memory for is kept
	kept  kept

	cutting cutting
}

func newSender(s *session) *sender {
	t := &sender{s: s, lanes: make([]lane, len(s.queues)), used: make([]*lane, 0, len(s.queues)), spare: emptyBatch, run: none}
	for i := range t.lanes {
		t.lanes[i] = lane{q: s.queues[i], open: emptyBatch, ready: make([]batch, 0, readyMax)}
	}
	t.told = s.table.Load()
	for e := range t.table {
		t.table[e] = t.wanted(e)
	}
	t.curing.pairs, t.curing.marks = s.n.pairs.set.Load(), make([]uint32, len(t.lanes))
	return t
}

// flow returns the flow hash of a frame, for the choice of its channel. head is
// private memory. The host knows nothing of it, so it is the cheap hash.
func (t *sender) flow(head []byte) uint32 {
	t.curing.moves, t.curing.byPair = false, false
	f := offload.FastFlow(head, t.levels)
	switch {
	case !t.curing.on:
	case f.UDP:
		return t.cure(&f)
	case f.Fragment:
		return f.Pair
	}
	return f.Hash
}

var emptyBatch = batch{section: none, run: none}

// Send copies frames into guest memory and hands them to the host. It returns how
// many it has taken: it stops at the first frame whose channel is stopped, or for
// which there is no memory, because the host is behind. It never blocks. It takes
// none while the NIC is down or being reconfigured. While a virtual function is in use it
// takes all of them, see [VF].
//
// queue says which caller this is, so that several don't wait for each other; any
// number does. The channel is chosen by flow, see [NIC.Channels]. Frames that can
// never be sent, longer than MTU and header or shorter than a header, are taken,
// dropped and counted.
func (n *NIC) Send(queue int, frames []nic.Frame) int {
	n.gate.RLock()
	defer n.gate.RUnlock()
	if !n.open() {
		return 0
	}
	s := n.session.Load()
	if s.broken() {
		return 0
	}
	if p := n.vf.active.Load(); p != nil {
		p.send(s, queue, frames)
		return len(frames)
	}
	t := s.senders[uint(queue)%uint(len(s.senders))]
	t.mu.Lock()
	defer t.mu.Unlock()
	t.begin()
	taken := 0
	for i := range frames {
		ok := t.add(&frames[i])
		if !ok && t.curing.moves { // which may well be at once
			t.flush()
			t.begin()
			ok = t.add(&frames[i])
		}
		if !ok {
			break
		}
		t.curing.count()
		taken++
	}
	t.flush()
	return taken
}

// begin prepares for a batch of frames.
func (t *sender) begin() {
	t.levels, t.spell = t.s.n.levels(), t.s.n.look.spell.Load()
	t.offloads = &t.s.features.Load().send
	if told := t.s.table.Load(); told != t.told {
		t.told, t.moving = told, allEntries
	}
	if t.moving != 0 {
		t.move()
	}
	t.curing.on, t.curing.now = t.s.n.FragmentCure(), 0
	if pairs := t.s.n.pairs.set.Load(); pairs != t.curing.pairs {
		t.follow(pairs)
	}
}

// lane returns the lane of the channel for a flow, and the set of its entry alone.
func (t *sender) lane(hash uint32) (*lane, entrySet) {
	e := hash % tableSize
	return t.table[e], 1 << e
}

// add copies a frame to its lane. It returns false if there is no way to take it now.
func (t *sender) add(f *nic.Frame) bool {
	n := f.Len()
	if !t.s.sendable(n, f.Offload) {
		return true
	}
	l, e := &t.lanes[0], entrySet(0)
	if len(t.lanes) > 1 {
		l, e = t.lane(t.flow(f.Head))
	}
	if l.q.stopped.Load() || e&t.moving != 0 || t.curing.moves {
		return false
	}
	if t.spell != 0 {
		l.q.txFlows.note(f.Head, t.spell)
	}
	if f.Offload.Checksum == nic.ChecksumPartial {
		return t.addOffload(l, e, f)
	}
	return !t.tell(f.Head) || t.put(l, e, f, n, nil)
}

// put copies a frame of n bytes, of a flow of entry e, to a lane. The host is told t.info of it,
// and gets other first bytes if head is not empty. A checksum that the host is not asked for is
// computed.
func (t *sender) put(l *lane, e entrySet, f *nic.Frame, n int, head []byte) bool {
	mem := t.room(l, n)
	if mem == nil {
		return false
	}
	f.CopyTo(mem)
	switch {
	case head != nil:
		copy(mem, head)
	case f.Offload.Checksum == nic.ChecksumPartial:
		complete(mem, f.Offload)
	}
	t.commit(l, n, e)
	return true
}

// sendable reports whether a frame of n bytes can be sent, and counts it if not.
func (s *session) sendable(n int, m nic.Offload) bool {
	longest := s.maxFrame
	if m.Segment != nic.SegmentNone && nic.HeaderLen+int(m.Size) <= s.maxFrame {
		longest = maxLarge
	}
	switch {
	case n < nic.MinFrame, m.Checksum == nic.ChecksumPartial && int(m.Start)+int(m.Field)+2 > n,
		m.Segment != nic.SegmentNone && m.Size == 0: // segments of nothing have no end
		s.n.count.Add(counter.TxMalformed, 1)
	case n > longest:
		s.n.count.Add(counter.TxTooBig, 1)
	default:
		return true
	}
	return false
}

// room returns where a frame of n bytes goes in the lane: behind the last one in
// the open section, else in a section of its own, else in a page run. It returns
// nil if there is nothing left.
func (t *sender) room(l *lane, n int) []byte {
	s := t.s
	if l.open.section != none {
		if at := s.next(&l.open); l.open.frames < s.maxPackets && at+headroom+n <= s.limit {
			return l.open.mem[at+headroom : at+headroom+n]
		}
		t.post(l)
	}
	if headroom+n <= s.limit && t.openSection(&l.open) {
		return l.open.mem[headroom : headroom+n]
	}
	if l.open.run = s.runs.take(); l.open.run == none {
		return nil
	}
	if headroom+n <= s.limit {
		s.n.count.Add(counter.TxSendFull, 1)
	}
	return s.runs.bytes(l.open.run)[headroom : headroom+n]
}

// openSection gives an empty batch a section.
func (t *sender) openSection(b *batch) bool {
	i := t.s.sections.take()
	if i == none {
		return false
	}
	b.section, b.mem = i, t.s.sections.bytes(i)
	return true
}

// commit accounts for a frame of n bytes, of a flow of entry e, that is where room said.
func (t *sender) commit(l *lane, n int, e entrySet) {
	t.touch(l)
	l.open.entries |= e
	if l.open.section != none {
		t.s.message(&l.open, n, n, &t.info)
		return
	}
	t.s.messageInRun(&l.open, n, &t.info)
	t.post(l)
}

func (t *sender) touch(l *lane) {
	if !l.used {
		l.used = true
		t.used = append(t.used, l)
	}
}

// next returns where the next message begins in a batch's section.
func (s *session) next(b *batch) int { return (b.used + s.align - 1) &^ (s.align - 1) }

// message writes the RNDIS header for a frame of n bytes, the first here of which
// are in the section and the rest in the batch's page run.
func (s *session) message(b *batch, n, here int, info *rndis.Info) {
	at := s.next(b)
	if b.frames > 0 {
		// A message that another one follows is padded, and its length says so.
		clear(b.mem[b.used:at])
		rndis.SetPacketLength(b.mem[b.last:], at-b.last)
	}
	putHeader(b.mem[at:], n, info)
	b.last, b.used = at, at+headroom+here
	b.frames++
	b.bytes += uint32(n - tagBytes(info))
}

// messageInRun writes the RNDIS header for a frame of n bytes that is in the
// batch's page run alone.
func (s *session) messageInRun(b *batch, n int, info *rndis.Info) {
	putHeader(s.runs.bytes(b.run), n, info)
	b.runLen = headroom + n
	b.frames, b.bytes = 1, uint32(n-tagBytes(info))
}

// post closes the lane's open batch.
func (t *sender) post(l *lane) {
	if l.open.frames > 0 {
		if len(l.ready) == readyMax {
			l.flush()
		}
		l.ready = append(l.ready, l.open)
	} else {
		t.s.discard(&l.open)
	}
	l.open = emptyBatch
	if t.cur == l {
		t.cur = nil
	}
}

// flush hands everything that was collected to the channels. It returns a queue
// that is stopped now, if any.
func (t *sender) flush() (stopped *queue) {
	for _, l := range t.used {
		t.post(l)
		l.flush()
		l.used = false
		if l.q.stopped.Load() {
			stopped = l.q
		}
	}
	t.used = t.used[:0]
	if c := &t.curing; c.cured > 0 {
		t.s.n.count.Add(counter.UDPFragL3Sticky, c.cured)
		c.cured = 0
	}
	return stopped
}

// flush puts the lane's batches into the ring: the lock is taken once, the host
// signalled at most once.
func (l *lane) flush() {
	if len(l.ready) == 0 {
		return
	}
	q := l.q
	q.ch.Lock()
	for i := range l.ready {
		q.put(&l.ready[i])
	}
	q.ch.Flush()
	q.watermark()
	q.ch.Unlock()
	l.ready = l.ready[:0]
	q.s.n.watch.start()
}

// discard gives back the memory of a batch that is not sent.
func (s *session) discard(b *batch) {
	if b.section != none {
		s.sections.give(b.section)
	}
	if b.run != none {
		s.runs.give(b.run)
	}
}
