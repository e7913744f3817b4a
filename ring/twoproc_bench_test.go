//go:build linux

package ring

import (
	"fmt"
	"math"
	"testing"
	"time"
)

// peerPong answers each ping.
func peerPong(mem []byte, w *waiter) error {
	for i := uint32(1); ; i++ {
		if err := w.until(wordAt(mem, pingAt), i); err != nil {
			return err
		}
		wordAt(mem, pongAt).Store(i)
	}
}

// peerPlain takes slots from the plain ring.
func peerPlain(mem []byte, w *waiter) error {
	head, tail := wordAt(mem, headAt), wordAt(mem, tailAt)
	buf := make([]byte, 64)
	for t, h := uint32(0), uint32(0); ; {
		if h == t {
			if h = head.Load(); h == t {
				if err := w.wait(); err != nil {
					return err
				}
				if w.spins == run {
					tail.Store(t)
				}
				continue
			}
		}
		w.progress()
		copy(buf, plainSlot(mem, t))
		if t++; t%run == 0 {
			tail.Store(t)
		}
	}
}

func plainSlot(mem []byte, i uint32) []byte {
	at := plainAt + 64*int(i%plainSlots)
	return mem[at : at+64]
}

// send sends packets of 64 bytes and waits until all are taken.
func send(p *Producer, w *waiter, packets, batch int) error {
	head, body := packet(64, 1)
	for i := 1; i <= packets; {
		switch err := p.Put(head, body); err {
		case nil:
			if i%batch == 0 || i == packets {
				p.Publish()
			}
			i++
		case ErrFull:
			p.Publish()
			if err := w.wait(); err != nil {
				return err
			}
		default:
			return err
		}
	}
	w.progress()
	for p.Free() < p.Size()-8 {
		if err := w.wait(); err != nil {
			return err
		}
	}
	return p.Err()
}

// sendPlain is send with the plain ring, for the slots from first to end.
func sendPlain(mem []byte, w *waiter, first, end, batch int) error {
	head, tail := wordAt(mem, headAt), wordAt(mem, tailAt)
	body := make([]byte, 64)
	seen := tail.Load()
	for h := uint32(first); h < uint32(end); {
		if h-seen == plainSlots {
			head.Store(h)
			if seen = tail.Load(); h-seen == plainSlots {
				if err := w.wait(); err != nil {
					return err
				}
			}
			continue
		}
		copy(plainSlot(mem, h), body)
		h++
		if h%uint32(batch) == 0 || h == uint32(end) {
			head.Store(h)
		}
	}
	w.progress()
	return w.until(tail, uint32(end))
}

// BenchmarkTwoProcesses is 64-byte packets from this process to another. It
// measures in one run what it compares: the time in which a cache line changes
// hands, and a ring of slots of 64 bytes without any of VMBus's rules. The producer
// publishes each packet or each 32; the consumer takes what is there.
//
// The work is done in pieces, and the ratios are those of the best pieces: the mean
// also tells what else the machine did.
func BenchmarkTwoProcesses(b *testing.B) {
	var handover float64
	measure(b, "handover", "pong", 1000, func(mem []byte, w *waiter) (func(n int) error, error) {
		i := uint32(0)
		return func(n int) error {
			for range n {
				i++
				wordAt(mem, pingAt).Store(i)
				if err := w.until(wordAt(mem, pongAt), i); err != nil {
					return err
				}
			}
			return nil
		}, nil
	}, func(b *testing.B, best float64) {
		handover = best / 2
		b.ReportMetric(handover, "best-one-way-ns")
	})

	for _, batch := range []int{1, 32} {
		var plain float64
		measure(b, fmt.Sprintf("plain/batch=%d", batch), "plain", 100_000, func(mem []byte, w *waiter) (func(n int) error, error) {
			done := 0
			return func(n int) error {
				done += n
				return sendPlain(mem, w, done-n, done, batch)
			}, nil
		}, func(b *testing.B, best float64) {
			plain = best
			b.ReportMetric(best, "best-ns")
			b.ReportMetric(best/handover, "handovers/packet")
		})
		measure(b, fmt.Sprintf("ring/batch=%d", batch), "consume", 100_000, func(mem []byte, w *waiter) (func(n int) error, error) {
			p, err := NewProducer(mem[upAt:downAt])
			return func(n int) error { return send(p, w, n, batch) }, err
		}, func(b *testing.B, best float64) {
			b.ReportMetric(best, "best-ns")
			b.ReportMetric(best/handover, "handovers/packet")
			b.ReportMetric(best/plain, "times-plain")
		})
	}
}

// measure is a benchmark against a peer. prepare returns what does n operations;
// report gets the nanoseconds of one in the best of the pieces.
func measure(b *testing.B, name, mode string, piece int, prepare func([]byte, *waiter) (func(n int) error, error), report func(b *testing.B, best float64)) {
	b.Run(name, func(b *testing.B) {
		mem, w := startPeer(b, mode)
		if err := w.until(wordAt(mem, readyAt), 1); err != nil {
			b.Fatal(err)
		}
		work, err := prepare(mem, w)
		if err != nil {
			b.Fatal(err)
		}
		best := math.Inf(1)
		b.ResetTimer()
		for left := b.N; left > 0; {
			n := min(piece, left)
			left -= n
			start := time.Now()
			if err := work(n); err != nil {
				b.Fatal(err)
			}
			if took := time.Since(start); n == piece || b.N < piece {
				best = min(best, float64(took.Nanoseconds())/float64(n))
			}
		}
		b.StopTimer()
		report(b, best)
	})
}
