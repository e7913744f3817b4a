package pcap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"hvnet/nic"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// discard takes frames and what they leave to be done.
type discard struct{ n int }

func (d *discard) WriteFrames(frames []nic.Frame) { d.n += len(frames) }
func (d *discard) Takes() nic.Offloads            { return nic.TakesTCPv4 }

// plain takes frames as on a wire.
type plain struct{}

func (plain) WriteFrames([]nic.Frame) {}

// frame returns a frame of n bytes, some of them in a body.
func frame(n int) nic.Frame {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)
	}
	k := min(n, nic.HeadLen)
	f := nic.Frame{Head: b[:k]}
	if n > k {
		m := k + (n-k)/2
		f.Body = [][]byte{b[k:m], b[m:]}
	}
	return f
}

// content are the bytes of a frame of frame.
func content(n int) []byte {
	f := frame(n)
	b := make([]byte, n)
	f.CopyTo(b)
	return b
}

// begin begins a capture that is written to a buffer, which end returns.
func begin(t *testing.T, p *Point, cfg Config) (end func() []byte) {
	t.Helper()
	c, err := p.Capture(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var file bytes.Buffer
	done := make(chan error, 1)
	go func() { done <- c.Write(ctx, &file) }()
	return func() []byte {
		t.Helper()
		if cfg.Count == 0 {
			cancel()
		}
		defer cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		return file.Bytes()
	}
}

// What is known of a packet is in the file, the packet is as it was, and goes on.
func TestCapture(t *testing.T) {
	var p Point
	out := &discard{}
	in := p.Sink(out, Place{Direction: Inbound, Queue: Channel, Path: Synthetic, VF: OverVF})
	sent := p.Sink(plain{}, Place{Direction: Outbound})
	if in.Takes() != nic.TakesTCPv4 || sent.Takes() != 0 {
		t.Errorf("the sinks take %v and %v", in.Takes(), sent.Takes())
	}
	in.WriteFrames([]nic.Frame{frame(60)}) // before anybody looks
	end := begin(t, &p, Config{Name: "eth0", About: "a NIC"})
	f := frame(nic.MaxFrame)
	f.Channel, f.Hash, f.HashKind = 3, 0x01020304, nic.HashL4
	f.Offload = nic.Offload{Checksum: nic.ChecksumPartial, Segment: nic.SegmentTCPv4, Size: 1448}
	g := frame(61)
	g.Offload.Checksum, g.VF = nic.ChecksumOK, true
	in.WriteFrames([]nic.Frame{f, g})
	sent.WriteFrames([]nic.Frame{frame(14)})
	file := end()
	in.WriteFrames([]nic.Frame{frame(60)}) // nor after
	if out.n != 4 {
		t.Errorf("%d frames went on, want 4", out.n)
	}

	list := parse(t, file)
	if got := string(list[1].options[optionName]); got != "eth0" {
		t.Errorf("interface %q", got)
	}
	if link, snap := le.Uint16(list[1].body), le.Uint32(list[1].body[4:]); link != 1 || snap != MaxSnaplen {
		t.Errorf("link type %d, snaplen %d", link, snap)
	}
	packets, dropped := packetsOf(t, file)
	if dropped != 0 || len(packets) != 3 {
		t.Fatalf("%d packets, %d dropped", len(packets), dropped)
	}
	for i, want := range []struct {
		n                           int
		flags, queue, hash, comment string
	}{
		{nic.MaxFrame, "\x01\x00\x00\x00", "\x03\x00\x00\x00", "\x05\x01\x02\x03\x04", "path synthetic, checksum to be completed, to be cut into TCP segments of 1448 bytes"},
		{61, "\x01\x00\x00\x00", "\x00\x00\x00\x00", "", "path vf, checksum verified"},
		{14, "\x02\x00\x00\x00", "", "", ""},
	} {
		b, whole := packets[i].data()
		if whole != want.n || !bytes.Equal(b, content(want.n)) {
			t.Errorf("packet %d: %d bytes of %d, or not the same", i, len(b), whole)
		}
		o := packets[i].options
		got := []string{string(o[optionFlags]), string(o[optionQueue]), string(o[optionHash]), string(o[optionComment])}
		if diff := cmp.Diff([]string{want.flags, want.queue, want.hash, want.comment}, got); diff != "" {
			t.Errorf("packet %d: -want +got:\n%s", i, diff)
		}
	}
}

func TestSnaplenAndCount(t *testing.T) {
	for _, snap := range []int{1, 14, nic.HeadLen, 129, 190, 200, 1000} {
		var p Point
		sink := p.Sink(plain{}, Place{})
		end := begin(t, &p, Config{Snaplen: snap, Count: 2})
		sink.WriteFrames([]nic.Frame{frame(250), frame(250), frame(250)})
		sink.WriteFrames([]nic.Frame{frame(250)})
		packets, dropped := packetsOf(t, end())
		if len(packets) != 2 || dropped != 0 {
			t.Errorf("snaplen %d: %d packets, %d dropped, want 2 and 0", snap, len(packets), dropped)
		}
		for _, one := range packets {
			b, whole := one.data()
			if want := content(250)[:min(snap, 250)]; whole != 250 || !bytes.Equal(b, want) {
				t.Errorf("snaplen %d: %d bytes of %d", snap, len(b), whole)
			}
		}
		if p.open.Load() != nil {
			t.Error("the capture is over, and still looked at")
		}
	}
}

// fixed gives frames of the given lengths.
type fixed struct {
	nic.Source
	lengths []int
}

func (s *fixed) ReadFrame(first, rest []byte) (int, nic.Offload, error) {
	if len(s.lengths) == 0 {
		return 0, nic.Offload{}, nic.ErrNoFrame
	}
	n := s.lengths[0]
	s.lengths = s.lengths[1:]
	b := content(n)
	copy(rest, b[copy(first, b):])
	return n, nic.Offload{Checksum: nic.ChecksumPartial}, nil
}

// A source is read as it was, in one piece and in two, and by the source itself while
// nobody captures.
func TestSource(t *testing.T) {
	var p Point
	src := &fixed{lengths: []int{100, 60, 1514, 9000, 128, 2000}}
	via := p.Source(src, Place{Direction: Outbound, Queue: func(f *nic.Frame) int { return len(f.Head) }})
	first, rest := make([]byte, 1514), make([]byte, 64<<10)
	if via.Batch() != nic.Source(src) {
		t.Error("nobody captures, and somebody is between")
	}
	if _, _, err := via.ReadFrame(first, rest); err != nil {
		t.Fatal(err)
	}
	end := begin(t, &p, Config{})
	batch := via.Batch()
	if batch == nic.Source(src) {
		t.Fatal("nobody is between")
	}
	lengths := []int{60, 1514, 9000, 128, 2000}
	for i, want := range lengths {
		if i == 4 {
			first = first[:40] // less than what is looked at
		}
		n, o, err := batch.ReadFrame(first, rest)
		if n != want || o.Checksum != nic.ChecksumPartial || err != nil {
			t.Fatalf("%d, %v, %v", n, o, err)
		}
	}
	if _, _, err := batch.ReadFrame(first, rest); err != nic.ErrNoFrame {
		t.Error(err)
	}
	packets, _ := packetsOf(t, end())
	if len(packets) != len(lengths) {
		t.Fatalf("%d packets, want %d", len(packets), len(lengths))
	}
	for i, want := range lengths {
		if b, whole := packets[i].data(); whole != want || !bytes.Equal(b, content(want)) {
			t.Errorf("packet %d: %d bytes of %d, or not the same", i, len(b), whole)
		}
		head := min(want, nic.HeadLen)
		if i == 4 {
			head = 40
		}
		if got := le.Uint32(packets[i].options[optionQueue]); int(got) != head {
			t.Errorf("packet %d: chosen by %d bytes, want %d", i, got, head)
		}
	}
}

// stuck is a reader of the file that does not read, until it is let go.
type stuck struct {
	bytes.Buffer
	held, free chan struct{}
	once       sync.Once
	writes     int
}

func (s *stuck) Write(b []byte) (int, error) {
	if s.writes++; s.writes > 1 { // the beginning of the file is read
		s.once.Do(func() { close(s.held) })
		<-s.free
	}
	return s.Buffer.Write(b)
}

// Whoever does not read the file makes packets drop, which are counted, and holds up
// nobody: there is room for a number of packets, and of bytes.
func TestDropsAreCounted(t *testing.T) {
	for _, length := range []int{14, nic.MaxFrame} {
		var p Point
		sink := p.Sink(plain{}, Place{})
		c, err := p.Capture(Config{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		w := &stuck{held: make(chan struct{}), free: make(chan struct{})}
		done := make(chan error, 1)
		go func() { done <- c.Write(ctx, w) }()
		sink.WriteFrames([]nic.Frame{frame(5000)})
		<-w.held
		room := min(bufferPackets, bufferBytes/length)
		f := []nic.Frame{frame(length)}
		for range room + 10 {
			sink.WriteFrames(f)
		}
		if diff := cmp.Diff(Counts{Captured: 1 + uint64(room), Dropped: 10}, c.Counts()); diff != "" {
			t.Errorf("frames of %d: -want +got:\n%s", length, diff)
		}
		close(w.free)
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if packets, dropped := packetsOf(t, w.Bytes()); len(packets) != 1+room || dropped != 10 {
			t.Errorf("frames of %d: %d packets in the file, %d dropped", length, len(packets), dropped)
		}
	}
}

var errFull = errors.New("the disk is full")

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errFull }

// A capture that can't be written is over.
func TestWriteFails(t *testing.T) {
	var p Point
	c, err := p.Capture(Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Write(t.Context(), full{}); !errors.Is(err, errFull) {
		t.Error(err)
	}
	if p.open.Load() != nil {
		t.Error("it goes on")
	}
}

func TestRefused(t *testing.T) {
	var p Point
	for _, cfg := range []Config{{Snaplen: -1}, {Snaplen: MaxSnaplen + 1}, {Count: -1}} {
		if _, err := p.Capture(cfg); !errors.Is(err, nic.ErrInvalid) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var all []*Capture
	for range maxCaptures {
		c, err := p.Capture(Config{})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	if _, err := p.Capture(Config{}); !errors.Is(err, nic.ErrBusy) {
		t.Errorf("one too many: %v", err)
	}
	for _, c := range all {
		if err := c.Write(ctx, io.Discard); err != nil {
			t.Error(err)
		}
	}
	if _, err := p.Capture(Config{}); err != nil {
		t.Errorf("there is room again: %v", err)
	}
}

// A message is a packet of the second interface, for those who want any.
func TestMessages(t *testing.T) {
	var p Point
	m := Message{Direction: Outbound, Protocol: "NVSP", Text: "guest> INIT", Bytes: []byte{1, 2, 3}}
	p.Message(m) // nobody listens
	without, with := begin(t, &p, Config{Name: "g1"}), begin(t, &p, Config{Name: "g1", Messages: true, Snaplen: 20})
	p.Message(m)
	p.Message(Message{Text: "stage data reached"})
	p.Sink(plain{}, Place{}).WriteFrames([]nic.Frame{frame(60)})
	if packets, _ := packetsOf(t, without()); len(packets) != 1 {
		t.Errorf("%d packets for who wants frames alone", len(packets))
	}
	list := parse(t, with())
	if list[2].typ != typeInterface || le.Uint16(list[2].body) != 252 || string(list[2].options[optionName]) != "g1 messages" {
		t.Fatalf("second interface: %+v", list[2])
	}
	var got []string
	for _, one := range list[3:6] {
		data, whole := one.data()
		if le.Uint32(one.body) == 1 && whole != len(data) {
			t.Error("a message was cut short")
		}
		got = append(got, fmt.Sprintf("%d %x %s %q", le.Uint32(one.body), one.options[optionFlags][0], one.options[optionComment], data))
	}
	want := []string{
		`1 2 guest> INIT "\x00\f\x00\x04data\x00!\x00\x04NVSP\x00#\x00\x04\x00\x00\x00\x00\x00$\x00\fguest> INIT\x00\x00\x00\x00\x00\x01\x02\x03"`,
		`1 1 stage data reached "\x00\f\x00\x04data\x00!\x00\bhvnet\x00\x00\x00\x00#\x00\x04\x00\x00\x00\x01\x00$\x00\x14stage data reached\x00\x00\x00\x00\x00\x00"`,
		`0 1  "\x00\x01\x02\x03\x04\x05\x06\a\b\t\n\v\f\r\x0e\x0f\x10\x11\x12\x13"`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	// A text that is longer than a tag can be.
	long := appendMessage(nil, &Message{Text: strings.Repeat("x", 1<<17), Bytes: []byte{7}})
	if n := len(long); n != 36+maxText+1 || long[n-1] != 7 {
		t.Errorf("%d bytes", n)
	}
}

// Memory that is taken away while a frame is copied ends the copy and nothing else.
func TestFault(t *testing.T) {
	var p Point
	sink := p.Sink(plain{}, Place{Queue: func(f *nic.Frame) int {
		if len(f.Head) == 13 {
			panic("as a fault does")
		}
		return 1
	}})
	end := begin(t, &p, Config{})
	sink.WriteFrames([]nic.Frame{frame(20)})
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic is for whoever sends")
			}
		}()
		sink.WriteFrames([]nic.Frame{frame(30), frame(13), frame(40)})
	}()
	sink.WriteFrames([]nic.Frame{frame(50)})
	packets, _ := packetsOf(t, end())
	var got []int
	for _, p := range packets {
		_, n := p.data()
		got = append(got, n)
	}
	if diff := cmp.Diff([]int{20, 30, 50}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// From many goroutines, while captures come and go.
func TestConcurrent(t *testing.T) {
	var p Point
	var senders sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		sink := p.Sink(plain{}, Place{})
		senders.Go(func() {
			batch := []nic.Frame{frame(60), frame(1514)}
			for {
				select {
				case <-stop:
					return
				default:
					sink.WriteFrames(batch)
				}
			}
		})
	}
	for range 10 {
		if packets, _ := packetsOf(t, begin(t, &p, Config{Count: 100})()); len(packets) != 100 {
			t.Errorf("%d packets, want 100", len(packets))
		}
	}
	close(stop)
	senders.Wait()
}

// The path of data allocates nothing, captured or not.
func TestNoAllocations(t *testing.T) {
	var p Point
	sink := p.Sink(plain{}, Place{Queue: Channel})
	src := &fixed{}
	via := p.Source(src, Place{Queue: Channel})
	batch := []nic.Frame{frame(60), frame(1514), frame(9000)}
	first := make([]byte, 2000)
	check := func(when string) {
		t.Helper()
		if n := testing.AllocsPerRun(100, func() {
			sink.WriteFrames(batch)
			via.Batch().ReadFrame(first, nil)
		}); n != 0 {
			t.Errorf("%s: %v allocations", when, n)
		}
	}
	check("off")
	c, err := p.Capture(Config{})
	if err != nil {
		t.Fatal(err)
	}
	check("on")
	if c.Counts().Captured == 0 {
		t.Error("nothing was captured")
	}
}

func BenchmarkOff(b *testing.B) {
	var p Point
	via := p.Source(&fixed{}, Place{})
	sink := p.Sink(plain{}, Place{})
	batch := []nic.Frame{frame(60)}
	b.Run("sink, a batch", func(b *testing.B) {
		for b.Loop() {
			sink.WriteFrames(batch)
		}
	})
	b.Run("source, a batch", func(b *testing.B) {
		for b.Loop() {
			via.Batch()
		}
	})
}

func BenchmarkOn(b *testing.B) {
	var p Point
	sink := p.Sink(plain{}, Place{})
	c, err := p.Capture(Config{})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- c.Write(ctx, io.Discard) }()
	batch := []nic.Frame{frame(1514)}
	for b.Loop() {
		sink.WriteFrames(batch)
	}
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}
