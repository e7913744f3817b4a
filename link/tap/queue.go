package tap

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"hvnet/link/rtnl"
	"hvnet/link/vnet"
	"hvnet/nic"
)

// A Queue is one queue of a TAP. One goroutine may read from it; WriteFrames,
// Wake and Stats may be called from any.
//
// System calls go through functions that are made once and take their arguments
// from the queue's fields: a closure per call would be an allocation per call. The
// calls are raw because the descriptor is non-blocking; telling the scheduler of
// each would cost more than it could win.
type Queue struct {
	file *os.File
	rc   syscall.RawConn

	read  reader
	write writer

	counters
}

var (
	_ nic.Source = (*Queue)(nil)
	_ nic.Taker  = (*Queue)(nil)
	_ nic.Taker  = (*TAP)(nil)
)

// reader is what the reading goroutine uses.
type reader struct {
	once  func(fd uintptr)
	ready func(fd uintptr) bool

	hdr   vnet.Header
	over  [1]byte // gets a byte of what did not fit, and so tells that
	iov   [4]unix.Iovec
	n     int
	errno syscall.Errno
	poll  unix.PollFd
}

// writer is what WriteFrames uses, under its lock: it belongs to one batch.
type writer struct {
	mu     sync.Mutex
	all    func(fd uintptr)
	hdr    vnet.Header
	iov    []unix.Iovec // grows to the most pieces that a frame had
	frames []nic.Frame
}

// maxPieces is the number of pieces that one writev takes besides the header
// (UIO_MAXIOV of Linux).
const maxPieces = 1024 - 1

func newQueue(f *os.File) (*Queue, error) {
	rc, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	q := &Queue{file: f, rc: rc}
	q.read.once = q.readv
	q.read.ready = q.pollIn
	q.read.iov[0] = iovec(q.read.hdr[:])
	q.read.iov[3] = iovec(q.read.over[:])
	q.write.all = q.writeAll
	return q, nil
}

// Offloads is all of TUNSETOFFLOAD that this package understands: the kernel may
// leave checksums and TCP segmentation to whoever reads the queues.
const Offloads = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN

// Takes implements nic.Taker, see [vnet.Takes].
func (t *TAP) Takes() nic.Offloads { return vnet.Takes() }

// Takes implements nic.Taker, as TAP.Takes.
func (q *Queue) Takes() nic.Offloads { return vnet.Takes() }

// ReadFrame reads the next frame that the kernel sends: its first bytes to first,
// the others to rest. What the kernel leaves to be done is in the metadata: nothing
// unless Config.Offloads allows it. It returns nic.ErrNoFrame if there is none now, net.ErrClosed
// after Close, and ErrRemoved if the interface is gone. A frame longer than both
// together is dropped and counted.
func (q *Queue) ReadFrame(first, rest []byte) (int, nic.Offload, error) {
	r := &q.read
	r.iov[1], r.iov[2] = iovec(first), iovec(rest)
	room := vnet.Len + len(first) + len(rest)
	for {
		if q.rc.Control(r.once) != nil {
			return 0, nic.Offload{}, net.ErrClosed
		}
		switch {
		case r.errno == unix.EAGAIN:
			return 0, nic.Offload{}, nic.ErrNoFrame
		case r.errno == unix.EINTR:
		case r.errno == unix.EBADFD || r.errno == unix.EFAULT:
			// EFAULT: removed between the lookup and the read.
			return 0, nic.Offload{}, ErrRemoved
		case r.errno != 0:
			return 0, nic.Offload{}, fmt.Errorf("read from TAP: %w", r.errno)
		case r.n > room:
			q.readTooLong.Add(1)
		case r.n < vnet.Len+nic.MinFrame:
			q.readTooShort.Add(1)
		default:
			return r.n - vnet.Len, r.hdr.Offload(), nil
		}
	}
}

func (q *Queue) readv(fd uintptr) {
	r := &q.read
	n, _, e := unix.RawSyscall(unix.SYS_READV, fd, uintptr(unsafe.Pointer(&r.iov)), uintptr(len(r.iov)))
	r.n, r.errno = int(n), e
}

// Wait blocks until there may be a frame, Wake is called, or the interface is
// removed; ReadFrame tells which. After Close it returns net.ErrClosed.
func (q *Queue) Wait() error {
	err := q.rc.Read(q.read.ready)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		// A Wake from here on is answered by this Wait.
		err = q.file.SetReadDeadline(time.Time{})
	}
	if err != nil && q.rc.Control(func(uintptr) {}) != nil {
		return net.ErrClosed
	}
	return nil // an error of an open queue is that its interface is gone
}

// pollIn reports whether a frame is there. The netpoller must not be asked alone:
// it tells of changes, and forgets one that came before it was asked.
func (q *Queue) pollIn(fd uintptr) bool {
	var now unix.Timespec
	p := &q.read.poll
	*p = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	n, _, e := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(p)), 1, uintptr(unsafe.Pointer(&now)), 0, 0, 0)
	return e != 0 || n != 0
}

// Wake makes a Wait that is going on, or else the next one, return nil.
func (q *Queue) Wake() { q.file.SetReadDeadline(time.Unix(1, 0)) }

// WriteFrames hands the frames to the kernel. What it does not take is dropped and
// counted by reason.
func (q *Queue) WriteFrames(frames []nic.Frame) {
	w := &q.write
	w.mu.Lock()
	w.frames = frames
	if q.rc.Control(w.all) != nil {
		q.writeClosed.Add(uint64(len(frames)))
	}
	w.frames = nil
	clear(w.iov[:cap(w.iov)])
	w.mu.Unlock()
}

func (q *Queue) writeAll(fd uintptr) {
	w := &q.write
	for i := range w.frames {
		f := &w.frames[i]
		if len(f.Body) >= maxPieces {
			q.writeRefused.Add(1)
			continue
		}
		w.hdr.Set(f)
		w.iov = append(w.iov[:0], iovec(w.hdr[:]), iovec(f.Head))
		for _, b := range f.Body {
			w.iov = append(w.iov, iovec(b))
		}
		_, _, e := unix.RawSyscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&w.iov[0])), uintptr(len(w.iov)))
		if e != 0 {
			q.countWriteError(e)
		}
	}
}

// ioctl passes the kernel a pointer to v.
func (q *Queue) ioctl(req uint, v int) error {
	return rtnl.Control(q.file, func(fd int) error { return unix.IoctlSetPointerInt(fd, req, v) })
}

func iovec(b []byte) unix.Iovec {
	v := unix.Iovec{Base: unsafe.SliceData(b)}
	v.SetLen(len(b))
	return v
}

// counters count what was lost at a queue.
type counters struct {
	readTooLong, readTooShort                       atomic.Uint64
	writeDown, writeBusy, writeRefused, writeClosed atomic.Uint64
}

func (c *counters) countWriteError(e syscall.Errno) {
	switch e {
	case unix.EIO:
		c.writeDown.Add(1)
	case unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM:
		c.writeBusy.Add(1)
	case unix.EBADFD:
		c.writeClosed.Add(1)
	default:
		c.writeRefused.Add(1)
	}
}

// Stats returns the sum over all queues of what was dropped at the TAP, by reason.
func (t *TAP) Stats() []nic.Stat {
	s := []nic.Stat{
		{Name: "tap_read_too_long"},  // longer than the memory prepared for it
		{Name: "tap_read_too_short"}, // no whole Ethernet header
		{Name: "tap_write_down"},     // the interface is down
		{Name: "tap_write_busy"},     // the kernel has no memory
		{Name: "tap_write_refused"},  // the kernel calls the frame malformed
		{Name: "tap_write_closed"},   // the interface is gone
	}
	for _, q := range t.queues {
		for i, v := range []*atomic.Uint64{
			&q.readTooLong, &q.readTooShort, &q.writeDown, &q.writeBusy, &q.writeRefused, &q.writeClosed,
		} {
			s[i].Value += v.Load()
		}
	}
	return s
}
