package attach

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"hvnet/hv"
	"hvnet/hv/internal/socket"
)

// maxHandshakes bounds the guests that are about to attach at the same time. Others
// wait, most of them in the kernel's queue.
const maxHandshakes = 16

// hurryTime is how long a guest may still say nothing from when others wait for its
// place: enough for one that has just connected.
const hurryTime = 250 * time.Millisecond

// A Listener is a host that takes guests.
type Listener struct {
	path   string
	socket *socket.Listener
	config ListenConfig

	guests chan *guest
	slots  chan struct{} // holds a token for each handshake
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	silent map[*net.UnixConn]struct{} // have yet to say hello, and were not told to hurry
}

// Listen makes the socket at path and takes guests on it. A stale socket there is
// replaced; the error is ErrInUse if a live host has it.
func Listen(path string, cfg ListenConfig) (*Listener, error) {
	s, err := socket.Listen(path, socket.SeqPacket)
	if err != nil {
		return nil, fmt.Errorf("listen for guests on %s: %w", path, err)
	}
	l := &Listener{
		path: path, socket: s, config: cfg,
		guests: make(chan *guest),
		slots:  make(chan struct{}, maxHandshakes),
		silent: make(map[*net.UnixConn]struct{}),
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.wg.Go(l.run)
	return l, nil
}

// Accept waits for the next guest that has attached. The caller serves and closes
// it. Errors are those of ctx, and net.ErrClosed after Close.
func (l *Listener) Accept(ctx context.Context) (hv.Guest, Hello, error) {
	var err error
	select {
	case g := <-l.guests:
		return g, g.hello, nil
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-l.ctx.Done():
		err = net.ErrClosed
	}
	return nil, Hello{}, fmt.Errorf("wait for a guest on %s: %w", l.path, err)
}

// Close stops to take guests and removes the socket. Guests that Accept has
// returned stay.
func (l *Listener) Close() error {
	l.cancel()
	err := l.socket.Close()
	l.wg.Wait()
	if err != nil {
		return fmt.Errorf("stop to listen on %s: %w", l.path, err)
	}
	return nil
}

func (l *Listener) run() {
	for {
		conn, ok := l.socket.Take(l.ctx, func(err error) { l.warn("accept a guest", err) })
		if !ok {
			return
		}
		if !l.slot() {
			conn.Close()
			return
		}
		l.wg.Go(func() {
			defer func() { <-l.slots }()
			l.welcome(conn)
		})
	}
}

// slot waits for a slot, and returns false if it is the end. Those that have one and
// say nothing do not keep it for long.
func (l *Listener) slot() bool {
	select {
	case l.slots <- struct{}{}:
		return true
	default:
	}
	for {
		l.hurry() // also those that have just got their slot
		select {
		case l.slots <- struct{}{}:
			return true
		case <-l.ctx.Done():
			return false
		case <-time.After(hurryTime):
		}
	}
}

// hurry shortens the time that guests have to say hello.
func (l *Listener) hurry() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for conn := range l.silent {
		conn.SetReadDeadline(time.Now().Add(hurryTime))
	}
	clear(l.silent)
}

// expect gives a guest its time to say hello, and heard ends that.
func (l *Listener) expect(conn *net.UnixConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	conn.SetReadDeadline(time.Now().Add(cmp.Or(l.config.HelloTimeout, helloTimeout)))
	l.silent[conn] = struct{}{}
}

func (l *Listener) heard(conn *net.UnixConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.silent, conn)
	conn.SetReadDeadline(time.Time{})
}

func (l *Listener) warn(what string, err error) {
	if l.config.Log != nil && l.ctx.Err() == nil {
		l.config.Log.Warn("attach: "+what, "err", err)
	}
}

// welcome makes a guest of a connection, or refuses it.
func (l *Listener) welcome(conn *net.UnixConn) {
	stop := context.AfterFunc(l.ctx, func() { conn.Close() })
	g, err := l.handshake(conn)
	if !stop() && err == nil {
		g.Close()
		return
	}
	if err != nil {
		l.warn("refused a guest", err)
		conn.Close()
		return
	}
	select {
	case l.guests <- g:
	case <-l.ctx.Done():
		g.Close()
	}
}

// handshake reads the hello of a guest and answers it.
func (l *Listener) handshake(conn *net.UnixConn) (*guest, error) {
	if err := socket.CheckPeer(conn); err != nil {
		return nil, errors.Join(err, refuse(conn, 0, hv.StatusAccessDenied, err))
	}
	l.expect(conn)
	x, err := newReceiver(conn, maxHello, maxRegions).next()
	l.heard(conn)
	if err != nil {
		return nil, fmt.Errorf("wait for the hello: %w", err)
	}
	defer x.close()
	head, err := parseHeader(x.data)
	if err != nil {
		return nil, err
	}
	g, status, err := l.admit(conn, &x)
	if err != nil {
		err = errors.Join(err, refuse(conn, head.id, status, err))
		if g != nil {
			g.Close()
		}
		return nil, err
	}
	if err := g.welcome(head.id); err != nil {
		g.Close()
		return nil, err
	}
	return g, nil
}

// refuse tells a guest why it can't attach.
func refuse(conn *net.UnixConn, id uint32, status hv.Status, why error) error {
	return send(conn, reply{status, Version, why.Error()}.append(nil, id), nil)
}

// admit checks a hello and takes the guest's memory. It may return a guest to be
// closed with an error too.
func (l *Listener) admit(conn *net.UnixConn, x *received) (*guest, hv.Status, error) {
	if x.cut {
		return nil, hv.StatusInvalidInput, errLength
	}
	h, err := parseHello(x.data)
	if err != nil {
		return nil, hv.StatusInvalidInput, err
	}
	if len(x.fds) != len(h.regions) {
		return nil, hv.StatusInvalidParameter, fmt.Errorf("%d descriptors for %d regions of memory", len(x.fds), len(h.regions))
	}
	g := &guest{conn: conn, hello: h.Hello, trust: l.config.TrustMemory, memory: hv.NewMemory(l.config.Limits), done: make(chan struct{})}
	g.synic = hv.NewHostSynIC(h.VPs, func(vp int) { g.bells[vp].ring() })
	for i, r := range h.regions {
		if status, err := g.add(x.fds[i], r); err != nil {
			return g, status, err
		}
	}
	if err := g.synic.MapPages(g.memory, h.pages); err != nil {
		return g, hv.StatusInvalidParameter, err
	}
	if l.config.Admit != nil {
		if err := l.config.Admit(h.Hello); err != nil {
			return g, hv.StatusAccessDenied, err
		}
	}
	return g, hv.StatusSuccess, nil
}

// welcome makes the doorbells, and sends the guest its ends of them.
func (g *guest) welcome(id uint32) error {
	var theirs []int
	defer func() {
		for _, fd := range theirs {
			unix.Close(fd)
		}
	}()
	rung, heard, err := newDoorbell()
	if err != nil {
		return err
	}
	theirs = append(theirs, rung)
	if g.heard, err = newWaiter(heard); err != nil {
		return err
	}
	for range g.hello.VPs {
		rung, heard, err := newDoorbell()
		if err != nil {
			return err
		}
		theirs = append(theirs, heard)
		g.bells = append(g.bells, ringer{fd: rung})
	}
	return send(g.conn, reply{hv.StatusSuccess, Version, ""}.append(nil, id), theirs)
}
