// Command soak runs a host with guests of three kinds, in its own process, attached
// by the socket and in processes of their own, under traffic that is checked end to
// end, while things happen to them at random: settings change, guests leave, die and
// return, NICs are taken away and sleep, hosts are replaced, lines are good and bad. At
// the end the accounts have to balance.
//
//	go run ./internal/soak -time 30m -seed 7
//
// The same seed gives the same events in the same order; when exactly each meets
// the traffic is the machine's.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	if what := os.Getenv(environment); what != "" {
		os.Exit(stationMain(what))
	}
	seed := flag.Uint64("seed", rand.Uint64N(1_000_000), "chooses the events; by default another each time")
	length := flag.Duration("time", 30*time.Minute, "how long")
	verbose := flag.Bool("v", false, "print each event, and what the host logs")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := soak(ctx, *seed, *length, *verbose, os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "soak: seed %d: %v\n", *seed, err)
		os.Exit(1)
	}
}

// reportEvery is the time between two lines of report, and two samples of memory.
const reportEvery = 10 * time.Second

// soak is one run. It ends early, and still with all its checks, when ctx does.
func soak(ctx context.Context, seed uint64, length time.Duration, verbose bool, out io.Writer) (err error) {
	start := time.Now()
	out = &oneAtATime{w: out}
	say := func(format string, a ...any) {
		fmt.Fprintf(out, "%7.1fs  %s\n", time.Since(start).Seconds(), fmt.Sprintf(format, a...))
	}
	log, hostLog := func(string, ...any) {}, slog.New(slog.DiscardHandler)
	if verbose {
		log, hostLog = say, slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	say("seed %d, %v", seed, length)
	if err := wakeRuntime(); err != nil {
		return err
	}
	before, err := used()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "soak")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	all := context.WithoutCancel(ctx) // what has begun is ended in order
	w, err := newWorld(all, dir, seed, log, hostLog)
	if err != nil {
		return err
	}
	samples, stations, err := w.run(ctx, all, start.Add(length), say)
	if err == nil {
		err = w.settle(all)
	}
	if e := w.close(all); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	if err := errors.Join(returned(before), flat(samples)); err != nil {
		return err
	}
	if err := flat(stations); err != nil {
		return fmt.Errorf("the processes of guests: %w", err)
	}
	say("%s", w.summary(w.past))
	after, err := used()
	say("all came back: before %v; after %v", before, after)
	return err
}

// oneAtATime is a writer for several goroutines.
type oneAtATime struct {
	mu sync.Mutex
	w  io.Writer
}

func (o *oneAtATime) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.w.Write(b)
}

// run lets things happen until the end, and reports. It returns what this process has
// taken now and then, and what those of the stations have together.
func (w *world) run(ctx, all context.Context, end time.Time, say func(string, ...any)) (samples, stations []usage, err error) {
	next := time.Now().Add(reportEvery)
	for ctx.Err() == nil && time.Now().Before(end) {
		pause(ctx, time.Duration(w.rand.IntN(200))*time.Millisecond)
		if err := w.happen(all); err != nil {
			return nil, nil, err
		}
		if time.Now().Before(next) {
			continue
		}
		next = time.Now().Add(reportEvery)
		c, err := w.counts(all)
		if err != nil {
			return nil, nil, err
		}
		u, err := used()
		if err != nil {
			return nil, nil, err
		}
		p, err := w.usedByStations()
		if err != nil {
			return nil, nil, err
		}
		samples, stations = append(samples, u), append(stations, p)
		say("%s; %v; guests: %d files, %d mappings, private %.1f MiB", w.summary(c), u, p.files, p.shared, mib(p.private))
	}
	return samples, stations, nil
}

// summary says what has happened, in a line.
func (w *world) summary(c Counts) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(w.done)) {
		list = append(list, fmt.Sprintf("%d %s", w.done[name], name))
	}
	return fmt.Sprintf("%d frames sent, %d received (%d damaged, %d late, %d old) | %s",
		c.Sent, c.Received, c.Damaged, c.Late, c.Old, strings.Join(list, ", "))
}
