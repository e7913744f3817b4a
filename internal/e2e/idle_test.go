package e2e

import (
	"context"
	"runtime/metrics"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hvnet/guest"
	"hvnet/host"
	"hvnet/hv"
)

// scheduled returns how often goroutines of this process were made to run, of which the
// runtime counts every eighth.
func scheduled() (n uint64) {
	s := []metrics.Sample{{Name: "/sched/latencies:seconds"}}
	metrics.Read(s)
	for _, c := range s[0].Value.Float64Histogram().Counts {
		n += c
	}
	return n
}

// TestIdleChannels: 64 channels that have nothing to do take nobody's time, neither of the
// guest nor of the host, however long. That somebody who looks once a second would be noticed
// is tried too.
func TestIdleChannels(t *testing.T) {
	for _, looks := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			const channels = 64
			h := host.New(host.Config{})
			defer h.Close(context.Background())
			part, far, err := hv.Pipe(channels)
			if err != nil {
				t.Fatal(err)
			}
			go h.Serve(far, host.PortConfig{})
			g, err := guest.Start(t.Context(), part, guest.Config{Queues: channels})
			if err != nil {
				t.Fatal(err)
			}
			defer g.Close(context.Background())
			if err := g.NIC.Up(t.Context(), newDriverPort()); err != nil {
				t.Fatal(err)
			}
			if n := g.NIC.Channels().Combined; n != channels {
				t.Fatalf("%d channels", n)
			}
			wakeups := func() (n uint64) {
				for _, s := range g.NIC.Stats() {
					if strings.HasSuffix(s.Name, "_wakeups") {
						n += s.Value
					}
				}
				return n
			}
			if looks {
				ticker := time.NewTicker(time.Second)
				defer ticker.Stop()
				ended := make(chan struct{})
				defer close(ended)
				go func() {
					for {
						select {
						case <-ticker.C:
						case <-ended:
							return
						}
					}
				}()
			}
			synctest.Wait()
			woken, ran := wakeups(), scheduled()
			<-time.After(time.Hour)
			synctest.Wait()
			woken, ran = wakeups()-woken, scheduled()-ran
			if woken > 0 {
				t.Errorf("idle channels woke up %d times", woken)
			}
			if busy := ran > 100; busy != looks { // the collector of garbage may run
				t.Errorf("somebody looks %v: goroutines were found to run %d times", looks, ran)
			}
		})
	}
}
