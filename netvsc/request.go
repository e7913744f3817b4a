package netvsc

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"hvnet/counter"
	"hvnet/hv"
	"hvnet/nvsp"
	"hvnet/ring"
	"hvnet/rndis"
	"hvnet/vmbus"
)

// A request is a question to the host that somebody waits for.
type request struct {
	what   string // for errors: "answer to OID_GEN_LINK_SPEED"
	id     uint32 // of RNDIS, 0 for an NVSP request
	reply  uint32 // the type of the message that answers it
	answer chan answer
}

type answer struct {
	msg []byte
	err error
}

// requests holds the RNDIS requests that the host has not answered. Each is taken
// out once: by its answer, by the host's refusal, or when its asker gives up. What
// comes later finds nothing.
type requests struct {
	mu      sync.Mutex
	last    atomic.Uint32
	pending map[uint32]*request
}

// newID returns the id of another RNDIS message: the first is 1.
func (r *requests) newID() uint32 { return r.last.Add(1) }

// start adds a request with a new id.
func (r *requests) start(what string, reply rndis.MessageType) *request {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pending == nil {
		r.pending = map[uint32]*request{}
	}
	q := &request{what: what, id: r.newID(), reply: uint32(reply), answer: make(chan answer, 1)}
	r.pending[q.id] = q
	return q
}

// finish gives a request its answer, once. q may be nil.
func (r *requests) finish(q *request, msg []byte, err error) {
	if q == nil {
		return
	}
	r.mu.Lock()
	delete(r.pending, q.id)
	r.mu.Unlock()
	select {
	case q.answer <- answer{msg, err}:
	default:
	}
}

// waitsFor reports whether a request with id waits for a message of type t.
func (r *requests) waitsFor(id uint32, t rndis.MessageType) *request {
	r.mu.Lock()
	defer r.mu.Unlock()
	if q := r.pending[id]; q != nil && q.reply == uint32(t) {
		return q
	}
	return nil
}

// maxReply is the longest answer of the host in bytes that is taken: header and
// one page, as hv_netvsc has it.
const maxReply = 52 + 4096

// wait waits for the answer to q. A host that has not given it in its time is
// given up: the error is [ErrSilent] too then.
func (s *session) wait(caller context.Context, q *request) ([]byte, error) {
	ctx, cancel := s.n.bound(caller)
	defer cancel()
	var err error
	select {
	case a := <-q.answer:
		if a.err == nil {
			return a.msg, nil
		}
		err = a.err
	case <-s.failed:
		err = s.err
	case <-ctx.Done():
		err = ctx.Err()
		if caller.Err() == nil {
			s.fail(fmt.Errorf("%w: no %s", ErrSilent, q.what))
			err = fmt.Errorf("%w: %w", ErrSilent, err)
		}
	}
	s.requests.finish(q, nil, err)
	return nil, fmt.Errorf("wait for %s: %w", q.what, err)
}

// ask sends an NVSP request and returns the message that answers it.
func (s *session) ask(ctx context.Context, what string, msg []byte, reply nvsp.MessageType) ([]byte, error) {
	r := &request{what: what, reply: uint32(reply), answer: make(chan answer, 1)}
	err := s.put(ctx, what, func(q *queue) ([]byte, uint64) {
		id, t := q.txns.begin()
		if t == nil {
			return nil, 0
		}
		t.kind, t.request = kindRequest, r
		return appendMessage(q.scratch[:0], vmbus.FlagCompletionRequested, id, msg), id
	})
	if err != nil {
		return nil, err
	}
	return s.wait(ctx, r)
}

// unasked is the transaction id of messages that want no answer; Linux uses it too.
const unasked = 0xfffffffffffffffd

// tell sends an NVSP message that is not answered.
func (s *session) tell(ctx context.Context, what string, msg []byte) error {
	return s.put(ctx, what, func(q *queue) ([]byte, uint64) {
		return appendMessage(q.scratch[:0], 0, unasked, msg), unasked
	})
}

// appendMessage appends an in-band packet with an NVSP message, padded as Linux
// does: to the longest message of any version.
func appendMessage(b []byte, flags uint16, id uint64, msg []byte) []byte {
	b = vmbus.AppendInBand(b, flags, id)
	start := len(b)
	return nvsp.Pad(append(b, msg...), start, nvsp.MaxSize)
}

// exchange sends an RNDIS request, which build appends with the given id, and
// returns the message that answers it.
func (s *session) exchange(ctx context.Context, what string, reply rndis.MessageType, build func(b []byte, id uint32) []byte) ([]byte, error) {
	r := s.requests.start(what, reply)
	if err := s.sendControl(ctx, what, r, build(nil, r.id)); err != nil {
		s.requests.finish(r, nil, err)
		return nil, err
	}
	return s.wait(ctx, r)
}

// sendControl sends an RNDIS control message: in a page of its own, as one range.
// r is its request, or nil.
func (s *session) sendControl(ctx context.Context, what string, r *request, msg []byte) error {
	if len(msg) > s.pages.size {
		return fmt.Errorf("send %s: %d bytes, want at most %d", what, len(msg), s.pages.size)
	}
	page, err := s.controlPage(ctx)
	if err != nil {
		return fmt.Errorf("send %s: %w", what, err)
	}
	copy(s.pages.bytes(page), msg)
	err = s.put(ctx, what, func(q *queue) ([]byte, uint64) {
		id, t := q.txns.begin()
		if t == nil {
			return nil, 0
		}
		t.kind, t.run, t.request = kindControl, page, r
		q.pages[0] = vmbus.PageRange{Count: uint32(len(msg)), PFNs: s.pagePFNs[page : page+1]}
		b := vmbus.AppendGPADirect(q.scratch[:0], id, q.pages[:])
		start := len(b)
		b = nvsp.RNDISPacket{Channel: nvsp.ChannelControl, Section: nvsp.NoSection}.Append(b)
		return nvsp.Pad(b, start, nvsp.MaxSize), id
	})
	if err != nil {
		s.pages.give(page)
	}
	return err
}

// controlPage takes a page for a control message. There may be none for a moment: a
// message is often answered before it is completed.
func (s *session) controlPage(ctx context.Context) (int32, error) {
	ctx, cancel := s.n.bound(ctx)
	defer cancel()
	for {
		if page := s.pages.take(); page != none {
			return page, nil
		}
		if err := s.pause(ctx); err != nil {
			return none, fmt.Errorf("wait for the host to complete one of the last %d control messages: %w", s.pages.max, err)
		}
	}
}

// put puts one packet into the primary channel's ring, waiting for room if need be.
// build begins the transaction; it returns nil if it can't now.
func (s *session) put(ctx context.Context, what string, build func(q *queue) ([]byte, uint64)) error {
	ctx, cancel := s.n.bound(ctx)
	defer cancel()
	q := s.queues[0]
	for {
		if s.broken() {
			return fmt.Errorf("send %s: %w", what, s.err)
		}
		err := ring.ErrFull
		q.ch.Lock()
		if b, id := build(q); b != nil {
			if err = q.ch.Out.Put(b, nil); err == nil {
				q.ch.Flush()
			} else if id != unasked {
				q.txns.end(id)
			}
			q.checkRing()
		}
		q.ch.Unlock()
		if err == nil {
			return nil
		}
		if err != ring.ErrFull {
			return fmt.Errorf("send %s: %w", what, err)
		}
		// A full ring is left to the data path, which needs its one request for
		// a signal. This is rare: look again in a moment.
		if err := s.pause(ctx); err != nil {
			return fmt.Errorf("send %s: wait for room in the ring: %w", what, err)
		}
	}
}

// control takes an RNDIS message that is not a frame: an answer, or an indication.
// front is a private copy of its start, m the range in shared memory. It returns
// false if the message is refused.
func (s *session) control(h rndis.Header, front, m []byte) bool {
	switch h.Type {
	case rndis.TypeIndicateStatus:
		// Old hosts don't count the payload in the message's length: the whole
		// range counts.
		in, err := rndis.ParseIndicateStatus(private(front, m, len(m)))
		if err != nil {
			return false
		}
		s.n.link.indicate(in)
		return true
	case rndis.TypeInitializeComplete, rndis.TypeQueryComplete, rndis.TypeSetComplete:
		id, ok := rndis.RequestID(front[:min(len(front), int(h.Length))])
		if !ok {
			return false
		}
		r := s.requests.waitsFor(id, h.Type)
		if r == nil {
			s.n.count.Add(counter.HostBadMessage, 1)
			return true
		}
		if h.Length > maxReply {
			s.requests.finish(r, nil, fmt.Errorf("%d bytes: %w", h.Length, rndis.StatusBufferOverflow))
			return true
		}
		s.requests.finish(r, private(front, m, int(h.Length)), nil)
		return true
	}
	return false
}

// private returns a copy of the first n bytes of m, as much as a reply may have.
// What of it is in front already was checked and is taken from there.
func private(front, m []byte, n int) []byte {
	b := make([]byte, min(n, maxReply))
	copy(b[copy(b, front):], m[min(len(front), len(m)):])
	return b
}

// controlPages is how many control messages the host may be slow with.
const controlPages = 8

func pfns(r hv.Region) []uint64 {
	list := make([]uint64, r.Pages())
	for i := range list {
		list[i] = r.PFN(i)
	}
	return list
}
