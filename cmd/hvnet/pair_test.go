package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"hvnet/internal/lab"
	"hvnet/internal/need"
)

// pause waits for a time that is part of what a test does, not for an event.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func needPair(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("it takes more than ten seconds")
	}
	need.Root(t)
	need.Tool(t, "ip")
}

// TestIperfThroughChannelChanges changes the number of channels of the sender and
// the receiver under a TCP stream: the stream lives, and no second is without data.
func TestIperfThroughChannelChanges(t *testing.T) {
	needPair(t)
	need.Tool(t, "iperf3")
	p := lab.NewPair(t, "hvnet", "--vcpus", "8")
	stream := lab.StartStream(t, p.NS[0], p.NS[1], p.Addr[1], 10)
	for i, n := range []int{1, 4, 2, 8} {
		pause(t.Context(), 2*time.Second)
		ns := p.NS[i/2] // the sender's first, then the receiver's
		start := time.Now()
		p.Run(t, ns.In("hvnet", "ethtool", "-L", "eth0", "combined", strconv.Itoa(n))...)
		t.Logf("combined %d: took %v", n, time.Since(start).Round(time.Millisecond))
		shown := p.Run(t, ns.In("hvnet", "ethtool", "-l", "eth0")...)
		if want := fmt.Sprintf("Current hardware settings:\nRX:\t\t0\nTX:\t\t0\nOther:\t\t0\nCombined:\t%d\n", n); !bytes.Contains(shown, []byte(want)) {
			t.Errorf("after -L combined %d:\n%s", n, shown)
		}
	}
	r := stream.Result(t)
	t.Logf("%.2f Gbit/s, %d retransmits", r.Gbps, r.Retransmits)
	var rates []string
	for _, i := range r.Intervals {
		rates = append(rates, fmt.Sprintf("%.2f", float64(i.Bytes)*8/(i.End-i.Start).Seconds()/1e9))
		if i.Bytes == 0 {
			t.Errorf("no data between %v and %v", i.Start, i.End)
		}
	}
	t.Logf("Gbit/s of each second: %s", strings.Join(rates, " "))
	if len(r.Intervals) < 10 {
		t.Errorf("the stream lived %d seconds, want 10", len(r.Intervals))
	}
	t.Logf("%s", p.Run(t, "hvnet", "host", "ctl", p.Socket, "ports"))
	p.Stop(t)
}

// TestIdle lets a host and two guests have nothing to do for ten seconds, and
// counts what they do: next to nothing.
func TestIdle(t *testing.T) {
	needPair(t)
	p := lab.NewPair(t, "hvnet")
	// Whatever a kernel sends by itself it sends by IPv6: solicitations, reports.
	for _, ns := range p.NS {
		p.Run(t, ns.In("sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6")...)
	}
	p.Run(t, p.NS[0].In("ping", "-c", "1", p.Addr[1])...)
	for _, ns := range p.NS { // or it asks whether its neighbour is still there
		p.Run(t, ns.In("ip", "neigh", "flush", "dev", "eth0")...)
	}
	ctx, cancel := context.WithTimeout(t.Context(), lab.Patience)
	defer cancel()
	for last := []byte{}; ; {
		now := p.Run(t, "hvnet", "host", "ctl", p.Socket, "ports")
		if bytes.Equal(now, last) {
			break
		}
		if last = now; ctx.Err() != nil {
			t.Fatalf("there is always traffic:\n%s", now)
		}
		pause(ctx, 2*time.Second)
	}

	names := []string{"host", "up 1", "up 2"}
	procs := []*lab.Process{p.Host, p.Up[0], p.Up[1]}
	var before []load
	for _, q := range procs {
		before = append(before, loadOf(t, q.PID()))
	}
	pause(t.Context(), 10*time.Second)
	var sum load
	for i, q := range procs {
		d := loadOf(t, q.PID()).since(before[i])
		t.Logf("%s: %d ticks of CPU, %d context switches", names[i], d.ticks, d.switches)
		sum.ticks += d.ticks
		sum.switches += d.switches
	}
	if sum.ticks > 1 || sum.switches > 10 {
		t.Errorf("idle for 10 s: %d ticks of CPU and %d context switches, want at most 1 and 10", sum.ticks, sum.switches)
	}
	p.Stop(t)
}

// load is what a process has used up.
type load struct{ ticks, switches int }

func (l load) since(before load) load {
	return load{l.ticks - before.ticks, l.switches - before.switches}
}

var switchLine = regexp.MustCompile(`(?m)^(?:non)?voluntary_ctxt_switches:\s+(\d+)$`)

// loadOf reads from /proc what a process with all its threads has used up.
func loadOf(t *testing.T, pid int) (l load) {
	t.Helper()
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	stat, err := os.ReadFile(filepath.Join(proc, "stat"))
	if err != nil {
		t.Fatal(err)
	}
	// proc_pid_stat(5): after the name in parentheses, utime and stime are the
	// 12th and 13th field.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	for _, f := range fields[11:13] {
		n, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		l.ticks += n
	}
	tasks, err := filepath.Glob(filepath.Join(proc, "task/*/status"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range tasks {
		status, err := os.ReadFile(name)
		if err != nil {
			continue // the thread has ended
		}
		for _, m := range switchLine.FindAllSubmatch(status, -1) {
			n, err := strconv.Atoi(string(m[1]))
			if err != nil {
				t.Fatal(err)
			}
			l.switches += n
		}
	}
	return l
}
