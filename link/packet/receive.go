package packet

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"hvnet/link/vnet"
	"hvnet/nic"
)

const (
	// batch is how many frames one system call receives or sends at most.
	batch = 32
	// rounds is how many batches Receive passes on before it has the scheduler look who else
	// has something to do: of its system calls that hears nothing.
	rounds = 8
	// tagLen is the length of an 802.1Q tag in bytes.
	tagLen = 4
	// slot is the memory for a received frame: room for its tag and the longest frame,
	// rounded up to a line of the cache, and not to a power of two, lest all frames begin
	// in the same set of it.
	slot = (tagLen + nic.MaxFrame + 63) &^ 63
)

// message is struct mmsghdr.
type message struct {
	unix.Msghdr
	n uint32
}

// receiver is what Receive uses. The system call goes through a function that is made
// once and takes its arguments from the fields: a closure per call would be an
// allocation per call.
type receiver struct {
	file *os.File
	rc   syscall.RawConn
	once func(fd uintptr) bool // receives
	turn func(fd uintptr) bool // the same, and takes passing if there is something
	try  func(fd uintptr)      // the same without waiting

	passing sync.Mutex // held from before a batch is received until it is passed on
	to      nic.Sink   // under passing; nil: nobody receives

	buf    []byte // slots
	msgs   [batch]message
	iov    [batch][2]unix.Iovec
	hdr    [batch]vnet.Header
	aux    [batch]control
	frames [batch]nic.Frame
	n      int
	errno  syscall.Errno

	tooLong, tooShort, refused atomic.Uint64

	mu      sync.Mutex
	came    uint64 // as the kernel counts, as long as it was asked,
	dropped uint64 // and those of them that it dropped
}

func newReceiver(f *os.File) (*receiver, error) {
	rc, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	r := &receiver{file: f, rc: rc, buf: make([]byte, batch*slot)}
	r.once = r.receive
	r.turn = func(fd uintptr) bool {
		r.passing.Lock()
		if r.receive(fd) {
			return true
		}
		r.passing.Unlock()
		return false
	}
	r.try = func(fd uintptr) { r.receive(fd) }
	for i := range r.msgs {
		r.iov[i] = [2]unix.Iovec{iovec(r.hdr[i][:vnet.ShortLen]), iovec(r.slot(i)[tagLen:])}
		m := &r.msgs[i].Msghdr
		m.Iov = &r.iov[i][0]
		m.SetIovlen(2)
		m.Control = (*byte)(unsafe.Pointer(&r.aux[i]))
	}
	return r, nil
}

func (r *receiver) slot(i int) []byte { return r.buf[i*slot:][:slot:slot] }

// Receive passes on what the interface receives until Close, when it returns
// net.ErrClosed. An interface that goes down or is removed does not end it.
func (l *Link) Receive(to nic.Sink) error {
	r := l.read
	r.setSink(to)
	defer r.setSink(nil)
	for busy := 1; ; busy++ {
		if busy%rounds == 0 {
			runtime.Gosched()
		}
		if err := r.rc.Read(r.turn); err != nil {
			if l.closed.Load() {
				return net.ErrClosed
			}
			return fmt.Errorf("receive from %s: %w", l.name, err)
		}
		err := r.pass()
		r.passing.Unlock()
		if err != nil {
			return fmt.Errorf("receive from %s: %w", l.name, err)
		}
	}
}

func (r *receiver) setSink(to nic.Sink) {
	r.passing.Lock()
	r.to = to
	r.passing.Unlock()
}

// pass passes on what was received. The caller holds passing.
func (r *receiver) pass() error {
	switch r.errno {
	case 0:
		if n := r.collect(); n > 0 {
			r.to.WriteFrames(r.frames[:n])
		}
	case unix.EINTR:
	case unix.ENETDOWN, unix.ENXIO:
		// Told once. Watch hears more.
	case unix.EINVAL, unix.ENOBUFS, unix.ENOMEM:
		// One frame: it leaves to be done what the header has no word for.
		r.refused.Add(1)
	default:
		return r.errno
	}
	return nil
}

// receive receives what there is, and reports false if that is nothing. The call is raw, as
// that of sendAll is: neither waits, and to tell the scheduler of each would wake its monitor
// thread each time that the process has been idle, which costs as much as a frame.
func (r *receiver) receive(fd uintptr) bool {
	for i := range r.msgs {
		r.msgs[i].SetControllen(int(unsafe.Sizeof(control{})))
	}
	n, _, e := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&r.msgs)), batch, unix.MSG_DONTWAIT, 0, 0)
	r.n, r.errno = int(n), e
	return e != unix.EAGAIN
}

// collect makes frames of what was received, and returns how many.
func (r *receiver) collect() (n int) {
	for i := range r.n {
		m := &r.msgs[i]
		length := int(m.n) - vnet.ShortLen
		switch {
		case m.Flags&unix.MSG_TRUNC != 0:
			r.tooLong.Add(1)
			continue
		case length < nic.MinFrame:
			r.tooShort.Add(1)
			continue
		}
		o := r.hdr[i].Offload()
		b := r.slot(i)[:tagLen+length]
		if tag, ok := r.aux[i].tag(int(m.Controllen)); ok {
			// The tag goes back to where it was, behind the addresses.
			copy(b, b[tagLen:tagLen+12])
			binary.BigEndian.PutUint32(b[12:], tag)
			if o.Checksum == nic.ChecksumPartial {
				o.Start += tagLen
			}
		} else {
			b = b[tagLen:]
		}
		// All of it is private memory, so all of it may be the head.
		r.frames[n] = nic.Frame{Head: b, Offload: o}
		n++
	}
	return n
}

// A control is the room for one control message with struct tpacket_auxdata: u32 status
// @0, length @4, length of what was taken @8, u16 offsets @12 and @14, u16 tag @16, type
// of the tag @18.
type control struct {
	head unix.Cmsghdr
	aux  [(auxLen + 7) &^ 7]byte
}

const auxLen = 20

// tag returns the 802.1Q tag that the kernel has taken out of a frame, as the four bytes
// that it is on the wire. There are n bytes of control messages.
func (c *control) tag(n int) (tag uint32, ok bool) {
	const length = unix.SizeofCmsghdr + auxLen
	if n < length || c.head.Level != unix.SOL_PACKET || c.head.Type != unix.PACKET_AUXDATA || c.head.Len < length {
		return 0, false
	}
	status := binary.NativeEndian.Uint32(c.aux[:])
	if status&unix.TP_STATUS_VLAN_VALID == 0 {
		return 0, false
	}
	kind := uint32(unix.ETH_P_8021Q)
	if status&unix.TP_STATUS_VLAN_TPID_VALID != 0 {
		kind = uint32(binary.NativeEndian.Uint16(c.aux[18:]))
	}
	return kind<<16 | uint32(binary.NativeEndian.Uint16(c.aux[16:])), true
}

func iovec(b []byte) unix.Iovec {
	v := unix.Iovec{Base: unsafe.SliceData(b)}
	v.SetLen(len(b))
	return v
}

// ask adds what the kernel has counted since the last time.
func (r *receiver) ask() (came, dropped uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rc.Control(func(fd uintptr) {
		if s, err := unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
			r.came += uint64(s.Packets)
			r.dropped += uint64(s.Drops)
		}
	})
	return r.came, r.dropped
}

// stats returns what was lost on receiving.
func (r *receiver) stats() []nic.Stat {
	_, dropped := r.ask()
	return []nic.Stat{
		{Name: "packet_read_dropped", Value: dropped},             // came faster than they were taken
		{Name: "packet_read_too_long", Value: r.tooLong.Load()},   // longer than nic.MaxFrame
		{Name: "packet_read_too_short", Value: r.tooShort.Load()}, // no whole Ethernet header
		{Name: "packet_read_refused", Value: r.refused.Load()},    // of a kind that the header has no word for
	}
}
