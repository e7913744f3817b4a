// Package xdp joins a network interface of the kernel by AF_XDP: what the interface
// receives comes from its driver past the kernel's stack, what is written to it goes to the
// driver past queueing discipline and filters. A [Link] is of one interface, a [Follower], which
// has the shape of [packet.Link], of one after the other. It is for who is root and has a
// network card: whose driver can has no copies either, and nothing allocates or frees a buffer
// of the kernel's per frame.
//
// A program in the driver (XDP), or behind it if it has none, gives the frames of each
// receive queue to that queue's socket. All of them: the machine's own stack is deaf on the
// interface as long as the link is open, and tcpdump there sees nothing, of what is sent
// neither. Program and sockets end with the process, however that ends.
//
// Frames are as on a wire, and fit a page: there is no word for a checksum to be completed,
// a super-frame, or a tag that was taken out. Cards complete and cut nothing for this
// link, and what they take out is lost: `ethtool -K IF rxvlan off` for frames with tags.
// The other end of a veth is no wire, and leaves all of that in what it sends, unless it is
// told not to: `ethtool -K IF tx off txvlan off`.
//
// Measured in turns on veths, where the kernel copies each frame, a Link sends 1.5 to 1.9
// times as many frames of 64 or 1514 bytes per second as a packet.Link does, and receives
// 0.85 to 1.05 times as many. What the other lets the kernel carry as frames of 64 KiB it
// gets in segments: 0.2 times the payload.
package xdp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"hvnet/link/packet"
	"hvnet/link/rtnl"
	"hvnet/nic"
)

// What joining an interface fails with, besides the errors of [packet.Open], which mean
// the same here. Test with errors.Is.
var (
	// ErrBusy says that somebody else has the interface's frames by XDP.
	ErrBusy = errors.New("in use")
	// ErrMTU says that the interface's MTU exceeds MaxMTU.
	ErrMTU = errors.New("MTU too large")
)

// A Link is an interface as whoever is joined to it sees it, for as long as it is there: the
// next one of its name is for another link, see [Follower]. All methods may be called from any
// goroutine, Receive from one.
type Link struct {
	name     string
	index    int32
	promisc  *os.File // a packet socket that receives nothing, for as long as which the interface is promiscuous, or not
	program  *program
	queues   []*queue
	senders  []*queue // of the queues: there may be less to send than to receive
	closed   atomic.Bool
	writeCut atomic.Int32 // the longest frame to send without its tag, in bytes

	mu    sync.Mutex
	users int    // of the queues' memory: 1 until Close, and each Receive and Flush
	joins uint16 // what promisc makes of the interface
}

var _ nic.Taker = (*Link)(nil)

// Open joins the interface of a name in the network namespace of the calling thread. It
// takes root, and an MTU of [MaxMTU] at most. The interface may be down: frames pass when
// somebody sets it up. Open waits until ctx ends, and some seconds at most, for a link that
// was just closed.
func Open(ctx context.Context, name string) (l *Link, err error) {
	l = &Link{name: name, users: 1}
	defer func() {
		if err == nil {
			return
		}
		l.Close()
		l, err = nil, fmt.Errorf("join interface %s by AF_XDP: %w", name, reason(err))
	}()
	control, err := rtnl.Open()
	if err != nil {
		return l, err
	}
	defer control.Close()
	s, err := l.look(ctx, control)
	if err != nil {
		return l, err
	}
	if s.MTU > MaxMTU {
		return l, fmt.Errorf("%w: it is %d, and AF_XDP takes %d at most, a page for a frame; packet sockets take any", ErrMTU, s.MTU, MaxMTU)
	}
	l.SetMTU(s.MTU)
	n, senders, err := channels(control, name)
	if err != nil {
		return l, fmt.Errorf("ask for the number of its queues: %w", err)
	}
	if l.program, err = attach(l.index, n); err != nil {
		return l, err
	}
	for i := range n {
		q, err := openQueue(ctx, l.index, i)
		if err != nil {
			return l, err
		}
		l.queues = append(l.queues, q)
		if err := l.program.add(i, q.fd); err != nil {
			return l, err
		}
	}
	l.senders = l.queues[:min(n, senders)]
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return l, fmt.Errorf("open a packet socket: %w", err)
	}
	l.promisc = os.NewFile(uintptr(fd), "packet")
	l.joins = unix.PACKET_MR_PROMISC
	return l, l.member(unix.PACKET_ADD_MEMBERSHIP, l.joins)
}

// reason returns the error to test for, where there is one.
func reason(err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%w: AF_XDP takes root; packet sockets take CAP_NET_RAW alone", packet.ErrPermission)
	}
	return err
}

// Permitted returns nil if this process may use AF_XDP at all, else an error that is
// [packet.ErrPermission], or that of a kernel that can't.
func Permitted() error {
	p, err := load(1)
	if err != nil {
		return reason(err)
	}
	return p.close()
}

// look finds the interface, and returns its state now.
func (l *Link) look(ctx context.Context, control *os.File) (s rtnl.State, err error) {
	l.index, err = rtnl.Index(control, l.name)
	switch {
	case errors.Is(err, unix.ENODEV):
		return s, fmt.Errorf("%w in this network namespace", packet.ErrNoInterface)
	case err != nil:
		return s, err
	}
	enough := errors.New("enough")
	err = rtnl.Watch(ctx, control, rtnl.Interface{Index: l.index}, func(now rtnl.State) error {
		s = now
		return enough
	})
	switch {
	case err == nil:
		return s, ctx.Err()
	case err != enough:
		return s, err
	case s.Removed:
		return s, fmt.Errorf("%w in this network namespace", packet.ErrNoInterface)
	case !s.Ethernet:
		return s, packet.ErrNotEthernet
	}
	return s, nil
}

// member has the interface receive frames for others as well as its own (PACKET_MR_PROMISC)
// or those for groups (PACKET_MR_ALLMULTI), or no longer.
func (l *Link) member(option int, membership uint16) error {
	return rtnl.Control(l.promisc, func(fd int) error {
		m := unix.PacketMreq{Ifindex: l.index, Type: membership}
		if err := unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, option, &m); err != nil {
			return fmt.Errorf("have it receive frames for others or for groups: %w", err)
		}
		return nil
	})
}

// SetPromiscuous has the interface receive what is for others too, as it does from the
// beginning, or no longer: then only its own and all groups' frames. What its users want
// besides stays. At an interface that is gone it does nothing.
func (l *Link) SetPromiscuous(on bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	to := uint16(unix.PACKET_MR_ALLMULTI)
	if on {
		to = unix.PACKET_MR_PROMISC
	}
	if to == l.joins || l.closed.Load() {
		return nil
	}
	err := l.member(unix.PACKET_ADD_MEMBERSHIP, to)
	switch {
	case errors.Is(err, unix.ENODEV):
		return nil
	case err != nil:
		return fmt.Errorf("interface %s: %w", l.name, err)
	}
	// It can't fail, but for an interface that is gone.
	l.member(unix.PACKET_DROP_MEMBERSHIP, l.joins)
	l.joins = to
	return nil
}

// Index returns the number of the interface, which stays.
func (l *Link) Index() int32 { return l.index }

// Name returns the interface's name.
func (l *Link) Name() string { return l.name }

// A Mode is how frames come and go.
type Mode struct {
	Queues   int
	Driver   bool // the program is in the driver, not behind it
	ZeroCopy bool // the driver has the memory of the link, on all queues
}

// Mode returns how frames come and go.
func (l *Link) Mode() Mode {
	m := Mode{Queues: len(l.queues), Driver: !l.program.generic, ZeroCopy: true}
	for _, q := range l.queues {
		m.ZeroCopy = m.ZeroCopy && q.zeroCopy
	}
	return m
}

// SetMTU tells the link what the MTU of the interface is now, in bytes.
func (l *Link) SetMTU(mtu int) { l.writeCut.Store(int32(nic.HeaderLen + mtu)) }

// Receive passes on what the interface receives until Close, when it returns
// net.ErrClosed. The frames of a queue come in order, each queue's from a goroutine of its
// own; Channel is the queue. An interface that goes down or is removed does not end it.
func (l *Link) Receive(to nic.Sink) error {
	if !l.use() {
		return net.ErrClosed
	}
	defer l.leave()
	errs := make(chan error, len(l.queues))
	for _, q := range l.queues {
		go func() { errs <- q.serve(to) }()
	}
	var err error
	for range l.queues {
		err = errors.Join(err, <-errs)
	}
	if l.closed.Load() {
		return net.ErrClosed
	}
	return fmt.Errorf("receive from %s: %w", l.name, err)
}

// Flush passes on what the interface has received and nobody has yet, in place of Receive,
// which goes on afterwards. When it returns nil, all that had come to the link before the
// call was passed on, and the sink has returned from it. It fails with the error of ctx,
// which ends it between batches, and with net.ErrClosed.
func (l *Link) Flush(ctx context.Context) error {
	if !l.use() {
		return net.ErrClosed
	}
	defer l.leave()
	for _, q := range l.queues {
		if err := q.flush(ctx); err != nil {
			return fmt.Errorf("wait for an end of what %s receives: %w", l.name, err)
		}
	}
	return nil
}

// Takes implements nic.Taker: frames leave nothing to be done.
func (l *Link) Takes() nic.Offloads { return 0 }

// WriteFrames has the interface send the frames, on the queue of their Channel. What it
// does not take is dropped and counted by reason.
func (l *Link) WriteFrames(frames []nic.Frame) {
	longest := int(l.writeCut.Load())
	for len(frames) > 0 {
		n := 1
		for n < len(frames) && frames[n].Channel == frames[0].Channel {
			n++
		}
		l.senders[int(frames[0].Channel)%len(l.senders)].write(frames[:n], longest)
		frames = frames[n:]
	}
}

// use keeps the queues' memory until leave is called. It reports false after Close.
func (l *Link) use() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.users == 0 || l.closed.Load() {
		return false
	}
	l.users++
	return true
}

func (l *Link) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.users--; l.users == 0 {
		for _, q := range l.queues {
			q.unmap()
		}
	}
}

// Close leaves the interface, which is the kernel's again. Receive returns net.ErrClosed.
func (l *Link) Close() error {
	if l.closed.Swap(true) {
		return nil
	}
	var errs []error
	if l.program != nil {
		errs = append(errs, l.program.close())
	}
	for _, q := range l.queues {
		errs = append(errs, q.close())
	}
	if l.promisc != nil {
		errs = append(errs, l.promisc.Close())
	}
	l.leave()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("leave interface %s: %w", l.name, err)
	}
	return nil
}

// Down returns how often frames that were written have met an interface that is down or gone.
// That shows at once; news of it come later.
func (l *Link) Down() (n uint64) {
	for _, q := range l.senders {
		n += q.down.Load()
	}
	return n
}

// Dropped returns how many frames that were written the interface did not take.
func (l *Link) Dropped() (n uint64) {
	for _, q := range l.queues {
		o := q.unsent()
		n += o.down + o.busy + o.tooLong + o.refused + o.closed
	}
	return n
}

// writeDown is the counter of frames for an interface that is down or gone.
const writeDown = "xdp_write_down"

// Stats returns what was lost at the link, by reason, of all queues.
func (l *Link) Stats() []nic.Stat {
	var dropped, short uint64
	var out sendStats
	for _, q := range l.queues {
		s := q.lost()
		dropped += s.Rx_dropped + s.Rx_ring_full
		short += q.tooShort.Load()
		o := q.unsent()
		out.down += o.down
		out.busy += o.busy
		out.tooLong += o.tooLong
		out.refused += o.refused
		out.closed += o.closed
	}
	return []nic.Stat{
		{Name: "xdp_read_dropped", Value: dropped},       // came faster than they were taken, or did not fit
		{Name: "xdp_read_too_short", Value: short},       // no whole Ethernet header
		{Name: writeDown, Value: out.down},               // the interface is down or gone
		{Name: "xdp_write_busy", Value: out.busy},        // the interface is behind
		{Name: "xdp_write_too_long", Value: out.tooLong}, // longer than the interface's MTU allows
		{Name: "xdp_write_refused", Value: out.refused},  // leaves something to be done, or no whole Ethernet header
		{Name: "xdp_write_closed", Value: out.closed},    // after Close, or not sent until then
	}
}
