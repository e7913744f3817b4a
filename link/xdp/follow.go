package xdp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"hvnet/link/packet"
	"hvnet/link/rtnl"
	"hvnet/nic"
)

// A Follower is joined to one interface of a network namespace after the other, each by a
// [Link] of its own, as a [packet.Link] is by the same sockets. WriteFrames and whatever asks
// may be called from any goroutine, Receive from one, and one of Watch and Follow from one.
type Follower struct {
	name      string   // of the interfaces that Watch joins
	namespace *os.File // where they are
	control   *os.File // an rtnetlink socket there
	state     atomic.Pointer[packet.State]
	joined    chan *Link // for Receive: the last one that it has not had
	open      context.Context
	close     context.CancelFunc

	following sync.Mutex // held to join, to leave and to become selective
	promisc   bool

	mu      sync.RWMutex // held, shared, while the link is used
	link    *Link        // nil: none is joined
	lost    []nic.Stat   // what was lost at links before
	dropped uint64       // of that, on the way out
	down    uint64       // how often one of those was down, or there was none
}

// Follow opens the interface of a name in the network namespace of the calling thread like
// [Open], and with Watch each one that comes in its place.
func Follow(ctx context.Context, name string) (*Follower, error) {
	namespace, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("join interface %s by AF_XDP: its network namespace: %w", name, err)
	}
	control, err := rtnl.Open()
	if err != nil {
		namespace.Close()
		return nil, fmt.Errorf("join interface %s by AF_XDP: %w", name, err)
	}
	f := NewFollower(namespace)
	f.name, f.control = name, control
	l, err := Open(ctx, name)
	if err != nil {
		f.Close()
		return nil, err
	}
	f.state.Store(&packet.State{Present: true, MTU: int(l.writeCut.Load()) - nic.HeaderLen})
	f.use(l)
	return f, nil
}

// NewFollower returns one that is joined to no interface yet: Follow tells it to which, of a
// network namespace that is given by an open file such as /proc/PID/ns/net, which it owns. To
// enter that takes CAP_SYS_ADMIN.
func NewFollower(namespace *os.File) *Follower {
	f := &Follower{namespace: namespace, promisc: true, joined: make(chan *Link, 1), lost: new(Link).Stats()}
	f.open, f.close = context.WithCancel(context.Background())
	f.state.Store(&packet.State{})
	return f
}

// Name returns the name of the interfaces.
func (f *Follower) Name() string { return f.name }

// State returns what Watch or Follow has seen last.
func (f *Follower) State() packet.State { return *f.state.Load() }

// Watch keeps joined to whichever interface has the name, and calls changed with the state
// now and whenever it may have changed. One that can't be joined is State.Refused, and tried
// again at the next change. Watch returns nil at the end of ctx, net.ErrClosed after Close.
// Between changes it costs nothing.
func (f *Follower) Watch(ctx context.Context, changed func(packet.State)) error {
	err := rtnl.Watch(ctx, f.control, rtnl.Interface{Name: f.name}, func(now rtnl.State) error {
		s, err := f.Follow(now)
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil {
			s.Refused = err
			f.state.Store(&s)
		}
		changed(s)
		return nil
	})
	switch {
	case err == nil || ctx.Err() != nil:
		return nil
	case f.open.Err() != nil:
		return net.ErrClosed
	}
	return fmt.Errorf("watch %s: %w", f.name, err)
}

// flushTime is for how long the frames are passed on that an interface has received which is
// left.
const flushTime = time.Second

// Follow joins the interface that news of rtnetlink are of, unless it is joined, and returns
// what they say; see [packet.Link.Follow]. The errors are those of [Open].
func (f *Follower) Follow(now rtnl.State) (packet.State, error) {
	f.following.Lock()
	defer f.following.Unlock()
	s := packet.State{Present: !now.Removed && now.Ethernet, Up: now.Up, Carrier: now.Carrier, MTU: now.MTU, MAC: now.MAC}
	if !s.Present {
		s = packet.State{}
	}
	var err error
	switch l := f.link; { // nobody else changes it
	case l != nil && s.Present && l.Index() == now.Index:
		l.SetMTU(now.MTU)
	default:
		f.leave(flushTime)
		if s.Present {
			l, err = f.join(now)
		}
		switch {
		case err != nil:
			s = packet.State{}
		case s.Present && l == nil: // removed again, or renamed, of which there will be news
			s = packet.State{}
		case s.Present:
			f.use(l)
		}
	}
	f.state.Store(&s)
	return s, err
}

// join opens a link, nil for an interface that is no longer there.
func (f *Follower) join(now rtnl.State) (l *Link, err error) {
	if f.open.Err() != nil {
		return nil, net.ErrClosed
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		err = rtnl.Control(f.namespace, func(fd int) error { return unix.Setns(fd, unix.CLONE_NEWNET) })
		if err != nil {
			err = fmt.Errorf("join interface %s by AF_XDP: enter its network namespace: %w", now.Name, err)
			return
		}
		l, err = Open(f.open, now.Name)
	}()
	<-done
	switch {
	case errors.Is(err, packet.ErrNoInterface), errors.Is(err, unix.ENODEV):
		return nil, nil
	case f.open.Err() != nil && err != nil:
		return nil, net.ErrClosed
	case err != nil:
		return nil, err
	case l.Index() != now.Index:
		return nil, l.Close()
	}
	if err := l.SetPromiscuous(f.promisc); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// use gives the link to who writes and who receives.
func (f *Follower) use(l *Link) {
	select {
	case <-f.joined: // nobody receives
	default:
	}
	f.joined <- l
	f.mu.Lock()
	f.link = l
	f.mu.Unlock()
}

// leave closes the link, if there is one, when what it has received is passed on, for which
// there is some time.
func (f *Follower) leave(patience time.Duration) error {
	l := f.link
	if l == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(f.open, patience)
	defer cancel()
	l.Flush(ctx)
	err := l.Close()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.link = nil
	f.lost, f.dropped, f.down = sum(f.lost, l.Stats()), f.dropped+l.Dropped(), f.down+l.Down()
	return err
}

// sum adds what two links have lost.
func sum(a, b []nic.Stat) []nic.Stat {
	for i := range b {
		b[i].Value += a[i].Value
	}
	return b
}

// Receive passes on what the interfaces receive until Close, when it returns net.ErrClosed;
// see [Link.Receive].
func (f *Follower) Receive(to nic.Sink) error {
	for {
		select {
		case l := <-f.joined:
			if err := l.Receive(to); !errors.Is(err, net.ErrClosed) {
				return err
			}
		case <-f.open.Done():
			return net.ErrClosed
		}
	}
}

// Flush is [Link.Flush] of the interface that is joined, if there is one.
func (f *Follower) Flush(ctx context.Context) error {
	f.mu.RLock()
	l := f.link
	f.mu.RUnlock()
	switch {
	case f.open.Err() != nil:
		return net.ErrClosed
	case l == nil:
		return nil
	}
	return l.Flush(ctx)
}

// SetPromiscuous is [Link.SetPromiscuous] of all interfaces from now on.
func (f *Follower) SetPromiscuous(on bool) error {
	f.following.Lock()
	defer f.following.Unlock()
	if f.link != nil {
		if err := f.link.SetPromiscuous(on); err != nil {
			return err
		}
	}
	f.promisc = on
	return nil
}

// Takes implements nic.Taker: frames leave nothing to be done.
func (f *Follower) Takes() nic.Offloads { return 0 }

// WriteFrames has the interface send the frames, see [Link.WriteFrames]. If there is none
// they are dropped and counted.
func (f *Follower) WriteFrames(frames []nic.Frame) {
	f.mu.RLock()
	l := f.link
	if l != nil {
		l.WriteFrames(frames)
	}
	f.mu.RUnlock()
	if l == nil {
		f.countDown(uint64(len(frames)))
	}
}

// countDown counts frames for no interface.
func (f *Follower) countDown(n uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dropped += n
	f.down++
	for i := range f.lost {
		if f.lost[i].Name == writeDown {
			f.lost[i].Value += n
		}
	}
}

// Down is [Link.Down] of all interfaces, and of frames for none.
func (f *Follower) Down() uint64 {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.link == nil {
		return f.down
	}
	return f.down + f.link.Down()
}

// Dropped returns how many frames that were written no interface took.
func (f *Follower) Dropped() uint64 {
	f.mu.RLock()
	defer f.mu.RUnlock()
	n := f.dropped
	if f.link != nil {
		n += f.link.Dropped()
	}
	return n
}

// Stats returns what was lost at all interfaces, by reason.
func (f *Follower) Stats() []nic.Stat {
	f.mu.RLock()
	defer f.mu.RUnlock()
	s := new(Link).Stats()
	if f.link != nil {
		s = f.link.Stats()
	}
	return sum(f.lost, s)
}

// Close leaves the interface. Receive and Watch return net.ErrClosed.
func (f *Follower) Close() error {
	if f.open.Err() != nil {
		return nil
	}
	f.close()
	f.following.Lock()
	defer f.following.Unlock()
	err := errors.Join(f.leave(0), f.namespace.Close())
	if f.control != nil {
		err = errors.Join(err, f.control.Close())
	}
	return err
}
