package guest

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"hvnet/hv"
	"hvnet/hv/attach"
	"hvnet/vmbus"
	"hvnet/vmbus/channel"
	"hvnet/vmbus/host"
)

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// The host takes the device away under traffic, and gives it back, again and again.
func TestRescindUnderTraffic(t *testing.T) {
	ctx := testContext(t)
	w := newWorld(t, 2)
	e, offered := w.offer(1)
	bus := w.connect(ctx)
	for range 20 {
		dev := must[channel.Device](t)(bus.Device(ctx, vmbus.ClassNIC))
		buffer := must[hv.Region](t)(dev.Alloc(1 << 20))
		gpadl := must[uint32](t)(dev.Share(ctx, buffer))
		primary := must[*channel.Channel](t)(dev.Open(ctx, 0, 64<<10))
		must[[]byte](t)(e.Map(gpadl))
		if err := e.bus.OfferSubChannels(1); err != nil {
			t.Fatal(err)
		}
		sub := must[*channel.Channel](t)(dev.Open(ctx, 1, 64<<10))
		exchange(t, sub, 10)

		var sender sync.WaitGroup
		sender.Go(func() {
			for !isClosed(primary.Closed()) {
				primary.Lock()
				primary.Out.Put(vmbus.AppendInBand(nil, 0, 1), nil)
				primary.Flush()
				primary.Unlock()
			}
		})
		offered.Rescind()
		<-dev.Rescinded()
		<-primary.Closed()
		<-sub.Closed()
		sender.Wait()

		if _, err := dev.Open(ctx, 0, 64<<10); !errors.Is(err, channel.ErrRescinded) {
			t.Fatal("open:", err)
		}
		if _, err := dev.Share(ctx, buffer); !errors.Is(err, channel.ErrRescinded) {
			t.Fatal("share:", err)
		}
		old := e
		e, offered = w.offer(1) // seen when the old one is released
		for _, err := range []error{dev.Close(ctx, primary), dev.Unshare(ctx, gpadl), dev.Free(buffer)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		<-old.removed
	}
	if n := w.server.Dropped(); n != 0 {
		t.Errorf("the host dropped %d messages", n)
	}
}

// A rescind that meets an open wakes whoever opens.
func TestRescindWhileOpening(t *testing.T) {
	ctx := testContext(t)
	w := newWorld(t, 2)
	_, offered := w.offer(1)
	bus := w.connect(ctx)
	opened := 0
	for range 50 {
		dev := must[channel.Device](t)(bus.Device(ctx, vmbus.ClassNIC))
		var rescind sync.WaitGroup
		rescind.Go(offered.Rescind)
		c, err := dev.Open(ctx, 0, 64<<10)
		switch {
		case err == nil:
			opened++
			if err := dev.Close(ctx, c); err != nil {
				t.Fatal(err)
			}
		case errors.Is(err, errRefused): // the answer to the GPADL came before RESCIND
		case !errors.Is(err, channel.ErrRescinded) || errors.Is(err, context.DeadlineExceeded):
			t.Fatal(err)
		}
		<-dev.Rescinded()
		rescind.Wait()
		_, offered = w.offer(1)
	}
	t.Logf("%d of 50 opened", opened)
}

func TestHotAddAndSeveralDevices(t *testing.T) {
	ctx := testContext(t)
	w := newWorld(t, 1)
	bus := w.connect(ctx)
	found := make(chan channel.Device)
	go func() {
		dev, err := bus.Device(ctx, vmbus.ClassNIC)
		if err != nil {
			t.Error(err)
		}
		found <- dev
	}()
	w.offer(1)
	w.offer(2)
	first := <-found
	second := must[channel.Device](t)(bus.Device(ctx, vmbus.ClassNIC))
	if first.Offer().Instance == second.Offer().Instance {
		t.Error("the same device twice")
	}
	short, cancel := context.WithCancelCause(ctx)
	cancel(errors.New("enough"))
	_, err := bus.Device(short, vmbus.ClassNIC)
	if err == nil || !strings.Contains(err.Error(), "wait for the offer") || !strings.Contains(err.Error(), "enough") {
		t.Error(err)
	}
}

func TestHostDies(t *testing.T) {
	ctx := testContext(t)
	w := newWorld(t, 2)
	w.offer(1)
	bus := w.connect(ctx)
	dev := must[channel.Device](t)(bus.Device(ctx, vmbus.ClassNIC))
	c := must[*channel.Channel](t)(dev.Open(ctx, 0, 64<<10))
	failed := make(chan error)
	go func() {
		_, err := dev.Open(ctx, 1, 64<<10) // never offered
		failed <- err
	}()
	w.server.Close()
	if err := <-failed; !errors.Is(err, channel.ErrRescinded) {
		t.Error(err)
	}
	<-c.Closed()
	<-dev.Rescinded()
	if _, err := bus.Device(ctx, vmbus.ClassNIC); !errors.Is(err, channel.ErrRescinded) {
		t.Error(err)
	}
	if err := dev.Close(ctx, c); err != nil && !errors.Is(err, channel.ErrRescinded) && !errors.Is(err, hv.ErrGone) {
		t.Error(err)
	}
}

func TestGuestDies(t *testing.T) {
	ctx := testContext(t)
	w := newWorld(t, 2)
	e, _ := w.offer(1)
	bus := w.connect(ctx)
	dev := must[channel.Device](t)(bus.Device(ctx, vmbus.ClassNIC))
	buffer := must[hv.Region](t)(dev.Alloc(1 << 20))
	gpadl := must[uint32](t)(dev.Share(ctx, buffer))
	must[*channel.Channel](t)(dev.Open(ctx, 0, 64<<10))
	must[[]byte](t)(e.Map(gpadl))
	bus.Close()
	<-e.removed
	<-w.served
}

func TestRefused(t *testing.T) {
	ctx := testContext(t)
	w := newWorld(t, 2)
	e, _ := w.offer(1)
	bus := w.connect(ctx)
	dev := must[channel.Device](t)(bus.Device(ctx, vmbus.ClassNIC))
	e.mu.Lock()
	e.refuse = errors.New("not today")
	e.mu.Unlock()
	_, err := dev.Open(ctx, 0, 64<<10)
	if !errors.Is(err, errRefused) || !strings.HasPrefix(err.Error(), "open channel 0: ") {
		t.Fatal(err)
	}
	e.mu.Lock()
	e.refuse = nil
	e.mu.Unlock()
	c := must[*channel.Channel](t)(dev.Open(ctx, 0, 64<<10))
	if _, err := dev.Open(ctx, 0, 64<<10); err == nil {
		t.Error("opened twice")
	}
	exchange(t, c, 10)
	if err := dev.Close(ctx, c); err != nil {
		t.Error(err)
	}
	if err := dev.Close(ctx, c); !errors.Is(err, errNotOpen) {
		t.Error(err)
	}
	if n := w.server.Dropped(); n != 0 {
		t.Errorf("the host dropped %d messages", n)
	}

	for name, err := range map[string]error{
		"index": second(dev.Open(ctx, -1, 64<<10)),
		"tiny":  second(dev.Open(ctx, 0, 4096)),
		"odd":   second(dev.Open(ctx, 0, 8193)),
		"huge":  second(dev.Open(ctx, 0, 32<<20)),
		"gpadl": dev.Unshare(ctx, 12345),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestRetarget(t *testing.T) {
	for _, v := range []vmbus.Version{vmbus.Version4_0, vmbus.Version4_1, vmbus.Version5_3} {
		ctx := testContext(t)
		w := newWorld(t, 3, v)
		w.offer(1)
		bus := w.connect(ctx)
		dev := must[channel.Device](t)(bus.Device(ctx, vmbus.ClassNIC)).(*Device)
		c := must[*channel.Channel](t)(dev.Open(ctx, 0, 64<<10))
		exchange(t, c, 10)
		if err := dev.Retarget(ctx, c, 2); (err == nil) != v.HasModifyChannel() {
			t.Errorf("%v: %v", v, err)
		}
		if dev.Retarget(ctx, c, 3) == nil {
			t.Errorf("%v: moved to a VP that isn't there", v)
		}
		if want := 2; (c.VP() == want) != v.HasModifyChannel() {
			t.Errorf("%v: on processor %d", v, c.VP())
		}
		exchange(t, c, 100)
	}
}

// Many drivers share memory at once, more than the host's port takes in one go.
func TestSharesAtOnce(t *testing.T) {
	ctx := testContext(t)
	w := newWorld(t, 4)
	w.offer(1)
	bus := w.connect(ctx)
	dev := must[channel.Device](t)(bus.Device(ctx, vmbus.ClassNIC))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			r, err := dev.Alloc((1 + 500*i) * hv.PageSize)
			if err != nil {
				t.Error(err)
				return
			}
			for range 5 {
				id, err := dev.Share(ctx, r)
				if err == nil {
					err = dev.Unshare(ctx, id)
				}
				if err != nil {
					t.Error(err)
				}
			}
			if err := dev.Free(r); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	r := must[hv.Region](t)(dev.Alloc((vmbus.MaxGPADLPages + 1) * hv.PageSize))
	if _, err := dev.Share(ctx, r); err == nil {
		t.Error("shared more than a GPADL can hold")
	}
}

func TestNoCommonVersion(t *testing.T) {
	ctx := testContext(t)
	w := newWorld(t, 1, vmbus.Version2_4)
	w.serve()
	_, err := Connect(ctx, w.p, Config{Versions: []vmbus.Version{vmbus.Version5_3, vmbus.Version4_1}})
	if err == nil || !strings.Contains(err.Error(), "none of the versions [5.3 4.1]") {
		t.Error(err)
	}
}

// As many channels as a device may get.
func TestSixtyFourChannels(t *testing.T) {
	ctx := testContext(t)
	w := newWorld(t, 64)
	e, _ := w.offer(1)
	bus := w.connect(ctx)
	dev := must[channel.Device](t)(bus.Device(ctx, vmbus.ClassNIC))
	primary := must[*channel.Channel](t)(dev.Open(ctx, 0, 16<<10))
	var wg sync.WaitGroup
	for i := 1; i < 64; i++ {
		wg.Go(func() {
			c, err := dev.Open(ctx, i, 16<<10) // waits for the offer
			if err != nil {
				t.Error(err)
				return
			}
			exchange(t, c, 20)
		})
	}
	if err := e.bus.OfferSubChannels(63); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if err := dev.Close(ctx, primary); err != nil {
		t.Fatal(err)
	}
}

// The trace of a connection reads like the protocol.
func TestTrace(t *testing.T) {
	var text strings.Builder
	log := slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{
		Level: slog.LevelDebug,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey || a.Key == slog.LevelKey {
				return slog.Attr{}
			}
			return a
		},
	}))
	w := newWorld(t, 1)
	w.serve()
	bus := must[*Bus](t)(Connect(testContext(t), w.p, Config{Log: log}))
	bus.Close() // which also ends the logging
	want := `msg="to host" type=INITIATE_CONTACT bytes=40 fields=0300050000000000020000000000000000e0452301000000
msg="from host" type=VERSION_RESPONSE bytes=16 fields=0100000001000000
msg="to host" type=REQUESTOFFERS bytes=8 fields=""
msg="from host" type=ALLOFFERS_DELIVERED bytes=8 fields=""
`
	if got := text.String(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// The same life over a socket, with every message a round trip.
func TestOverSocket(t *testing.T) {
	ctx := testContext(t)
	path := filepath.Join(t.TempDir(), "s")
	listener := must[*attach.Listener](t)(attach.Listen(path, attach.ListenConfig{}))
	defer listener.Close()
	type end struct {
		p   hv.Partition
		err error
	}
	dialled := make(chan end, 1)
	go func() {
		p, err := attach.Dial(ctx, path, attach.Hello{Name: "g", VPs: 4})
		dialled <- end{p, err}
	}()
	g, _, err := listener.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, g: g, served: make(chan error, 1), server: host.New(g, host.Config{})}
	d := <-dialled
	w.p = must[hv.Partition](t)(d.p, d.err)
	e, _ := w.offer(1)
	bus := w.connect(ctx)
	life(t, ctx, bus, e)
	if err := bus.Unload(ctx); err != nil {
		t.Fatal(err)
	}
	<-e.removed
	bus.Close()
	w.server.Close()
	<-w.served
	if n := w.server.Dropped(); n != 0 {
		t.Errorf("the host dropped %d messages", n)
	}
}
