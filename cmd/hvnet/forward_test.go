package main

import (
	"bytes"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hvnet/internal/lab"
	"hvnet/internal/need"
	"hvnet/internal/packets"
	"hvnet/link/tap"
	"hvnet/nic"
)

// TestForwarded has a guest's kernel be a router for what comes as long frames, put
// together by the driver (GRO) or by the host (RSC). It has to cut them for the line
// behind it, where the receiver asks for segments shorter than any MTU says: they have
// the size that the sender has given them. So have datagrams, which no host puts together.
func TestForwarded(t *testing.T) {
	needPair(t)
	need.Tool(t, "nstat")
	const mss, size = 1000, 8 << 20
	for what, release := range map[string]string{"GRO": "ws2012r2", "RSC": "ws2022"} {
		t.Run(what, func(t *testing.T) {
			p := lab.NewPairOn(t, "hvnet", []string{"--profile", release})
			sender, router := p.NS[0], p.NS[1]
			receiver, err := lab.NewNetns()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := receiver.Close(); err != nil {
					t.Error(err)
				}
			})
			ip := func(ns *lab.Netns, args ...string) {
				t.Helper()
				lab.Run(t, append([]string{"ip", "-n", ns.Name}, args...)...)
			}
			ip(router, "link", "add", "line", "type", "veth", "peer", "name", "line", "netns", receiver.Name)
			// Nothing goes over the line that is to be cut.
			ip(router, "link", "set", "line", "gso_max_size", "2000", "up")
			ip(receiver, "link", "set", "line", "up")
			for _, a := range []struct {
				ns          *lab.Netns
				iface, addr string
			}{
				{sender, "eth0", "fd00:5d:2::1/64"}, {router, "eth0", "fd00:5d:2::2/64"},
				{router, "line", "198.18.4.1/24"}, {receiver, "line", "198.18.4.2/24"},
				{router, "line", "fd00:5d:4::1/64"}, {receiver, "line", "fd00:5d:4::2/64"},
			} {
				ip(a.ns, "addr", "add", a.addr, "dev", a.iface, "nodad")
			}
			ip(sender, "route", "add", "198.18.4.0/24", "via", p.Addr[1])
			ip(sender, "route", "add", "fd00:5d:4::/64", "via", "fd00:5d:2::2")
			for net, via := range map[string]string{"198.18.2.0/24": "198.18.4.1", "fd00:5d:2::/64": "fd00:5d:4::1"} {
				ip(receiver, "route", "add", net, "via", via, "advmss", strconv.Itoa(mss))
			}
			p.Run(t, router.In("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")...)

			for _, to := range []string{"198.18.4.2", "fd00:5d:4::2"} {
				if err := transfer(sender, receiver, to, size); err != nil {
					t.Errorf("to %s: %v", to, err)
				}
				if new(tap.TAP).Takes()&nic.TakesUDP == 0 {
					continue // an older kernel
				}
				for before, rounds := joined(t, p, router), 0; joined(t, p, router) == before; rounds++ {
					if err := datagrams(sender, receiver, to); err != nil || rounds == 20 {
						t.Errorf("datagrams to %s, round %d: %v", to, rounds, err)
						break
					}
				}
			}
			if mean := meanFrame(t, router, "eth0"); mean < longFrame {
				t.Errorf("the router received %d bytes a frame", mean)
			}
			if mean := meanFrame(t, receiver, "line"); mean < mss-100 || mean > mss+80 {
				t.Errorf("%d bytes a frame came over the line, want %d and headers", mean, mss)
			}
			for _, ns := range []*lab.Netns{router, receiver} {
				if text := p.Run(t, ns.In("nstat", "-asz")...); checksumErrors.Match(text) {
					t.Errorf("wrong checksums:\n%s", text)
				}
			}
			p.Stop(t)
		})
	}
}

var joinedLine = regexp.MustCompile(`rx_queue_\d+_gro: (\d+)`)

// joined returns how many frames GRO has put behind others.
func joined(t *testing.T, p *lab.Pair, ns *lab.Netns) (sum int) {
	t.Helper()
	for _, m := range joinedLine.FindAllSubmatch(p.Run(t, ns.In("hvnet", "ethtool", "-S", "eth0")...), -1) {
		n, _ := strconv.Atoi(string(m[1]))
		sum += n
	}
	return sum
}

// datagrams sends a burst of datagrams, all of a size but for the last one, and returns
// an error unless they arrive as they were.
func datagrams(from, to *lab.Netns, addr string) error {
	const size = 900
	data := packets.Random(39*size + 100)
	var l net.PacketConn
	if err := within(to, func() (err error) {
		l, err = net.ListenPacket("udp", net.JoinHostPort(addr, "0"))
		return err
	}); err != nil {
		return err
	}
	defer l.Close()
	l.SetReadDeadline(time.Now().Add(lab.Patience))
	if err := within(from, func() error {
		d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
			e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, size) })
			if e != nil {
				return e
			}
			return err
		}}
		c, err := d.Dial("udp", l.LocalAddr().String())
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write(data)
		return err
	}); err != nil {
		return err
	}
	b := make([]byte, 2*size)
	for at := 0; at < len(data); at += size {
		n, _, err := l.ReadFrom(b)
		if err != nil {
			return err
		}
		if want := data[at:min(at+size, len(data))]; !bytes.Equal(b[:n], want) {
			return fmt.Errorf("datagram %d has %d bytes, want %d, or they are others", at/size, n, len(want))
		}
	}
	return nil
}
