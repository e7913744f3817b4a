package ivshmem

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"hvnet/hv"
	"hvnet/hv/internal/socket"
)

// Peers of an ivshmem server: numbers that QEMU and the shim use.
const (
	hostPeer  = 0
	guestPeer = 1

	protocolVersion = 0
)

// attachTime bounds how long a QEMU that has connected may take: to make the file
// that is its memory, to take its descriptors, and to make way for the next one.
const attachTime = 5 * time.Second

// A Listener is a host that takes one QEMU at a time.
type Listener struct {
	path   string
	socket *socket.Listener
	config Config

	guests chan *guest
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// Listen makes the socket at path and takes QEMU's ivshmem-doorbell device on it. A
// stale socket there is replaced; the error is ErrInUse if a live host has it. A QEMU
// that a host before has left on this socket is the first guest.
func Listen(path string, cfg Config) (*Listener, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("listen for QEMU on %s: %w", path, err)
	}
	s, err := socket.Listen(path, socket.Stream)
	if err != nil {
		return nil, fmt.Errorf("listen for QEMU on %s: %w", path, err)
	}
	l := &Listener{path: path, socket: s, config: cfg, guests: make(chan *guest)}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.wg.Go(l.run)
	return l, nil
}

// runFirst takes over the guest of the host before, if it left one.
func (l *Listener) runFirst() (last *guest, ok bool) {
	g, err := l.adopt()
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, true
	case err != nil:
		os.Remove(notePath(l.path))
		l.warn("the guest of the host before is lost", err)
		return nil, true
	}
	return g, l.hand(g)
}

// hand gives a guest to Accept. It returns false if there is nobody any more.
func (l *Listener) hand(g *guest) bool {
	select {
	case l.guests <- g:
		return true
	case <-l.ctx.Done():
		g.Close()
		return false
	}
}

// Accept waits for the next guest. The caller serves and closes it. Errors are those
// of ctx, and net.ErrClosed after Close.
func (l *Listener) Accept(ctx context.Context) (hv.Guest, error) {
	var err error
	select {
	case g := <-l.guests:
		return g, nil
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-l.ctx.Done():
		err = net.ErrClosed
	}
	return nil, fmt.Errorf("wait for QEMU on %s: %w", l.path, err)
}

// Close stops to take guests and removes the socket. A guest that Accept has
// returned stays.
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
	last, ok := l.runFirst()
	for ok {
		conn, more := l.socket.Take(l.ctx, func(err error) { l.warn("accept QEMU", err) })
		if !more {
			return
		}
		stop := context.AfterFunc(l.ctx, func() { conn.Close() })
		g, err := l.attach(conn, last)
		stop()
		if err != nil {
			conn.Close()
			l.warn("turned a QEMU away", err)
			continue
		}
		last = g
		ok = l.hand(g)
	}
}

func (l *Listener) warn(what string, err error) {
	if l.config.Log != nil && l.ctx.Err() == nil {
		l.config.Log.Warn("ivshmem: "+what, "err", err)
	}
}

// attach makes a guest of a connection, once the last one is gone.
func (l *Listener) attach(conn *net.UnixConn, last *guest) (*guest, error) {
	if err := socket.CheckPeer(conn); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(l.ctx, attachTime)
	defer cancel()
	if last != nil {
		// It may have ended just now, unnoticed yet.
		if err := last.awaitGone(); err != nil {
			return nil, err
		}
	}
	memory, size, err := l.ram(ctx)
	if err != nil {
		return nil, err
	}
	g, err := newGuest(conn, memory, l.config.VPs, size)
	if err != nil {
		return nil, err
	}
	if err := g.introduce(conn); err != nil {
		g.Close()
		return nil, err
	}
	if err := writeNote(notePath(l.path), g, conn); err != nil {
		l.warn("the guest can't be taken over by another host", err)
	} else {
		g.note = notePath(l.path)
	}
	return g, nil
}

// graceTime is how long the end of a guest may take to be noticed.
const graceTime = time.Second

// awaitGone waits a moment for the end of a guest.
func (g *guest) awaitGone() error {
	select {
	case <-g.done:
		return nil
	case <-time.After(graceTime):
		return ErrBusy
	}
}

// ram opens the guest's memory. QEMU may be just making the file.
func (l *Listener) ram(ctx context.Context) (*hv.Memory, int64, error) {
	for {
		memory, size, err := l.openRAM()
		if !errors.Is(err, errNoRAM) && !errors.Is(err, os.ErrNotExist) {
			return memory, size, err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return nil, 0, err
		}
	}
}

var errNoRAM = errors.New("the file is empty")

// openRAM maps the file that is the guest's memory, all but its first page: no
// region begins at address 0.
func (l *Listener) openRAM() (*hv.Memory, int64, error) {
	f, err := os.OpenFile(l.config.RAM, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, fmt.Errorf("open the guest's memory: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, 0, fmt.Errorf("open the guest's memory: %w", err)
	}
	size := st.Size()
	switch {
	case !st.Mode().IsRegular():
		return nil, 0, fmt.Errorf("open the guest's memory: %s is not a regular file", l.config.RAM)
	case size == 0:
		return nil, 0, fmt.Errorf("open the guest's memory %s: %w", l.config.RAM, errNoRAM)
	case size <= hv.PageSize || size > maxRAM || size%hv.PageSize != 0:
		return nil, 0, fmt.Errorf("open the guest's memory: %s has %d bytes, not whole pages up to 2 GiB", l.config.RAM, size)
	}
	memory := hv.NewMemory(l.config.Limits)
	if err := memory.Add(hv.PageSize, int(f.Fd()), hv.PageSize, size-hv.PageSize); err != nil {
		return nil, 0, fmt.Errorf("open the guest's memory %s: %w", l.config.RAM, err)
	}
	return memory, size, nil
}

// introduce tells QEMU what a server tells a new peer: the protocol's version, its
// number, the shared memory, and the eventfds of all peers in the order of their
// vectors.
func (g *guest) introduce(conn *net.UnixConn) error {
	conn.SetWriteDeadline(time.Now().Add(attachTime))
	say := func(value int64, fd int) error {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], uint64(value))
		var oob []byte
		if fd >= 0 {
			oob = unix.UnixRights(fd)
		}
		_, _, err := conn.WriteMsgUnix(b[:], oob, nil)
		if err != nil {
			return fmt.Errorf("introduce the host to QEMU: %w", err)
		}
		return nil
	}
	err := errors.Join(say(protocolVersion, -1), say(guestPeer, -1), say(-1, g.window.fd), say(hostPeer, g.door.fd))
	for i := range g.bells {
		err = errors.Join(err, say(guestPeer, g.bells[i].fd))
	}
	g.window.closeFD()
	return err
}
