package guest

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hvnet/hv"
	"hvnet/vmbus"
	"hvnet/vmbus/channel"
	"hvnet/vmbus/host"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo is a device that sends every packet back, on the channel it came on.
type echo struct {
	bus channel.Bus

	mu      sync.Mutex
	workers map[*channel.Channel]chan struct{}
	mapped  map[uint32]*hv.Mapping
	refuse  error
	removed chan struct{} // one value for each Removed
}

func newEcho(bus channel.Bus) *echo {
	return &echo{
		bus:     bus,
		workers: make(map[*channel.Channel]chan struct{}),
		mapped:  make(map[uint32]*hv.Mapping),
		removed: make(chan struct{}, 16),
	}
}

func (e *echo) Open(c *channel.Channel) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.refuse != nil {
		return e.refuse
	}
	done := make(chan struct{})
	e.workers[c] = done
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			select {
			case <-c.Event():
			case <-c.Closed():
				return
			}
			for e.reflect(c, buf) {
			}
		}
	}()
	return nil
}

// reflect sends one batch back, and says whether to go on without an event.
func (e *echo) reflect(c *channel.Channel, buf []byte) bool {
	c.Lock()
	defer c.Unlock()
	c.In.Mask()
	for c.Out.AwaitRoom(512) {
		c.Out.StopAwaiting()
		p, err := c.In.Next(buf)
		if err != nil {
			c.Flush()
			c.Release()
			return c.In.Unmask()
		}
		c.Out.Put(p, nil)
	}
	c.Flush() // and wait until the guest has read some of it
	c.Release()
	c.In.Unmask()
	return false
}

func (e *echo) Close(c *channel.Channel) {
	e.mu.Lock()
	done := e.workers[c]
	delete(e.workers, c)
	e.mu.Unlock()
	<-done
}

func (e *echo) Map(gpadl uint32) ([]byte, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if m := e.mapped[gpadl]; m != nil {
		return m.Bytes, nil
	}
	m, err := e.bus.Map(gpadl)
	if err != nil {
		return nil, err
	}
	e.mapped[gpadl] = m
	return m.Bytes, nil
}

func (e *echo) Revoke(gpadl uint32) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.mapped[gpadl].Close()
	delete(e.mapped, gpadl)
}

func (e *echo) Removed() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for id, m := range e.mapped {
		m.Close()
		delete(e.mapped, id)
	}
	if len(e.workers) != 0 {
		panic("removed with open channels")
	}
	e.removed <- struct{}{}
}

// world is a guest's partition and a host that serves it.
type world struct {
	t      testing.TB
	p      hv.Partition
	g      hv.Guest
	server *host.Server
	served chan error

	serving bool
}

func newWorld(t testing.TB, vps int, accepted ...vmbus.Version) *world {
	t.Helper()
	p, g, err := hv.Pipe(vps)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, p: p, g: g, served: make(chan error, 1)}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	w.server = host.New(g, host.Config{Versions: accepted, Log: log})
	t.Cleanup(func() {
		p.Close()
		w.server.Close()
		if w.serving {
			<-w.served
		}
	})
	return w
}

func (w *world) serve() {
	w.serving = true
	go func() { w.served <- w.server.Serve(); close(w.served) }()
}

// connect serves, and connects a bus that the test's end closes.
func (w *world) connect(ctx context.Context) *Bus {
	w.t.Helper()
	w.serve()
	bus := must[*Bus](w.t)(Connect(ctx, w.p, Config{}))
	w.t.Cleanup(func() { bus.Close() })
	return bus
}

func (w *world) offer(n byte) (*echo, *host.Offered) {
	w.t.Helper()
	var e *echo
	o := vmbus.Offer{Class: vmbus.ClassNIC, Instance: vmbus.GUID{n}}
	offered, err := w.server.Offer(o, func(b channel.Bus) channel.Backend {
		e = newEcho(b)
		return e
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return e, offered
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// exchange sends n packets and waits for all of them to come back.
func exchange(t testing.TB, c *channel.Channel, n int) {
	t.Helper()
	buf := make([]byte, 4096)
	payload := make([]byte, 200)
	sent, got := 0, 0
	for got < n {
		c.Lock()
		for sent < n && c.Out.Put(vmbus.AppendInBand(nil, 0, uint64(sent+1)), payload) == nil {
			sent++
		}
		c.Flush()
		c.Unlock()
		select {
		case <-c.Event():
		case <-c.Closed():
			t.Fatal("channel closed")
		case <-time.After(10 * time.Second):
			t.Fatalf("%d of %d packets came back", got, n)
		}
		for {
			c.In.Mask()
			for {
				b, err := c.In.Next(buf)
				if err != nil {
					break
				}
				p, err := vmbus.ParsePacket(b)
				if err != nil {
					t.Fatal(err)
				}
				got++
				if p.TID != uint64(got) {
					t.Fatalf("packet %d has transaction id %d", got, p.TID)
				}
			}
			c.Release()
			if !c.In.Unmask() {
				break
			}
		}
	}
}

func TestEveryVersion(t *testing.T) {
	versions := []vmbus.Version{
		vmbus.Version2_4, vmbus.Version3_0, vmbus.Version4_0, vmbus.Version4_1,
		vmbus.Version5_0, vmbus.Version5_1, vmbus.Version5_2, vmbus.Version5_3, vmbus.Version6_0,
	}
	for _, v := range versions {
		t.Run(v.String(), func(t *testing.T) {
			ctx := testContext(t)
			w := newWorld(t, 4, v)
			e, _ := w.offer(1)
			w.serve()

			bus := must[*Bus](t)(Connect(ctx, w.p, Config{Versions: vmbus.Versions()[:9]}))
			defer bus.Close()
			if bus.Version() != v {
				t.Fatalf("version %v", bus.Version())
			}
			for range 2 {
				life(t, ctx, bus, e)
				if err := bus.Unload(ctx); err != nil {
					t.Fatal(err)
				}
				<-e.removed
				if err := bus.connect(ctx); err != nil {
					t.Fatal("reconnect:", err)
				}
			}
			if n := w.server.Dropped(); n != 0 {
				t.Errorf("the host dropped %d messages", n)
			}
		})
	}
}

// life is what a driver does with its device in the course of time.
func life(t *testing.T, ctx context.Context, bus *Bus, e *echo) {
	t.Helper()
	dev := must[channel.Device](t)(bus.Device(ctx, vmbus.ClassNIC))
	buffer := must[hv.Region](t)(dev.Alloc(16 << 20))
	gpadl := must[uint32](t)(dev.Share(ctx, buffer))
	for range 2 {
		primary := must[*channel.Channel](t)(dev.Open(ctx, 0, 64<<10))
		exchange(t, primary, 1000)

		view := must[[]byte](t)(e.Map(gpadl))
		buffer.Bytes[12345678] = 7
		if len(view) != 16<<20 || view[12345678] != 7 {
			t.Fatal("the host sees other memory than the guest")
		}
		if err := e.bus.OfferSubChannels(3); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for i := range 3 {
			wg.Go(func() {
				c, err := dev.Open(ctx, i+1, 32<<10)
				if err != nil {
					t.Error(err)
					return
				}
				exchange(t, c, 500)
			})
		}
		wg.Wait()
		if t.Failed() {
			return
		}
		if err := dev.Close(ctx, primary); err != nil {
			t.Fatal(err)
		}
	}
	if err := dev.Unshare(ctx, gpadl); err != nil {
		t.Fatal(err)
	}
	if err := dev.Free(buffer); err != nil {
		t.Fatal(err)
	}
	if e.bus.Version() != dev.Version() || fmt.Sprint(dev.Offer().Instance) != fmt.Sprint(vmbus.GUID{1}) {
		t.Errorf("device %v of version %v", dev.Offer().Instance, dev.Version())
	}
}

func BenchmarkShare16MiB(b *testing.B) {
	ctx := testContext(b)
	w := newWorld(b, 1)
	w.offer(1)
	bus := w.connect(ctx)
	dev := must[channel.Device](b)(bus.Device(ctx, vmbus.ClassNIC))
	r := must[hv.Region](b)(dev.Alloc(16 << 20))
	for b.Loop() {
		id := must[uint32](b)(dev.Share(ctx, r))
		if err := dev.Unshare(ctx, id); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpenClose(b *testing.B) {
	ctx := testContext(b)
	w := newWorld(b, 1)
	w.offer(1)
	bus := w.connect(ctx)
	dev := must[channel.Device](b)(bus.Device(ctx, vmbus.ClassNIC))
	for b.Loop() {
		c := must[*channel.Channel](b)(dev.Open(ctx, 0, 128<<10))
		if err := dev.Close(ctx, c); err != nil {
			b.Fatal(err)
		}
	}
}
