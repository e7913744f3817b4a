package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"hvnet/netvsc"
	"hvnet/netvsp"
	"hvnet/netvsp/profile"
	"hvnet/nic"
	"hvnet/vswitch"
)

// pairOfGuests returns two guests of the default host on one switch.
func pairOfGuests(t *testing.T, ctx context.Context) (a, b *deviceGuest) {
	t.Helper()
	prof, err := profile.Lookup(profile.Default)
	if err != nil {
		t.Fatal(err)
	}
	sw := vswitch.New(vswitch.Config{})
	return newDeviceGuest(t, ctx, sw, prof, 1, netvsc.Config{}), newDeviceGuest(t, ctx, sw, prof, 2, netvsc.Config{})
}

// flood has both guests send to each other until the function it returns is called,
// which tells how many frames each got rid of.
func flood(a, b *deviceGuest) (stop func() (sentA, sentB int)) {
	end := make(chan struct{})
	var noise sync.WaitGroup
	var sent [2]int
	for k, way := range [2][2]*deviceGuest{{a, b}, {b, a}} {
		noise.Go(func() {
			from, to := way[0], way[1]
			for i := 0; ; i++ {
				select {
				case <-end:
					return
				default:
				}
				sent[k] += from.nic.Send(-1, deviceFrames(deviceFrame(to.mac, from.mac, 60+i%1400, i%16, i)))
			}
		})
	}
	return func() (int, int) {
		close(end)
		noise.Wait()
		return sent[0], sent[1]
	}
}

// TestNothingAfterFilterZero takes a NIC down and up under a flood: while it is
// down, the device puts nothing into its ring, and drops under the filter's name.
func TestNothingAfterFilterZero(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), devicePatience)
	defer cancel()
	a, b := pairOfGuests(t, ctx)
	stop := flood(a, b)
	defer stop()
	for range 20 {
		b.sink.mu.Lock()
		before := b.sink.total
		b.sink.mu.Unlock()
		b.sink.wait(t, before+100)
		if err := b.nic.Down(ctx); err != nil {
			t.Fatal(err)
		}
		info := b.dev.Info()
		b.sink.mu.Lock()
		got := b.sink.total
		b.sink.mu.Unlock()
		if uint64(got) != info.Stats.RxFrames {
			t.Fatalf("down: %d frames indicated, %d have arrived", info.Stats.RxFrames, got)
		}
		for dropped := info.RxDropped[netvsp.DropFilter]; b.dev.Info().RxDropped[netvsp.DropFilter] < dropped+50; {
			if ctx.Err() != nil {
				t.Fatalf("down: nothing is dropped by the filter: %+v", b.dev.Info())
			}
		}
		if now := b.dev.Info(); now.Stats.RxFrames != info.Stats.RxFrames || now.Filter != 0 {
			t.Fatalf("down, with filter %#x: %d more frames indicated", now.Filter, now.Stats.RxFrames-info.Stats.RxFrames)
		}
		if err := b.nic.Up(ctx, b.sink); err != nil {
			t.Fatal(err)
		}
	}
}

// TestReconfigureUnderFlood makes 60 random changes to two guests that flood each other. In
// the end the accounts balance: each frame that a guest got rid of has arrived, or
// is counted under the name of a drop.
func TestReconfigureUnderFlood(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), devicePatience)
	defer cancel()
	a, b := pairOfGuests(t, ctx)
	stop := flood(a, b)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	for range 60 {
		ctx, cancel := context.WithTimeout(t.Context(), devicePatience)
		defer cancel()
		g := []*deviceGuest{a, b}[r.IntN(2)]
		var what string
		var err error
		switch r.IntN(5) {
		case 0:
			mtu := []int{1400, 1500, 4000, 9000}[r.IntN(4)]
			what, err = fmt.Sprint("MTU ", mtu), g.nic.SetMTU(ctx, mtu)
		case 1:
			n := 1 + r.IntN(4)
			what, err = fmt.Sprint("channels ", n), g.nic.SetChannels(ctx, n)
		case 2:
			rx, tx := 500+r.IntN(2000), 10+r.IntN(300)
			what, err = fmt.Sprint("rings ", rx, tx), g.nic.SetRings(ctx, min(rx, g.nic.Rings().RxMax), tx)
		case 3:
			on := r.IntN(2) == 0
			what, err = fmt.Sprint("promiscuous ", on), g.nic.SetPromiscuous(ctx, on)
		case 4:
			what, err = "down and up", errors.Join(g.nic.Down(ctx), g.nic.Up(ctx, g.sink))
		}
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	sentA, sentB := stop()
	ctx, cancel = context.WithTimeout(t.Context(), devicePatience)
	defer cancel()
	for _, g := range []*deviceGuest{a, b} { // what is under way arrives before Down returns
		if err := g.nic.Down(ctx); err != nil {
			t.Fatal(err)
		}
	}
	for _, way := range []struct {
		from, to *deviceGuest
		sent     int
	}{{a, b, sentA}, {b, a, sentB}} {
		tx, rx := way.from.dev.Info(), way.to.dev.Info()
		var lost uint64
		for _, n := range rx.RxDropped {
			lost += n
		}
		got := uint64(way.to.sink.total)
		tooBig := stat(way.from.nic.Stats(), "tx_too_big") // the MTU was 1400
		if tx.Stats.TxFrames+tooBig != uint64(way.sent) || len(tx.TxDropped) > 0 {
			t.Errorf("%d frames sent, %d too big, the device has seen %d: %v", way.sent, tooBig, tx.Stats.TxFrames, tx.TxDropped)
		}
		// While a guest has its device apart, its port stays, and drops too.
		if got != rx.Stats.RxFrames || got+lost+tooBig != uint64(way.sent) {
			t.Errorf("%d sent, %d indicated, %d arrived, %d dropped %v", way.sent, rx.Stats.RxFrames, got, lost, rx.RxDropped)
		}
		if tx.Faults+tx.Failures > 0 {
			t.Errorf("%+v", tx)
		}
		t.Logf("%d sent, %d too big, %d arrived, dropped %v", way.sent, tooBig, got, rx.RxDropped)
	}
}

// stat returns a counter.
func stat(all []nic.Stat, name string) uint64 {
	for _, s := range all {
		if s.Name == name {
			return s.Value
		}
	}
	return 0
}

// TestSetMACAtHost: a port that may not change its address says so, one that may is
// known by the new one.
func TestSetMACAtHost(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), devicePatience)
	defer cancel()
	a, _ := pairOfGuests(t, ctx)
	if err := a.nic.SetMAC(ctx, nic.MAC{2, 0, 0, 0, 0, 9}); !errors.Is(err, nic.ErrIO) {
		t.Errorf("SetMAC: %v", err)
	}
	if a.nic.MAC() != a.mac || a.dev.Info().MAC != a.mac {
		t.Errorf("address %v here and %v there", a.nic.MAC(), a.dev.Info().MAC)
	}
	if err := a.nic.SetPromiscuous(ctx, true); err != nil || a.dev.Info().Filter != 0x20 {
		t.Errorf("%v, filter %#x", err, a.dev.Info().Filter)
	}
}
