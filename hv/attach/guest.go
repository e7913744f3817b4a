package attach

import (
	"errors"
	"fmt"
	"net"
	"sync"

	"golang.org/x/sys/unix"

	"hvnet/hv"
	"hvnet/hv/internal/socket"
)

// guest is a guest as its host sees it.
type guest struct {
	conn   *net.UnixConn
	hello  Hello
	trust  bool
	memory *hv.Memory
	synic  *hv.HostSynIC
	heard  *waiter      // rung by the guest
	bells  []ringer     // of the VPs
	posted []hv.Message // serveRecords': room for what the guest posts

	once sync.Once
	err  error // of the one who closed it first
	done chan struct{}
}

func (g *guest) VPs() int { return g.hello.VPs }

func (g *guest) Memory() *hv.Memory { return g.memory }

func (g *guest) PostMessage(vp int, payload []byte) error { return g.synic.Post(vp, payload) }

func (g *guest) SetFlag(vp, flag int) error { return g.synic.SetFlag(vp, flag) }

func (g *guest) Done() <-chan struct{} { return g.done }

// Process returns the number of the guest's process, 0 if it is in another process
// namespace. Once Done is closed it may be another's.
func (g *guest) Process() int { return socket.PeerProcess(g.conn) }

// Serve reads what the guest sends, and in a second goroutine listens to its
// doorbell. Whichever ends first ends the other by closing the guest.
func (g *guest) Serve(h hv.Handler) error {
	var signals sync.WaitGroup
	signals.Go(func() { g.leave(guard(g.serveSignals, h)) })
	g.leave(guard(g.serveRecords, h))
	signals.Wait()
	if g.err != nil {
		return fmt.Errorf("serve guest %q: %w", g.hello.Name, g.err)
	}
	return hv.ErrGone
}

// guard is hv.Guard for a function with an error of its own.
func guard(f func(hv.Handler) error, h hv.Handler) (err error) {
	fault := hv.Guard(func() { err = f(h) })
	return errors.Join(fault, err)
}

// serveSignals returns when the guest was closed.
func (g *guest) serveSignals(h hv.Handler) error {
	for g.heard.wait() {
		g.synic.EOMs()
		g.synic.TakeSignals(h.Signal)
	}
	return nil
}

// serveRecords returns nil when the guest has left.
func (g *guest) serveRecords(h hv.Handler) error {
	r := newReceiver(g.conn, maxRequest, maxRegions)
	var b [maxReply]byte
	for {
		x, err := r.next()
		if err != nil {
			return nil
		}
		head, err := parseHeader(x.data)
		if err != nil {
			x.close()
			return fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		status, err := g.request(h, head.typ, &x)
		x.close()
		answer := reply{status: status, version: Version}
		if err != nil {
			answer.text = err.Error()
		}
		if err := send(g.conn, answer.append(b[:0], head.id), nil); errors.Is(err, errSlow) {
			return fmt.Errorf("%w: %w", ErrProtocol, err)
		} else if err != nil {
			return nil // it left before the answer
		}
	}
}

// request does what one record asks for. What can't be understood is answered
// with StatusInvalidInput and a sentence, and changes nothing.
func (g *guest) request(h hv.Handler, typ uint32, x *received) (hv.Status, error) {
	fds := 0
	if typ == typeAdd {
		fds = 1
	}
	if x.cut || len(x.fds) != fds {
		return hv.StatusInvalidInput, fmt.Errorf("the record is too long, or has %d descriptors, not %d", len(x.fds), fds)
	}
	switch typ {
	case typePost, typePosts:
		parse := parsePost
		if typ == typePosts {
			parse = parsePosts
		}
		conn, m, err := parse(x.data, g.posted[:0])
		if err != nil {
			return hv.StatusInvalidInput, err
		}
		g.posted = m
		return g.synic.Deliver(h, conn, m), nil
	case typeAdd:
		r, err := parseAdd(x.data)
		if err != nil {
			return hv.StatusInvalidInput, err
		}
		return g.add(x.fds[0], r)
	case typeRemove:
		gpa, err := parseRemove(x.data)
		if err != nil {
			return hv.StatusInvalidInput, err
		}
		if err := g.memory.Remove(gpa); err != nil {
			return hv.StatusInvalidParameter, err
		}
		return hv.StatusSuccess, nil
	default:
		return hv.StatusInvalidInput, fmt.Errorf("record type %d is not known", typ)
	}
}

// add takes a region of memory.
func (g *guest) add(fd int, r region) (hv.Status, error) {
	if err := checkMemory(fd, r, g.trust); err != nil {
		return hv.StatusInvalidParameter, fmt.Errorf("memory at %#x: %w", uint64(r.gpa), err)
	}
	err := g.memory.Add(r.gpa, fd, int64(r.offset), int64(r.size))
	switch {
	case err == nil:
		return hv.StatusSuccess, nil
	case errors.Is(err, hv.ErrLimit):
		return hv.StatusInsufficientMemory, err
	default:
		return hv.StatusInvalidParameter, err
	}
}

// Close detaches the guest.
func (g *guest) Close() error { return g.leave(nil) }

// leave closes everything, once, and remembers why.
func (g *guest) leave(why error) (err error) {
	g.once.Do(func() {
		g.err = why
		close(g.done)
		g.synic.Close() // from here on no bell is rung
		for i := range g.bells {
			unix.Close(g.bells[i].fd)
		}
		if g.heard != nil {
			err = g.heard.file.Close()
		}
		err = errors.Join(err, g.conn.Close(), g.memory.Close())
	})
	return err
}
