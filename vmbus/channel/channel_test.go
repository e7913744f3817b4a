package channel

import (
	"bytes"
	"strings"
	"sync"
	"testing"

	"hvnet/ring"
	"hvnet/vmbus"
)

func pair(t testing.TB, ringBytes int) (guest, host *Channel) {
	t.Helper()
	guest, host, err := Pair(ringBytes)
	if err != nil {
		t.Fatal(err)
	}
	return guest, host
}

// put sends one packet and flushes.
func put(t testing.TB, c *Channel, packet []byte) {
	t.Helper()
	c.Lock()
	defer c.Unlock()
	if err := c.Out.Put(packet, nil); err != nil {
		t.Fatal(err)
	}
	c.Flush()
}

func pending(c *Channel) bool {
	select {
	case <-c.Event():
		return true
	default:
		return false
	}
}

func TestPacketsCrossWithOneEvent(t *testing.T) {
	guest, host := pair(t, 8192)
	packet := append(vmbus.AppendInBand(nil, 0, 1), "payload8"...)
	put(t, guest, packet)
	put(t, guest, packet) // the ring is no longer empty: no signal
	if !pending(host) || pending(host) || pending(guest) {
		t.Fatal("want one event, at the host alone")
	}
	buf := make([]byte, 4096)
	for range 2 {
		got, err := host.In.Next(buf)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got[16:], []byte("payload8")) {
			t.Fatalf("got %q", got[16:])
		}
	}
	if _, err := host.In.Next(buf); err != ring.ErrEmpty {
		t.Fatalf("third packet: %v", err)
	}
	host.Release()
	if pending(guest) {
		t.Fatal("nobody waits for room, and was signalled")
	}
	if s := guest.Stats(); s != (Stats{Signals: 1}) {
		t.Errorf("guest: %+v", s)
	}
	if s := host.Stats(); s != (Stats{Events: 1}) {
		t.Errorf("host: %+v", s)
	}
}

func TestReleaseSignalsWhoAwaitsRoom(t *testing.T) {
	guest, host := pair(t, 8192)
	packet := append(vmbus.AppendInBand(nil, 0, 1), make([]byte, 1000)...)
	guest.Lock()
	for guest.Out.Put(packet, nil) == nil {
	}
	guest.Flush()
	if guest.Out.AwaitRoom(ring.Need(len(packet))) {
		t.Fatal("room in a full ring")
	}
	guest.Unlock()
	if _, err := host.In.Next(make([]byte, 4096)); err != nil {
		t.Fatal(err)
	}
	host.Release()
	if !pending(guest) {
		t.Fatal("no event when there was room")
	}
}

func TestWakeCoalesces(t *testing.T) {
	c, _ := pair(t, 8192)
	for range 3 {
		c.Wake()
	}
	if !pending(c) || pending(c) {
		t.Error("want one event for three calls of Wake")
	}
	if s := c.Stats(); s.Events != 1 {
		t.Errorf("%d events counted", s.Events)
	}
}

func TestCloseIsOfOneEnd(t *testing.T) {
	guest, host := pair(t, 8192)
	guest.Close()
	guest.Close()
	select {
	case <-guest.Closed():
	default:
		t.Error("not closed")
	}
	select {
	case <-host.Closed():
		t.Error("the other end is closed too")
	default:
	}
}

func TestNewRefusesBadRings(t *testing.T) {
	good := make([]byte, 8192)
	ring.Init(good)
	bad := make([]byte, 8192)
	bad[0] = 3 // a write index that is no multiple of 8
	for name, p := range map[string]Params{
		"outgoing": {Relid: 7, Out: bad, In: good},
		"incoming": {Relid: 7, Out: good, In: bad},
		"short":    {Relid: 7, Out: good[:4096], In: good},
	} {
		if _, err := New(p); err == nil || !strings.Contains(err.Error(), "channel 7: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, n := range []int{0, 4096, 8191} {
		if _, _, err := Pair(n); err == nil {
			t.Errorf("a pair with rings of %d bytes", n)
		}
	}
}

// Several goroutines produce, one consumes; both ends at once.
func TestManyProducers(t *testing.T) {
	const producers, each = 4, 2000
	guest, host := pair(t, 16384)
	var wg sync.WaitGroup
	for i := range producers {
		wg.Go(func() {
			packet := vmbus.AppendInBand(nil, 0, uint64(i))
			for range each {
				for {
					guest.Lock()
					err := guest.Out.Put(packet, nil)
					ready := err == nil || guest.Out.AwaitRoom(ring.Need(len(packet)))
					guest.Flush()
					guest.Unlock()
					if err == nil {
						break
					}
					if !ready {
						<-guest.Event()
						guest.Wake() // for the other producers
					}
				}
			}
		})
	}
	buf := make([]byte, 4096)
	counts := make([]int, producers)
	for got := 0; got < producers*each; {
		<-host.Event()
		for more := true; more; more = host.In.Unmask() {
			host.In.Mask()
			for {
				b, err := host.In.Next(buf)
				if err != nil {
					break
				}
				p, err := vmbus.ParsePacket(b)
				if err != nil {
					t.Fatal(err)
				}
				counts[p.TID]++
				got++
			}
			host.Release()
		}
	}
	wg.Wait()
	for i, n := range counts {
		if n != each {
			t.Errorf("%d packets of producer %d, want %d", n, i, each)
		}
	}
}

func TestNothingAllocates(t *testing.T) {
	guest, host := pair(t, 8192)
	packet := vmbus.AppendInBand(nil, 0, 1)
	buf := make([]byte, 4096)
	n := testing.AllocsPerRun(1000, func() {
		guest.Lock()
		guest.Out.Put(packet, nil)
		guest.Flush()
		guest.Unlock()
		<-host.Event()
		host.In.Mask()
		host.In.Next(buf)
		host.Release()
		host.In.Unmask()
	})
	if n != 0 {
		t.Errorf("%v allocations for a packet", n)
	}
}

func BenchmarkPacket(b *testing.B) {
	guest, host := pair(b, 64<<10)
	packet := append(vmbus.AppendInBand(nil, 0, 1), make([]byte, 64)...)
	buf := make([]byte, 4096)
	b.ReportAllocs()
	for b.Loop() {
		guest.Lock()
		for range 32 {
			guest.Out.Put(packet, nil)
		}
		guest.Flush()
		guest.Unlock()
		<-host.Event()
		for range 32 {
			host.In.Next(buf)
		}
		host.Release()
	}
}
