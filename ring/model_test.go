package ring

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// model is a ring with both ends, and what it should be: a queue.
type model struct {
	mem []byte
	p   *Producer
	c   *Consumer

	size     int   // of the data area
	staged   []int // sizes of the packets put but not published
	queued   []int // published, not taken
	taken    int   // bytes taken, not released
	put, got uint64

	masked  bool
	pending int
}

// bytesOf returns what packets of the given sizes take.
func bytesOf(sizes []int) (n int) {
	for _, s := range sizes {
		n += Need(s)
	}
	return n
}

func (m *model) free() int {
	return m.size - 8 - bytesOf(m.staged) - bytesOf(m.queued) - m.taken
}

// TestModel lets random calls of both ends follow each other and compares each
// result with a queue.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pages := rapid.IntRange(1, 3).Draw(t, "pages")
		m := &model{mem: newMemory(pages), size: pages * HeaderSize}
		startAt(m.mem, 8*rapid.IntRange(0, m.size/8-1).Draw(t, "start"))
		var err error
		if m.p, err = NewProducer(m.mem); err != nil {
			t.Fatal(err)
		}
		if m.c, err = NewConsumer(m.mem); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, m.size)
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				size := rapid.OneOf(rapid.IntRange(16, 128), rapid.IntRange(16, m.size+16)).Draw(t, "size")
				var want error
				switch {
				case Need(size) > m.size-8:
					want = ErrTooBig
				case Need(size) > m.free():
					want = ErrFull
				}
				if got := m.p.Put(packet(size, m.put)); got != want {
					t.Fatalf("Put of %d bytes with %d free: %v, want %v", size, m.free(), got, want)
				}
				if want == nil {
					m.staged = append(m.staged, size)
					m.put++
				}
			},
			"publish": func(t *rapid.T) {
				want := len(m.staged) > 0 && len(m.queued) == 0 && m.taken == 0 && !m.masked
				m.queued = append(m.queued, m.staged...)
				m.staged = nil
				if got := m.p.Publish(); got != want {
					t.Fatalf("Publish: signal %v, want %v", got, want)
				}
			},
			"next": func(t *rapid.T) {
				b, err := m.c.Next(buf)
				if len(m.queued) == 0 {
					if err != ErrEmpty {
						t.Fatalf("Next of an empty ring: %v", err)
					}
					return
				}
				head, body := packet(m.queued[0], m.got)
				if err != nil || len(b) != Need(m.queued[0])-Trailer {
					t.Fatalf("Next: %d bytes, %v, want %d", len(b), err, m.queued[0])
				}
				if string(b[8:16]) != string(head[8:]) || string(b[16:m.queued[0]]) != string(body) {
					t.Fatalf("packet %d differs", m.got)
				}
				m.got++
				m.taken += Need(m.queued[0])
				m.queued = m.queued[1:]
			},
			"release": func(t *rapid.T) {
				// What is put and not published yet, the consumer cannot know of.
				before := m.free() + bytesOf(m.staged)
				after := before + m.taken
				want := m.taken > 0 && m.pending > 0 && before < m.pending && m.pending <= after
				m.taken = 0
				if got := m.c.Release(); got != want {
					t.Fatalf("Release: signal %v, want %v", got, want)
				}
			},
			"mask": func(*rapid.T) {
				m.c.Mask()
				m.masked = true
			},
			"unmask": func(t *rapid.T) {
				want := len(m.queued) > 0
				if got := m.c.Unmask(); got != want {
					t.Fatalf("Unmask: %v, want %v", got, want)
				}
				m.masked = want
			},
			"await": func(t *rapid.T) {
				n := 8 * rapid.IntRange(1, m.size/8-1).Draw(t, "n")
				want := n <= m.free()
				if got := m.p.AwaitRoom(n); got != want {
					t.Fatalf("AwaitRoom(%d) with %d free: %v", n, m.free(), got)
				}
				m.pending = n
				if want {
					m.pending = 0
				}
			},
			"stop awaiting": func(*rapid.T) {
				m.p.StopAwaiting()
				m.pending = 0
			},
			"": func(t *rapid.T) {
				if m.p.Err() != nil || m.c.Err() != nil {
					t.Fatal(m.p.Err(), m.c.Err())
				}
				if m.p.Free() != m.free() || m.c.Used() != bytesOf(m.queued) || m.c.Empty() != (len(m.queued) == 0) {
					t.Fatalf("free %d, used %d, want %d and %d", m.p.Free(), m.c.Used(), m.free(), bytesOf(m.queued))
				}
			},
		})
	})
}

// TestConcurrently lets a producer and a consumer run against each other. Both
// sleep whenever the rules allow it and wake only by signals, so one lost signal
// stops the test.
func TestConcurrently(t *testing.T) {
	for _, batch := range []int{1, 3, 32} {
		for _, pages := range []int{1, 4} {
			t.Run(fmt.Sprintf("batch=%d/pages=%d", batch, pages), func(t *testing.T) {
				concurrently(t, pages, batch, 10000)
			})
		}
	}
}

func concurrently(t *testing.T, pages, batch int, packets uint64) {
	p, c := ends(t, newMemory(pages))
	data, room := make(chan struct{}, 1), make(chan struct{}, 1)
	ring := func(bell chan struct{}) {
		select {
		case bell <- struct{}{}:
		default: // still to be heard
		}
	}
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	done := make(chan error, 2)
	quit := make(chan struct{})

	go func() { // the producer
		for i := uint64(0); i < packets; i++ {
			size := 16 + int(i*37%900)
			head, body := packet(size, i)
			for {
				err := p.Put(head, body)
				if err == nil {
					break
				}
				if err != ErrFull {
					done <- fmt.Errorf("put: %w: %w", err, p.Err())
					return
				}
				if p.Publish() {
					ring(data)
				}
				if !p.AwaitRoom(Need(size)) {
					select {
					case <-room:
					case <-quit:
						done <- fmt.Errorf("the producer waits for room at packet %d", i)
						return
					}
				}
				p.StopAwaiting()
			}
			if i%uint64(batch) == 0 || i == packets-1 {
				if p.Publish() {
					ring(data)
				}
			}
		}
		done <- nil
	}()

	go func() { // the consumer
		buf := make([]byte, 1024)
		for i := uint64(0); i < packets; {
			c.Mask()
			for n := 0; ; n++ {
				b, err := c.Next(buf)
				if err == ErrEmpty {
					break
				}
				if err != nil {
					done <- fmt.Errorf("next: %w: %w", err, c.Err())
					return
				}
				head, body := packet(16+int(i*37%900), i)
				if string(b[8:16]) != string(head[8:]) || string(b[16:16+len(body)]) != string(body) {
					done <- fmt.Errorf("packet %d differs", i)
					return
				}
				i++
				if n%batch == 0 && c.Release() {
					ring(room)
				}
			}
			if c.Release() {
				ring(room)
			}
			if i < packets && !c.Unmask() {
				select {
				case <-data:
				case <-quit:
					done <- fmt.Errorf("the consumer waits for packet %d", i)
					return
				}
			}
		}
		done <- nil
	}()

	for range 2 {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-deadline.C:
			t.Error("a signal was lost")
			close(quit)
			<-done
		}
	}
}
