package hv

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// PostTimeout is how long a guest waits for the host to take a message that it
// posts, before the status is StatusTimeout.
const PostTimeout = 5 * time.Second

// A pipe is a guest and its host in one process.
type pipe struct {
	memory    *Memory
	host      *HostSynIC
	guest     *GuestSynIC
	allocator *Allocator

	posts      chan *post
	bell       chan struct{}   // guest to host, capacity 1: full means already rung
	interrupts []chan struct{} // host to each VP, the same

	once sync.Once
	done chan struct{}
}

// A post is messages on their way to the handler.
type post struct {
	conn   uint32
	m      []Message
	status chan Status // capacity 1
}

// Pipe returns the two ends of a boundary within this process, for a guest of the
// given number of VPs. Guest memory is mapped twice, so that neither end can take
// the other's pointers for its own. Doorbells are Go channels.
func Pipe(vps int) (Partition, Guest, error) {
	if vps < 1 || vps > MaxVPs {
		return nil, nil, fmt.Errorf("pipe: %w: %d virtual processors, not 1 to %d", ErrRange, vps, MaxVPs)
	}
	p := &pipe{
		memory:     NewMemory(Limits{}),
		posts:      make(chan *post),
		bell:       make(chan struct{}, 1),
		interrupts: make([]chan struct{}, vps),
		done:       make(chan struct{}),
	}
	for i := range p.interrupts {
		p.interrupts[i] = make(chan struct{}, 1)
	}
	p.allocator = NewAllocator(
		func(gpa GPA, fd, size int) error { return p.memory.Add(gpa, fd, 0, int64(size)) },
		p.memory.Remove,
	)
	guest, err := NewGuestSynIC(vps, p.allocator.Alloc, func() { ring(p.bell) })
	if err != nil {
		return nil, nil, fmt.Errorf("pipe: %w", err)
	}
	p.guest = guest
	p.host = NewHostSynIC(vps, func(vp int) { ring(p.interrupts[vp]) })
	if err := p.host.MapPages(p.memory, guest.Pages()); err != nil {
		p.host.Close()
		return nil, nil, errors.Join(fmt.Errorf("pipe: %w", err), p.allocator.Close(), p.memory.Close())
	}
	return &pipePartition{pipe: p}, &pipeGuest{pipe: p}, nil
}

func ring(bell chan struct{}) {
	select {
	case bell <- struct{}{}:
	default:
	}
}

// leave tells both ends that one of them is no more.
func (p *pipe) leave() { p.once.Do(func() { close(p.done) }) }

func (p *pipe) Done() <-chan struct{} { return p.done }

func (p *pipe) VPs() int { return len(p.interrupts) }

// pipePartition is the guest's end.
type pipePartition struct{ *pipe }

func (p *pipePartition) Alloc(bytes int) (Region, error) { return p.allocator.Alloc(bytes) }

func (p *pipePartition) Free(r Region) error { return p.allocator.Free(r) }

func (p *pipePartition) PostMessage(conn uint32, payloads ...[]byte) error {
	m, err := messages(payloads)
	if err != nil {
		return err
	}
	x := &post{conn: conn, m: m, status: make(chan Status, 1)}
	timeout := time.NewTimer(PostTimeout)
	defer timeout.Stop()
	select {
	case p.posts <- x:
	case <-p.done:
		return ErrGone
	case <-timeout.C:
		return StatusTimeout
	}
	select {
	case s := <-x.status:
		return s.Err()
	case <-p.done:
		return ErrGone
	case <-timeout.C:
		return StatusTimeout
	}
}

func (p *pipePartition) SignalEvent(conn uint32) error { return p.guest.Signal(conn) }

func (p *pipePartition) Wait(vp int) error {
	if vp < 0 || vp >= p.VPs() {
		return ErrRange
	}
	select {
	case <-p.done: // even if there is an interrupt too
		return ErrGone
	default:
	}
	select {
	case <-p.interrupts[vp]:
		return nil
	case <-p.done:
		return ErrGone
	}
}

func (p *pipePartition) TakeFlags(vp int, each func(flag int)) { p.guest.TakeFlags(vp, each) }

func (p *pipePartition) TakeMessage(vp int, m *Message) bool { return p.guest.TakeMessage(vp, m) }

func (p *pipePartition) Leave() { p.leave() }

func (p *pipePartition) Close() error {
	p.leave()
	p.guest.Close()
	return p.allocator.Close()
}

// pipeGuest is the host's end.
type pipeGuest struct{ *pipe }

func (p *pipeGuest) Memory() *Memory { return p.memory }

func (p *pipeGuest) PostMessage(vp int, payload []byte) error { return p.host.Post(vp, payload) }

func (p *pipeGuest) SetFlag(vp, flag int) error { return p.host.SetFlag(vp, flag) }

func (p *pipeGuest) Serve(h Handler) error {
	var signals sync.WaitGroup
	signals.Go(func() { p.serveSignals(h) })
	p.serveMessages(h)
	signals.Wait()
	p.Close()
	return ErrGone
}

func (p *pipeGuest) serveMessages(h Handler) {
	for {
		select {
		case x := <-p.posts:
			x.status <- p.host.Deliver(h, x.conn, x.m)
		case <-p.done:
			return
		}
	}
}

func (p *pipeGuest) serveSignals(h Handler) {
	for {
		select {
		case <-p.bell:
			p.host.EOMs()
			p.host.TakeSignals(h.Signal)
		case <-p.done:
			return
		}
	}
}

func (p *pipeGuest) Close() error {
	p.leave()
	p.host.Close()
	return p.memory.Close()
}
