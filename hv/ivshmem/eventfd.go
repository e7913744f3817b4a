package ivshmem

import (
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// newEventFD returns an eventfd. QEMU gets it too, and with it the power to make it
// blocking: that flag belongs to what both descriptors name.
func newEventFD() (int, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return -1, fmt.Errorf("make an eventfd: %w", err)
	}
	return fd, nil
}

// An emptier takes what is in an eventfd. It keeps what the kernel writes to, so that
// taking costs no allocation.
type emptier struct {
	count [8]byte
	into  unix.Iovec
}

// take empties an eventfd without ever waiting, whatever its flags. The error is
// EAGAIN if it is empty.
func (e *emptier) take(fd uintptr) syscall.Errno {
	e.into = unix.Iovec{Base: &e.count[0], Len: uint64(len(e.count))}
	// Offset -1 is the current position: an eventfd has no other.
	_, _, errno := unix.Syscall6(unix.SYS_PREADV2, fd, uintptr(unsafe.Pointer(&e.into)), 1, ^uintptr(0), ^uintptr(0), unix.RWF_NOWAIT)
	return errno
}

// A doorbell is the eventfd that the guest rings. One goroutine waits for it.
type doorbell struct {
	file   *os.File
	fd     int // file's
	raw    syscall.RawConn
	look   func(fd uintptr) bool
	empty  emptier
	failed syscall.Errno
}

func newDoorbell() (*doorbell, error) {
	fd, err := newEventFD()
	if err != nil {
		return nil, err
	}
	return doorbellOf(fd)
}

// doorbellOf returns the doorbell that is an eventfd.
func doorbellOf(fd int) (d *doorbell, err error) {
	// QEMU may have made it blocking, and then nobody could be woken by Close.
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("make a doorbell: %w", err)
	}
	d = &doorbell{file: os.NewFile(uintptr(fd), "doorbell"), fd: fd}
	if d.raw, err = d.file.SyscallConn(); err != nil {
		d.file.Close()
		return nil, fmt.Errorf("make a doorbell: %w", err)
	}
	d.look = func(fd uintptr) bool {
		d.failed = d.empty.take(fd)
		return d.failed != unix.EAGAIN
	}
	return d, nil
}

// wait waits for a ring. The error is os.ErrClosed when the doorbell is closed.
func (d *doorbell) wait() error {
	if err := d.raw.Read(d.look); err != nil {
		return err
	}
	if d.failed != 0 {
		return d.failed
	}
	return nil
}

// A bell is the eventfd of one of the guest's interrupt vectors.
type bell struct {
	fd  int
	one [8]byte
}

// ring interrupts the guest. It can wait, if the guest wants it to, so that only a
// goroutine of this guest may call it. An error means that it is rung already.
func (b *bell) ring() {
	b.one = [8]byte{1}
	unix.Write(b.fd, b.one[:])
}
