package vswitch

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hvnet/nic"
)

// A catcher is a sink that remembers the frames it was given, as copies.
type catcher struct {
	mu      sync.Mutex
	frames  [][]byte
	batches int
}

func (c *catcher) WriteFrames(frames []nic.Frame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.batches++
	for i := range frames {
		b := make([]byte, frames[i].Len())
		frames[i].CopyTo(b)
		c.frames = append(c.frames, b)
	}
}

// take returns the last bytes of the frames caught since the last take.
func (c *catcher) take() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	var tags []byte
	for _, f := range c.frames {
		tags = append(tags, f[len(f)-1])
	}
	c.frames, c.batches = nil, 0
	return tags
}

func mac(n byte) nic.MAC { return nic.MAC{0x02, 0, 0, 0, 0, n} }

// frame returns a minimal frame that ends with tag.
func frame(dst, src nic.MAC, tag byte) nic.Frame {
	b := make([]byte, 60)
	copy(b, dst[:])
	copy(b[6:], src[:])
	b[59] = tag
	return nic.Frame{Head: b[:20], Body: [][]byte{b[20:40], b[40:]}}
}

// A clock is set by tests.
type clock struct{ ns atomic.Int64 }

func (c *clock) now() time.Time          { return time.Unix(1000, 0).Add(time.Duration(c.ns.Load())) }
func (c *clock) advance(d time.Duration) { c.ns.Add(int64(d)) }

// ports returns a switch with n learning ports and a catcher behind each.
func ports(t testing.TB, cfg Config, n int) (*Switch, []*Port, []*catcher) {
	t.Helper()
	s := New(cfg)
	var ps []*Port
	var cs []*catcher
	for i := range n {
		c := new(catcher)
		p, err := s.Connect(fmt.Sprint("p", i), c, PortOptions{})
		if err != nil {
			t.Fatal(err)
		}
		ps, cs = append(ps, p), append(cs, c)
	}
	return s, ps, cs
}

// expect checks the tags that each catcher got.
func expect(t *testing.T, what string, cs []*catcher, want ...string) {
	t.Helper()
	for i, c := range cs {
		if got := string(c.take()); got != want[i] {
			t.Errorf("%s: port %d got %q, want %q", what, i, got, want[i])
		}
	}
}

func TestLearnAndFlood(t *testing.T) {
	_, p, c := ports(t, Config{}, 3)
	p[0].WriteFrames([]nic.Frame{frame(mac(2), mac(1), 'a')})
	expect(t, "unknown", c, "", "a", "a")
	p[1].WriteFrames([]nic.Frame{frame(mac(1), mac(2), 'b')})
	expect(t, "learned", c, "b", "", "")
	p[0].WriteFrames([]nic.Frame{frame(mac(2), mac(1), 'c')})
	expect(t, "both known", c, "", "c", "")
	p[0].WriteFrames([]nic.Frame{frame(nic.Broadcast, mac(1), 'd')})
	expect(t, "broadcast", c, "", "d", "d")
	p[0].WriteFrames([]nic.Frame{frame(mac(1), mac(3), 'e')})
	expect(t, "to its own port", c, "", "", "")
	info := p[0].info()
	if info.Dropped[DropLocal] != 1 || info.Flooded != 2 || info.InFrames != 4 || info.InBytes != 240 || info.OutFrames != 1 || info.OutBytes != 60 {
		t.Errorf("counters of port 0: %+v", info)
	}
}

// TestZeroDestination: a frame for the address of zeros, which is unknown as another one is,
// goes where such frames go, also if it is the first of its batch.
func TestZeroDestination(t *testing.T) {
	_, p, c := ports(t, Config{}, 2)
	p[0].WriteFrames([]nic.Frame{frame(nic.MAC{}, mac(1), 'a'), frame(mac(9), mac(1), 'b'), frame(nic.MAC{}, mac(1), 'c')})
	expect(t, "for nobody", c, "", "abc")
}

func TestMixedBatchIsOneBatchPerPort(t *testing.T) {
	_, p, c := ports(t, Config{}, 4)
	for i := 1; i < 4; i++ {
		p[i].WriteFrames([]nic.Frame{frame(nic.Broadcast, mac(byte(i)), 0)})
	}
	for i := range c {
		c[i].take()
	}
	var batch []nic.Frame
	for _, f := range []struct {
		dst nic.MAC
		tag byte
	}{{mac(1), 'a'}, {mac(2), 'b'}, {nic.Broadcast, 'c'}, {mac(1), 'd'}, {mac(9), 'e'}, {mac(3), 'f'}} {
		batch = append(batch, frame(f.dst, mac(0x10), f.tag))
	}
	p[0].WriteFrames(batch)
	for i := 1; i < 4; i++ {
		if c[i].batches != 1 {
			t.Errorf("port %d got %d batches, want 1", i, c[i].batches)
		}
	}
	expect(t, "mixed", c, "", "acde", "bce", "cef")
}

func TestStationMoves(t *testing.T) {
	s, p, c := ports(t, Config{}, 3)
	p[0].WriteFrames([]nic.Frame{frame(mac(9), mac(1), 'a')})
	p[1].WriteFrames([]nic.Frame{frame(mac(9), mac(1), 'b')})
	expect(t, "unknown", c, "b", "a", "ab")
	p[2].WriteFrames([]nic.Frame{frame(mac(1), mac(3), 'c')})
	expect(t, "moved", c, "", "c", "")
	infos := s.Ports()
	if len(infos[0].Stations) != 0 || len(infos[1].Stations) != 1 || infos[1].Moves != 1 {
		t.Errorf("after the move: %+v", infos)
	}
}

func TestAgeing(t *testing.T) {
	var clk clock
	s, p, c := ports(t, Config{Now: clk.now, Ageing: 10 * time.Second}, 3)
	learn := func() { p[0].WriteFrames([]nic.Frame{frame(mac(9), mac(1), 0)}) }
	probe := func(what string, want ...string) {
		t.Helper()
		for i := range c {
			c[i].take()
		}
		p[2].WriteFrames([]nic.Frame{frame(mac(1), mac(3), 'x')})
		expect(t, what, c, want...)
	}
	learn()
	clk.advance(9 * time.Second)
	probe("young", "x", "", "")
	learn() // heard again: lives on
	clk.advance(9 * time.Second)
	probe("refreshed", "x", "", "")
	if got := s.Ports()[0].Stations; len(got) != 1 || got[0] != (Station{MAC: mac(1), Age: 9 * time.Second}) {
		t.Errorf("stations: %+v", got)
	}
	clk.advance(time.Second)
	probe("expired", "x", "x", "")
	if got := s.Ports()[0].Stations; len(got) != 0 {
		t.Errorf("an expired station is shown: %+v", got)
	}
}

func TestBounds(t *testing.T) {
	var clk clock
	s, p, c := ports(t, Config{Now: clk.now, Stations: 6, StationsPerPort: 4, Ageing: time.Minute}, 3)
	p[1].WriteFrames([]nic.Frame{frame(mac(200), mac(100), 0)})
	for i := range 10 {
		p[0].WriteFrames([]nic.Frame{frame(mac(200), mac(byte(i+1)), 0)})
	}
	infos := s.Ports()
	if n := len(infos[0].Stations); n != 4 {
		t.Errorf("one port took %d stations, bound is 4", n)
	}
	if infos[0].NotLearned != 6 {
		t.Errorf("not learned: %d, want 6", infos[0].NotLearned)
	}
	if n := len(infos[1].Stations); n != 1 {
		t.Errorf("port 1 has %d stations, want 1", n)
	}
	for i := range 10 {
		p[2].WriteFrames([]nic.Frame{frame(mac(200), mac(byte(i+50)), 0)})
	}
	if n := len(s.Ports()[2].Stations); n != 1 {
		t.Errorf("the full table took %d more stations, want 1", n)
	}
	// What can't be learned is still reachable.
	for i := range c {
		c[i].take()
	}
	p[1].WriteFrames([]nic.Frame{frame(mac(10), mac(100), 'x')})
	expect(t, "not learned", c, "x", "", "x")
	// Expired stations make room.
	clk.advance(time.Minute)
	p[2].WriteFrames([]nic.Frame{frame(mac(200), mac(77), 0)})
	if n := len(s.Ports()[2].Stations); n != 1 {
		t.Errorf("after ageing port 2 has %d stations, want the new one", n)
	}
	if len(s.stations) != 1 {
		t.Errorf("table holds %d, want 1", len(s.stations))
	}
}

func TestFixedAddress(t *testing.T) {
	s, p, c := ports(t, Config{}, 2)
	fixed := new(catcher)
	c = append(c, fixed)
	p[0].WriteFrames([]nic.Frame{frame(nic.Broadcast, mac(7), 'a')}) // had it before
	q, err := s.Connect("guest", fixed, PortOptions{MAC: mac(7)})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, "before", c, "", "a", "")
	p[1].WriteFrames([]nic.Frame{frame(mac(7), mac(2), 'b')})
	expect(t, "known without a frame", c, "", "", "b")
	p[0].WriteFrames([]nic.Frame{frame(mac(2), mac(7), 'c')})
	expect(t, "forged", c, "", "", "")
	if n := p[0].info().Dropped[DropForged]; n != 1 {
		t.Errorf("forged: %d, want 1", n)
	}
	p[1].WriteFrames([]nic.Frame{frame(mac(44), mac(2), 'd')})
	expect(t, "unknown does not go to a port with one known station", c, "d", "", "")
	q.WriteFrames([]nic.Frame{frame(mac(2), mac(8), 'e')})
	expect(t, "another source", c, "", "e", "")
	p[1].WriteFrames([]nic.Frame{frame(mac(8), mac(2), 'f')})
	expect(t, "is not learned", c, "f", "", "")
	if _, err := s.Connect("twin", fixed, PortOptions{MAC: mac(7)}); !errors.Is(err, ErrMACInUse) {
		t.Errorf("second port with the address: %v", err)
	}
	q.Close()
	if _, err := s.Connect("again", fixed, PortOptions{MAC: mac(7)}); err != nil {
		t.Errorf("after Close: %v", err)
	}
	if _, err := s.Connect("group", fixed, PortOptions{MAC: nic.Broadcast}); err == nil {
		t.Error("a group address was accepted")
	}
}

func TestMalformed(t *testing.T) {
	_, p, c := ports(t, Config{}, 2)
	long := frame(mac(2), mac(1), 0)
	long.Body = [][]byte{make([]byte, nic.MaxFrame)}
	p[0].WriteFrames([]nic.Frame{
		{Head: make([]byte, 13)},
		{},
		long,
		frame(mac(2), nic.Broadcast, 0),
		frame(mac(2), nic.MAC{}, 0),
		frame(mac(2), mac(1), 'x'),
	})
	expect(t, "the good one of the batch", c, "", "x")
	got := p[0].info().Dropped
	for d, n := range map[Drop]uint64{DropRunt: 2, DropLong: 1, DropSource: 2} {
		if got[d] != n {
			t.Errorf("dropped as %v: %d, want %d", d, got[d], n)
		}
	}
}

func TestCloseAndReuse(t *testing.T) {
	s, p, c := ports(t, Config{}, 3)
	p[1].WriteFrames([]nic.Frame{frame(mac(9), mac(2), 0)})
	p[1].Close()
	p[1].Close()
	for i := range c {
		c[i].take()
	}
	p[0].WriteFrames([]nic.Frame{frame(mac(2), mac(1), 'a')})
	expect(t, "closed", c, "", "", "a")
	p[1].WriteFrames([]nic.Frame{frame(mac(1), mac(2), 'b')})
	expect(t, "from a closed port", c, "", "", "")
	if n := p[1].info().Dropped[DropClosed]; n != 1 {
		t.Errorf("dropped on a closed port: %d", n)
	}
	next := new(catcher)
	q, err := s.Connect("next", next, PortOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if q.slot != p[1].slot {
		t.Errorf("slot %d is not reused, got %d", p[1].slot, q.slot)
	}
	p[1].Close() // must not take its successor away
	p[0].WriteFrames([]nic.Frame{frame(mac(2), mac(1), 'c')})
	if got := next.take(); !slices.Equal(got, []byte("c")) {
		t.Errorf("successor got %q", got)
	}
	for i := len(s.Ports()); i < MaxPorts; i++ {
		if _, err := s.Connect("more", next, PortOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Connect("too many", next, PortOptions{}); !errors.Is(err, ErrFull) {
		t.Errorf("port %d: %v", MaxPorts+1, err)
	}
}

// A sink may write to its own port from within WriteFrames, as a program that
// answers does.
type echo struct{ port *Port }

func (e *echo) WriteFrames(frames []nic.Frame) {
	for i := range frames {
		e.port.WriteFrames([]nic.Frame{frame(frames[i].Src(), frames[i].Dst(), 'r')})
	}
}

func TestReentry(t *testing.T) {
	s, p, c := ports(t, Config{}, 1)
	e := new(echo)
	var err error
	if e.port, err = s.Connect("echo", e, PortOptions{}); err != nil {
		t.Fatal(err)
	}
	p[0].WriteFrames([]nic.Frame{frame(mac(2), mac(1), 'a')})
	if got := string(c[0].take()); got != "r" {
		t.Errorf("got %q", got)
	}
}
