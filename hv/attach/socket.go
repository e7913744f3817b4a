package attach

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// errSlow is returned for a peer that does not read what it is sent.
var errSlow = errors.New("it does not read its replies")

// send sends one record with descriptors, at once or not at all.
func send(c *net.UnixConn, record []byte, fds []int) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	var sent error
	err = raw.Control(func(fd uintptr) {
		_, sent = unix.SendmsgN(int(fd), record, oob, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	})
	if errors.Is(sent, unix.EAGAIN) {
		return errSlow
	}
	return errors.Join(err, sent)
}

// A record that was received, with the descriptors that came with it.
type received struct {
	data []byte
	fds  []int
	cut  bool // the record or its descriptors did not fit
}

// A receiver reads records of a bounded size.
type receiver struct {
	conn *net.UnixConn
	data []byte
	oob  []byte
}

func newReceiver(c *net.UnixConn, size, fds int) *receiver {
	return &receiver{c, make([]byte, size), make([]byte, unix.CmsgSpace(4*fds))}
}

// next waits for a record. Its data is good until the next call, its descriptors
// belong to the caller. An error means that there will be no more records.
func (r *receiver) next() (received, error) {
	n, oobn, flags, _, err := r.conn.ReadMsgUnix(r.data, r.oob)
	// After an error the counts may be negative, or there may be descriptors all
	// the same: a record of no bytes counts as the end.
	n, oobn = max(n, 0), max(oobn, 0)
	x := received{data: r.data[:n], cut: flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0}
	messages, bad := unix.ParseSocketControlMessage(r.oob[:oobn])
	for _, m := range messages {
		if fds, err := unix.ParseUnixRights(&m); err == nil {
			x.fds = append(x.fds, fds...)
		}
	}
	if err = errors.Join(err, bad); err != nil {
		x.close()
		return received{}, err
	}
	return x, nil
}

// close closes the descriptors that are still there.
func (x *received) close() {
	for _, fd := range x.fds {
		unix.Close(fd)
	}
	x.fds = nil
}

// A ringer is the end of a doorbell that is rung: a connected datagram socket. It
// is no os.File, for which ringing would cost an allocation; the SynIC's locks see
// to it that nobody rings a bell that is closed.
type ringer struct {
	fd   int
	note [1]byte
}

// ring rings without waiting. A full queue means that the other side has not yet
// heard the last ring, so that it will look after this one too; any other error
// means that there is no other side. The call is raw for the reason that a waiter's is.
func (r *ringer) ring() {
	unix.RawSyscall6(unix.SYS_SENDTO, uintptr(r.fd), uintptr(unsafe.Pointer(&r.note)), 1, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
}

// A waiter is the end of a doorbell where one waits. Its system call is raw, since it
// does not block: to tell the scheduler of it would, in a process that was asleep, start
// the runtime's monitor thread each time, which then looks around every 20 µs for a
// while and costs more than all that the ring is about.
type waiter struct {
	file  *os.File
	rc    syscall.RawConn
	once  func(fd uintptr) (done bool) // take, made once: a closure per call would be an allocation per call
	note  [1]byte
	errno syscall.Errno
}

func newWaiter(fd int) (*waiter, error) {
	// What is not a datagram socket could be readable for ever.
	if typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || typ != unix.SOCK_DGRAM {
		unix.Close(fd)
		return nil, fmt.Errorf("%w: a doorbell is no datagram socket", ErrProtocol)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("prepare a doorbell: %w", err)
	}
	w := &waiter{file: os.NewFile(uintptr(fd), "doorbell")}
	rc, err := w.file.SyscallConn()
	if err != nil {
		w.file.Close()
		return nil, fmt.Errorf("prepare a doorbell: %w", err)
	}
	w.rc, w.once = rc, w.take
	return w, nil
}

// wait waits for a ring, and returns false when the doorbell is closed or stopped
// by a deadline. One ring is taken at a time: emptying the queue would cost a
// system call more each time, to save looking at idle bitmaps once in a while.
func (w *waiter) wait() bool {
	return w.rc.Read(w.once) == nil && w.errno == 0
}

// take takes one ring, and returns false if there is none. An empty datagram rings too.
func (w *waiter) take(fd uintptr) (done bool) {
	for {
		_, _, w.errno = unix.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&w.note)), 1, unix.MSG_DONTWAIT, 0, 0)
		if w.errno != unix.EINTR {
			return w.errno != unix.EAGAIN
		}
	}
}

// newDoorbell returns the two ends of a doorbell.
func newDoorbell() (rung, heard int, err error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, -1, fmt.Errorf("make a doorbell: %w", err)
	}
	// What is sent the wrong way is refused, not kept.
	if err := unix.Shutdown(p[0], unix.SHUT_RD); err != nil {
		unix.Close(p[0])
		unix.Close(p[1])
		return -1, -1, fmt.Errorf("make a doorbell: %w", err)
	}
	return p[0], p[1], nil
}
