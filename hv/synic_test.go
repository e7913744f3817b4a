package hv

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// pages returns host mappings of n pages of one new region, and a partition's
// view of them.
func pages(t *testing.T, n int) ([]*Mapping, []byte) {
	t.Helper()
	p, g, err := Pipe(1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		g.Close()
		p.Close()
	})
	r, err := p.Alloc(n * PageSize)
	if err != nil {
		t.Fatal(err)
	}
	var maps []*Mapping
	for i := range n {
		m, err := g.Memory().Map([]uint64{r.PFN(i)})
		if err != nil {
			t.Fatal(err)
		}
		maps = append(maps, m)
	}
	return maps, r.Bytes
}

// TestSlotBytes looks at the bytes of a message page: TLFS HV_MESSAGE, SINT 2.
func TestSlotBytes(t *testing.T) {
	maps, b := pages(t, 1)
	interrupts := 0
	s := NewHostSynIC(1, func(int) { interrupts++ })
	defer s.Close()
	s.SetMessagePage(0, maps[0])
	slot := b[512:768]
	for i := range slot {
		slot[i] = 0xEE
	}
	binary.LittleEndian.PutUint32(slot, 0)

	if err := s.Post(0, []byte("first")); err != nil {
		t.Fatal(err)
	}
	want := make([]byte, 256)
	want[0], want[4] = 1, 5
	copy(want[16:], "first")
	if !bytes.Equal(slot, want) || interrupts != 1 {
		t.Errorf("slot\n%x, want\n%x, %d interrupts", slot, want, interrupts)
	}

	// The second one waits, and says so in the flags of the first.
	if err := s.Post(0, []byte("second!")); err != nil {
		t.Fatal(err)
	}
	want[5] = 1
	if !bytes.Equal(slot, want) || interrupts != 1 {
		t.Errorf("slot\n%x, want\n%x, %d interrupts", slot, want, interrupts)
	}
	s.EOM(0) // too early
	s.EOM(-1)
	s.EOM(1)
	if !bytes.Equal(slot, want) || interrupts != 1 {
		t.Errorf("slot after a wrong EOM\n%x, want\n%x, %d interrupts", slot, want, interrupts)
	}
	binary.LittleEndian.PutUint32(slot, 0)
	s.EOM(0)
	clear(want)
	want[0], want[4] = 1, 7
	copy(want[16:], "second!")
	if !bytes.Equal(slot, want) || interrupts != 2 {
		t.Errorf("slot\n%x, want\n%x, %d interrupts", slot, want, interrupts)
	}
	if rest := append(slices.Clone(b[:512]), b[768:]...); !bytes.Equal(rest, make([]byte, len(rest))) {
		t.Error("other entries of the page were touched")
	}
}

// TestFlagBytes looks at the bytes of an event page.
func TestFlagBytes(t *testing.T) {
	maps, b := pages(t, 1)
	interrupts := 0
	s := NewHostSynIC(1, func(int) { interrupts++ })
	defer s.Close()
	s.SetEventPage(0, maps[0])
	want := make([]byte, PageSize)
	for i, x := range []struct {
		flag, at int
		value    byte
	}{{1, 512, 0x02}, {3, 512, 0x0A}, {70, 520, 0x40}, {2047, 767, 0x80}} {
		for range 2 { // the second time it is set already
			if err := s.SetFlag(0, x.flag); err != nil {
				t.Fatal(err)
			}
			want[x.at] = x.value
			if !bytes.Equal(b, want) || interrupts != i+1 {
				t.Errorf("flag %d: byte %d is %#x, want %#x, %d interrupts", x.flag, x.at, b[x.at], x.value, interrupts)
			}
		}
	}
	b[512] = 0
	if err := s.SetFlag(0, 1); err != nil || interrupts != 5 {
		t.Errorf("flag that was taken: %v, %d interrupts", err, interrupts)
	}
}

// TestPagesComeAndGo is a kernel that sets and clears SIMP and SIEFP.
func TestPagesComeAndGo(t *testing.T) {
	maps, b := pages(t, 4)
	s := NewHostSynIC(2, func(int) {})
	defer s.Close()
	for i := range 3 {
		if err := s.Post(1, []byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.SetFlag(1, 7); err != nil { // lost, as on a machine whose SynIC is off
		t.Fatal(err)
	}
	s.TakeSignals(func(uint32) { t.Error("a signal from nowhere") })

	s.SetMessagePage(1, maps[0])
	s.SetEventPage(1, maps[1])
	if b[512] != 1 || b[512+16] != 0 || b[512+5] != 1 {
		t.Errorf("first message did not come with the page: % x", b[512:540])
	}
	s.SetMessagePage(1, nil) // the slot is still full
	b[512] = 0
	s.EOMs()
	if b[512] != 0 {
		t.Error("a page that was taken back was written to")
	}
	s.SetMessagePage(1, maps[2])
	if b[2*PageSize+512] != 1 || b[2*PageSize+512+16] != 1 {
		t.Error("second message did not come with the second page")
	}
	s.Close()
	s.SetMessagePage(1, maps[3]) // is closed at once
	if err := s.Post(1, nil); !errors.Is(err, ErrGone) {
		t.Errorf("post after Close: %v", err)
	}
	for i, m := range maps {
		if m.Bytes != nil {
			t.Errorf("mapping %d is still open", i)
		}
	}
}

func TestImpossibleSize(t *testing.T) {
	s := slot(make([]byte, 256))
	binary.LittleEndian.PutUint32(s, 0x80000010)
	binary.LittleEndian.PutUint32(s[4:], 241)
	var m Message
	if ok, pending := s.take(&m); !ok || pending || m.Size != 0 || m.Type != 0x80000010 {
		t.Errorf("message of type %#x and size %d, ok %v, pending %v", m.Type, m.Size, ok, pending)
	}
	if !s.free() {
		t.Error("slot is not free")
	}
}

// deaf is a handler that does nothing.
type deaf struct{}

func (deaf) Messages(uint32, []Message) Status { return StatusSuccess }
func (deaf) Signal(uint32)                     {}

// TestMessageStress posts from several goroutines while the guest takes: none is
// lost, none comes twice, none waits for ever, each poster's are in order.
func TestMessageStress(t *testing.T) {
	const posters, each = 2, 3000
	p, g, err := Pipe(1)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { g.Serve(deaf{}) })
	timer := time.AfterFunc(20*time.Second, func() { p.Close() })
	defer timer.Stop()
	room := make(chan struct{}, maxQueued)
	for i := range posters {
		wg.Go(func() {
			for n := range each {
				select {
				case room <- struct{}{}:
				case <-p.Done():
					return
				}
				b := binary.LittleEndian.AppendUint32([]byte{byte(i)}, uint32(n))
				if err := g.PostMessage(0, b); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	var next [posters]uint32
	var m Message
	for got := 0; got < posters*each; {
		if !p.TakeMessage(0, &m) {
			if err := p.Wait(0); err != nil {
				t.Errorf("after %d messages: %v", got, err)
				break
			}
			continue
		}
		who, n := m.Data[0], binary.LittleEndian.Uint32(m.Data[1:])
		if m.Size != 5 || n != next[who] {
			t.Fatalf("message %d of %d, want %d", n, who, next[who])
		}
		next[who]++
		got++
		<-room
	}
	p.Close()
	g.Close()
	wg.Wait()
}

// TestBitmap sets bits from several goroutines while another takes: each that was
// set from clear is taken once.
func TestBitmap(t *testing.T) {
	b := bitmap(make([]uint64, 4))
	var set, taken atomic.Int64
	var setters sync.WaitGroup
	for range 2 {
		setters.Go(func() {
			for i := range 20000 {
				if b.set(i * 7 % 256) {
					set.Add(1)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() {
		setters.Wait()
		close(done)
	}()
	for last := false; !last; {
		select {
		case <-done:
			last = true
		default:
		}
		for i, v := b.take(0); v != 0; i, v = b.take(i + 1) {
			eachBit(i, v, func(int) { taken.Add(1) })
		}
	}
	if set.Load() != taken.Load() {
		t.Errorf("%d bits set, %d taken", set.Load(), taken.Load())
	}
}

func TestStatus(t *testing.T) {
	if StatusSuccess.Err() != nil {
		t.Error("success is an error")
	}
	for s, want := range map[Status]string{
		StatusInsufficientBuffers: "hypercall: insufficient buffers",
		Status(0x77):              "hypercall: status 0x77",
	} {
		if err := s.Err(); err == nil || err.Error() != want || !errors.Is(err, s) {
			t.Errorf("status %d: %v, want %s", s, err, want)
		}
	}
}

// BenchmarkSetFlag sets a flag that is set already: what a busy host does.
func BenchmarkSetFlag(b *testing.B) {
	p, g, err := Pipe(1)
	if err != nil {
		b.Fatal(err)
	}
	defer g.Close()
	defer p.Close()
	for b.Loop() {
		g.SetFlag(0, 7)
	}
}

// BenchmarkTakeFlags takes one flag of 2048.
func BenchmarkTakeFlags(b *testing.B) {
	p, g, err := Pipe(1)
	if err != nil {
		b.Fatal(err)
	}
	defer g.Close()
	defer p.Close()
	n := 0
	for b.Loop() {
		g.SetFlag(0, 1000)
		p.TakeFlags(0, func(int) { n++ })
	}
}

// BenchmarkTakeSignals scans an idle bitmap of signals.
func BenchmarkTakeSignals(b *testing.B) {
	p, g, err := Pipe(1)
	if err != nil {
		b.Fatal(err)
	}
	defer g.Close()
	defer p.Close()
	s := g.(*pipeGuest).host
	for b.Loop() {
		s.TakeSignals(func(uint32) {})
	}
}
