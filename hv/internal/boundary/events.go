package boundary

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"hvnet/hv"
)

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
