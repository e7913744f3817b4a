package attach

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// maxSocketPath is the longest path that a Unix socket address holds.
const maxSocketPath = 107

// shorten returns a name of the socket at path that fits into an address, and a
// function to call when the name is not needed any more. A path that is too long
// is named through a descriptor of its directory.
func shorten(path string) (name string, done func(), err error) {
	if len(path) <= maxSocketPath {
		return path, func() {}, nil
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, err
	}
	name = fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path))
	if len(name) > maxSocketPath {
		dir.Close()
		return "", nil, fmt.Errorf("the socket's name is too long: %d bytes, at most about 80 are possible", len(filepath.Base(path)))
	}
	return name, func() { dir.Close() }, nil
}

// lockTimeout is how long to wait for another host that begins to listen in the
// same directory.
const lockTimeout = 2 * time.Second

// lockDir keeps others who begin to listen in the directory of path away, so that
// of two hosts who find a stale socket one replaces it and the other sees a live one.
func lockDir(path string) (unlock func(), err error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(lockTimeout); ; time.Sleep(5 * time.Millisecond) {
		err = unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { dir.Close() }, nil
		}
		if time.Now().After(end) {
			dir.Close()
			return nil, fmt.Errorf("lock the directory %s: %w", filepath.Dir(path), err)
		}
	}
}

// bind returns a listening socket at path with mode 0600.
func bind(path string) (*net.UnixListener, error) {
	unlock, err := lockDir(path)
	if err != nil {
		return nil, err
	}
	defer unlock()
	name, done, err := shorten(path)
	if err != nil {
		return nil, err
	}
	defer done()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
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
		if err = removeStale(path, name); err != nil {
			return nil, err
		}
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: name})
	}
	if err != nil {
		return nil, err
	}
	if err := unix.Listen(fd, unix.SOMAXCONN); err != nil {
		os.Remove(path)
		return nil, err
	}
	l, err := net.FileListener(f)
	if err != nil {
		os.Remove(path)
		return nil, err
	}
	return l.(*net.UnixListener), nil
}

// removeStale removes a socket that nobody listens on. Nothing else is removed.
func removeStale(path, name string) error {
	st, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if st.Mode().Type() != os.ModeSocket {
		return errors.New("there is a file that is not a socket")
	}
	c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: name, Net: "unixpacket"})
	if err == nil {
		c.Close()
		return ErrInUse
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("find out whether the socket there is in use: %w", err)
	}
	return os.Remove(path)
}
