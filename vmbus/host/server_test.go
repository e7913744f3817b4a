package host

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hvnet/hv"
	"hvnet/ring"
	"hvnet/vmbus"
	"hvnet/vmbus/channel"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sink is a backend that reads what comes and keeps count of what it has.
type sink struct {
	t   testing.TB
	bus channel.Bus

	mu      sync.Mutex
	workers map[*channel.Channel]chan struct{}
	opened  chan *channel.Channel
	removed chan struct{}
	revoked chan uint32
}

func newSink(t testing.TB, bus channel.Bus) *sink {
	return &sink{
		t: t, bus: bus,
		workers: make(map[*channel.Channel]chan struct{}),
		opened:  make(chan *channel.Channel, 1000),
		removed: make(chan struct{}, 1000),
		revoked: make(chan uint32, 1000),
	}
}

func (s *sink) Open(c *channel.Channel) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	done := make(chan struct{})
	s.workers[c] = done
	go func() {
		defer close(done)
		buf := make([]byte, 1024)
		for {
			select {
			case <-c.Event():
			case <-c.Closed():
				return
			}
			for {
				if _, err := c.In.Next(buf); err == ring.ErrEmpty || err == ring.ErrCorrupt {
					break
				}
			}
			c.Release()
		}
	}()
	s.opened <- c
	return nil
}

func (s *sink) Close(c *channel.Channel) {
	s.mu.Lock()
	done := s.workers[c]
	delete(s.workers, c)
	s.mu.Unlock()
	if !isClosed(c.Closed()) {
		s.t.Error("the backend is to close a channel that isn't closed")
	}
	<-done
}

func (s *sink) Revoke(gpadl uint32) { s.revoked <- gpadl }

func (s *sink) Removed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.workers) > 0 {
		s.t.Error("removed with open channels")
	}
	s.removed <- struct{}{}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// raw is a guest made by hand.
type raw struct {
	t      testing.TB
	p      hv.Partition
	server *Server
	served chan error
	sink   *sink
	device *Offered
}

func newRaw(t testing.TB, cfg Config) *raw {
	t.Helper()
	p, g, err := hv.Pipe(2)
	if err != nil {
		t.Fatal(err)
	}
	r := &raw{t: t, p: p, server: New(g, cfg), served: make(chan error, 1)}
	r.device, err = r.server.Offer(vmbus.Offer{Class: vmbus.ClassNIC}, func(bus channel.Bus) channel.Backend {
		r.sink = newSink(t, bus)
		return r.sink
	})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		r.served <- r.server.Serve()
		close(r.served)
	}()
	t.Cleanup(func() {
		p.Close()
		r.server.Close()
		<-r.served
	})
	return r
}

// post posts as long as the port is full, and returns other failures.
func (r *raw) post(conn uint32, b []byte) error {
	for deadline := time.Now().Add(10 * time.Second); ; runtime.Gosched() {
		err := r.p.PostMessage(conn, b)
		if !errors.Is(err, hv.StatusInsufficientBuffers) || time.Now().After(deadline) {
			return err
		}
		r.drain()
	}
}

// drain throws away what the host says.
func (r *raw) drain() {
	var m hv.Message
	for vp := range r.p.VPs() {
		for r.p.TakeMessage(vp, &m) {
		}
	}
}

// expect returns the next message of the given type on VP 0.
func (r *raw) expect(typ vmbus.MessageType) []byte {
	r.t.Helper()
	var m hv.Message
	for {
		for r.p.TakeMessage(0, &m) {
			if t, _ := vmbus.PeekType(m.Payload()); t == typ {
				return append([]byte(nil), m.Payload()...)
			}
		}
		if err := r.p.Wait(0); err != nil {
			r.t.Fatalf("wait for %s: %v", typ, err)
		}
	}
}

func (r *raw) connect() {
	r.t.Helper()
	r.say(vmbus.ConnContact, vmbus.InitiateContact{Version: vmbus.Version5_3, SINT: hv.SINT}.Append(nil))
	r.say(vmbus.ConnMessage, vmbus.RequestOffers{}.Append(nil))
	r.expect(vmbus.TypeAllOffersDelivered)
}

func (r *raw) say(conn uint32, b []byte) {
	r.t.Helper()
	if err := r.post(conn, b); err != nil {
		r.t.Fatal(err)
	}
}

// rings makes a GPADL of pages for relid 1.
func (r *raw) rings(id uint32, pages int) hv.Region {
	r.t.Helper()
	return r.ringsOf(1, id, pages)
}

func (r *raw) ringsOf(relid, id uint32, pages int) hv.Region {
	r.t.Helper()
	region, err := r.p.Alloc(pages * hv.PageSize)
	if err != nil {
		r.t.Fatal(err)
	}
	msgs, err := vmbus.AppendGPADL(nil, relid, id, pages, region.PFN)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, b := range msgs {
		r.say(vmbus.ConnMessage, b)
	}
	c, err := vmbus.ParseGPADLCreated(r.expect(vmbus.TypeGPADLCreated))
	if err != nil || c.Status != 0 {
		r.t.Fatalf("GPADL: %+v, %v", c, err)
	}
	return region
}

func (r *raw) open(gpadl uint32) (status uint32) {
	r.t.Helper()
	r.say(vmbus.ConnMessage, vmbus.OpenChannel{Relid: 1, OpenID: 1, GPADL: gpadl, DownOffset: 2}.Append(nil, 0))
	o, err := vmbus.ParseOpenResult(r.expect(vmbus.TypeOpenResult))
	if err != nil {
		r.t.Fatal(err)
	}
	return o.Status
}

func TestStatuses(t *testing.T) {
	r := newRaw(t, Config{Versions: []vmbus.Version{vmbus.Version1_1, vmbus.Version4_0}})
	contact := vmbus.InitiateContact{Version: vmbus.Version5_3}.Append(nil)
	for conn, want := range map[uint32]hv.Status{0: 18, 1: 0, 2: 18, 4: 18, 0x2001: 18} {
		err := r.p.PostMessage(conn, contact)
		if want == 0 && err != nil || want != 0 && !errors.Is(err, want) {
			t.Errorf("connection %d: %v", conn, err)
		}
	}
	// Versions with another way of signalling are never accepted.
	r.say(vmbus.ConnMessage, vmbus.InitiateContact{Version: vmbus.Version1_1}.Append(nil))
	r.expect(vmbus.TypeVersionResponse)
	if v, _ := vmbus.ParseVersionResponse(r.expect(vmbus.TypeVersionResponse), vmbus.Version1_1); v.Supported {
		t.Error("1.1 is accepted")
	}
}

func TestRingsThatAreNone(t *testing.T) {
	r := newRaw(t, Config{})
	r.connect()
	region := r.rings(10, 4)
	region.Bytes[1] = 0xff // a write index out of range
	if status := r.open(10); status == 0 {
		t.Error("opened with a write index out of range")
	}
	region.Bytes[1] = 0
	if status := r.open(10); status != 0 {
		t.Errorf("status %#x", status)
	}
	c := <-r.sink.opened
	// Now it breaks the ring; the worker sees it as corrupt, and it can be closed.
	region.Bytes[1] = 0xff
	r.p.SignalEvent(eventConn + 1)
	r.say(vmbus.ConnMessage, vmbus.CloseChannel{Relid: 1}.Append(nil))
	<-c.Closed()
}

// A lines counts what is logged, by message.
type lines map[string]int

func (l lines) Enabled(context.Context, slog.Level) bool      { return true }
func (l lines) Handle(_ context.Context, r slog.Record) error { l[r.Message]++; return nil }
func (l lines) WithAttrs([]slog.Attr) slog.Handler            { return l }
func (l lines) WithGroup(string) slog.Handler                 { return l }

// TestLogStaysShort: a guest that does the same over and over does not fill the log.
func TestLogStaysShort(t *testing.T) {
	logged := lines{}
	r := newRaw(t, Config{Log: slog.New(logged)})
	const times = 64
	for range times {
		r.connect()
		region := r.rings(10, 4)
		region.Bytes[1] = 0xff // a write index out of range
		if status := r.open(10); status == 0 {
			t.Fatal("opened with a write index out of range")
		}
	}
	r.p.Close()
	<-r.served // the owner goroutine has ended
	for _, m := range []string{"guest connected", "channel refused"} {
		if n := logged[m]; n != 7 {
			t.Errorf("%q is logged %d times of %d, want 7: the 1st, 2nd, 4th, … 64th", m, n, times)
		}
	}
}

func TestMap(t *testing.T) {
	r := newRaw(t, Config{})
	r.connect()
	if _, err := r.device.Map(10); err == nil {
		t.Error("mapped what isn't there")
	}
	region := r.rings(10, 4)
	m, err := r.device.Map(10)
	if err != nil {
		t.Fatal(err)
	}
	region.Bytes[5000] = 42
	if len(m.Bytes) != 4*hv.PageSize || m.Bytes[5000] != 42 {
		t.Error("other memory")
	}
	r.say(vmbus.ConnMessage, vmbus.GPADLTeardown{Relid: 1, ID: 10}.Append(nil))
	if id := <-r.sink.revoked; id != 10 {
		t.Errorf("GPADL %d was revoked", id)
	}
	r.expect(vmbus.TypeGPADLTorndown)
	m.Close()
	if _, err := r.device.Map(10); err == nil {
		t.Error("mapped what was torn down")
	}
	r.rings(11, 2)
	// One that is never mapped is nothing to the backend.
	r.say(vmbus.ConnMessage, vmbus.GPADLTeardown{Relid: 1, ID: 11}.Append(nil))
	r.expect(vmbus.TypeGPADLTorndown)
	if len(r.sink.revoked) > 0 {
		t.Error("revoked what was never mapped")
	}
	r.say(vmbus.ConnMessage, vmbus.GPADLHeader{Relid: 1, ID: 12, Ranges: 1, RangeLen: 16,
		Data: words(100, region.PFN(0))}.Append(nil))
	r.expect(vmbus.TypeGPADLCreated)
	if _, err := r.device.Map(12); err == nil || !strings.Contains(err.Error(), "whole pages") {
		t.Errorf("100 bytes: %v", err)
	}
}

func TestOfferTwice(t *testing.T) {
	r := newRaw(t, Config{})
	again := func() error {
		_, err := r.server.Offer(vmbus.Offer{Class: vmbus.ClassNIC}, func(bus channel.Bus) channel.Backend { return newSink(t, bus) })
		return err
	}
	if err := again(); !errors.Is(err, ErrOffered) {
		t.Error(err)
	}
	r.device.Rescind()
	r.device.Rescind()
	if err := again(); err != nil {
		t.Error(err)
	}
	for _, n := range []int{-1, 0, vmbus.RelidLimit} {
		if r.device.OfferSubChannels(n) == nil {
			t.Errorf("%d sub-channels", n)
		}
	}
}

// A guest that asks and never listens is sent away, and keeps nobody waiting.
func TestFlood(t *testing.T) {
	r := newRaw(t, Config{})
	contact := vmbus.InitiateContact{Version: vmbus.Version5_3, SINT: hv.SINT}.Append(nil)
	full := 0
	for full < 1000 {
		switch err := r.p.PostMessage(vmbus.ConnContact, contact); {
		case errors.Is(err, hv.StatusInsufficientBuffers):
			full++
		case err != nil:
			return // sent away, which is fine too
		}
	}
	r.drain() // and it may come back to its senses
	select {
	case <-r.p.Done():
		t.Error("sent away for messages that the host did not take")
	default:
	}
}

// A guest that posts at random, with real memory behind it. The host stays, and when
// the guest is gone nothing of it is left.
func TestRandomGuest(t *testing.T) {
	const seed1, seed2 = 1, 2
	random := rand.New(rand.NewPCG(seed1, seed2))
	r := newRaw(t, Config{})
	r.connect()
	region, err := r.p.Alloc(64 * hv.PageSize)
	if err != nil {
		t.Fatal(err)
	}
	small := func() uint32 { return uint32(random.IntN(4)) }
	deadline := time.Now().Add(time.Second)
	for i := 0; i < 20000 && time.Now().Before(deadline); i++ {
		var b []byte
		switch random.IntN(10) {
		case 0:
			if random.IntN(20) == 0 {
				b = vmbus.InitiateContact{Version: vmbus.Version5_3, SINT: hv.SINT}.Append(nil)
			}
		case 1:
			b = vmbus.RequestOffers{}.Append(nil)
		case 2, 3:
			at, n := random.IntN(40), 1+random.IntN(20)
			msgs, _ := vmbus.AppendGPADL(nil, small(), small(), n, func(i int) uint64 { return region.PFN(at + i) })
			b = msgs[0]
		case 4, 5:
			b = vmbus.OpenChannel{Relid: small(), GPADL: small(), DownOffset: 2 + small(), TargetVP: small()}.Append(nil, 0)
		case 6:
			b = vmbus.CloseChannel{Relid: small()}.Append(nil)
		case 7:
			b = vmbus.GPADLTeardown{Relid: small(), ID: small()}.Append(nil)
		case 8:
			b = vmbus.RelidReleased{Relid: small()}.Append(nil)
		case 9:
			r.device.OfferSubChannels(1 + int(small()))
			r.p.SignalEvent(random.Uint32N(hv.MaxConnectionID))
			region.Bytes[random.IntN(len(region.Bytes))] = byte(random.Uint32())
			b = make([]byte, 8+random.IntN(232))
			b[0] = byte(random.IntN(32))
		}
		if b != nil {
			r.say(vmbus.ConnMessage, b)
		}
		r.drain()
	}
	r.say(vmbus.ConnContact, vmbus.InitiateContact{Version: vmbus.Version5_3, SINT: hv.SINT}.Append(nil))
	r.expect(vmbus.TypeVersionResponse)
	r.p.Close()
	<-r.served
	if n := len(r.server.machine.channels) + len(r.server.machine.gpadls) + len(r.device.open) + len(r.device.shared); n != 0 {
		t.Errorf("%d things are left of the guest", n)
	}
	for relid := range r.server.channels {
		if r.server.channels[relid].Load() != nil {
			t.Errorf("the doorbell of relid %d is left", relid)
		}
	}
}

// Messages that a guest posts together find room together, or none of them does.
func TestPostedTogether(t *testing.T) {
	_, g, err := hv.Pipe(1)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	s := New(g, Config{})
	h := (*hypercalls)(s)
	post := func(n int) hv.Status {
		m := make([]hv.Message, n)
		for i := range m {
			m[i].Type = hv.MessageVMBus
		}
		return h.Messages(vmbus.ConnMessage, m)
	}
	bad := []hv.Message{{Type: hv.MessageVMBus}, {Type: 2}}
	if status := h.Messages(vmbus.ConnMessage, bad); status != hv.StatusInvalidParameter || len(s.inbox) != 0 {
		t.Errorf("one of another type: %v, %d taken", status, len(s.inbox))
	}
	if status := post(inboxSize - 1); status != hv.StatusSuccess {
		t.Errorf("as many as there is room for: %v", status)
	}
	if status := post(2); status != hv.StatusInsufficientBuffers || len(s.inbox) != inboxSize-1 {
		t.Errorf("one too many: %v, %d taken", status, len(s.inbox))
	}
	if status := post(1); status != hv.StatusSuccess || len(s.inbox) != inboxSize {
		t.Errorf("the last: %v, %d taken", status, len(s.inbox))
	}
}
