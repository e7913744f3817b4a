package packet

import (
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"hvnet/link/vnet"
	"hvnet/nic"
)

// maxPieces is the number of pieces that one message takes besides the header
// (UIO_MAXIOV of Linux).
const maxPieces = 1024 - 1

// sender is what WriteFrames uses, under its lock: it belongs to one batch. As with the
// receiver, nothing is made per call.
type sender struct {
	rc  syscall.RawConn
	mtu atomic.Int32 // of the interface, 0 if there is none

	mu    sync.Mutex
	all   func(fd uintptr)
	msgs  [batch]message
	hdr   [batch]vnet.Header
	first [batch]int   // of a message's pieces, in iov
	iov   []unix.Iovec // grows to the most pieces that a batch had
	n     int          // messages
	rest  []nic.Frame  // of what WriteFrames was called with

	down, busy, tooLong, refused, closed atomic.Uint64
}

func newSender(f *os.File) (*sender, error) {
	rc, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	w := &sender{rc: rc}
	w.all = w.sendAll
	return w, nil
}

// Takes implements nic.Taker, see [vnet.Takes].
func (l *Link) Takes() nic.Offloads { return vnet.Takes() }

// WriteFrames has the interface send the frames. What it does not take is dropped and
// counted by reason.
func (l *Link) WriteFrames(frames []nic.Frame) {
	w := l.write
	w.mu.Lock()
	w.rest = frames
	if w.rc.Control(w.all) != nil {
		w.closed.Add(uint64(len(frames)))
	}
	w.rest = nil
	w.mu.Unlock()
}

// sendAll sends w.rest by as many calls as that takes.
func (w *sender) sendAll(fd uintptr) {
	for len(w.rest) > 0 {
		w.prepare()
		for at := 0; at < w.n; {
			n, _, e := unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&w.msgs[at])), uintptr(w.n-at), unix.MSG_DONTWAIT, 0, 0)
			switch e {
			case 0:
				at += int(n)
			case unix.EINTR:
			case unix.EAGAIN:
				// The interface is behind: what comes now would come too late.
				w.busy.Add(uint64(w.n - at + len(w.rest)))
				w.rest = nil
				at = w.n
			case unix.ENETDOWN, unix.ENXIO, unix.ENODEV:
				w.down.Add(1)
				at++
			case unix.ENOBUFS, unix.ENOMEM:
				w.busy.Add(1)
				at++
			case unix.EMSGSIZE:
				w.tooLong.Add(1)
				at++
			default:
				w.refused.Add(1)
				at++
			}
		}
		clear(w.iov) // nothing is kept that is another's
	}
}

// prepare makes messages of the first frames of w.rest, and takes them off it.
func (w *sender) prepare() {
	w.n, w.iov = 0, w.iov[:0]
	for w.n < batch && len(w.rest) > 0 {
		f := &w.rest[0]
		w.rest = w.rest[1:]
		if len(f.Body) >= maxPieces {
			w.refused.Add(1)
			continue
		}
		h := &w.hdr[w.n]
		h.Set(f)
		if !w.fits(h, f) {
			w.tooLong.Add(1)
			continue
		}
		w.first[w.n] = len(w.iov)
		w.iov = append(w.iov, iovec(h[:vnet.ShortLen]), iovec(f.Head))
		for _, b := range f.Body {
			w.iov = append(w.iov, iovec(b))
		}
		w.n++
	}
	end := len(w.iov) // only now it does not move any more
	for i := w.n - 1; i >= 0; i-- {
		m := &w.msgs[i].Msghdr
		m.Iov = &w.iov[w.first[i]]
		m.SetIovlen(end - w.first[i])
		end = w.first[i]
	}
}

// fits reports whether the segments of a frame that is to be cut are as short as the
// interface sends: the kernel looks at the length of other frames alone.
func (w *sender) fits(h *vnet.Header, f *nic.Frame) bool {
	mtu := int(w.mtu.Load())
	if f.Offload.Segment == nic.SegmentNone || mtu == 0 {
		return true
	}
	longest := nic.HeaderLen + mtu
	if tagged(f.Head) {
		longest += tagLen
	}
	return h.Headers()+int(f.Offload.Size) <= longest
}

// tagged reports whether a frame has an 802.1Q or 802.1ad tag.
func tagged(b []byte) bool {
	if len(b) < nic.HeaderLen {
		return false
	}
	t := uint16(b[12])<<8 | uint16(b[13])
	return t == unix.ETH_P_8021Q || t == unix.ETH_P_8021AD
}

// stats returns what was lost on sending.
func (w *sender) stats() []nic.Stat {
	return []nic.Stat{
		{Name: "packet_write_down", Value: w.down.Load()},        // the interface is down or gone
		{Name: "packet_write_busy", Value: w.busy.Load()},        // the interface is behind, or the kernel has no memory
		{Name: "packet_write_too_long", Value: w.tooLong.Load()}, // longer than the interface's MTU allows
		{Name: "packet_write_refused", Value: w.refused.Load()},  // the kernel calls the frame malformed
		{Name: "packet_write_closed", Value: w.closed.Load()},    // after Close
	}
}

// Down returns how many frames that were written the interface did not take because it was
// down, or gone. That shows at once; news of it come later.
func (l *Link) Down() uint64 { return l.write.down.Load() }

// Dropped returns how many frames that were written the interface did not take.
func (l *Link) Dropped() (n uint64) {
	for _, s := range l.write.stats() {
		n += s.Value
	}
	return n
}
