package bench

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"hvnet/guest"
	"hvnet/nic"
)

// arrival is when a probe came back.
type arrival struct {
	seq uint64
	at  time.Time
}

// probes is a sink that notes when probes come back.
type probes chan arrival

func (p probes) WriteFrames(frames []nic.Frame) {
	now := time.Now()
	for i := range frames {
		if h := frames[i].Head; len(h) >= 22 && h[12] == 0x88 && h[13] == 0xb5 {
			p <- arrival{binary.BigEndian.Uint64(h[14:]), now}
		}
	}
}

// BenchmarkOutage tells for how long a change of settings keeps traffic: a stream of
// 10,000 probes a second goes to a reflector in another process and back, and the
// longest gap between two that arrive is the outage. An operation is one change.
func BenchmarkOutage(b *testing.B) {
	for _, change := range []struct {
		name string
		do   func(ctx context.Context, g *guest.Guest, odd bool) error
	}{
		{"channels", func(ctx context.Context, g *guest.Guest, odd bool) error {
			return g.NIC.SetChannels(ctx, pick(odd, 2, 4))
		}},
		{"rings", func(ctx context.Context, g *guest.Guest, odd bool) error {
			return g.NIC.SetRings(ctx, pick(odd, 4000, 8000), 170)
		}},
		{"MTU", func(ctx context.Context, g *guest.Guest, odd bool) error {
			return g.NIC.SetMTU(ctx, pick(odd, 9000, 1500))
		}},
	} {
		b.Run(change.name, func(b *testing.B) {
			ctx, cancel := context.WithTimeout(b.Context(), 2*time.Minute)
			defer cancel()
			g, err := guest.Dial(ctx, startHost(b), guest.Config{VPs: 4}, nil)
			if err != nil {
				b.Fatal(err)
			}
			defer g.Close(ctx)
			back := make(probes, 1<<16)
			if err := g.NIC.Up(ctx, back); err != nil {
				b.Fatal(err)
			}
			stop := make(chan struct{})
			sent := make(chan uint64)
			go func() { sent <- sendProbes(g, stop) }()
			var gaps []time.Duration
			for i := 0; b.Loop(); i++ {
				last := drain(back)
				if err := change.do(ctx, g, i%2 == 0); err != nil {
					b.Fatal(err)
				}
				gaps = append(gaps, longestGap(back, last, time.Now()))
			}
			close(stop)
			<-sent
			slices.Sort(gaps)
			b.ReportMetric(gaps[len(gaps)/2].Seconds()*1e3, "ms-median")
			b.ReportMetric(gaps[len(gaps)-1].Seconds()*1e3, "ms-max")
		})
	}
}

func pick(odd bool, a, b int) int {
	if odd {
		return a
	}
	return b
}

// sendProbes sends ten thousand probes a second and returns how many.
func sendProbes(g *guest.Guest, stop <-chan struct{}) (seq uint64) {
	head := make([]byte, 60)
	copy(head, reflectorMAC[:])
	mac := g.NIC.MAC()
	copy(head[6:], mac[:])
	head[12], head[13] = 0x88, 0xb5
	tick := time.NewTicker(100 * time.Microsecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return seq
		case <-tick.C:
			binary.BigEndian.PutUint64(head[14:], seq)
			g.NIC.Send(0, []nic.Frame{{Head: head}})
			seq++
		}
	}
}

// drain forgets all probes that have come back and returns when the next one does.
func drain(p probes) time.Time {
	for len(p) > 0 {
		<-p
	}
	return (<-p).at
}

// longestGap returns the longest time between two probes that came back, from the
// last to the first that came after a time.
func longestGap(p probes, last, until time.Time) (gap time.Duration) {
	for last.Before(until) {
		at := (<-p).at
		gap, last = max(gap, at.Sub(last)), at
	}
	return gap
}

// BenchmarkIdle tells what guests cost that have nothing to do: 64 channels of one
// guest, and 64 guests with one channel each, on a host in another process. Memory
// is what a process has for itself, without the guests' memory, for each guest.
func BenchmarkIdle(b *testing.B) {
	for _, c := range []struct{ guests, channels int }{{1, 64}, {64, 1}} {
		b.Run(fmt.Sprintf("%dguests×%dchannels", c.guests, c.channels), func(b *testing.B) {
			ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
			defer cancel()
			path, pid := startHostProcess(b)
			here := os.Getpid()
			anonHost, anonHere := anonymous(b, pid), anonymous(b, here)
			for range c.guests {
				g, err := guest.Dial(ctx, path, guest.Config{VPs: c.channels, Queues: c.channels}, nil)
				if err != nil {
					b.Fatal(err)
				}
				defer g.Close(ctx)
				if err := g.NIC.Up(ctx, make(probes, 1)); err != nil {
					b.Fatal(err)
				}
			}
			<-time.After(time.Second) // what starting has left to do
			anonHost, anonHere = anonymous(b, pid)-anonHost, anonymous(b, here)-anonHere
			var spent float64
			for b.Loop() {
				before := ticks(b, pid) + ticks(b, here)
				<-time.After(5 * time.Second)
				spent = ticks(b, pid) + ticks(b, here) - before
			}
			b.ReportMetric(spent, "ticks/5s")
			b.ReportMetric(anonHost/float64(c.guests), "host-MB/guest")
			b.ReportMetric(anonHere/float64(c.guests), "driver-MB/guest")
		})
	}
}

// anonymous returns the anonymous memory of a process in MB.
func anonymous(tb testing.TB, pid int) float64 {
	tb.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		tb.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "RssAnon:")
	kb, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
	if err != nil {
		tb.Fatal(err)
	}
	return kb / 1024
}

// ticks returns the CPU time of a process in clock ticks.
func ticks(tb testing.TB, pid int) float64 {
	tb.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		tb.Fatal(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+2:]))
	user, err1 := strconv.ParseFloat(fields[11], 64)
	system, err2 := strconv.ParseFloat(fields[12], 64)
	if err1 != nil || err2 != nil {
		tb.Fatal(err1, err2)
	}
	return user + system
}
