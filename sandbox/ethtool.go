package sandbox

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"hvnet/ethtool"
	"hvnet/ethtool/abi"
	"hvnet/nic"
)

// Devices finds the driver of an interface of a network namespace, which its inode number
// names. The error is nic.ErrNoDevice for interfaces that are none of ours: those are the
// kernel's.
type Devices func(ctx context.Context, netns uint64, name string) (ethtool.Device, error)

// notification and response are struct seccomp_notif and seccomp_notif_resp.
type notification struct {
	id     uint64
	pid    uint32 // of the calling thread, as this process sees it; 0 if it does not
	flags  uint32
	number int32
	arch   uint32
	ip     uint64
	args   [6]uint64
}

type response struct {
	id    uint64
	value int64
	errno int32 // negative
	flags uint32
}

// Requests on the listener, and the answer by which the kernel goes on with the call.
const (
	notifReceive = 0xc0502100
	notifSend    = 0xc0182101
	notifIDValid = 0x40082102
	goOn         = 1
)

// serveEthtool answers the filtered calls of a command and all its children until the last
// of them is gone, or ctx ends. Those that come later fail with ENOSYS; nobody hangs.
func serveEthtool(ctx context.Context, listener *os.File, devices Devices) {
	defer listener.Close()
	defer context.AfterFunc(ctx, func() { listener.Close() })()
	rc, err := listener.SyscallConn()
	if err != nil {
		return
	}
	var calls sync.WaitGroup
	defer calls.Wait() // each ends with ctx
	for {
		var n notification
		if !next(rc, &n) {
			return
		}
		calls.Go(func() {
			c := call{rc, n}
			c.respond(c.answer(ctx, devices))
		})
	}
}

// rawConn is what serveEthtool needs of a descriptor.
type rawConn interface {
	Control(func(fd uintptr)) error
	Read(func(fd uintptr) (done bool)) error
}

// next waits for the next call, and returns false when there will be none.
func next(rc rawConn, n *notification) (ok bool) {
	err := rc.Read(func(fd uintptr) bool {
		for {
			// To receive blocks if there is nothing, whatever the descriptor's mode.
			p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			if k, err := unix.Poll(p, 0); err == unix.EINTR {
				continue
			} else if err != nil {
				return true
			} else if k == 0 {
				return false
			}
			if p[0].Revents&unix.POLLIN == 0 {
				return true // the last one is gone
			}
			*n = notification{} // or the kernel refuses
			_, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, notifReceive, uintptr(unsafe.Pointer(n)))
			switch errno {
			case 0:
				ok = true
				return true
			case unix.EINTR, unix.ENOENT: // the caller was killed meanwhile
			default:
				return true
			}
		}
	})
	return ok && err == nil
}

// A call is a filtered system call that waits for its answer.
type call struct {
	listener rawConn
	notification
}

// answer returns what the call returns: a value of 0 or more, a negative errno, or that the
// kernel is to go on with it.
func (c *call) answer(ctx context.Context, devices Devices) (value int, kernel bool) {
	if c.pid == 0 {
		return 0, true
	}
	if c.number == unix.SYS_SOCKET {
		// Of netlink, ethtool alone does without; ip, wg and devlink could not.
		if c.program() == "ethtool" {
			return -int(unix.EPROTONOSUPPORT), false
		}
		return 0, true
	}
	var ifreq [24]byte
	if err := c.read(c.args[2], ifreq[:]); err != nil {
		return 0, true // it will find the same
	}
	name, _, _ := strings.Cut(string(ifreq[:unix.IFNAMSIZ]), "\x00")
	netns, err := c.inode("net")
	if err != nil || !c.waits() { // from here on the pid is known to be the caller's
		return 0, true
	}
	d, err := devices(ctx, netns, name)
	if errors.Is(err, nic.ErrNoDevice) {
		return 0, true
	}
	if err != nil {
		return -int(unix.EIO), false
	}
	at := *(*uint64)(unsafe.Pointer(&ifreq[unix.IFNAMSIZ]))
	return abi.Serve(ctx, d, memory{c, at}, c.admin), false
}

func (c *call) respond(value int, kernel bool) {
	r := response{id: c.id}
	switch {
	case kernel:
		r.flags = goOn
	case value < 0:
		r.errno = int32(value)
	default:
		r.value = int64(value)
	}
	// It fails if the caller was killed meanwhile.
	c.listener.Control(func(fd uintptr) {
		unix.Syscall(unix.SYS_IOCTL, fd, notifSend, uintptr(unsafe.Pointer(&r)))
	})
}

// waits reports whether the call still waits, so that what was read by its process' number
// was not another's.
func (c *call) waits() bool {
	valid := false
	c.listener.Control(func(fd uintptr) {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, notifIDValid, uintptr(unsafe.Pointer(&c.id)))
		valid = errno == 0
	})
	return valid
}
