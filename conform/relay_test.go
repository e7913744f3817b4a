package conform

import (
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hvnet/hv"
	"hvnet/nvsp"
	"hvnet/ring"
	"hvnet/vmbus"
	"hvnet/vmbus/channel"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what has to happen.
const patience = 20 * time.Second

// A bench is a watched channel: the guest's end, and the device's.
type bench struct {
	t     *testing.T
	watch *Watch
	dev   channel.Backend
	bus   *fakeBus
	guest *channel.Channel // the guest's end
	host  *channel.Channel // the bus's
	far   *channel.Channel // the device's

	mu    sync.Mutex
	lines []string
	more  chan struct{} // there are more lines
}

// fakeBus is a bus without memory.
type fakeBus struct {
	channel.Bus
	offered chan int
}

func (b *fakeBus) Memory() *hv.Memory              { return hv.NewMemory(hv.Limits{}) }
func (b *fakeBus) OfferSubChannels(n int) error    { b.offered <- n; return nil }
func (b *fakeBus) Map(uint32) (*hv.Mapping, error) { return nil, errors.New("no memory") }

// backend is a device that does nothing by itself.
type backend struct{ opened func(*channel.Channel) }

func (b backend) Open(c *channel.Channel) error { b.opened(c); return nil }
func (backend) Close(*channel.Channel)          {}
func (backend) Revoke(uint32)                   {}
func (backend) Removed()                        {}

func newBench(t *testing.T, ringBytes int) *bench {
	t.Helper()
	b := &bench{t: t, bus: &fakeBus{offered: make(chan int, 1)}, more: make(chan struct{}, 1)}
	part, far, err := hv.Pipe(1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { part.Close() })
	b.watch = New(far, Config{Line: func(s string) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.lines = append(b.lines, s)
		select {
		case b.more <- struct{}{}:
		default:
		}
	}})
	b.dev = b.watch.Backend(func(bus channel.Bus) channel.Backend {
		return backend{func(c *channel.Channel) { b.far = c }}
	})(b.bus)
	if b.guest, b.host, err = channel.Pair(ringBytes); err != nil {
		t.Fatal(err)
	}
	if err := b.dev.Open(b.host); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.host.Close()
		b.dev.Close(b.host)
		b.dev.Removed()
	})
	return b
}

// text returns what was written so far.
func (b *bench) text() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.lines)
}

// has waits for a line that contains what.
func (b *bench) has(what string) {
	b.t.Helper()
	late := time.After(patience)
	for {
		if slices.ContainsFunc(b.text(), func(s string) bool { return strings.Contains(s, what) }) {
			return
		}
		select {
		case <-b.more:
		case <-late:
			b.t.Fatalf("no line with %q in\n%s", what, strings.Join(b.text(), "\n"))
		}
	}
}

// put sends one packet.
func put(c *channel.Channel, head, body []byte) error {
	c.Lock()
	defer c.Unlock()
	err := c.Out.Put(head, body)
	c.Flush()
	return err
}

// packetOf makes packet i: its size and its bytes follow from i.
func packetOf(i int) []byte {
	b := make([]byte, 8*(1+i*7%40))
	for k := range b {
		b[k] = byte(i + k)
	}
	binary.LittleEndian.PutUint32(b, 0) // no NVSP message
	binary.LittleEndian.PutUint32(b[4:], uint32(i))
	return b
}

// sendAll sends n packets, as fast as there is room.
func sendAll(c *channel.Channel, n int, done chan<- error) {
	for i := range n {
		head := vmbus.AppendInBand(nil, 0, uint64(i))
		for {
			err := put(c, head, packetOf(i))
			if err == nil {
				break
			}
			if err != ring.ErrFull {
				done <- err
				return
			}
			c.Lock()
			ready := c.Out.AwaitRoom(ring.Need(len(head) + len(packetOf(i))))
			c.Unlock()
			if !ready {
				select {
				case <-c.Event():
				case <-time.After(time.Millisecond): // the event was the other goroutine's
				}
			}
		}
	}
	done <- nil
}

// receiveAll takes n packets and checks them.
func receiveAll(c *channel.Channel, n int, done chan<- error) {
	buf := make([]byte, 4096)
	for i := 0; i < n; {
		b, err := c.In.Next(buf)
		if err == ring.ErrEmpty {
			c.Release()
			select {
			case <-c.Event():
			case <-time.After(time.Millisecond):
			}
			continue
		}
		if err != nil {
			done <- err
			return
		}
		if want := packetOf(i); !slices.Equal(b[16:], want) || binary.LittleEndian.Uint64(b[8:]) != uint64(i) {
			done <- errors.New("another packet, or out of order")
			return
		}
		i++
	}
	c.Release()
	done <- nil
}

// TestRelayCarries sends many packets both ways through small rings.
func TestRelayCarries(t *testing.T) {
	const n = 3000
	b := newBench(t, 2*ring.HeaderSize)
	done := make(chan error, 4)
	go sendAll(b.guest, n, done)
	go sendAll(b.far, n, done)
	go receiveAll(b.guest, n, done)
	go receiveAll(b.far, n, done)
	for range 4 {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Fatal("packets are stuck")
		}
	}
}

// TestRelayBadRing has the guest ruin its ring: the text names the rule, once.
func TestRelayBadRing(t *testing.T) {
	b := newBench(t, 2*ring.HeaderSize)
	c := b.guest
	c.Lock()
	bad := make([]byte, 16)
	if err := c.Out.Put(vmbus.AppendInBand(nil, 7, 1), bad); err != nil { // flags that do not exist
		t.Fatal(err)
	}
	c.Flush()
	c.Unlock()
	b.has("broken rule ring")
	b.host.Wake()
	b.watch.catchUp()
	if n := strings.Count(strings.Join(b.text(), "\n"), "fault"); n != 1 {
		t.Errorf("%d faults:\n%s", n, strings.Join(b.text(), "\n"))
	}
}

// TestRelayOffersAfterTheAnswer: the offer of sub-channels does not overtake the
// answer to the request for them.
func TestRelayOffersAfterTheAnswer(t *testing.T) {
	b := newBench(t, 4*ring.HeaderSize)
	answer := nvsp.SubChannelComplete{Status: nvsp.StatusSuccess, Count: 3}.Append(nil)
	if err := put(b.far, vmbus.AppendCompletion(nil, 1), answer); err != nil {
		t.Fatal(err)
	}
	if err := b.dev.(*device).OfferSubChannels(3); err != nil {
		t.Fatal(err)
	}
	select {
	case n := <-b.bus.offered:
		if n != 3 {
			t.Errorf("%d offered", n)
		}
	case <-time.After(patience):
		t.Fatal("nothing was offered")
	}
	if _, err := b.guest.In.Next(make([]byte, 4096)); err != nil {
		t.Errorf("the answer is not there when sub-channels are offered: %v", err)
	}
}

// TestRelayCatchesUp: what a guest put on its ring before it posted a message is
// written before the message.
func TestRelayCatchesUp(t *testing.T) {
	b := newBench(t, 4*ring.HeaderSize)
	h := handler{nobody{}, b.watch}
	for i := range 100 {
		c := b.guest
		c.Lock()
		err := c.Out.Put(vmbus.AppendInBand(nil, 0, 7), nvsp.Init{Min: nvsp.V5, Max: nvsp.V5}.Append(nil))
		c.Flush()
		c.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		m := []hv.Message{{Type: hv.MessageVMBus}}
		m[0].Size = copy(m[0].Data[:], vmbus.Unload{}.Append(nil))
		h.Messages(1, m)
		lines := b.text()
		if k := len(lines); k != 2*(i+1) || !strings.Contains(lines[k-2], "INIT ") || !strings.Contains(lines[k-1], "UNLOAD") {
			t.Fatalf("after round %d:\n%s", i, strings.Join(lines, "\n"))
		}
		if _, err := b.far.In.Next(make([]byte, 4096)); err != nil {
			t.Fatal(err)
		}
		b.far.Release()
	}
}

// nobody takes all messages.
type nobody struct{}

func (nobody) Messages(uint32, []hv.Message) hv.Status { return hv.StatusSuccess }
func (nobody) Signal(uint32)                           {}
