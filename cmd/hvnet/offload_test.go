package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"regexp"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"hvnet/internal/lab"
	"hvnet/internal/need"
	"hvnet/netvsp/profile"
	"hvnet/nvsp"
)

// within runs f on a thread that is in a network namespace meanwhile.
func within(ns *lab.Netns, f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	if err != nil {
		return err
	}
	defer home.Close()
	there, err := netns.GetFromName(ns.Name)
	if err != nil {
		return err
	}
	defer there.Close()
	if err := netns.Set(there); err != nil {
		return err
	}
	return errors.Join(f(), netns.Set(home))
}

// transfer sends n bytes by TCP between two namespaces, and returns an error unless
// they arrive as they were.
func transfer(from, to *lab.Netns, addr string, n int64) error {
	var l net.Listener
	err := within(to, func() (err error) {
		l, err = net.Listen("tcp", net.JoinHostPort(addr, "0"))
		return err
	})
	if err != nil {
		return err
	}
	defer l.Close()
	var seed [32]byte
	sent, got := sha256.New(), sha256.New()
	failed := make(chan error, 1)
	go func() {
		failed <- within(from, func() error {
			c, err := net.DialTimeout("tcp", l.Addr().String(), lab.Patience)
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = io.Copy(io.MultiWriter(c, sent), io.LimitReader(rand.NewChaCha8(seed), n))
			return err
		})
	}()
	l.(*net.TCPListener).SetDeadline(time.Now().Add(lab.Patience))
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(2 * lab.Patience))
	m, err := io.Copy(got, c)
	if e := <-failed; e != nil {
		return e
	}
	if err != nil || m != n || !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
		return fmt.Errorf("%d bytes of %d, or not the same: %w", m, n, err)
	}
	return nil
}

// queueSums adds up what the channels of an interface have counted.
func queueSums(t *testing.T, p *lab.Pair, ns *lab.Netns, dir string) (packets, bytes int) {
	t.Helper()
	text := p.Run(t, ns.In("hvnet", "ethtool", "-S", "eth0")...)
	for _, m := range regexp.MustCompile(dir+`_queue_\d+_(packets|bytes): (\d+)`).FindAllSubmatch(text, -1) {
		n, err := strconv.Atoi(string(m[2]))
		if err != nil {
			t.Fatal(err)
		}
		if string(m[1]) == "packets" {
			packets += n
		} else {
			bytes += n
		}
	}
	return packets, bytes
}

// longFrame is longer than a frame of the usual MTU, in bytes.
const longFrame = 1600

// meanFrame returns how many bytes a frame that an interface has received had on average.
func meanFrame(t *testing.T, ns *lab.Netns, iface string) int {
	t.Helper()
	text := lab.Run(t, ns.In("cat", "/proc/net/dev")...)
	m := regexp.MustCompile(iface + `: *(\d+) +(\d+)`).FindSubmatch(text)
	if m == nil {
		t.Fatalf("no %s:\n%s", iface, text)
	}
	bytes, _ := strconv.Atoi(string(m[1]))
	packets, _ := strconv.Atoi(string(m[2]))
	return bytes / max(packets, 1)
}

var checksumErrors = regexp.MustCompile(`InCsumErrors\s+[1-9]`)

// TestOffloadsOnEveryHost sends data by TCP over IPv4 and IPv6 between two kernels, by
// every release of the host: it arrives as it was, no kernel finds a wrong checksum,
// and what the release offers is made use of.
func TestOffloadsOnEveryHost(t *testing.T) {
	needPair(t)
	for _, release := range profile.Names() {
		t.Run(release, func(t *testing.T) {
			r, _ := profile.Lookup(release)
			p := lab.NewPairOn(t, "hvnet", []string{"--profile", release})
			addr6 := [2]string{"fd00:5d:2::1", "fd00:5d:2::2"}
			for i, ns := range p.NS {
				lab.Run(t, "ip", "-n", ns.Name, "addr", "add", addr6[i]+"/64", "dev", "eth0", "nodad")
			}
			need.Tool(t, "nstat")
			const size = 8 << 20
			for _, to := range []string{p.Addr[1], addr6[1]} {
				if err := transfer(p.NS[0], p.NS[1], to, size); err != nil {
					t.Errorf("to %s: %v", to, err)
				}
			}
			for _, ns := range p.NS {
				if text := p.Run(t, ns.In("nstat", "-az")...); checksumErrors.Match(text) {
					t.Errorf("wrong checksums:\n%s", text)
				}
			}
			// Frames of the MTU have 1514 bytes; how many TCP puts into a longer one is
			// up to its clock.
			if packets, bytes := queueSums(t, p, p.NS[0], "tx"); bytes < longFrame*packets {
				t.Errorf("sent %d bytes in %d frames, want %d a frame", bytes, packets, longFrame)
			}
			whole := r.NVSP[0] >= nvsp.V61
			if packets, bytes := queueSums(t, p, p.NS[1], "rx"); (bytes > longFrame*packets) != whole {
				t.Errorf("received %d bytes in %d frames", bytes, packets)
			}
			// What comes as segments goes to the kernel as few frames (GRO).
			if mean := meanFrame(t, p.NS[1], "eth0"); mean < longFrame {
				t.Errorf("the kernel received %d bytes a frame", mean)
			}
			p.Stop(t)
		})
	}
}

// TestOffloadsSwitched sends data while the sender or the receiver does without one
// feature or another: it arrives as it was, and what is off is off.
func TestOffloadsSwitched(t *testing.T) {
	needPair(t)
	p := lab.NewPairOn(t, "hvnet", nil)
	addr6 := [2]string{"fd00:5d:3::1", "fd00:5d:3::2"}
	for i, ns := range p.NS {
		lab.Run(t, "ip", "-n", ns.Name, "addr", "add", addr6[i]+"/64", "dev", "eth0", "nodad")
	}
	need.Tool(t, "nstat")
	// Frames of the MTU have 1514 bytes, and longer ones are left to be cut.
	const size, long = 2 << 20, 1600
	for _, x := range []struct {
		side     int // 0 sends
		dir, off string
		long     bool // frames in that direction
	}{
		{1, "rx", "rxhash", true},
		{1, "rx", "rx", true},
		{1, "rx", "lro", false},
		{0, "tx", "rx", true},
		{0, "tx", "tso", false},
		{0, "tx", "tx", false},
		{0, "tx", "sg", false},
	} {
		ns := p.NS[x.side]
		p.Run(t, ns.In("hvnet", "ethtool", "-K", "eth0", x.off, "off")...)
		packets, bytes := queueSums(t, p, ns, x.dir)
		for _, to := range []string{p.Addr[1], addr6[1]} {
			if err := transfer(p.NS[0], p.NS[1], to, size); err != nil {
				t.Errorf("%s off: to %s: %v", x.off, to, err)
			}
		}
		morePackets, moreBytes := queueSums(t, p, ns, x.dir)
		packets, bytes = morePackets-packets, moreBytes-bytes
		if (bytes > long*packets) != x.long {
			t.Errorf("%s off: %s of %d bytes in %d frames", x.off, x.dir, bytes, packets)
		}
		p.Run(t, ns.In("hvnet", "ethtool", "-K", "eth0", x.off, "on")...)
	}
	for _, ns := range p.NS {
		if text := p.Run(t, ns.In("nstat", "-az")...); checksumErrors.Match(text) {
			t.Errorf("wrong checksums:\n%s", text)
		}
	}
	p.Stop(t)
}
