package netvsp

import (
	"fmt"
	"testing"

	"hvnet/nic"
	"hvnet/nvsp"
	"hvnet/rndis"
	"hvnet/vmbus"
)

// counting is a port that only counts.
type counting struct{ n uint64 }

func (c *counting) WriteFrames(frames []nic.Frame) { c.n += uint64(len(frames)) }
func (c *counting) Close()                         {}

// quiet is a guest that is up and whose queue the test drives by itself: its
// goroutine has been stopped, so that what is measured is one side alone.
func quiet(t testing.TB) (g *fakeGuest, q *queue, port *counting) {
	g = newGuest(t, "ws2022")
	g.up(nvsp.V61)
	g.settle()
	q = g.backend.(*backend).s.primary()
	q.once.Do(func() { close(q.quit) })
	<-q.exited
	q.taking.Lock()
	q.over = true // interrupts leave it alone too
	q.taking.Unlock()
	port = new(counting)
	q.s.port = port
	return g, q, port
}

// A sender puts batches of ring packets with one frame each into the ring and
// takes the completions out.
type sender struct {
	g       *fakeGuest
	packets int
	heads   [][]byte
	body    [][]byte
}

func newSender(g *fakeGuest, packets, perPacket, size int) *sender {
	s := &sender{g: g, packets: packets}
	var msgs []byte
	for range perPacket {
		m := packet(ether(otherMAC, guestMAC, size, 0), &rndis.Info{Has: rndis.HasHash, Hash: 1})
		for len(m)%8 != 0 {
			m = append(m, 0)
		}
		rndis.SetPacketLength(m, len(m))
		msgs = append(msgs, m...)
	}
	for i := range packets {
		section := i % 10
		copy(g.send.Bytes[section*6144:], msgs)
		s.heads = append(s.heads, vmbus.AppendInBand(nil, vmbus.FlagCompletionRequested, uint64(i+1)))
		m := nvsp.RNDISPacket{Section: uint32(section), SectionBytes: uint32(len(msgs))}
		s.body = append(s.body, nvsp.Pad(m.Append(nil), 0, nvsp.MaxSize))
	}
	return s
}

func (s *sender) put() {
	ch := s.g.ch
	ch.Lock()
	for i := range s.packets {
		if err := ch.Out.Put(s.heads[i], s.body[i]); err != nil {
			panic(err)
		}
	}
	ch.Flush()
	ch.Unlock()
}

func (s *sender) reap() (n int) {
	ch := s.g.ch
	for {
		if _, err := ch.In.Next(s.g.buf[:]); err != nil {
			break
		}
		n++
	}
	ch.Release()
	return n
}

// A receiver takes what was delivered and returns the sections.
type receiver struct {
	g    *fakeGuest
	tids []uint64
	head []byte
	done []byte
}

func (r *receiver) take() (n int) {
	ch := r.g.ch
	r.tids = r.tids[:0]
	for {
		b, err := ch.In.Next(r.g.buf[:])
		if err != nil {
			break
		}
		p, err := vmbus.ParsePacket(b)
		if err != nil {
			panic(err)
		}
		r.tids = append(r.tids, p.TID)
		n++
	}
	ch.Release()
	ch.Lock()
	for _, tid := range r.tids {
		if err := ch.Out.Put(vmbus.AppendCompletion(r.head[:0], tid), r.done); err != nil {
			panic(err)
		}
	}
	ch.Flush()
	ch.Unlock()
	return n
}

func newReceiver(g *fakeGuest) *receiver {
	return &receiver{g: g, tids: make([]uint64, 0, 64), head: make([]byte, 0, 16),
		done: nvsp.RNDISPacketComplete{Status: nvsp.StatusSuccess}.Append(nil)}
}

func batchOf(n, size int) []nic.Frame {
	var list [][]byte
	for range n {
		list = append(list, ether(guestMAC, otherMAC, size, 0))
	}
	return frames(list...)
}

func TestNoAllocation(t *testing.T) {
	g, q, port := quiet(t)
	for _, per := range []int{1, 4} {
		s := newSender(g, 16, per, 300)
		port.n = 0
		if n := testing.AllocsPerRun(200, func() {
			s.put()
			q.take()
			if s.reap() != 16 {
				t.Fatal("completions are missing")
			}
		}); n != 0 {
			t.Errorf("from the guest: %v allocations per batch of 16 packets of %d frames", n, per)
		}
		if want := uint64(201 * 16 * per); port.n != want {
			t.Errorf("%d frames at the port, want %d", port.n, want)
		}
	}
	r := newReceiver(g)
	batch := batchOf(32, 300)
	if n := testing.AllocsPerRun(200, func() {
		g.dev.WriteFrames(batch)
		if r.take() != 1 {
			t.Fatal("the packet is missing")
		}
		q.take()
	}); n != 0 {
		t.Errorf("to the guest: %v allocations per batch of 32", n)
	}
	if info := g.dev.Info(); info.Faults != 0 || len(info.RxDropped) != 0 || info.Receive.InFlight != 0 {
		t.Errorf("%+v", info)
	}
}

// BenchmarkFromGuest is the device's side of a frame from the guest, ring and
// completion included; the guest's side is in the loop too, for it has to be.
func BenchmarkFromGuest(b *testing.B) {
	for _, size := range []int{64, 1500} {
		for _, per := range []int{1, 4} {
			if size*per > 4500 {
				per = 3
			}
			b.Run(fmt.Sprintf("%d/%d", size, per), func(b *testing.B) {
				g, q, port := quiet(b)
				s := newSender(g, 32, per, size)
				port.n = 0
				b.ReportAllocs()
				for b.Loop() {
					s.put()
					q.take()
					s.reap()
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(port.n), "ns/frame")
			})
		}
	}
}

func BenchmarkToGuest(b *testing.B) {
	for _, size := range []int{64, 1500} {
		for _, n := range []int{1, 32} {
			b.Run(fmt.Sprintf("%d/%d", size, n), func(b *testing.B) {
				g, q, _ := quiet(b)
				r := newReceiver(g)
				batch := batchOf(n, size)
				b.ReportAllocs()
				for b.Loop() {
					g.dev.WriteFrames(batch)
					r.take()
					q.take()
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(g.dev.Stats().RxFrames), "ns/frame")
			})
		}
	}
}
