package channel

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"hvnet/ring"
)

// ErrRescinded is returned, wrapped or as it is, for everything that is asked of
// a device or channel after the host has taken it away or has left.
var ErrRescinded = errors.New("the host has taken the device away")

// Params is what a bus needs to know to make a channel. Each bus has its own way
// to the two rings and to the doorbell; what they make is the same.
type Params struct {
	Relid uint32 // child relative id, 1 to 2047
	Index int    // sub-channel index, 0 for the primary
	VP    int    // virtual processor that the guest is interrupted on, see Channel.VP

	// Out and In are the memory of the ring that this end produces into and of
	// the ring that it consumes, header page included.
	Out, In []byte

	// Signal rings the other end's doorbell. It doesn't block, may be called
	// from several goroutines, and is called only when the ring's rules ask for it.
	Signal func()
}

// A Channel is one end of an open channel.
//
// Any number of goroutines produce, one at a time: they hold the producer lock
// around Out, once per batch. One goroutine at a time consumes: it alone uses In. Nothing
// here allocates or blocks but Lock.
type Channel struct {
	Relid uint32
	Index int
	Out   *ring.Producer // under Lock
	In    *ring.Consumer // the consuming goroutine's

	mu     sync.Mutex
	signal func()
	event  chan struct{}
	closed chan struct{}
	once   sync.Once

	interrupt atomic.Pointer[func() bool]

	vp      atomic.Int32
	signals atomic.Uint64
	events  atomic.Uint64
}

// New makes one end of a channel whose rings are ready: the guest has called
// [ring.Init] on both. It refuses ring memory with a bad size or bad indices.
func New(p Params) (*Channel, error) {
	out, err := ring.NewProducer(p.Out)
	if err != nil {
		return nil, fmt.Errorf("channel %d: outgoing ring: %w", p.Relid, err)
	}
	in, err := ring.NewConsumer(p.In)
	if err != nil {
		return nil, fmt.Errorf("channel %d: incoming ring: %w", p.Relid, err)
	}
	c := &Channel{
		Relid: p.Relid, Index: p.Index,
		Out: out, In: in,
		signal: p.Signal,
		event:  make(chan struct{}, 1),
		closed: make(chan struct{}),
	}
	c.vp.Store(int32(p.VP))
	return c, nil
}

// VP returns the virtual processor that the guest is interrupted on for the channel.
func (c *Channel) VP() int { return int(c.vp.Load()) }

// Move says that it is another one from now on. It is for the bus.
func (c *Channel) Move(vp int) { c.vp.Store(int32(vp)) }

// Lock takes the producer lock. It is held for one batch, never over a wait and
// over no system call but the doorbell that Flush may ring.
func (c *Channel) Lock() { c.mu.Lock() }

// Unlock returns the producer lock.
func (c *Channel) Unlock() { c.mu.Unlock() }

// Flush makes everything that was put into Out visible to the other end, and
// rings its doorbell if the ring was empty and the doorbell is not masked. The
// caller holds the producer lock.
func (c *Channel) Flush() {
	if c.Out.Publish() {
		c.ring()
	}
}

// Release gives the space of everything that was read from In back to the other
// end, and rings its doorbell if that is what it waits for. The consuming
// goroutine calls it at the end of a batch.
func (c *Channel) Release() {
	if c.In.Release() {
		c.ring()
	}
}

func (c *Channel) ring() {
	c.signals.Add(1)
	c.signal()
}

// Event returns the channel on which the consuming goroutine waits: it carries
// one value, however often Wake was called since the last was taken.
func (c *Channel) Event() <-chan struct{} { return c.event }

// Wake makes the consuming goroutine look at its rings. The bus calls it when the
// other end has rung; others may, to have the goroutine look at something of theirs.
func (c *Channel) Wake() {
	select {
	case c.event <- struct{}{}:
		c.events.Add(1)
	default:
	}
}

// OnInterrupt has f called when the other end has rung, by the goroutine that has
// heard it: to have another one wake up often costs more than what there is to do. f
// does not block and soon returns; false says that it leaves work to the goroutine that
// waits for Event. It may still be called for a while after the channel is closed.
func (c *Channel) OnInterrupt(f func() (done bool)) { c.interrupt.Store(&f) }

// Interrupt is called by the bus, without a lock, when the other end has rung.
func (c *Channel) Interrupt() {
	if f := c.interrupt.Load(); f == nil || !(*f)() {
		c.Wake()
	}
}

// Closed is closed when the channel is of no more use: the device was rescinded,
// the other end is gone, or the channel was closed. The rings stay readable until
// whoever uses them has let go.
func (c *Channel) Closed() <-chan struct{} { return c.closed }

// Close marks the channel closed. It is for the bus, which takes the channel from
// its user in its own way, and for both ends of a [Pair]. Closing twice is harmless.
func (c *Channel) Close() { c.once.Do(func() { close(c.closed) }) }

// Stats counts what a channel cost besides its packets.
type Stats struct {
	Signals uint64 // doorbells rung at the other end
	Events  uint64 // values sent on Event: each is at most one wake-up
}

// Stats returns the counts since the channel was made. It may be called from any
// goroutine.
func (c *Channel) Stats() Stats {
	return Stats{Signals: c.signals.Load(), Events: c.events.Load()}
}

// Pair returns the two ends of a channel in ordinary memory, without a bus: each
// end's doorbell wakes the other. ringBytes is the memory of each ring, header
// included. It is for tests and for scripted peers. Each end is closed by itself.
func Pair(ringBytes int) (guest, host *Channel, err error) {
	if ringBytes < 2*ring.HeaderSize || ringBytes%ring.HeaderSize != 0 {
		return nil, nil, fmt.Errorf("channel pair: ring of %d bytes: want whole pages, at least two", ringBytes)
	}
	up, down := make([]byte, ringBytes), make([]byte, ringBytes)
	ring.Init(up)
	ring.Init(down)
	guest, err = New(Params{Relid: 1, Out: up, In: down, Signal: func() { host.Wake() }})
	if err != nil {
		return nil, nil, err
	}
	host, err = New(Params{Relid: 1, Out: down, In: up, Signal: func() { guest.Wake() }})
	if err != nil {
		return nil, nil, err
	}
	return guest, host, nil
}
