package attach

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"hvnet/hv"
	"hvnet/hv/internal/socket"
)

// Dial attaches to the host that listens on path. It tries once: the error is
// os.ErrNotExist if there is no socket, ErrNoHost if nobody listens on it,
// hv.ErrGone if the host goes meanwhile, os.ErrDeadlineExceeded if it does not answer,
// and ErrRefused if it does not want the guest. ctx ends only the attaching.
func Dial(ctx context.Context, path string, h Hello) (hv.Partition, error) {
	p, err := dial(ctx, path, h)
	if err != nil {
		return nil, fmt.Errorf("attach to the host at %s: %w", path, err)
	}
	return p, nil
}

func dial(ctx context.Context, path string, h Hello) (*partition, error) {
	if err := h.Check(); err != nil {
		return nil, err
	}
	name, done, err := socket.Shorten(path)
	if err != nil {
		return nil, err
	}
	defer done()
	c, err := new(net.Dialer).DialContext(ctx, "unixpacket", name)
	if err != nil {
		if errors.Is(err, unix.ECONNREFUSED) {
			return nil, ErrNoHost
		}
		return nil, err
	}
	p := &partition{
		conn: c.(*net.UnixConn), timeout: hv.PostTimeout,
		waiting: make(map[uint32]chan reply), done: make(chan struct{}),
	}
	if err := p.attach(ctx, h); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	p.reader.Go(p.read)
	return p, nil
}

// attach says hello and takes what the host answers.
func (p *partition) attach(ctx context.Context, h Hello) error {
	if err := socket.CheckPeer(p.conn); err != nil {
		return fmt.Errorf("memory is given to no host of another user: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, helloTimeout, fmt.Errorf("no answer within %v: %w", helloTimeout, os.ErrDeadlineExceeded))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { p.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	first := &hello{Hello: h}
	var fds []int
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	// The SynIC's pages go with the hello, later regions one by one.
	add := func(gpa hv.GPA, fd, size int) error {
		own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return err
		}
		fds = append(fds, own)
		first.regions = append(first.regions, region{gpa: gpa, size: uint64(size)})
		return nil
	}
	p.memory = hv.NewAllocator(func(gpa hv.GPA, fd, size int) error { return add(gpa, fd, size) }, p.remove)
	var err error
	if p.synic, err = hv.NewGuestSynIC(h.VPs, p.memory.Alloc, func() { p.host.ring() }); err != nil {
		return err
	}
	add = p.add
	first.pages = p.synic.Pages()
	if err := send(p.conn, first.append(nil, 0), fds); err != nil {
		return fmt.Errorf("say hello: %w: %w", hv.ErrGone, err)
	}
	x, err := newReceiver(p.conn, maxReply, 1+hv.MaxVPs).next()
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		} else {
			err = fmt.Errorf("%w: %w", hv.ErrGone, err)
		}
		return fmt.Errorf("wait for the host's answer to the hello: %w", err)
	}
	defer x.close()
	if err := p.welcomed(&x, h.VPs); err != nil {
		return err
	}
	if !stop() {
		return context.Cause(ctx)
	}
	return nil
}

// welcomed checks the answer to the hello and takes the doorbells.
func (p *partition) welcomed(x *received, vps int) error {
	head, err := parseHeader(x.data)
	if err != nil {
		return err
	}
	r, err := parseReply(x.data)
	if err != nil || head.typ != typeReply || head.id != 0 || x.cut {
		return fmt.Errorf("the answer to the hello is malformed: %w", errors.Join(err, ErrProtocol))
	}
	if err := r.err(); err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if len(x.fds) != 1+vps {
		return fmt.Errorf("%w: %d doorbells for %d virtual processors", ErrProtocol, len(x.fds), vps)
	}
	fds := x.fds
	x.fds = nil
	p.host = &ringer{fd: fds[0]}
	for i, fd := range fds[1:] {
		l, err := newWaiter(fd)
		if err != nil {
			x.fds = fds[i+2:] // fd itself is closed
			return err
		}
		p.vps = append(p.vps, l)
	}
	return nil
}
