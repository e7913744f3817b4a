package attach

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"hvnet/hv"
)

// partition is the host as an attached guest sees it.
type partition struct {
	conn   *net.UnixConn
	memory *hv.Allocator
	synic  *hv.GuestSynIC
	host   *ringer   // rings the host
	vps    []*waiter // rung by the host
	reader sync.WaitGroup

	timeout time.Duration // of a request

	mu      sync.Mutex
	id      uint32                // of the last request
	waiting map[uint32]chan reply // for the replies to these requests

	gone  sync.Once
	done  chan struct{}
	close sync.Once
}

func (p *partition) VPs() int { return len(p.vps) }

func (p *partition) Done() <-chan struct{} { return p.done }

func (p *partition) Alloc(bytes int) (hv.Region, error) { return p.memory.Alloc(bytes) }

func (p *partition) Free(r hv.Region) error { return p.memory.Free(r) }

func (p *partition) SignalEvent(conn uint32) error { return p.synic.Signal(conn) }

func (p *partition) TakeFlags(vp int, each func(flag int)) { p.synic.TakeFlags(vp, each) }

func (p *partition) TakeMessage(vp int, m *hv.Message) bool { return p.synic.TakeMessage(vp, m) }

func (p *partition) PostMessage(conn uint32, payloads ...[]byte) error {
	if len(payloads) == 0 || len(payloads) > hv.MaxPosts {
		return hv.StatusInvalidParameter
	}
	for _, b := range payloads {
		if len(b) > hv.MaxPayload {
			return hv.StatusInvalidParameter
		}
	}
	return p.request(func(id uint32) []byte {
		if len(payloads) == 1 {
			return appendPost(nil, id, conn, hv.MessageVMBus, payloads[0])
		}
		return appendPosts(nil, id, conn, hv.MessageVMBus, payloads)
	}, nil)
}

// add tells the host of a new region.
func (p *partition) add(gpa hv.GPA, fd, size int) error {
	return p.request(func(id uint32) []byte {
		return appendAdd(nil, id, region{gpa: gpa, size: uint64(size)})
	}, []int{fd})
}

// remove tells the host that a region is no more.
func (p *partition) remove(gpa hv.GPA) error {
	return p.request(func(id uint32) []byte { return appendRemove(nil, id, gpa) }, nil)
}

// request sends a record and waits for the reply to it. A host that does not answer
// in time is given up.
func (p *partition) request(record func(id uint32) []byte, fds []int) error {
	answer := make(chan reply, 1)
	p.mu.Lock()
	p.id++
	id := p.id
	p.waiting[id] = answer
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.waiting, id)
		p.mu.Unlock()
	}()
	select {
	case <-p.done:
		return hv.ErrGone
	default:
	}
	err := send(p.conn, record(id), fds)
	if errors.Is(err, errSlow) {
		return hv.StatusInsufficientBuffers // many requests at once, or a host that is stopped
	}
	if err != nil {
		p.leave()
		return fmt.Errorf("%w: %w", hv.ErrGone, err)
	}
	timeout := time.NewTimer(p.timeout)
	defer timeout.Stop()
	select {
	case r := <-answer:
		return r.err()
	case <-p.done:
		return hv.ErrGone
	case <-timeout.C:
		p.leave() // a host that stands still would take as long for each request
		return hv.StatusTimeout
	}
}

// read hands out replies until the host is gone. A reply that nobody waits for is
// dropped.
func (p *partition) read() {
	defer p.leave()
	r := newReceiver(p.conn, maxReply, 1)
	for {
		x, err := r.next()
		if err != nil {
			return
		}
		x.close()
		head, err := parseHeader(x.data)
		if err != nil {
			return
		}
		answer, err := parseReply(x.data)
		if err != nil || head.typ != typeReply || x.cut {
			return
		}
		p.mu.Lock()
		c := p.waiting[head.id]
		delete(p.waiting, head.id)
		p.mu.Unlock()
		if c != nil {
			c <- answer
		}
	}
}

func (p *partition) Wait(vp int) error {
	if vp < 0 || vp >= len(p.vps) {
		return hv.ErrRange
	}
	if !p.vps[vp].wait() {
		return hv.ErrGone
	}
	return nil
}

// leave wakes all who wait, now and later: the host is gone, or we are.
func (p *partition) leave() {
	p.gone.Do(func() {
		close(p.done)
		for _, l := range p.vps {
			l.file.SetReadDeadline(time.Unix(1, 0))
		}
	})
}

func (p *partition) Leave() {
	p.leave()
	p.conn.CloseWrite() // the host reads the end of file
}

func (p *partition) Close() (err error) {
	p.close.Do(func() {
		p.leave()
		err = p.conn.Close()
		p.reader.Wait()
		if p.synic != nil {
			p.synic.Close() // from here on the bell is not rung
		}
		if p.host != nil {
			unix.Close(p.host.fd)
		}
		for _, l := range p.vps {
			err = errors.Join(err, l.file.Close())
		}
		if p.memory != nil {
			err = errors.Join(err, p.memory.Close())
		}
	})
	return err
}
