package ivshmem

import (
	"errors"
	"fmt"
	"os"
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

// take empties an eventfd without ever waiting, whatever its flags. The error is
// EAGAIN if it is empty.
func take(fd uintptr) error {
	var count uint64
	v := unix.Iovec{Base: (*byte)(unsafe.Pointer(&count)), Len: 8}
	// Offset -1 is the current position: an eventfd has no other.
	_, _, e := unix.Syscall6(unix.SYS_PREADV2, fd, uintptr(unsafe.Pointer(&v)), 1, ^uintptr(0), ^uintptr(0), unix.RWF_NOWAIT)
	if e != 0 {
		return e
	}
	return nil
}

// A doorbell is the eventfd that the guest rings.
type doorbell struct {
	file *os.File
	fd   int // file's
}

func newDoorbell() (*doorbell, error) {
	fd, err := newEventFD()
	if err != nil {
		return nil, err
	}
	return &doorbell{os.NewFile(uintptr(fd), "doorbell"), fd}, nil
}

// wait waits for a ring. The error is os.ErrClosed when the doorbell is closed.
func (d *doorbell) wait() error {
	raw, err := d.file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		failed = take(fd)
		return !errors.Is(failed, unix.EAGAIN)
	})
	return errors.Join(err, failed)
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
