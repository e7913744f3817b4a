package guest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"hvnet/hv"
	"hvnet/vmbus"
	"hvnet/vmbus/channel"
)

// Config says how a guest connects. The zero value is good.
type Config struct {
	// Versions are the VMBus versions to try, newest first. Nil means 5.3 to 2.4.
	// 6.0 may be put in front; none of its features is asked for.
	Versions []vmbus.Version
	// Timeout bounds each wait for an answer of the host, in addition to the
	// context of the call. Zero means 10 seconds.
	Timeout time.Duration
	// Nodes is how many NUMA nodes the guest's processors are divided over, in equal
	// runs: channels are spread over them. Zero means 1; more than there are processors
	// are as many as those.
	Nodes int
	// Log, if not nil, gets every control message at debug level, and messages of
	// the host that make no sense at info level.
	Log *slog.Logger
}

// A Bus is a connection to the host's VMBus.
type Bus struct {
	p   hv.Partition
	cfg Config
	log *slog.Logger

	// relids routes event flags to channels; it is read for each of them.
	relids [vmbus.RelidLimit]atomic.Pointer[channel.Channel]

	turn   chan struct{}   // capacity 1: held by whoever posts
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	m       *machine
	monitor hv.Region // the two monitor pages
	waiters map[wait]chan answer
	devices map[*chanState]*Device // by primary
	changed chan struct{}          // closed and replaced when offers come or go
	later   []action               // for the goroutine that does what a VP must not wait for
	work    chan struct{}          // capacity 1: there is something in later
	dropped uint64                 // messages of the host that made no sense
}

// Connect joins the host's bus: it agrees on a version, the newest that both
// know, and asks for the host's offers. The partition belongs to the bus from now
// on: Close closes it, and so does Connect when it fails.
func Connect(ctx context.Context, p hv.Partition, cfg Config) (*Bus, error) {
	if cfg.Versions == nil {
		cfg.Versions = []vmbus.Version{
			vmbus.Version5_3, vmbus.Version5_2, vmbus.Version5_1, vmbus.Version5_0,
			vmbus.Version4_1, vmbus.Version4_0, vmbus.Version3_0, vmbus.Version2_4,
		}
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * time.Second
	}
	b := &Bus{
		p: p, cfg: cfg, log: cfg.Log,
		m:       newMachine(newPlacement(p.VPs(), cfg.Nodes)),
		waiters: make(map[wait]chan answer),
		devices: make(map[*chanState]*Device),
		changed: make(chan struct{}),
		work:    make(chan struct{}, 1),
		turn:    make(chan struct{}, 1),
	}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	monitor, err := p.Alloc(2 * hv.PageSize)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("connect to the host's VMBus: monitor pages: %w", err), p.Close())
	}
	b.monitor = monitor
	b.m.monitor = [2]uint64{uint64(monitor.GPA), uint64(monitor.GPA) + hv.PageSize}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	for vp := range p.VPs() {
		b.wg.Go(func() { b.processor(vp) })
	}
	b.wg.Go(b.worker)
	if err := b.connect(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("connect to the host's VMBus: %w", err), b.Close())
	}
	return b, nil
}

// connect agrees on a version and takes the offers.
func (b *Bus) connect(ctx context.Context) error {
	for _, v := range b.cfg.Versions {
		a, err := b.ask(ctx, "VERSION_RESPONSE to "+v.String(), func(m *machine) (wait, error) {
			return m.contact(v), nil
		})
		switch {
		case v.HasContactPort() && errors.Is(err, hv.StatusInvalidConnectionID):
			continue // a host older than 5.0 doesn't even have the connection
		case err != nil:
			return err
		case !a.version.Supported:
			continue
		}
		_, err = b.ask(ctx, "ALLOFFERS_DELIVERED", func(m *machine) (wait, error) {
			return m.requestOffers(), nil
		})
		return err
	}
	return fmt.Errorf("the host accepts none of the versions %v", b.cfg.Versions)
}

// Version returns the negotiated version, 0 after Unload.
func (b *Bus) Version() vmbus.Version {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.m.version
}

// Device returns a device of the class that no earlier call has returned, and
// waits for one to be offered if there is none.
func (b *Bus) Device(ctx context.Context, class vmbus.GUID) (channel.Device, error) {
	var d *Device
	err := b.await(ctx, func(m *machine) (bool, error) {
		ch := m.claim(class)
		if ch == nil {
			if m.version == 0 {
				return false, channel.ErrRescinded
			}
			return false, nil
		}
		d = &Device{b: b, ch: ch, offer: ch.offer, version: m.version,
			gone: make(chan struct{}), open: make(map[*channel.Channel]*rings)}
		b.devices[ch] = d
		return true, nil
	})
	if err != nil {
		return nil, fmt.Errorf("wait for the offer of a device of class %s: %w", class, err)
	}
	return d, nil
}

// Unload ends the connection: the host lets go of all channels and memory. All
// devices are rescinded by then.
func (b *Bus) Unload(ctx context.Context) error {
	_, err := b.ask(ctx, "UNLOAD_RESPONSE", func(m *machine) (wait, error) { return m.unload() })
	if err != nil {
		return fmt.Errorf("unload: %w", err)
	}
	return nil
}

// Close leaves the host without a word, rescinds all devices and closes the
// partition.
func (b *Bus) Close() error {
	b.cancel()
	err := b.p.Close()
	b.wg.Wait()
	return err
}

// processor is the goroutine of a virtual processor: its interrupt handler.
func (b *Bus) processor(vp int) {
	wake := func(flag int) {
		// Unknown flags are cleared and forgotten, 0 among them.
		if c := b.relids[flag%len(b.relids)].Load(); c != nil {
			c.Interrupt()
		}
	}
	var msg hv.Message
	for {
		if err := b.p.Wait(vp); err != nil {
			b.hostGone()
			return
		}
		b.p.TakeFlags(vp, wake)
		for b.p.TakeMessage(vp, &msg) {
			b.receive(&msg)
		}
	}
}

// maxLater bounds what waits for the worker: a sane host rescinds all its channels at
// once at worst.
const maxLater = vmbus.RelidLimit

func (b *Bus) receive(msg *hv.Message) {
	if msg.Type != hv.MessageVMBus {
		return // of the hypervisor itself, a timer perhaps
	}
	b.trace("from host", msg.Payload())
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.later) >= maxLater {
		return // a host that makes us answer and takes no answers gets none
	}
	b.m.message(msg.Payload())
	b.postpone(b.settle())
}

// hostGone rescinds everything.
func (b *Bus) hostGone() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.m.disconnected()
	b.postpone(b.settle())
}

// postpone leaves actions to the worker. The caller holds the lock.
func (b *Bus) postpone(todo []action) {
	if len(todo) == 0 {
		return
	}
	b.later = append(b.later, todo...)
	b.nudge()
}

// nudge makes the worker look.
func (b *Bus) nudge() {
	select {
	case b.work <- struct{}{}:
	default:
	}
}

// worker does for the processors what may wait.
func (b *Bus) worker() {
	for {
		select {
		case <-b.work:
		case <-b.ctx.Done():
			return
		}
		b.say(b.ctx, func(*machine) {}) // posts what is in later; only Close makes it fail
	}
}

// trace logs a message with the beginning of what follows its header, where most
// have all their fields.
func (b *Bus) trace(direction string, message []byte) {
	if !b.log.Enabled(b.ctx, slog.LevelDebug) {
		return
	}
	t, _ := vmbus.PeekType(message)
	n := len(message)
	b.log.Debug(direction, "type", t.String(), "bytes", n, "fields", fmt.Sprintf("%x", message[min(8, n):min(32, n)]))
}
