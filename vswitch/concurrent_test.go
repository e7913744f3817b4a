package vswitch

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"hvnet/nic"
)

// sum counts frames without keeping them.
type sum struct{ n atomic.Uint64 }

func (s *sum) WriteFrames(frames []nic.Frame) { s.n.Add(uint64(len(frames))) }

// TestConcurrent lets many goroutines send, move, connect, close and look at the
// switch at once; then every frame that two quiet ports exchanged must be there.
func TestConcurrent(t *testing.T) {
	s := New(Config{Stations: 64, StationsPerPort: 16})
	var a, b sum
	pa, err := s.Connect("a", &a, PortOptions{MAC: mac(1)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Connect("b", &b, PortOptions{MAC: mac(2)}); err != nil {
		t.Fatal(err)
	}
	const rounds = 300
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() { // noise: ports that come and go and change VLANs, stations that move
			r := rand.New(rand.NewPCG(1, uint64(g)))
			for range rounds {
				p, err := s.Connect("noise", new(sum), PortOptions{})
				if err != nil {
					t.Error(err)
					return
				}
				var batch []nic.Frame
				for range 8 {
					batch = append(batch, frame(mac(byte(100+r.IntN(20))), mac(byte(100+r.IntN(20))), 0))
				}
				p.WriteFrames(batch)
				s.SetVLAN("noise", Access(uint16(r.IntN(3))))
				p.WriteFrames(batch)
				s.Ports()
				p.Close()
			}
		})
		wg.Go(func() { // two stations that talk over several queues at once
			for range rounds {
				pa.WriteFrames([]nic.Frame{frame(mac(2), mac(1), 0), frame(mac(2), mac(1), 0)})
			}
		})
	}
	wg.Wait()
	if got, want := b.n.Load(), uint64(4*rounds*2); got != want {
		t.Errorf("b got %d frames, want %d", got, want)
	}
	if a.n.Load() != 0 {
		t.Errorf("a got %d frames back", a.n.Load())
	}
	if len(s.stations) != 0 || len(s.fixed) != 2 {
		t.Errorf("stations of closed ports are left: %d learned, %d fixed", len(s.stations), len(s.fixed))
	}
}

// batches returns a unicast, a flooded and a mixed batch from mac(1).
func batches() map[string][]nic.Frame {
	m := map[string][]nic.Frame{}
	for i := range 32 {
		m["unicast"] = append(m["unicast"], frame(mac(2), mac(1), byte(i)))
		m["flood"] = append(m["flood"], frame(nic.Broadcast, mac(1), byte(i)))
		m["mixed"] = append(m["mixed"], frame(mac(byte(2+i%2)), mac(1), byte(i)))
	}
	return m
}

func quietSwitch(t testing.TB) *Port {
	t.Helper()
	s := New(Config{})
	p, err := s.Connect("a", new(sum), PortOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		q, err := s.Connect("b", new(sum), PortOptions{})
		if err != nil {
			t.Fatal(err)
		}
		q.WriteFrames([]nic.Frame{frame(mac(1), mac(byte(2+i)), 0)})
	}
	return p
}

func TestNoAllocation(t *testing.T) {
	p := quietSwitch(t)
	for name, batch := range batches() {
		p.WriteFrames(batch) // fill the pool
		// The pool may be emptied by a collection, so single allocations per
		// many batches are not the data path's.
		if n := testing.AllocsPerRun(1000, func() { p.WriteFrames(batch) }); n > 0 && !raceEnabled {
			t.Errorf("%s: %v allocations per batch of %d", name, n, len(batch))
		}
	}
}

func BenchmarkWriteFrames(b *testing.B) {
	p := quietSwitch(b)
	for name, batch := range batches() {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p.WriteFrames(batch)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(batch)), "ns/frame")
		})
	}
}

// FuzzSwitch sends frames made of random bytes from several ports: nothing may
// panic, no frame may return to its port, and the bounds hold.
func FuzzSwitch(f *testing.F) {
	f.Add([]byte{0, 20, 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 1, 14, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1})
	f.Add([]byte{2, 0, 1, 1, 9})
	f.Fuzz(func(t *testing.T, data []byte) {
		s, p, c := ports(t, Config{Stations: 8, StationsPerPort: 4}, 3)
		for len(data) >= 2 {
			from, n := int(data[0])%3, min(int(data[1]), len(data)-2)
			body := data[2 : 2+n]
			data = data[2+n:]
			head := min(n, 14)
			p[from].WriteFrames([]nic.Frame{{Head: body[:head], Body: [][]byte{body[head:]}}})
			if len(c[from].frames) != 0 {
				t.Fatalf("port %d got its own frame", from)
			}
			for i := range c {
				for _, f := range c[i].frames {
					if len(f) != n {
						t.Fatalf("frame of %d bytes arrived with %d", n, len(f))
					}
				}
				c[i].frames = nil
			}
		}
		total := 0
		for _, info := range s.Ports() {
			if len(info.Stations) > 4 {
				t.Fatalf("%s has %d stations", info.Name, len(info.Stations))
			}
			total += len(info.Stations)
		}
		if total > 8 || total != len(s.stations) {
			t.Fatalf("%d stations, %d counted", total, len(s.stations))
		}
	})
}
