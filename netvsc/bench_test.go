package netvsc

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"hvnet/internal/packets"
	"hvnet/nic"
	"hvnet/nvsp"
	"hvnet/offload"
	"hvnet/ring"
	"hvnet/rndis"
	"hvnet/vmbus"
)

// A quickHost replaces the scripted end of channel 0 once a NIC is up: it answers
// at once, in batches, and looks at nothing.
type quickHost struct {
	q   *fakeQueue
	buf []byte
	out []byte
}

// quick stops the script of channel 0 and returns the end in its place.
func quick(h *fakeHost) *quickHost {
	q := h.queue(0)
	close(q.stop)
	<-q.stopped
	return &quickHost{q: q, buf: make([]byte, 8192), out: make([]byte, 0, 8192)}
}

// back puts the script in its place again.
func (x *quickHost) back() {
	x.q.stop, x.q.stopped = make(chan struct{}), make(chan struct{})
	go x.q.run()
	x.q.ch.Wake()
}

// serve reads what there is and completes it. It returns the number of packets.
func (x *quickHost) serve() (n int) {
	ch := x.q.ch
	ch.Lock()
	defer ch.Unlock()
	for {
		b, err := ch.In.Next(x.buf)
		if err == ring.ErrEmpty {
			break
		}
		n++
		p, _ := vmbus.ParsePacket(b)
		if p.Type == vmbus.PacketCompletion {
			continue
		}
		x.out = nvsp.RNDISPacketComplete{Status: nvsp.StatusSuccess}.Append(vmbus.AppendCompletion(x.out[:0], p.TID))
		for ch.Out.Put(x.out, nil) != nil {
			ch.Flush()
			runtime.Gosched()
		}
	}
	ch.Release()
	ch.Flush()
	return n
}

// give sends count packets of the given ranges.
func (x *quickHost) give(count int, ranges []vmbus.ByteRange) {
	ch := x.q.ch
	ch.Lock()
	defer ch.Unlock()
	for range count {
		x.out = vmbus.AppendTransferPages(x.out[:0], 1<<32, nvsp.ReceiveBufferID, ranges)
		x.out = nvsp.RNDISPacket{Section: nvsp.NoSection}.Append(x.out)
		for ch.Out.Put(x.out, nil) != nil {
			ch.Flush()
			runtime.Gosched()
		}
	}
	ch.Flush()
}

// A counting sink.
type counting struct{ frames, bytes int }

func (c *counting) WriteFrames(f []nic.Frame) {
	c.frames += len(f)
	for i := range f {
		c.bytes += f[i].Len()
	}
}

// still opens a NIC on one channel whose goroutine is the caller: nothing runs but
// what is called.
func still(t testing.TB, queues int, sink nic.Sink) (*fakeHost, *NIC, *quickHost) {
	h := newFakeHost()
	n := open(t, h, Config{Queues: queues})
	if err := n.Up(context.Background(), sink); err != nil {
		t.Fatal(err)
	}
	x := quick(h)
	q := n.session.Load().queues[0]
	q.end()
	q.leaving.Store(false) // the caller takes what there is in its place
	t.Cleanup(func() {
		q.closing, q.ended = make(chan struct{}), make(chan struct{})
		go q.run()
		q.ch.Wake()
		x.back()
	})
	return h, n, x
}

// drainAll works off everything in both rings.
func drainAll(q *queue, x *quickHost) {
	for x.serve() > 0 || q.poll() {
	}
}

func TestNoAllocations(t *testing.T) {
	h, n, x := still(t, 1, &counting{})
	q := n.session.Load().queues[0]
	var frames []nic.Frame
	for i := range 32 {
		frames = append(frames, asFrame(frame(i, 64+i*40)))
	}
	check := func(what string, f func()) {
		for range 100 {
			f()
		}
		if a := testing.AllocsPerRun(100, f); a != 0 {
			t.Errorf("%s: %v allocations for 32 frames", what, a)
		}
	}
	check("Send", func() {
		if n.Send(0, frames) != len(frames) {
			t.Error("Send refused frames")
		}
		drainAll(q, x)
	})
	src := &loop{frame: frame(1, 64)}
	p := &pump{n: n, src: src}
	check("Pump", func() {
		src.left = 32
		if err := p.round(); err != nic.ErrNoFrame {
			t.Error(err)
		}
		drainAll(q, x)
	})
	large := packets.Partial(packets.Shape{TCPOptions: 12}.Frame(packets.Random(60000)), nic.SegmentTCPv4, 1448)
	src.frame, src.meta = packets.Bytes(&large), large.Offload
	check("Pump of frames that the driver cuts", func() {
		src.left = 1
		if err := p.round(); err != nic.ErrNoFrame {
			t.Error(err)
		}
		drainAll(q, x)
	})
	q.s.features.Store(&features{send: offloads{tcp4: true, lso4: largeSend{62780, 2}}})
	check("Pump of large sends", func() {
		src.left = 16
		if err := p.round(); err != nic.ErrNoFrame {
			t.Error(err)
		}
		drainAll(q, x)
	})
	one := []nic.Frame{large}
	check("Send of large sends", func() {
		if n.Send(0, one) != 1 {
			t.Error("Send refused the frame")
		}
		drainAll(q, x)
	})
	cut := packets.Partial(packets.Shape{UDP: true}.Frame(packets.Random(20000)), nic.SegmentUDP, 1400)
	one = []nic.Frame{cut}
	check("Send of what is cut here", func() {
		if n.Send(0, one) != 1 {
			t.Error("Send refused the frame")
		}
		drainAll(q, x)
	})
	ranges := receiveRanges(x, 1500)
	check("receive", func() {
		x.give(8, ranges[:4])
		drainAll(q, x)
	})
	part := frame(1, 1500)
	for i, m := range pieceMessages(rndis.Info{}, []piece{{first, part}, {middle, part}, {middle, part}, {last, part}}) {
		copy(h.rx.Bytes[ranges[i].Offset:], m)
		ranges[i].Count = uint32(len(m))
	}
	check("receive coalesced", func() {
		x.give(8, ranges[:4])
		drainAll(q, x)
	})
}

// TestNoAllocationsGRO: the same for what goes up as one frame.
func TestNoAllocationsGRO(t *testing.T) {
	sink := &groSink{}
	h, n, x := still(t, 1, sink)
	q := n.session.Load().queues[0]
	ranges := receiveRanges(x, 1500)
	messages, _ := segmentMessages(4*1400, 1400, nil)
	for i, m := range messages {
		copy(h.rx.Bytes[ranges[i].Offset:], m)
		ranges[i].Count = uint32(len(m))
	}
	receive := func() {
		x.give(8, ranges[:4])
		drainAll(q, x)
	}
	receive()
	if a := testing.AllocsPerRun(100, receive); a != 0 {
		t.Errorf("%v allocations for 32 frames", a)
	}
	if sink.bytes < 3*1400*sink.frames { // each packet of the ring is four segments again
		t.Errorf("%d bytes in %d frames", sink.bytes, sink.frames)
	}
}

// A groSink is a counting sink that takes frames to be cut.
type groSink struct{ counting }

func (*groSink) Takes() nic.Offloads { return nic.TakesChecksum | nic.TakesTCPv4 | nic.TakesTCPv6 }

// TestNoAllocationsOverChannels: the same for flows of one channel of several.
func TestNoAllocationsOverChannels(t *testing.T) {
	_, n, x := still(t, 4, &counting{})
	s := n.session.Load()
	p := &pump{n: n, send: newSender(s)}
	p.send.begin()
	var frames []nic.Frame
	for i := 0; len(frames) < 8; i++ {
		if l, _ := p.send.lane(p.send.flow(frame(i, 64))); l.q.index == 0 {
			frames = append(frames, asFrame(frame(i, 64)))
		}
	}
	src := &loop{frame: frames[0].Head}
	p.src = src
	parts := []nic.Frame{asFrame(fragment(1, 0, 0, true)), asFrame(fragment(1, 0, 1480, false)), asFrame(numbered(1, 1))}
	for address, l := byte(0), p.send.table[1]; l.q.index != 0; address++ {
		for _, f := range parts {
			f.Head[33] = address // the target's last byte
		}
		l, _ = p.send.lane(offload.FastFlow(parts[1].Head, offload.HashAll).Pair)
	}
	for what, f := range map[string]func(){
		"Send": func() {
			if n.Send(0, frames) != len(frames) {
				t.Error("Send refused frames")
			}
		},
		"Pump": func() {
			src.left = 32
			if err := p.round(); err != nic.ErrNoFrame {
				t.Error(err)
			}
		},
		"fragments": func() {
			for i := range parts {
				for n.Send(0, parts[i:i+1]) == 0 {
					runtime.Gosched()
				}
			}
		},
		"another table": func() {
			table := s.table.Load()
			s.table.Store(nil)
			n.Send(0, frames[:1])
			s.table.Store(table)
		},
	} {
		both := func() { f(); drainAll(s.queues[0], x) }
		for range 100 {
			both()
		}
		if a := testing.AllocsPerRun(100, both); a != 0 {
			t.Errorf("%s: %v allocations", what, a)
		}
	}
}

// receiveRanges writes 16 frames into the receive buffer.
func receiveRanges(x *quickHost, size int) (ranges []vmbus.ByteRange) {
	for i := range 16 {
		m := packetMessage(frame(i, size), nil)
		at := (100 + i) * x.q.h.rxSection
		copy(x.q.h.rx.Bytes[at:], m)
		ranges = append(ranges, vmbus.ByteRange{Count: uint32(len(m)), Offset: uint32(at)})
	}
	return ranges
}

// loop is a source of the same frame.
type loop struct {
	frame []byte
	left  int
	meta  nic.Offload
}

func (l *loop) ReadFrame(first, rest []byte) (int, nic.Offload, error) {
	if l.left == 0 {
		return 0, nic.Offload{}, nic.ErrNoFrame
	}
	l.left--
	copy(rest, l.frame[copy(first, l.frame):])
	return len(l.frame), l.meta, nil
}
func (l *loop) Wait() error { return nil }
func (l *loop) Wake()       {}

// BenchmarkSend measures the driver alone, sending and completion: the host's part
// is small and in the same goroutine.
func BenchmarkSend(b *testing.B) { benchmarkSend(b, 0) }

// BenchmarkSendNoted is BenchmarkSend while somebody wants to know of flows.
func BenchmarkSendNoted(b *testing.B) { benchmarkSend(b, maxLook) }

// benchmarkSend has flows noted for some time.
func benchmarkSend(b *testing.B, noted time.Duration) {
	for _, queues := range []int{1, 2} {
		for _, size := range []int{64, 1500} {
			b.Run(fmt.Sprintf("channels=%d/size=%d", queues, size), func(b *testing.B) {
				h, n, x := still(b, queues, &counting{})
				_ = h
				if noted > 0 {
					n.Flows(0, noted)
				}
				q := n.session.Load().queues[0]
				var frames []nic.Frame
				for range 64 {
					frames = append(frames, asFrame(frame(1, size)))
				}
				s := n.session.Load().senders[0]
				s.begin()
				if l, _ := s.lane(s.flow(frames[0].Head)); l.q != q {
					b.Skip("flow is of another channel")
				}
				b.ReportAllocs()
				b.ResetTimer()
				b.SetBytes(int64(size))
				for i := 0; i < b.N; i += len(frames) {
					if n.Send(0, frames) != len(frames) {
						b.Fatal("Send refused frames")
					}
					drainAll(q, x)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N), "ns/frame")
			})
		}
	}
}

func BenchmarkPump(b *testing.B) {
	for _, size := range []int{64, 1500} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			_, n, x := still(b, 1, &counting{})
			q := n.session.Load().queues[0]
			src := &loop{frame: frame(1, size)}
			p := &pump{n: n, src: src}
			b.ReportAllocs()
			b.ResetTimer()
			b.SetBytes(int64(size))
			for i := 0; i < b.N; i += pumpBatch {
				src.left = pumpBatch
				if err := p.round(); err != nil {
					b.Fatal(err)
				}
				drainAll(q, x)
			}
		})
	}
}

func BenchmarkReceive(b *testing.B) {
	for _, ranges := range []int{1, 16} {
		for _, size := range []int{64, 1500} {
			b.Run(fmt.Sprintf("ranges=%d/size=%d", ranges, size), func(b *testing.B) {
				sink := &counting{}
				_, n, x := still(b, 1, sink)
				q := n.session.Load().queues[0]
				list := receiveRanges(x, size)[:ranges]
				b.ReportAllocs()
				b.ResetTimer()
				b.SetBytes(int64(size))
				for i := 0; i < b.N; i += 64 {
					x.give(64/ranges, list)
					drainAll(q, x)
				}
				if sink.frames < b.N {
					b.Errorf("%d of %d frames arrived", sink.frames, b.N)
				}
			})
		}
	}
}

// BenchmarkAcross has driver and host on goroutines of their own.
func BenchmarkAcross(b *testing.B) {
	for _, size := range []int{64, 1500} {
		b.Run(fmt.Sprintf("send/size=%d", size), func(b *testing.B) {
			h := newFakeHost()
			n := open(b, h, Config{Queues: 1})
			if err := n.Up(context.Background(), &counting{}); err != nil {
				b.Fatal(err)
			}
			x := quick(h)
			stop, stopped := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(stopped)
				for {
					select {
					case <-stop:
						return
					case <-x.q.ch.Event():
					}
					x.q.ch.In.Mask()
					for x.serve() > 0 || x.q.ch.In.Unmask() {
					}
				}
			}()
			var frames []nic.Frame
			for range 64 {
				frames = append(frames, asFrame(frame(1, size)))
			}
			b.ReportAllocs()
			b.ResetTimer()
			b.SetBytes(int64(size))
			for i := 0; i < b.N; {
				k := n.Send(0, frames)
				if i += k; k < len(frames) {
					runtime.Gosched()
				}
			}
			b.StopTimer()
			close(stop)
			<-stopped
			x.back()
		})
	}
}
