// Package boundary tests that a partition boundary is what package hv says,
// whatever carries it.
package boundary

import (
	"bytes"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hvnet/hv"
)

// An Opener makes a boundary for a guest of a number of VPs and ends it with the test.
type Opener func(t *testing.T, vps int) (hv.Partition, hv.Guest)

// Patience is how long a test waits for what must happen.
const Patience = 20 * time.Second

// Test runs all tests on boundaries made by open.
func Test(t *testing.T, open Opener) {
	for _, x := range []struct {
		name string
		run  func(*testing.T, Opener)
	}{
		{"memory", testMemory},
		{"memory comes and goes in use", testMemoryInUse},
		{"guest posts", testGuestPosts},
		{"host posts", testHostPosts},
		{"host posts more than the guest takes", testBackPressure},
		{"events of the host", testHostEvents},
		{"events of the guest", testGuestEvents},
		{"every event is seen", testEventStress},
		{"bad numbers", testRange},
		{"guest leaves", testGuestLeaves},
		{"host leaves", testHostLeaves},
		{"hot paths do not allocate", testAllocations},
	} {
		t.Run(x.name, func(t *testing.T) { x.run(t, open) })
	}
}

// Funcs is a handler of two functions, of which either may be nil.
type Funcs struct {
	OnMessage func(conn uint32, m *hv.Message) hv.Status
	OnSignal  func(conn uint32)
}

// Message calls OnMessage.
func (f Funcs) Message(conn uint32, m *hv.Message) hv.Status {
	if f.OnMessage == nil {
		return hv.StatusInvalidConnectionID
	}
	return f.OnMessage(conn, m)
}

// Signal calls OnSignal.
func (f Funcs) Signal(conn uint32) {
	if f.OnSignal != nil {
		f.OnSignal(conn)
	}
}

// Serve serves a guest until the test ends.
func Serve(t *testing.T, g hv.Guest, h hv.Handler) {
	served := make(chan struct{})
	go func() {
		defer close(served)
		g.Serve(h)
	}()
	t.Cleanup(func() {
		g.Close()
		Await(t, served, "Serve to return")
	})
}

// Await waits for a channel and fails the test in the end.
func Await[T any](t testing.TB, c <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(Patience):
		t.Fatalf("waited %v for %s", Patience, what)
	}
	return v
}

func testMemory(t *testing.T, open Opener) {
	p, g := open(t, 2)
	Serve(t, g, Funcs{})
	a, err := p.Alloc(3*hv.PageSize - 5)
	if err != nil {
		t.Fatal(err)
	}
	b, err := p.Alloc(1)
	if err != nil {
		t.Fatal(err)
	}
	if a.Pages() != 3 || b.Pages() != 1 || a.GPA == 0 || a.GPA%hv.PageSize != 0 || a.PFN(1) != uint64(a.GPA)/hv.PageSize+1 {
		t.Fatalf("regions %#x of %d pages, %#x of %d", a.GPA, a.Pages(), b.GPA, b.Pages())
	}
	if slices.ContainsFunc(a.Bytes, func(x byte) bool { return x != 0 }) {
		t.Error("memory is not zeroed")
	}
	copy(a.Bytes[5000:], "from the guest")
	m := g.Memory()
	m.RLock()
	s, err := m.Bytes(a.GPA+5000, 14)
	if err != nil || string(s) != "from the guest" {
		t.Errorf("host reads %q, %v", s, err)
	}
	copy(s, "FROM")
	for _, x := range []struct {
		gpa hv.GPA
		n   int
	}{
		{0, 1}, {a.GPA - 1, 1}, {a.GPA - 1, 2}, {a.GPA, 3*hv.PageSize + 1}, {a.GPA + 3*hv.PageSize, 1},
		{a.GPA, -1}, {a.GPA, 1 << 62}, {^hv.GPA(0), 1}, {^hv.GPA(0) - 4095, 8192},
	} {
		if s, err := m.Bytes(x.gpa, x.n); !errors.Is(err, hv.ErrBounds) {
			t.Errorf("Bytes(%#x, %d) = %d bytes, %v", x.gpa, x.n, len(s), err)
		}
	}
	m.RUnlock()
	if !bytes.HasPrefix(a.Bytes[5000:], []byte("FROM the guest")) {
		t.Errorf("guest reads %q", a.Bytes[5000:5014])
	}

	// A list in any order, across regions, with a page twice.
	list := []uint64{a.PFN(2), b.PFN(0), a.PFN(0), a.PFN(1), b.PFN(0)}
	a.Bytes[0], a.Bytes[hv.PageSize], a.Bytes[2*hv.PageSize], b.Bytes[0] = 10, 11, 12, 20
	scattered, err := m.Map(list)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := m.Map([]uint64{a.PFN(0), a.PFN(1), a.PFN(2)})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []byte{12, 20, 10, 11, 20} {
		if got := scattered.Bytes[i*hv.PageSize]; got != want {
			t.Errorf("page %d of the mapping has %d, want %d", i, got, want)
		}
	}
	if len(scattered.Bytes) != 5*hv.PageSize || len(whole.Bytes) != 3*hv.PageSize {
		t.Errorf("mappings of %d and %d bytes", len(scattered.Bytes), len(whole.Bytes))
	}
	for _, list := range [][]uint64{nil, {0}, {a.PFN(3)}, {a.PFN(0), b.PFN(1)}, {1 << 63}, {1<<52 + a.PFN(0)}} {
		if _, err := m.Map(list); !errors.Is(err, hv.ErrBounds) {
			t.Errorf("Map(%#x): %v", list, err)
		}
	}

	// Mappings outlive their regions, and the guest.
	if err := p.Free(a); err != nil {
		t.Fatal(err)
	}
	if err := p.Free(a); !errors.Is(err, hv.ErrRegion) {
		t.Errorf("second Free: %v", err)
	}
	m.RLock()
	if _, err := m.Bytes(a.GPA, 1); !errors.Is(err, hv.ErrBounds) {
		t.Errorf("Bytes of a freed region: %v", err)
	}
	m.RUnlock()
	if whole.Bytes[hv.PageSize] != 11 || scattered.Bytes[0] != 12 {
		t.Error("mapping lost its pages with the region")
	}
	p.Close()
	Await(t, g.Done(), "the host to notice")
	g.Close()
	if whole.Bytes[hv.PageSize] != 11 || scattered.Bytes[0] != 12 {
		t.Error("mapping lost its pages with the guest")
	}
	for range 2 {
		if err := errors.Join(whole.Close(), scattered.Close()); err != nil {
			t.Error(err)
		}
	}
}

func testMemoryInUse(t *testing.T, open Opener) {
	p, g := open(t, 1)
	Serve(t, g, Funcs{})
	var gpa atomic.Uint64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var hits atomic.Int64
	wg.Go(func() { // one, lest the readers take all of a small machine
		for {
			select {
			case <-stop:
				return
			default:
			}
			m := g.Memory()
			m.RLock()
			if s, err := m.Bytes(hv.GPA(gpa.Load()), hv.PageSize); err == nil {
				s[0]++ // must not fault
				hits.Add(1)
			}
			m.RUnlock()
		}
	})
	for i := 0; i < 50 || hits.Load() == 0; i++ {
		r, err := p.Alloc(hv.PageSize)
		if err != nil {
			t.Error(err)
			break
		}
		gpa.Store(uint64(r.GPA))
		if err := p.Free(r); err != nil {
			t.Error(err)
			break
		}
	}
	close(stop)
	wg.Wait()
}

func testGuestPosts(t *testing.T, open Opener) {
	p, g := open(t, 1)
	type posted struct {
		conn uint32
		typ  uint32
		data string
	}
	var got []posted
	Serve(t, g, Funcs{OnMessage: func(conn uint32, m *hv.Message) hv.Status {
		got = append(got, posted{conn, m.Type, string(m.Payload())})
		if conn == 99 {
			return hv.StatusInvalidConnectionID
		}
		return hv.StatusSuccess
	}})
	long := bytes.Repeat([]byte("x"), hv.MaxPayload)
	for _, x := range []struct {
		conn uint32
		data []byte
		want error
	}{
		{1, []byte("hello"), nil},
		{4, long, nil},
		{99, []byte("who?"), hv.StatusInvalidConnectionID},
		{1, nil, nil},
		{1, append(long, 'x'), hv.StatusInvalidParameter},
	} {
		if err := p.PostMessage(x.conn, x.data); !errors.Is(err, x.want) {
			t.Errorf("post of %d bytes to %d: %v, want %v", len(x.data), x.conn, err, x.want)
		}
	}
	g.Close()
	want := []posted{{1, 1, "hello"}, {4, 1, string(long)}, {99, 1, "who?"}, {1, 1, ""}}
	if !slices.Equal(got, want) {
		t.Errorf("handler got %v", got)
	}
}

func testHostPosts(t *testing.T, open Opener) {
	p, g := open(t, 2)
	Serve(t, g, Funcs{})
	const n = 100
	for i := range n {
		if err := g.PostMessage(1, bytes.Repeat([]byte{byte(i)}, i)); err != nil {
			t.Fatal(err)
		}
	}
	var m hv.Message
	if p.TakeMessage(0, &m) {
		t.Error("a message on the other VP")
	}
	for i := range n {
		for !p.TakeMessage(1, &m) {
			wait(t, p, 1)
		}
		if m.Type != hv.MessageVMBus || m.Size != i || !bytes.Equal(m.Payload(), bytes.Repeat([]byte{byte(i)}, i)) {
			t.Fatalf("message %d is %v", i, m)
		}
	}
	if p.TakeMessage(1, &m) {
		t.Error("a message too many")
	}
}

// wait is Wait with an end: a lost interrupt fails the test instead of hanging it.
func wait(t *testing.T, p hv.Partition, vp int) {
	t.Helper()
	timer := time.AfterFunc(Patience, func() { p.Close() })
	err := p.Wait(vp)
	if !timer.Stop() || err != nil {
		t.Fatalf("wait for an interrupt of VP %d: %v", vp, err)
	}
}

func testBackPressure(t *testing.T, open Opener) {
	p, g := open(t, 2)
	Serve(t, g, Funcs{OnMessage: func(uint32, *hv.Message) hv.Status { return hv.StatusSuccess }})
	n := 0
	for ; ; n++ {
		if err := g.PostMessage(0, []byte{byte(n), byte(n >> 8)}); err != nil {
			if !errors.Is(err, hv.ErrQueueFull) {
				t.Fatal(err)
			}
			break
		}
		if n > 100000 {
			t.Fatal("the queue has no bound")
		}
	}
	if err := p.PostMessage(1, nil); !errors.Is(err, hv.StatusInsufficientBuffers) {
		t.Errorf("post of a guest that does not listen: %v", err)
	}
	if err := g.PostMessage(1, []byte("other VP")); err != nil {
		t.Errorf("post to the other VP: %v", err)
	}
	var m hv.Message
	for i := range n {
		for !p.TakeMessage(0, &m) {
			wait(t, p, 0)
		}
		if m.Size != 2 || int(m.Data[0])|int(m.Data[1])<<8 != i {
			t.Fatalf("message %d is %v", i, m.Payload())
		}
	}
	// The host may not have heard of it yet: it says to try again.
	end := time.Now().Add(Patience)
	for err := hv.StatusInsufficientBuffers.Err(); err != nil; err = p.PostMessage(1, nil) {
		if !errors.Is(err, hv.StatusInsufficientBuffers) || time.Now().After(end) {
			t.Fatalf("post of a guest that has listened: %v", err)
		}
	}
}

func testHostEvents(t *testing.T, open Opener) {
	p, g := open(t, 3)
	Serve(t, g, Funcs{})
	flags := []int{1, 63, 64, 1000, 2047}
	for vp := range 3 {
		for _, f := range append(flags, flags...) {
			if err := g.SetFlag(vp, f); err != nil {
				t.Fatal(err)
			}
		}
		var got []int
		for len(got) < len(flags) {
			wait(t, p, vp)
			p.TakeFlags(vp, func(f int) { got = append(got, f) })
		}
		if !slices.Equal(got, flags) {
			t.Errorf("flags of VP %d: %v", vp, got)
		}
		p.TakeFlags(vp, func(f int) { t.Errorf("flag %d twice", f) })
	}
}

func testGuestEvents(t *testing.T, open Opener) {
	p, g := open(t, 1)
	got := make(chan uint32, 100)
	Serve(t, g, Funcs{OnSignal: func(conn uint32) { got <- conn }})
	for _, conn := range []uint32{1, 0x2001, hv.MaxConnectionID - 1, 1} {
		if err := p.SignalEvent(conn); err != nil {
			t.Fatal(err)
		}
		if c := Await(t, got, "a signal"); c != conn {
			t.Errorf("signal of %d, want %d", c, conn)
		}
	}
}

// testEventStress passes a number to and fro by events alone: a lost one hangs.
func testEventStress(t *testing.T, open Opener) {
	p, g := open(t, 2)
	const rounds = 2000
	var balls [4]atomic.Int64
	over := make(chan struct{})
	var left atomic.Int64
	left.Store(int64(len(balls)))
	Serve(t, g, Funcs{OnSignal: func(conn uint32) {
		ball := &balls[conn-0x2001]
		if n := ball.Load(); n%2 == 1 {
			ball.Store(n + 1)
			if err := g.SetFlag(int(conn)%2, int(conn-0x2000)); err != nil {
				t.Error(err)
			}
		}
	}})
	var wg sync.WaitGroup
	for vp := range 2 {
		wg.Go(func() {
			for p.Wait(vp) == nil {
				p.TakeFlags(vp, func(flag int) {
					ball := &balls[flag-1]
					n := ball.Load()
					if n%2 == 1 {
						return
					}
					if n == rounds {
						if left.Add(-1) == 0 {
							close(over)
						}
						return
					}
					ball.Store(n + 1)
					if err := p.SignalEvent(uint32(0x2000 + flag)); err != nil {
						t.Error(err)
					}
				})
			}
		})
	}
	for i := range balls {
		balls[i].Store(1)
		if err := p.SignalEvent(uint32(0x2001 + i)); err != nil {
			t.Error(err)
		}
	}
	Await(t, over, "all rounds")
	p.Close()
	wg.Wait()
}

func testRange(t *testing.T, open Opener) {
	p, g := open(t, 2)
	Serve(t, g, Funcs{OnSignal: func(conn uint32) { t.Errorf("signal of %d", conn) }})
	for _, vp := range []int{-1, 2, 1 << 40} {
		if err := g.PostMessage(vp, nil); !errors.Is(err, hv.ErrRange) {
			t.Errorf("post to VP %d: %v", vp, err)
		}
		if err := g.SetFlag(vp, 1); !errors.Is(err, hv.ErrRange) {
			t.Errorf("flag of VP %d: %v", vp, err)
		}
		if err := p.Wait(vp); !errors.Is(err, hv.ErrRange) {
			t.Errorf("wait on VP %d: %v", vp, err)
		}
		p.TakeFlags(vp, func(int) { t.Errorf("flag on VP %d", vp) })
		if p.TakeMessage(vp, new(hv.Message)) {
			t.Errorf("message on VP %d", vp)
		}
	}
	if err := g.PostMessage(0, make([]byte, hv.MaxPayload+1)); !errors.Is(err, hv.ErrRange) {
		t.Errorf("post of too much: %v", err)
	}
	for _, flag := range []int{-1, hv.Flags, 1 << 40} {
		if err := g.SetFlag(0, flag); !errors.Is(err, hv.ErrRange) {
			t.Errorf("flag %d: %v", flag, err)
		}
	}
	for _, conn := range []uint32{hv.MaxConnectionID, 1 << 24, 1<<32 - 1} {
		if err := p.SignalEvent(conn); !errors.Is(err, hv.ErrRange) {
			t.Errorf("signal of %d: %v", conn, err)
		}
	}
	for _, n := range []int{0, -1, 1 << 50} {
		if _, err := p.Alloc(n); !errors.Is(err, hv.ErrLimit) {
			t.Errorf("allocation of %d: %v", n, err)
		}
	}
	if err := p.Free(hv.Region{GPA: 4096, Bytes: make([]byte, 4096)}); !errors.Is(err, hv.ErrRegion) {
		t.Errorf("free of a region from nowhere: %v", err)
	}
}

func testGuestLeaves(t *testing.T, open Opener) {
	p, g := open(t, 1)
	served := make(chan error, 1)
	go func() { served <- g.Serve(Funcs{}) }()
	waited := make(chan error, 1)
	go func() {
		for {
			if err := p.Wait(0); err != nil {
				waited <- err
				return
			}
		}
	}()
	p.Close()
	if err := Await(t, waited, "Wait to return"); !errors.Is(err, hv.ErrGone) {
		t.Errorf("Wait: %v", err)
	}
	if err := Await(t, served, "Serve to return"); !errors.Is(err, hv.ErrGone) {
		t.Errorf("Serve: %v", err)
	}
	Await(t, p.Done(), "Done of the partition")
	Await(t, g.Done(), "Done of the guest")
	after(t, p, g)
}

func testHostLeaves(t *testing.T, open Opener) {
	p, g := open(t, 1)
	r, err := allocServed(p, g)
	if err != nil {
		t.Fatal(err)
	}
	waited := make(chan error, 1)
	go func() {
		for {
			if err := p.Wait(0); err != nil {
				waited <- err
				return
			}
		}
	}()
	g.Close()
	if err := Await(t, waited, "Wait to return"); !errors.Is(err, hv.ErrGone) {
		t.Errorf("Wait: %v", err)
	}
	Await(t, p.Done(), "Done of the partition")
	r.Bytes[0]++ // the guest keeps its memory
	if err := p.PostMessage(1, nil); !errors.Is(err, hv.ErrGone) {
		t.Errorf("post: %v", err)
	}
	p.SignalEvent(1) // vanishes
	p.Close()
	after(t, p, g)
}

// allocServed allocates a region from a host that serves.
func allocServed(p hv.Partition, g hv.Guest) (hv.Region, error) {
	go g.Serve(Funcs{})
	return p.Alloc(1)
}

// after checks that nothing happens after both ends are gone.
func after(t *testing.T, p hv.Partition, g hv.Guest) {
	for range 2 {
		p.Close()
		g.Close()
	}
	if err := g.SetFlag(0, 1); !errors.Is(err, hv.ErrGone) {
		t.Errorf("SetFlag after all: %v", err)
	}
	if err := g.PostMessage(0, nil); !errors.Is(err, hv.ErrGone) {
		t.Errorf("the host's PostMessage after all: %v", err)
	}
	if err := p.SignalEvent(1); !errors.Is(err, hv.ErrGone) {
		t.Errorf("SignalEvent after all: %v", err)
	}
	if err := p.PostMessage(1, nil); !errors.Is(err, hv.ErrGone) {
		t.Errorf("the guest's PostMessage after all: %v", err)
	}
	if _, err := p.Alloc(1); !errors.Is(err, hv.ErrGone) {
		t.Errorf("Alloc after all: %v", err)
	}
	if err := p.Wait(0); !errors.Is(err, hv.ErrGone) {
		t.Errorf("Wait after all: %v", err)
	}
	p.TakeFlags(0, func(int) { t.Error("flag after all") })
	if p.TakeMessage(0, new(hv.Message)) {
		t.Error("message after all")
	}
}

func testAllocations(t *testing.T, open Opener) {
	p, g := open(t, 1)
	Serve(t, g, Funcs{})
	r, err := p.Alloc(8 * hv.PageSize)
	if err != nil {
		t.Fatal(err)
	}
	m := g.Memory()
	drop := func(int) {}
	var msg hv.Message
	if n := testing.AllocsPerRun(200, func() {
		m.RLock()
		m.Bytes(r.GPA+5000, 100)
		m.RUnlock()
		g.SetFlag(0, 7)
		p.TakeFlags(0, drop)
		p.TakeMessage(0, &msg)
		p.SignalEvent(0x2001)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkRoundTrip measures an event of the host that the guest answers with an
// event, both asleep before.
func BenchmarkRoundTrip(b *testing.B, p hv.Partition, g hv.Guest) {
	answers := make(chan uint32, 1)
	var wg sync.WaitGroup
	wg.Go(func() { g.Serve(Funcs{OnSignal: func(conn uint32) { answers <- conn }}) })
	wg.Go(func() {
		answer := func(int) { p.SignalEvent(0x2001) }
		for p.Wait(0) == nil {
			p.TakeFlags(0, answer)
		}
	})
	b.ReportAllocs()
	for b.Loop() {
		g.SetFlag(0, 1)
		<-answers
	}
	g.Close()
	p.Close()
	wg.Wait()
}
