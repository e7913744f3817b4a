// Package kernel finds the interfaces that the kernel's own drivers drive, such as
// hv_netvsc in a real guest, and asks them by the system call SIOCETHTOOL, as the ethtool
// program does without netlink.
package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"unicode"
	"unsafe"

	"golang.org/x/sys/unix"

	"hvnet/ethtool/abi"
	"hvnet/nic"
)

// A request is struct ifreq with a pointer in it.
type request struct {
	name [unix.IFNAMSIZ]byte
	data unsafe.Pointer
	_    [16]byte // the rest of the union, or more
}

// Device finds an interface of the network namespace of this thread by its name. The error
// is nic.ErrNoDevice if there is none. What privilege a request needs is up to the kernel,
// which answers with fs.ErrPermission.
func Device(name string) (*abi.Client, error) {
	var r request
	if name == "" || len(name) >= len(r.name) {
		return nil, fmt.Errorf("find interface %q: %w", name, nic.ErrNoDevice)
	}
	copy(r.name[:], name)
	if err := ioctl(unix.SIOCGIFINDEX, r); err != nil {
		return nil, fmt.Errorf("find interface %s: %w", name, err)
	}
	return &abi.Client{Request: func(b []byte) (int, error) { return send(r, b) }}, nil
}

// send makes one request. How much the kernel writes behind the structure is up to what its
// driver has at that moment, which may be more than it said a moment ago. So the copy that
// it gets ends at a page that nobody may touch: what is too long is an error, EFAULT.
func send(r request, b []byte) (n int, err error) {
	if len(b) < 4 {
		return 0, nic.ErrInvalid
	}
	page := unix.Getpagesize()
	room := (len(b) + page - 1) / page * page
	m, err := unix.Mmap(-1, 0, room+page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return 0, fmt.Errorf("map memory for a request: %w", err)
	}
	defer unix.Munmap(m)
	if err := unix.Mprotect(m[room:], unix.PROT_NONE); err != nil {
		return 0, fmt.Errorf("protect memory behind a request: %w", err)
	}
	at := m[room-len(b) : room]
	copy(at, b)
	r.data = unsafe.Pointer(&at[0])
	n, err = call(unix.SIOCETHTOOL, r)
	copy(b, at)
	return n, err
}

func ioctl(number uint, r request) error {
	_, err := call(number, r)
	return err
}

// call makes a system call on a socket, of which any kind will do.
func call(number uint, r request) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_GENERIC)
	}
	if err != nil {
		return 0, fmt.Errorf("open socket: %w", err)
	}
	defer unix.Close(fd)
	for {
		n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(number), uintptr(unsafe.Pointer(&r)))
		switch {
		case errno == unix.EINTR:
		case errno != 0:
			return 0, meaning(errno)
		default:
			return int(n), nil
		}
	}
}

// meanings are the errors of the system that have a name of our own.
var meanings = map[unix.Errno]error{
	unix.EINVAL:     nic.ErrInvalid,
	unix.EOPNOTSUPP: nic.ErrNotSupported,
	unix.ENODEV:     nic.ErrNoDevice,
	unix.EBUSY:      nic.ErrBusy,
	unix.EIO:        nic.ErrIO,
	unix.EPERM:      fs.ErrPermission,
	unix.ENOENT:     fs.ErrNotExist,
}

// An otherError is one of the system with the C library's text, which is Go's with a
// capital letter.
type otherError struct{ unix.Errno }

func (e otherError) Error() string {
	text := []rune(e.Errno.Error())
	text[0] = unicode.ToUpper(text[0])
	return string(text)
}

func (e otherError) Unwrap() error { return e.Errno }

func meaning(errno unix.Errno) error {
	if err, ok := meanings[errno]; ok {
		return err
	}
	return otherError{errno}
}
