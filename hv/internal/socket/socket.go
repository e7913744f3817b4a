package socket

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ErrInUse is returned by [Listen] if a live host listens on the path.
var ErrInUse = errors.New("in use by a running host")

// A Kind is the type of a socket.
type Kind string

// The kinds of sockets that guests attach to.
const (
	SeqPacket Kind = "unixpacket" // keeps records apart: hv/attach
	Stream    Kind = "unix"       // what QEMU's character devices speak
)

func (k Kind) number() int {
	if k == SeqPacket {
		return unix.SOCK_SEQPACKET
	}
	return unix.SOCK_STREAM
}

// A Listener is a listening socket that takes its file away when it is closed.
type Listener struct {
	*net.UnixListener

	path  string
	inode os.FileInfo
}

// Listen returns a listening socket at path with mode 0600. A stale socket there is
// replaced; the error is ErrInUse if a live host has it.
func Listen(path string, kind Kind) (*Listener, error) {
	unlock, err := lockDir(path)
	if err != nil {
		return nil, err
	}
	defer unlock()
	name, done, err := Shorten(path)
	if err != nil {
		return nil, err
	}
	defer done()
	fd, err := unix.Socket(unix.AF_UNIX, kind.number()|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("make a socket: %w", err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	// On Linux the file that bind makes takes the socket's own mode, less the
	// umask, so there is no moment at which others could connect.
	if err := unix.Fchmod(fd, 0o600); err != nil {
		return nil, fmt.Errorf("restrict the socket: %w", err)
	}
	err = unix.Bind(fd, &unix.SockaddrUnix{Name: name})
	if errors.Is(err, unix.EADDRINUSE) {
		if err = removeStale(path, name, kind); err != nil {
			return nil, err
		}
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: name})
	}
	if err != nil {
		return nil, err
	}
	l, err := listen(fd, f, path)
	if err != nil {
		os.Remove(path)
		return nil, err
	}
	return l, nil
}

// Take returns the next connection, or false once the context has ended. An error such
// as too many open files is told to failed, and after a moment it tries again.
func (l *Listener) Take(ctx context.Context, failed func(error)) (*net.UnixConn, bool) {
	for {
		conn, err := l.AcceptUnix()
		if err == nil {
			return conn, true
		}
		failed(err)
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return nil, false
		}
	}
}

// listen begins to take connections on a bound socket.
func listen(fd int, f *os.File, path string) (*Listener, error) {
	if err := unix.Listen(fd, unix.SOMAXCONN); err != nil {
		return nil, err
	}
	inode, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	return &Listener{l.(*net.UnixListener), path, inode}, nil
}

// removeStale removes a socket that nobody listens on. Nothing else is removed.
func removeStale(path, name string, kind Kind) error {
	st, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if st.Mode().Type() != os.ModeSocket {
		return errors.New("there is a file that is not a socket")
	}
	c, err := net.DialUnix(string(kind), nil, &net.UnixAddr{Name: name, Net: string(kind)})
	if err == nil {
		c.Close()
		return ErrInUse
	}
	if errors.Is(err, unix.EPROTOTYPE) {
		return fmt.Errorf("%w, of another kind", ErrInUse)
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("find out whether the socket there is in use: %w", err)
	}
	return os.Remove(path)
}

// Close stops to listen and removes the file, unless it is another host's by now.
func (l *Listener) Close() error {
	err := l.UnixListener.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	if now, e := os.Lstat(l.path); e == nil && os.SameFile(now, l.inode) {
		err = errors.Join(err, os.Remove(l.path))
	}
	return err
}

// CheckPeer lets only root and our own user pass.
func CheckPeer(c *net.UnixConn) error {
	cred, err := peer(c)
	if err != nil {
		return fmt.Errorf("ask who the peer is: %w", err)
	}
	if cred.Uid != 0 && int(cred.Uid) != os.Geteuid() {
		return fmt.Errorf("user %d is neither root nor our own", cred.Uid)
	}
	return nil
}

// PeerProcess returns the number of the process at the other end, as this one sees it; 0
// if it does not see it.
func PeerProcess(c *net.UnixConn) int {
	cred, err := peer(c)
	if err != nil {
		return 0
	}
	return int(cred.Pid)
}

// peer returns who is at the other end.
func peer(c *net.UnixConn) (*unix.Ucred, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var got error
	err = raw.Control(func(fd uintptr) {
		cred, got = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	return cred, errors.Join(err, got)
}
