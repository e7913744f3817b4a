package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
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

// The stages of bring-up: what the guest logs when it begins each.
var stages = []string{
	"to host type=INITIATE_CONTACT",
	"to host type=REQUESTOFFERS",
	"netvsc: bring-up step=1 ",
	"to host type=GPADL_HEADER",
	"to host type=OPENCHANNEL",
	"netvsc: bring-up step=2 ",
	"netvsc: bring-up step=3 ",
	"netvsc: bring-up step=4 ",
	"netvsc: bring-up step=5 ",
	"netvsc: bring-up step=6 ",
	"netvsc: bring-up step=7 ",
	"netvsc: bring-up step=8 ",
	"netvsc: bring-up step=9 ",
	"netvsc: bring-up step=10 ",
	"netvsc: device up",
	inTraffic,
}

// inTraffic is the stage after the last one.
const inTraffic = "traffic"

// A tripwire is a log handler that is told of each line.
type tripwire func(line string)

func (tripwire) Enabled(context.Context, slog.Level) bool { return true }
func (w tripwire) WithAttrs([]slog.Attr) slog.Handler     { return w }
func (w tripwire) WithGroup(string) slog.Handler          { return w }
func (w tripwire) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	b.WriteString(r.Message)
	r.Attrs(func(a slog.Attr) bool {
		fmt.Fprintf(&b, " %s", a)
		return true
	})
	w(b.String())
	return nil
}

// deathGateway is what guests of these tests talk to.
var deathGateway = netip.MustParseAddr("198.18.0.1")

// A talker is a guest with an IP stack in this process.
type talker struct {
	*guest.Guest
	station station
}

func newTalker(ctx context.Context, path string, cfg guest.Config, addr string) (*talker, error) {
	cfg.VPs = 2
	g, err := guest.Dial(ctx, path, cfg, nil)
	if err != nil {
		return nil, err
	}
	t := &talker{Guest: g}
	if t.station, err = newProcessStation(ctx, g); err == nil {
		err = t.station.Configure(ctx, []netip.Prefix{netip.MustParsePrefix(addr + "/24")})
	}
	if err == nil {
		err = t.reach(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

// reach sends echo requests to the gateway until one is answered.
func (t *talker) reach(ctx context.Context) error {
	for {
		try, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		_, err := t.station.Ping(try, deathGateway, 1)
		if err != nil {
			<-try.Done()
		}
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
}

func (t *talker) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), lab.Patience)
	defer cancel()
	var err error
	if t.station != nil {
		err = t.station.Close()
	}
	return errors.Join(err, t.Guest.Close(ctx))
}

// held is what this process has that others could have left in it.
type held struct{ goroutines, descriptors, regions int }

func holding(t *testing.T) held {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return held{runtime.NumGoroutine(), len(fds), bytes.Count(maps, []byte("guest memory"))}
}

// backTo waits until the process holds no more than before.
func backTo(t *testing.T, before held) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), lab.Patience)
	defer cancel()
	for {
		now := holding(t)
		if now.goroutines <= before.goroutines && now.descriptors <= before.descriptors && now.regions <= before.regions {
			return
		}
		if ctx.Err() != nil {
			buf := make([]byte, 1<<20)
			t.Fatalf("left behind: %+v, before it was %+v\n%s", now, before, buf[:runtime.Stack(buf, true)])
		}
		pause(ctx, 10*time.Millisecond)
	}
}

// backWithin is how long traffic may take from when a restarted host listens.
const backWithin = 2 * time.Second

// TestHostDeath kills and stops a host at every stage of a guest's bring-up, and
// under traffic. The guest finds the next one by itself.
func TestHostDeath(t *testing.T) {
	if testing.Short() {
		t.Skip("a host that is stopped takes its time to be noticed")
	}
	before := holding(t)
	slots := make(chan struct{}, 4)
	var all sync.WaitGroup
	for i, stage := range stages {
		for _, how := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP} {
			all.Go(func() {
				if how == syscall.SIGKILL { // those that are stopped wait for the most part
					slots <- struct{}{}
					defer func() { <-slots }()
				}
				took, err := hostDies(t.Context(), stage, how)
				if err != nil {
					t.Errorf("%v at stage %d (%s): %v", how, i+1, stage, err)
				}
				t.Logf("%v at stage %d (%s): traffic %v after the restart", how, i+1, stage, took)
			})
		}
	}
	all.Wait()
	backTo(t, before)
}

// hostDies returns how long after the restart of the host there was traffic.
func hostDies(ctx context.Context, stage string, how syscall.Signal) (took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*lab.Patience)
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

	var armed, fired atomic.Bool
	victims := make(chan *lab.Process, 1)
	noticed := make(chan struct{}, 1)
	wire := tripwire(func(line string) {
		switch {
		case strings.HasPrefix(line, stage) && armed.CompareAndSwap(true, false):
			end(<-victims, how)
			fired.Store(true)
		case strings.HasPrefix(line, "attach anew") && fired.Load():
			select {
			case noticed <- struct{}{}:
			default:
			}
		}
	})
	g, err := newTalker(ctx, path, guest.Config{Log: slog.New(wire)}, "198.18.0.2")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	mac := g.NIC.MAC()

	if stage == inTraffic {
		g.OnChange(func(lost error) {
			if lost != nil {
				noticed <- struct{}{}
			}
		})
		talking, stop := context.WithCancel(ctx)
		var talk sync.WaitGroup
		talk.Go(func() {
			for talking.Err() == nil {
				g.station.Ping(talking, deathGateway, 1)
			}
		})
		end(h, how)
		defer talk.Wait()
		defer stop()
		time.AfterFunc(time.Second, stop)
	} else {
		armed.Store(true)
		h.Kill()
		if h, err = start(); err != nil {
			return 0, err
		}
		victims <- h
	}
	select {
	case <-noticed:
	case <-ctx.Done():
		return 0, errors.New("the guest does not notice")
	}
	h.Kill()
	if h, err = listening(start()); err != nil {
		return 0, err
	}
	restarted := time.Now()
	back, cancel := context.WithTimeout(ctx, backWithin)
	defer cancel()
	if err := g.reach(back); err != nil {
		return 0, fmt.Errorf("no traffic %v after the restart: %w", backWithin, err)
	}
	if now := g.NIC.MAC(); now != mac {
		return 0, fmt.Errorf("the MAC address is %v, was %v", now, mac)
	}
	return time.Since(restarted), nil
}

// end kills or stops a process and waits until it is so.
func end(p *lab.Process, how syscall.Signal) {
	p.Signal(how)
	if how == syscall.SIGKILL {
		p.End(context.Background())
		return
	}
	for !stopped(p.PID()) {
		runtime.Gosched()
	}
}

// stopped reports whether a process is stopped, or is no more.
func stopped(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, after, _ := bytes.Cut(stat, []byte(") "))
	return err != nil || bytes.HasPrefix(after, []byte("T"))
}

// testDoomed is a guest that ends itself: testdoomed PATH STAGE kill|stop.
func testDoomed() {
	doom := syscall.SIGKILL
	if os.Args[3] == "stop" {
		doom = syscall.SIGSTOP
	}
	wire := tripwire(func(line string) {
		if strings.HasPrefix(line, os.Args[2]) {
			syscall.Kill(os.Getpid(), doom)
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), lab.Patience)
	defer cancel()
	g, err := newTalker(ctx, os.Args[1], guest.Config{Name: "doomed", Log: slog.New(wire)}, "198.18.0.3")
	if err != nil {
		fail(err)
	}
	time.AfterFunc(20*time.Millisecond, func() { wire(inTraffic) })
	for ctx.Err() == nil {
		g.station.Ping(ctx, deathGateway, 1)
	}
}

// TestGuestDeath has a guest die or stop at every stage of its bring-up, and under
// traffic. Its host frees everything, and another guest does not notice.
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
	g, err := newTalker(t.Context(), path, guest.Config{Name: "bystander"}, "198.18.0.2")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("from attaching to the first answer of the gateway: %v", time.Since(begin))
	var pings atomic.Int64
	work.Go(func() {
		for accepting.Err() == nil {
			try, cancel := context.WithTimeout(accepting, 5*time.Second)
			if _, err := g.station.Ping(try, deathGateway, 1); err != nil && accepting.Err() == nil {
				t.Errorf("the other guest: %v", err)
			}
			cancel()
			pings.Add(1)
			pause(accepting, time.Millisecond)
		}
	})
	before := holding(t)
	for i, stage := range stages {
		for _, how := range []string{"kill", "stop"} {
			p, err := lab.Spawn("doomed", dir, nil, []string{"testdoomed", path, stage, how})
			if err != nil {
				t.Fatal(err)
			}
			if how == "stop" {
				for !stopped(p.PID()) {
					pause(t.Context(), time.Millisecond)
				}
				for n := pings.Load() + 5; pings.Load() < n; {
					pause(t.Context(), time.Millisecond)
				}
				p.Signal(syscall.SIGKILL)
			}
			if status, err := p.End(t.Context()); status != 128+int(syscall.SIGKILL) {
				t.Errorf("stage %d: it ended with %d: %v: %v", i+1, status, err, p.Said())
			}
			select {
			case <-gone:
			case <-time.After(lab.Patience):
				t.Fatalf("%s at stage %d (%s): the host does not notice", how, i+1, stage)
			}
		}
	}
	backTo(t, before)
	for _, p := range h.Ports() {
		if p.Switch.Name == "doomed" {
			t.Errorf("the dead guest has a port: %+v", p)
		}
	}
	for _, s := range g.NIC.Stats() {
		if s.Value > 0 && (s.Name == "tx_lost" || strings.HasPrefix(s.Name, "host_")) {
			t.Errorf("the other guest: %s is %d", s.Name, s.Value)
		}
	}
	stop()
	work.Wait()
	if err := errors.Join(g.close(), l.Close(), h.Close(t.Context())); err != nil {
		t.Error(err)
	}
}
