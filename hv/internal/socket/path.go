// Package socket makes the Unix sockets on which guests attach: private to one user,
// and never two hosts on one path.
package socket

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// maxSocketPath is the longest path that a Unix socket address holds.
const maxSocketPath = 107

// Shorten returns a name of the socket at path that fits into an address, and a
// function to call when the name is not needed any more. A path that is too long
// is named through a descriptor of its directory.
func Shorten(path string) (name string, done func(), err error) {
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
