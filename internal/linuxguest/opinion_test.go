package linuxguest_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"hvnet/guest"
	"hvnet/host"
	"hvnet/hv"
	"hvnet/internal/lab"
	"hvnet/internal/linuxguest"
	"hvnet/internal/need"
	"hvnet/link/tap"
	"hvnet/netvsp/profile"
	"hvnet/nic"
)

// TestOpinion has stock Linux and a guest of ours, which has this machine's kernel above it,
// talk to each other by the oldest release of the host and the newest, or by all of them:
// large frames both ways, jumbo frames, checksums, and settings of Linux under traffic.
func TestOpinion(t *testing.T) {
	linuxguest.Need(t, "6.1")
	need.Root(t)
	need.Tool(t, "ip")
	need.Tool(t, "iperf3")
	names := profile.Names()
	if os.Getenv("HVNET_LONG") != "1" {
		names = []string{names[0], names[len(names)-1]}
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) { testOpinion(t, name) })
	}
}

func testOpinion(t *testing.T, name string) {
	runtime.LockOSThread() // for good, as the thread is in another namespace from now on
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	prof := lookup(t, name)
	r := newRig(t, linuxguest.Machine{}, host.Config{Profile: prof})
	ours := r.ours(t)
	r.up(t)
	large := exchange{dev: "eth0", mtu: 1500, cuts: prof.Offload.LSOv4.MaxBytes > 0, coalesces: prof.Offload.RSCv4 != 0}
	r.exchange(t, large)
	r.datagrams(t)
	r.Run(t, "ip link set eth0 mtu 9000")
	lab.Run(t, "ip", "link", "set", "eth0", "mtu", "9000")
	r.Run(t, "ping -q -c 3 -i 0.2 -w 20 -M do -s 8972 "+here)
	large.mtu = 9000
	r.jumbo(t, large)
	small := large // writes of 1 kB are less than a segment
	small.cuts = false
	r.exchange(t, small)
	r.settings(t, large)
	for _, proto := range []string{"Tcp:", "Udp:"} {
		noChecksumWrong(t, "Linux", r.Run(t, "cat /proc/net/snmp"), proto)
		text, err := os.ReadFile("/proc/thread-self/net/snmp")
		if err != nil {
			t.Fatal(err)
		}
		noChecksumWrong(t, "this machine", string(text), proto)
	}
	r.Run(t, "ip link set eth0 down")
	atRest(t, r, ours)
	r.content(t)
	r.Stop(t)
}

// ours attaches a guest of ours to the host, as eth0 of this thread's namespace.
func (r *rig) ours(t *testing.T) *guest.Guest {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), linuxguest.Patience)
	defer cancel()
	part, far, err := hv.Pipe(2)
	if err != nil {
		t.Fatal(err)
	}
	go r.host.Serve(far, host.PortConfig{Name: "ours"})
	g, err := guest.Start(ctx, part, guest.Config{VPs: 2})
	if err != nil {
		t.Fatal(err)
	}
	dev, err := tap.Open(tap.Config{Name: "eth0", Queues: g.NIC.Channels().Max, MAC: g.NIC.MAC(), MTU: g.NIC.MTU(),
		Offloads: tap.Offloads, Largest: g.NIC.LargeSend()})
	if err != nil {
		t.Fatal(errors.Join(err, g.Close(ctx)))
	}
	leave, err := g.Join(ctx, dev, nil)
	if err != nil {
		t.Fatal(errors.Join(err, dev.Close(), g.Close(ctx)))
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), linuxguest.Patience)
		defer cancel()
		if err := errors.Join(leave(ctx), dev.Close(), g.Close(ctx)); err != nil {
			t.Error(err)
		}
	})
	return g
}

// iperf runs iperf3 in Linux with one here.
func (r *rig) iperf(t *testing.T, flags string) (said string) {
	t.Helper()
	server, err := lab.Spawn("iperf3", t.TempDir(), nil, strings.Fields("iperf3 -s -1 --forceflush -B "+here))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Kill)
	lab.Await(t, server, "Server listening")
	return r.Run(t, "echo root:x:0:0::/:/bin/sh >/etc/passwd; iperf3 -c "+here+" "+flags)
}

// datagrams sends UDP both ways. Some may be lost, but none is damaged.
func (r *rig) datagrams(t *testing.T) {
	t.Helper()
	for _, direction := range []string{"", "-R"} {
		out := r.iperf(t, "-u -l 1400 -b 20M -n 500K "+direction)
		m := regexp.MustCompile(`(\d+)/(\d+) \(.*receiver`).FindStringSubmatch(out)
		if m == nil || m[2] == "0" || m[1] == m[2] {
			t.Errorf("datagrams %s:\n%s", direction, out)
		}
	}
}

// jumbo sends large writes by frames of several long segments from Linux. iperf3 ends when it
// has written them: the last ones may still be in the socket.
func (r *rig) jumbo(t *testing.T, x exchange) {
	t.Helper()
	before := r.port(t).Guest.Stats
	out := r.iperf(t, "-n 8M")
	after := r.port(t).Guest.Stats
	if frames, bytes := after.TxFrames-before.TxFrames, after.TxBytes-before.TxBytes; bytes < 1<<20 || x.cuts && bytes < uint64(x.mtu+nic.HeaderLen+nic.TagLen)*frames {
		t.Errorf("Linux sent %d bytes in %d frames:\n%s", bytes, frames, out)
	}
}

// A change is a command that changes a setting of Linux, and what is true from then on.
type change struct {
	command  string
	sections bool // the host has other numbers of sections than at first
	out, in  bool // frames from Linux and to it are of one segment
}

// settings changes all that there is to change about buffers and offloads, while data go
// both ways and arrive.
func (r *rig) settings(t *testing.T, x exchange) {
	t.Helper()
	f := r.flow(t)
	rings := r.Run(t, "ethtool -g eth0")
	rx := regexp.MustCompile(`(?m)^RX:\s+(\d+)`).FindAllStringSubmatch(rings, -1)
	tx := regexp.MustCompile(`(?m)^TX:\s+(\d+)`).FindAllStringSubmatch(rings, -1)
	if len(rx) != 2 || len(tx) != 2 {
		t.Fatalf("rings:\n%s", rings)
	}
	list := []change{
		{command: "-G eth0 rx 500 tx 50", sections: true},
		{command: fmt.Sprintf("-G eth0 rx %s tx %s", rx[1][1], tx[1][1])},
		{command: "-K eth0 tx off", out: true},
		{command: "-K eth0 tx on tso on"},
	}
	if x.cuts {
		list = append(list, change{command: "-K eth0 tso off", out: true}, change{command: "-K eth0 tso on"})
	}
	if x.coalesces {
		list = append(list, change{command: "-K eth0 lro off", in: true}, change{command: "-K eth0 lro on"})
	}
	at := r.port(t).Guest
	for _, c := range list {
		f.moves(t)
		r.Run(t, "ethtool "+c.command)
		f.moves(t) // what was under way is gone
		before := r.port(t).Guest
		f.moves(t)
		after := r.port(t).Guest
		other := after.ReceiveSections != at.ReceiveSections && after.SendSections != at.SendSections
		if other != c.sections {
			t.Errorf("%s: %d sections to receive and %d to send, at first %d and %d", c.command,
				after.ReceiveSections, after.SendSections, at.ReceiveSections, at.SendSections)
		}
		most := uint64(x.mtu + 14)
		if frames, bytes := after.Stats.TxFrames-before.Stats.TxFrames, after.Stats.TxBytes-before.Stats.TxBytes; c.out && bytes > most*frames {
			t.Errorf("%s: Linux sends %d bytes in %d frames", c.command, bytes, frames)
		}
		if frames, bytes := after.Stats.RxFrames-before.Stats.RxFrames, after.Stats.RxBytes-before.Stats.RxBytes; c.in && bytes > most*frames {
			t.Errorf("%s: Linux gets %d bytes in %d frames", c.command, bytes, frames)
		}
	}
	f.end(t, r)
}

// atRest waits until all sections are back on both halves.
func atRest(t *testing.T, r *rig, g *guest.Guest) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), linuxguest.Patience)
	defer cancel()
	for {
		var err error
		for _, a := range g.NIC.Accounts() {
			err = errors.Join(err, a.AtRest())
		}
		for _, p := range r.host.Ports() {
			if p.Guest != nil {
				err = errors.Join(err, p.Guest.Receive.AtRest())
			}
		}
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
		runtime.Gosched()
	}
}
