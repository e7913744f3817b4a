package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"hvnet/guest"
	"hvnet/host"
	"hvnet/internal/lab"
)

// A hostDeath is a row of the table of TestHostDeath.
type hostDeath struct {
	stage string
	when  string // of which bring-up: firstTime or again
	how   string
}

// When a host of hostDeath ends, and how.
const (
	firstTime = "first"
	again     = "again" // it is the second host of the guest

	killed  = "killed"       // another host is started when the guest has noticed
	hung    = "hung"         // stopped, and then as above
	resumed = "hung resumed" // stopped, and it goes on when the guest has noticed
	paused  = "paused"       // stopped, and it goes on at once
)

// backWithin is how long traffic may take from when a host listens, or goes on.
const backWithin = 2 * time.Second

// errSlow says that it took longer, which a busy machine may be the reason of.
var errSlow = errors.New("traffic is back too late")

// TestHostDeath kills and stops a host at every stage of a guest's bring-up, and
// under traffic. The guest finds the next one by itself, or the same one again.
func TestHostDeath(t *testing.T) {
	if testing.Short() {
		t.Skip("a host that is stopped takes its time to be noticed")
	}
	before := holding(t)
	slots := make(chan struct{}, 4)
	var all sync.WaitGroup
	row := func(d hostDeath) {
		all.Go(func() {
			took, err := d.happen(t.Context(), slots)
			for try := 1; errors.Is(err, errSlow) && try < 3; try++ {
				took, err = d.happen(t.Context(), slots)
			}
			if errors.Is(err, errSlow) && raceDetector {
				err = nil // all is slow
			}
			if err != nil {
				t.Errorf("%+v: %v", d, err)
			}
			t.Logf("%+v: traffic %v later", d, took)
		})
	}
	for _, stage := range stages {
		for _, how := range []string{killed, hung, resumed, paused} {
			row(hostDeath{stage, again, how})
			if stage != inTraffic {
				row(hostDeath{stage, firstTime, how})
			}
		}
	}
	all.Wait()
	backTo(t, before)
}

// happen returns how long after the host was there again there was traffic. It has a
// slot but for the time in which it waits for the guest to notice.
func (d hostDeath) happen(ctx context.Context, slots chan struct{}) (took time.Duration, err error) {
	slots <- struct{}{}
	defer func() { <-slots }()
	ctx, cancel := context.WithTimeout(ctx, 4*lab.Patience)
	defer cancel()
	dir, err := os.MkdirTemp("", "hv")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	listening := func(p *lab.Process, err error) (*lab.Process, error) {
		if err != nil {
			return nil, err
		}
		return p, p.Await(ctx, "^listening")
	}
	start := func() (*lab.Process, error) {
		return lab.Spawn("host", dir, append(os.Environ(), "HVNET_RUNTIME_DIR="+dir), []string{"hvnet", "host", "--listen", path})
	}
	h, err := listening(start())
	if err != nil {
		return 0, err
	}
	defer func() { h.Kill() }()

	doomed := make(chan *lab.Process, 1)
	due, fired, noticed := make(chan struct{}), make(chan struct{}), make(chan struct{}, 1)
	fire := func() {
		close(due)
		if d.how == killed {
			end(<-doomed, syscall.SIGKILL)
		} else {
			end(<-doomed, syscall.SIGSTOP)
		}
		close(fired)
	}
	notice := func() {
		select {
		case <-due:
		default:
			return // of another host's end
		}
		select {
		case noticed <- struct{}{}:
		default:
		}
	}
	var armed atomic.Bool
	cfg := guest.Config{Name: "talker", Log: slog.New(tripwire(func(line string) {
		switch {
		case strings.HasPrefix(line, d.stage) && armed.CompareAndSwap(true, false):
			fire()
		case strings.HasPrefix(line, "attach anew"), strings.HasPrefix(line, "netvsc: device lost"):
			notice()
		}
	}))}
	if d.when == firstTime {
		doomed <- h
		armed.Store(true)
	}
	g := goTalk(ctx, path, cfg, "198.18.0.2")
	defer func() {
		cancel()
		if e := g.close(); err == nil {
			err = e
		}
	}()
	if d.when == again {
		if err := g.reach(ctx); err != nil {
			return 0, err
		}
		if d.stage == inTraffic {
			defer g.chat()()
			doomed <- h
			fire()
		} else {
			armed.Store(true)
			h.Kill()
			if h, err = start(); err != nil {
				return 0, err
			}
			doomed <- h
		}
	}
	if err := await(ctx, fired); err != nil {
		return 0, fmt.Errorf("the stage does not come: %w", err)
	}
	if d.how != paused {
		<-slots
		err := await(ctx, noticed)
		slots <- struct{}{}
		if err != nil {
			return 0, fmt.Errorf("the guest does not notice: %w", err)
		}
	}
	if d.how == paused || d.how == resumed {
		h.Signal(syscall.SIGCONT)
	} else {
		h.Kill()
		if h, err = listening(start()); err != nil {
			return 0, err
		}
	}
	begin := time.Now()
	if err := g.reach(ctx); err != nil {
		return 0, fmt.Errorf("no traffic: %w", err)
	}
	if now := g.NIC.MAC(); now != host.PortMAC("talker") {
		return 0, fmt.Errorf("the MAC address is %v, was %v", now, host.PortMAC("talker"))
	}
	if took = time.Since(begin); took > backWithin {
		return took, fmt.Errorf("%w: after %v", errSlow, took)
	}
	return took, nil
}

// await waits for a signal, or the end of ctx.
func await(ctx context.Context, c <-chan struct{}) error {
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
