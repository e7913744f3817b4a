package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"hvnet/guest"
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

	up  chan struct{} // closed when it is up, or has failed
	err error         // why it has failed
}

// goTalk starts a talker, which waits for its host.
func goTalk(ctx context.Context, path string, cfg guest.Config, addr string) *talker {
	cfg.VPs = 2
	t := &talker{up: make(chan struct{})}
	go func() {
		defer close(t.up)
		if t.Guest, t.err = guest.Dial(ctx, path, cfg, nil); t.err != nil {
			return
		}
		if t.station, t.err = newProcessStation(ctx, t.Guest); t.err != nil {
			return
		}
		t.err = t.station.Configure(ctx, []netip.Prefix{netip.MustParsePrefix(addr + "/24")})
	}()
	return t
}

// reach sends echo requests to the gateway until one is answered.
func (t *talker) reach(ctx context.Context) error {
	if <-t.up; t.err != nil {
		return t.err
	}
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 400*time.Millisecond) {
		try, cancel := context.WithTimeout(ctx, wait)
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

// chat sends echo requests all the time, until it is told to stop.
func (t *talker) chat() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var talk sync.WaitGroup
	talk.Go(func() {
		for ctx.Err() == nil {
			try, done := context.WithTimeout(ctx, time.Second)
			t.station.Ping(try, deathGateway, 1)
			done()
		}
	})
	return func() {
		cancel()
		talk.Wait()
	}
}

func (t *talker) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), lab.Patience)
	defer cancel()
	<-t.up
	var errs []error
	if t.station != nil {
		errs = append(errs, t.station.Close())
	}
	if t.Guest != nil {
		errs = append(errs, t.Guest.Close(ctx))
	}
	return errors.Join(errs...)
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
