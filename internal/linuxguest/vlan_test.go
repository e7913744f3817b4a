package linuxguest_test

import (
	"context"
	"io"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hvnet/guest"
	"hvnet/host"
	"hvnet/hv"
	"hvnet/internal/linuxguest"
	"hvnet/internal/need"
	"hvnet/internal/packets"
	"hvnet/link/netstack"
	"hvnet/link/tap"
	"hvnet/netvsp/profile"
	"hvnet/nic"
	"hvnet/offload"
	"hvnet/vswitch"
)

// A tagger is a sink in front of another one: frames that come with the tag go on without it, or
// the other way round if give is set.
type tagger struct {
	out  nic.Sink
	tci  uint16
	give bool
	seen chan uint16 // tags that were taken, one of them at least
}

func (g *tagger) WriteFrames(frames []nic.Frame) {
	for i := range frames {
		var f nic.Frame
		room := make([]byte, nic.HeadLen+nic.TagLen)
		tci, tagged, _ := offload.Tag(frames[i].Head)
		if !g.give && (!tagged || tci&0xfff != g.tci&0xfff) {
			continue
		}
		offload.Retag(&f, &frames[i], g.tci, g.give, room, nil)
		if !g.give && frames[i].Dst()[0]&1 == 0 {
			select {
			case g.seen <- tci:
			default:
			}
		}
		g.out.WriteFrames([]nic.Frame{f})
	}
}

// sending is a driver as a sink; what it does not take now is lost.
type sending struct{ n *guest.Guest }

func (s sending) WriteFrames(frames []nic.Frame) { s.n.NIC.Send(0, frames) }

// TestVLAN has eth0.10 on stock Linux, whose port is a trunk: it talks to the gateway and the
// kernel of this machine, which are on access ports and know of no tags, with large frames
// both ways; and to a guest of ours, whose port is a trunk too.
func TestVLAN(t *testing.T) {
	linuxguest.Need(t, "6.1")
	need.Root(t)
	need.Tool(t, "ip")
	kernels := linuxguest.Kernels[:1]
	if os.Getenv("HVNET_LONG") == "1" {
		kernels = linuxguest.Kernels
	}
	for _, kernel := range kernels {
		t.Run(kernel, func(t *testing.T) { testVLAN(t, kernel) })
	}
}

// lro checks whether eth0 coalesces.
func (r *rig) lro(t *testing.T, want string) {
	t.Helper()
	if got := r.Run(t, "ethtool -k eth0 | grep large-receive"); got != "large-receive-offload: "+want {
		t.Errorf("%s, want %s", got, want)
	}
}

// coalesced sends Linux a frame of many segments with a tag while it has no VLAN interface: it
// gets the frame whole, and the tag.
func (r *rig) coalesced(t *testing.T) {
	t.Helper()
	p, err := r.host.Switch().Connect("outside", new(tagger), vswitch.PortOptions{VLAN: vswitch.Trunk()})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	r.Run(t, "ip link set eth0 up; echo root:x:0:0::/:/bin/sh >/etc/passwd; "+
		"(tcpdump -Z root -l -nnei eth0 -c 1 vlan 10 >/tmp/vlan 2>/tmp/said) & lgv_wait 20 'grep -q listening /tmp/said' || { cat /tmp/said; false; }")
	b := packets.Shape{TCPOptions: 12}.Frame(packets.Random(20000))
	mac := r.port(t).Guest.MAC
	copy(b, mac[:])
	b[6] = 2 // the gateway has the other address
	whole := packets.Partial(b, nic.SegmentTCPv4, 1400)
	var f nic.Frame
	offload.Retag(&f, &whole, 0xb00a, true, make([]byte, nic.HeadLen+nic.TagLen), nil)
	p.WriteFrames([]nic.Frame{f})
	got := r.Run(t, "lgv_wait 20 '! pidof tcpdump'; cat /tmp/vlan")
	if !strings.Contains(got, "length 20070: vlan 10, p 5, DEI, ethertype IPv4") || !strings.Contains(got, "length 20000") {
		t.Errorf("Linux got %q", got)
	}
}

func testVLAN(t *testing.T, kernel string) {
	runtime.LockOSThread() // for good, as the thread is in another namespace from now on
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	vlans := map[string]vswitch.VLAN{}
	for port, text := range map[string]string{"linux": "trunk=10-20", "ours": "trunk=10", "gateway": "access=10", "tap0": "access=10"} {
		v, err := vswitch.ParseVLAN(text)
		if err != nil {
			t.Fatal(err)
		}
		vlans[port] = v
	}
	r := newRig(t, linuxguest.Machine{Kernel: kernel}, host.Config{Profile: lookup(t, profile.Default), VLANs: vlans})
	if err := r.host.AddTAP(tap.Config{Name: "tap0", Offloads: tap.Offloads}); err != nil {
		t.Fatal(err)
	}
	r.lro(t, "on")
	r.coalesced(t)
	r.Run(t, "lgv_vlan && ip link add link eth0 name eth0.10 type vlan id 10 egress-qos-map 0:5 && "+
		"ip link set eth0 up && ip link set eth0.10 up && ip addr add "+address+"/24 dev eth0.10")
	r.ping(t)
	// A VLAN interface does not coalesce, and so Linux has the one below it not do it either.
	r.lro(t, "off")
	r.exchange(t, exchange{dev: "tap0", mtu: 1500, cuts: true})

	// Without the tag it is not in that VLAN, nor with another one.
	r.Run(t, "ip addr add 198.18.0.10/24 dev eth0 && ! ping -q -c 1 -W 1 -I eth0 "+gateway)
	r.Run(t, "ip link add link eth0 name eth0.11 type vlan id 11 && ip link set eth0.11 up && ! ping -q -c 1 -W 1 -I eth0.11 "+gateway)

	ctx, cancel := context.WithTimeout(t.Context(), linuxguest.Patience)
	defer cancel()
	part, far, err := hv.Pipe(4)
	if err != nil {
		t.Fatal(err)
	}
	mac := host.PortMAC("ours")
	go r.host.Serve(far, host.PortConfig{Name: "ours", MAC: mac})
	g, err := guest.Start(ctx, part, guest.Config{VPs: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close(context.WithoutCancel(ctx))
	ours := netip.MustParsePrefix("198.18.0.20/24")
	stack, err := netstack.NewHost(netstack.HostConfig{MAC: mac, Addrs: []netip.Prefix{ours}})
	if err != nil {
		t.Fatal(err)
	}
	defer stack.Close()
	in := &tagger{out: stack, tci: 10, seen: make(chan uint16, 1)}
	if err := g.NIC.Up(ctx, in); err != nil {
		t.Fatal(err)
	}
	stack.Start(&tagger{out: sending{g}, tci: 0x600a, give: true})
	r.Run(t, "ping -q -c 3 -i 0.2 -w 20 "+ours.Addr().String())
	if tci := <-in.seen; tci != 0xa00a {
		t.Errorf("what Linux sent with priority 5 came with the tag %#x", tci)
	}
	l, err := stack.ListenTCP(netip.AddrPortFrom(ours.Addr(), 5000))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	type result struct {
		text string
		err  error
	}
	done := make(chan result, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			done <- result{"", err}
			return
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(linuxguest.Patience))
		text, err := io.ReadAll(io.LimitReader(c, 588895))
		if err == nil {
			_, err = c.Write(text)
		}
		done <- result{string(text), err}
	}()
	sum := r.Run(t, "seq 1 100000 >/tmp/numbers; nc "+ours.Addr().String()+" 5000 </tmp/numbers | sha256sum")
	if want := r.Run(t, "sha256sum </tmp/numbers"); sum != want {
		t.Errorf("came back as %s, want %s", sum, want)
	}
	if got := <-done; got.err != nil || !strings.HasPrefix(got.text, "1\n2\n3\n") || !strings.HasSuffix(got.text, "\n99999\n100000\n") {
		t.Errorf("from Linux: %d bytes, %v", len(got.text), got.err)
	}
	noChecksumWrong(t, "Linux", r.Run(t, "cat /proc/net/snmp"), "Tcp:")
	r.content(t)
	r.Stop(t)
}
