package guest

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hvnet/hv"
	"hvnet/vmbus"
	"hvnet/vmbus/channel"
)

// deaf is a partition whose host takes messages and does nothing but what the test
// says. It has one VP.
type deaf struct {
	mu     sync.Mutex
	status func(conn uint32, b []byte) error // nil: success
	posts  [][]byte
	inbox  [][]byte
	freed  int

	irq  chan struct{}
	done chan struct{}
}

func newDeaf() *deaf {
	return &deaf{irq: make(chan struct{}, 1), done: make(chan struct{})}
}

// answer puts a message into the slot.
func (d *deaf) answer(b []byte) {
	d.inbox = append(d.inbox, b)
	select {
	case d.irq <- struct{}{}:
	default:
	}
}

func (d *deaf) VPs() int { return 1 }

func (d *deaf) Alloc(n int) (hv.Region, error) {
	return hv.Region{GPA: 0x10000, Bytes: make([]byte, (n+hv.PageSize-1)&^(hv.PageSize-1))}, nil
}

func (d *deaf) Free(hv.Region) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.freed++
	return nil
}

func (d *deaf) PostMessage(conn uint32, payloads ...[]byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, b := range payloads {
		d.posts = append(d.posts, append([]byte(nil), b...))
		if d.status != nil {
			if err := d.status(conn, b); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *deaf) SignalEvent(uint32) error { return nil }

func (d *deaf) Wait(int) error {
	select {
	case <-d.irq:
		return nil
	case <-d.done:
		return hv.ErrGone
	}
}

func (d *deaf) TakeFlags(int, func(int)) {}

func (d *deaf) TakeMessage(_ int, m *hv.Message) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.inbox) == 0 {
		return false
	}
	m.Type = hv.MessageVMBus
	m.Size = copy(m.Data[:], d.inbox[0])
	d.inbox = d.inbox[1:]
	return true
}

func (d *deaf) Done() <-chan struct{} { return d.done }

func (d *deaf) Leave() { close(d.done) }

func (d *deaf) Close() error {
	d.Leave()
	return nil
}

// helpful answers what is needed to get a device, and what other says.
func helpful(d *deaf, other func(t vmbus.MessageType, b []byte) error) func(uint32, []byte) error {
	return func(conn uint32, b []byte) error {
		switch t, _ := vmbus.PeekType(b); t {
		case vmbus.TypeInitiateContact:
			d.answer(vmbus.VersionResponse{Supported: true, ConnID: 1}.Append(nil, vmbus.Version5_3))
		case vmbus.TypeRequestOffers:
			d.answer(vmbus.Offer{Class: vmbus.ClassNIC, Relid: 1, ConnID: 0x2001}.Append(nil, vmbus.Version5_3))
			d.answer(vmbus.AllOffersDelivered{}.Append(nil))
		default:
			return other(t, b)
		}
		return nil
	}
}

func nothing(vmbus.MessageType, []byte) error { return nil }

// Every wait ends, and its error names what it waited for.
func TestWaitsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		_, err := Connect(t.Context(), newDeaf(), Config{})
		if err == nil || !strings.Contains(err.Error(), "wait for VERSION_RESPONSE to 5.3") || !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if took := time.Since(begin); took != 10*time.Second {
			t.Errorf("it took %v", took)
		}
	})
	for name, want := range map[string]string{
		"share":  "wait for GPADL_CREATED",
		"unload": "wait for UNLOAD_RESPONSE",
		"open":   "wait for GPADL_CREATED",
		"sub":    "wait for its offer",
		"device": "wait for the offer of a device of class 00000000-0000-0000-0000-000000000000",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDeaf()
				d.status = helpful(d, nothing)
				bus := must[*Bus](t)(Connect(t.Context(), d, Config{Timeout: time.Minute}))
				defer bus.Close()
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				dev := must[channel.Device](t)(bus.Device(ctx, vmbus.ClassNIC))
				var err error
				switch name {
				case "share":
					r, _ := dev.Alloc(4096)
					_, err = dev.Share(ctx, r)
					if dev.Free(r); d.freed != 0 {
						t.Error("memory was freed that the host may have")
					}
				case "unload":
					err = bus.Unload(ctx)
				case "open":
					_, err = dev.Open(ctx, 0, 8192)
				case "sub":
					_, err = dev.Open(ctx, 1, 8192)
				case "device":
					_, err = bus.Device(ctx, vmbus.GUID{})
				}
				if err == nil || !strings.Contains(err.Error(), want) || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got %v, want %q", err, want)
				}
			})
		})
	}
}

// A host that never lets go of the rings keeps them; one that does so late frees them.
func TestRingsAreKeptUntilTornDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDeaf()
		d.status = helpful(d, func(typ vmbus.MessageType, b []byte) error {
			switch typ {
			case vmbus.TypeGPADLHeader:
				h, _ := vmbus.ParseGPADLHeader(b)
				d.answer(vmbus.GPADLCreated{Relid: 1, ID: h.ID}.Append(nil))
			case vmbus.TypeOpenChannel:
				o, _ := vmbus.ParseOpenChannel(b, 0)
				d.answer(vmbus.OpenResult{Relid: 1, OpenID: o.OpenID}.Append(nil))
			}
			return nil
		})
		bus := must[*Bus](t)(Connect(t.Context(), d, Config{}))
		defer bus.Close()
		dev := must[channel.Device](t)(bus.Device(t.Context(), vmbus.ClassNIC))
		c := must[*channel.Channel](t)(dev.Open(t.Context(), 0, 8192))
		err := dev.Close(t.Context(), c)
		if err == nil || !strings.Contains(err.Error(), "close channel 0: wait for GPADL_TORNDOWN") {
			t.Error(err)
		}
		if d.freed != 0 {
			t.Fatal("rings were freed that the host may have")
		}
		d.mu.Lock()
		d.answer(vmbus.GPADLTorndown{ID: firstGPADL}.Append(nil))
		d.mu.Unlock()
		synctest.Wait()
		if d.freed != 1 {
			t.Error("rings were not freed when the host let go")
		}
	})
}

// A port that is full is tried again, until the context ends.
func TestFullPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDeaf()
		full := 7
		reply := helpful(d, nothing)
		d.status = func(conn uint32, b []byte) error {
			if full > 0 {
				full--
				return hv.StatusInsufficientBuffers
			}
			return reply(conn, b)
		}
		bus := must[*Bus](t)(Connect(t.Context(), d, Config{}))
		if len(d.posts) != 7+2 {
			t.Errorf("%d attempts", len(d.posts))
		}
		d.mu.Lock()
		full = 1 << 30
		d.mu.Unlock()
		err := bus.Unload(t.Context())
		if err == nil || !strings.Contains(err.Error(), "wait for room in the host's message port") {
			t.Error(err)
		}
		bus.Close()
	})
}

// Who is asked to post what others have left does it in his own time: the rest stays
// for the worker, and nothing is lost.
func TestFullPortForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDeaf()
		var full bool
		var released int
		d.status = helpful(d, func(typ vmbus.MessageType, b []byte) error {
			if full {
				return hv.StatusInsufficientBuffers
			}
			if typ == vmbus.TypeRelidReleased {
				released++
			}
			return nil
		})
		bus := must[*Bus](t)(Connect(t.Context(), d, Config{}))
		defer bus.Close()
		dev := must[channel.Device](t)(bus.Device(t.Context(), vmbus.ClassNIC))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		asked := make(chan error, 1)
		bus.turn <- struct{}{} // whoever asks for a turn first gets it next
		go func() {
			r, _ := dev.Alloc(hv.PageSize)
			_, err := dev.Share(ctx, r)
			asked <- err
		}()
		synctest.Wait()
		d.mu.Lock()
		full = true
		d.answer(vmbus.Offer{Class: vmbus.ClassNIC, Relid: 2}.Append(nil, vmbus.Version5_3)) // a second primary
		d.mu.Unlock()
		synctest.Wait()
		begin := time.Now()
		<-bus.turn
		if err := <-asked; !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) > time.Second {
			t.Errorf("Share: %v after %v", err, time.Since(begin))
		}
		d.mu.Lock()
		full = false
		d.mu.Unlock()
		synctest.Wait()
		time.Sleep(time.Second) // of the bubble's clock: the worker tries again
		synctest.Wait()
		d.mu.Lock()
		defer d.mu.Unlock()
		if released != 1 {
			t.Errorf("%d relids released", released)
		}
	})
}

// A host older than 5.0 has no connection 4: one attempt for each version, at once.
func TestNoContactPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDeaf()
		d.status = func(conn uint32, b []byte) error {
			if conn == vmbus.ConnContact {
				return hv.StatusInvalidConnectionID
			}
			c, err := vmbus.ParseInitiateContact(b)
			if err == nil {
				d.answer(vmbus.VersionResponse{Supported: c.Version == vmbus.Version4_0, Version: c.Version}.Append(nil, c.Version))
			} else {
				d.answer(vmbus.AllOffersDelivered{}.Append(nil))
			}
			return nil
		}
		begin := time.Now()
		bus := must[*Bus](t)(Connect(t.Context(), d, Config{}))
		defer bus.Close()
		if bus.Version() != vmbus.Version4_0 || len(d.posts) != 4+2+1 || time.Since(begin) != 0 {
			t.Errorf("version %v after %d posts and %v", bus.Version(), len(d.posts), time.Since(begin))
		}
	})
}

// A host that offers nonsense for ever and takes no answers doesn't fill our memory.
func TestOfferFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDeaf()
		d.status = helpful(d, func(vmbus.MessageType, []byte) error { return hv.StatusInsufficientBuffers })
		bus := must[*Bus](t)(Connect(t.Context(), d, Config{}))
		defer bus.Close()
		// The first flood ends with the worker at a post that the host refuses, the
		// second finds nobody who takes anything away.
		for range 2 {
			d.mu.Lock()
			for range 3 * maxLater { // a second primary of one device
				d.answer(vmbus.Offer{Class: vmbus.ClassNIC, Relid: 2}.Append(nil, vmbus.Version5_3))
			}
			d.mu.Unlock()
			synctest.Wait()
		}
		bus.mu.Lock()
		defer bus.mu.Unlock()
		if n := len(bus.later); n != maxLater {
			t.Errorf("%d answers wait", n)
		}
	})
}
