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
	"hvnet/hv/attach"
	"hvnet/internal/lab"
)

// testDoomed is a guest that ends or stops itself: testdoomed PATH STAGE kill|stop. It
// says when it has reached the gateway after that.
func testDoomed() {
	doom := map[string]syscall.Signal{"kill": syscall.SIGKILL, "stop": syscall.SIGSTOP, "live": 0}[os.Args[3]]
	var once sync.Once
	var over atomic.Bool
	wire := tripwire(func(line string) {
		if strings.HasPrefix(line, os.Args[2]) {
			once.Do(func() {
				syscall.Kill(os.Getpid(), doom)
				over.Store(true)
			})
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), 2*lab.Patience)
	defer cancel()
	g := goTalk(ctx, os.Args[1], guest.Config{Name: "doomed", Log: slog.New(wire)}, "198.18.0.3")
	if err := g.reach(ctx); err != nil {
		fail(err)
	}
	time.AfterFunc(20*time.Millisecond, func() { wire(inTraffic) })
	for said := false; ctx.Err() == nil; {
		was := over.Load()
		if g.reach(ctx) == nil && was && !said {
			fmt.Println("reached")
			said = true
		}
	}
}

// TestGuestDeath has a guest die or stop at every stage of its bring-up, and under
// traffic. Its host frees everything, another guest does not notice, and the guest is
// back soon: started anew, or going on.
func TestGuestDeath(t *testing.T) {
	dir, err := os.MkdirTemp("", "hv")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	gone := make(chan struct{}, 1)
	h := host.New(host.Config{Log: slog.New(tripwire(func(line string) {
		if strings.HasPrefix(line, "guest gone port=doomed") {
			gone <- struct{}{}
		}
	}))})
	gw, _, err := (&hostFlags{Gateway: []string{deathGateway.String() + "/24"}}).gateway(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.AddGateway(gw); err != nil {
		t.Fatal(err)
	}
	l, err := h.Listen(path, attach.ListenConfig{})
	if err != nil {
		t.Fatal(err)
	}
	accepting, stop := context.WithCancel(t.Context())
	var work sync.WaitGroup
	work.Go(func() { h.Accept(accepting, l) })
	begin := time.Now()
	g := goTalk(t.Context(), path, guest.Config{Name: "bystander"}, "198.18.0.2")
	if err := g.reach(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("from attaching to the first answer of the gateway: %v", time.Since(begin))
	var pings atomic.Int64
	work.Go(func() {
		for accepting.Err() == nil {
			try, cancel := context.WithTimeout(accepting, lab.Patience)
			if _, err := g.station.Ping(try, deathGateway, 1); err != nil && accepting.Err() == nil {
				t.Errorf("the other guest: %v", err)
			}
			cancel()
			pings.Add(1)
			pause(accepting, time.Millisecond)
		}
	})
	before := holding(t)
	run := func(t *testing.T, stage, how string) *lab.Process {
		p, err := lab.Spawn("doomed", dir, nil, []string{"testdoomed", path, stage, how})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	ended := func(t *testing.T, p *lab.Process) {
		if status, err := p.End(t.Context()); status != 128+int(syscall.SIGKILL) {
			t.Fatalf("it ended with %d: %v: %v", status, err, p.Said())
		}
		select {
		case <-gone:
		case <-time.After(lab.Patience):
			t.Fatal("the host does not notice")
		}
	}
	reached := func(t *testing.T, p *lab.Process) (took time.Duration) {
		begin := time.Now()
		if err := p.Await(t.Context(), "^reached"); err != nil {
			t.Fatal(err)
		}
		return time.Since(begin)
	}
	// Each way returns how long the guest took to come back.
	ways := []struct {
		how string
		do  func(t *testing.T, stage string) time.Duration
	}{
		{"killed", func(t *testing.T, stage string) time.Duration {
			ended(t, run(t, stage, "kill"))
			p := run(t, "", "live")
			defer ended(t, p)
			defer p.Signal(syscall.SIGKILL)
			return reached(t, p)
		}},
		{"stopped and killed", func(t *testing.T, stage string) time.Duration {
			p := run(t, stage, "stop")
			bystand(t, p, &pings)
			p.Signal(syscall.SIGKILL)
			ended(t, p)
			p = run(t, "", "live")
			defer ended(t, p)
			defer p.Signal(syscall.SIGKILL)
			return reached(t, p)
		}},
		{"stopped and resumed", func(t *testing.T, stage string) time.Duration {
			p := run(t, stage, "stop")
			defer ended(t, p)
			defer p.Signal(syscall.SIGKILL)
			bystand(t, p, &pings)
			p.Signal(syscall.SIGCONT)
			return reached(t, p)
		}},
	}
	for i, stage := range stages {
		for _, way := range ways {
			t.Run(fmt.Sprintf("%d %s", i+1, way.how), func(t *testing.T) {
				took := way.do(t, stage)
				for try := 1; took > backWithin && try < 3; try++ { // a busy machine
					took = way.do(t, stage)
				}
				if t.Logf("%s: traffic %v later", stage, took); took > backWithin && !raceDetector {
					t.Error(errSlow)
				}
			})
		}
	}
	backTo(t, before)
	stop()
	work.Wait()
	tidy := func() (wrong string) {
		for _, p := range h.Ports() {
			if p.Switch.Name == "doomed" || p.Guest != nil && (p.Guest.Receive.InFlight != 0 || p.Guest.Faults != 0) {
				wrong = fmt.Sprintf("port %s: %+v", p.Switch.Name, p.Guest)
			}
		}
		return wrong
	}
	for end := time.Now().Add(lab.Patience); tidy() != "" && time.Now().Before(end); {
		pause(t.Context(), time.Millisecond)
	}
	if wrong := tidy(); wrong != "" {
		t.Error(wrong)
	}
	for _, s := range g.NIC.Stats() {
		if s.Value > 0 && (s.Name == "tx_lost" || strings.HasPrefix(s.Name, "host_")) {
			t.Errorf("the other guest: %s is %d", s.Name, s.Value)
		}
	}
	if err := errors.Join(g.close(), l.Close(), h.Close(t.Context())); err != nil {
		t.Error(err)
	}
}

// bystand waits until a guest has stopped itself, and then until another one was answered a few
// times.
func bystand(t *testing.T, p *lab.Process, answers *atomic.Int64) {
	for !stopped(p.PID()) {
		pause(t.Context(), time.Millisecond)
	}
	for n := answers.Load() + 5; answers.Load() < n; {
		pause(t.Context(), time.Millisecond)
	}
}
