package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"hvnet/internal/lab"
	"hvnet/internal/need"
)

// A wired is a guest, and a peer that is reached by an interface of the host.
type wired struct {
	host, guest, peer *lab.Netns
	addr              [2]string // of guest and peer
	socket            string
}

// newWired makes them: the host has veth0, whose other end is a port of a bridge of the
// peer, so that the peer keeps its address when veth0 goes.
func newWired(t testing.TB, flags ...string) *wired {
	w := &wired{addr: [2]string{"198.18.9.11", "198.18.9.1"}, socket: filepath.Join(t.TempDir(), "s")}
	pair := lab.Namespaces(t)
	w.host, w.peer = pair[0], pair[1]
	pair = lab.Namespaces(t)
	w.guest = pair[0]
	lab.Run(t, "ip", "-n", w.peer.Name, "link", "add", "br0", "address", "02:00:00:00:09:01", "type", "bridge")
	lab.Run(t, "ip", "-n", w.peer.Name, "addr", "add", w.addr[1]+"/24", "dev", "br0")
	lab.Run(t, "ip", "-n", w.peer.Name, "link", "set", "br0", "up")
	w.plug(t)
	w.start(t, "host", w.host.In(append([]string{"hvnet", "host", "--listen", w.socket, "--gateway", "none", "--uplink", "nic:veth0"}, flags...)...), "^listening")
	w.start(t, "up", w.guest.In("hvnet", "up", w.socket, "--name", "g", "--addr", w.addr[0]+"/24"), "^eth0 up")
	return w
}

func (w *wired) start(t testing.TB, name string, argv []string, said string) {
	t.Helper()
	p, err := lab.Spawn(name, "", nil, argv)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	lab.Await(t, p, said)
}

// plug makes veth0 and its other end.
func (w *wired) plug(t testing.TB) {
	t.Helper()
	lab.Run(t, "ip", "-n", w.host.Name, "link", "add", "veth0", "type", "veth", "peer", "name", "veth1", "netns", w.peer.Name)
	lab.Run(t, "ip", "-n", w.peer.Name, "link", "set", "veth1", "master", "br0", "up")
	lab.Run(t, "ip", "-n", w.host.Name, "link", "set", "veth0", "up")
}

// port returns the line of the uplink.
func (w *wired) port(t *testing.T) string {
	t.Helper()
	for line := range strings.Lines(string(lab.Run(t, "hvnet", "host", "ctl", w.socket, "ports"))) {
		if strings.HasPrefix(line, "veth0 ") {
			return line
		}
	}
	t.Fatal("there is no port veth0")
	return ""
}

// clean fails the test if a kernel has seen a wrong checksum, or a frame was lost at the
// uplink.
func (w *wired) clean(t *testing.T) {
	t.Helper()
	for _, ns := range []*lab.Netns{w.guest, w.peer} {
		if text := lab.Run(t, ns.In("nstat", "-asz")...); checksumErrors.Match(text) {
			t.Errorf("wrong checksums:\n%s", text)
		}
	}
	if line := w.port(t); !strings.HasSuffix(line, " 0\n") {
		t.Errorf("frames were lost: %s", line)
	}
}

// echoes sends datagrams of the lengths between two namespaces, and back.
func echoes(from, to *lab.Netns, addr string, lengths ...int) error {
	var there net.PacketConn
	err := within(to, func() (err error) {
		there, err = net.ListenPacket("udp", net.JoinHostPort(addr, "0"))
		return err
	})
	if err != nil {
		return err
	}
	defer there.Close()
	go func() {
		b := make([]byte, 1<<16)
		for {
			n, back, err := there.ReadFrom(b)
			if err != nil {
				return
			}
			there.WriteTo(b[:n], back)
		}
	}()
	return within(from, func() error {
		c, err := net.Dial("udp", there.LocalAddr().String())
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(lab.Patience))
		b := make([]byte, 1<<16)
		for i, n := range lengths {
			sent := bytes.Repeat([]byte{byte(i + 1)}, n)
			if _, err := c.Write(sent); err != nil {
				return err
			}
			if n, err := c.Read(b); err != nil || !bytes.Equal(b[:n], sent) {
				return fmt.Errorf("datagram of %d bytes: %d came back, %w", len(sent), n, err)
			}
		}
		return nil
	})
}

// TestNIC sends data by TCP and UDP between a guest and a peer on the network of the
// host's interface, both ways: with and without offloads of the peer, and with long
// frames. It arrives as it was, no kernel finds a wrong checksum, and frames to be cut
// pass whole.
func TestNIC(t *testing.T) {
	needPair(t)
	need.Tool(t, "nstat")
	need.Tool(t, "ethtool")
	w := newWired(t)
	const size = 16 << 20
	both := func(what string) {
		t.Helper()
		err := errors.Join(transfer(w.guest, w.peer, w.addr[1], size), transfer(w.peer, w.guest, w.addr[0], size),
			echoes(w.guest, w.peer, w.addr[1], 1, 1472, 1473, 9000, 60000))
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	both("with offloads")
	for iface, ns := range map[string]*lab.Netns{"veth0": w.host, "veth1": w.peer} {
		if n := meanFrame(t, ns, iface); n < longFrame {
			t.Errorf("%s got frames of %d bytes on average: super-frames do not pass whole", iface, n)
		}
	}
	w.clean(t)
	for _, off := range []string{"tso", "gso", "gro", "tx", "rx"} {
		lab.Run(t, w.peer.In("ethtool", "-K", "veth1", off, "off")...)
		lab.Run(t, w.peer.In("ethtool", "-K", "br0", off, "off")...)
	}
	both("without offloads")
	w.clean(t)
	for _, off := range []string{"tx", "rx", "tso", "gso", "gro"} {
		lab.Run(t, w.peer.In("ethtool", "-K", "veth1", off, "on")...)
	}
	for _, i := range []struct {
		ns   *lab.Netns
		name string
	}{{w.host, "veth0"}, {w.peer, "veth1"}, {w.peer, "br0"}, {w.guest, "eth0"}} {
		lab.Run(t, "ip", "-n", i.ns.Name, "link", "set", i.name, "mtu", "9000")
	}
	both("MTU 9000")
	w.clean(t)
}

// TestNICRemoved removes the host's interface in the middle of a transfer and makes it
// anew: the connection lives.
func TestNICRemoved(t *testing.T) {
	needPair(t)
	w := newWired(t)
	var l net.Listener
	err := within(w.peer, func() (err error) {
		l, err = net.Listen("tcp", w.addr[1]+":0")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	// The guest sends until it is stopped.
	var stop atomic.Bool
	sent, got := sha256.New(), sha256.New()
	ended := make(chan error, 2)
	go func() {
		ended <- within(w.guest, func() error {
			c, err := net.DialTimeout("tcp", l.Addr().String(), lab.Patience)
			if err != nil {
				return err
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(2 * lab.Patience))
			random, b := rand.NewChaCha8([32]byte{}), make([]byte, 1<<16)
			for !stop.Load() {
				random.Read(b)
				sent.Write(b)
				if _, err := c.Write(b); err != nil {
					return err
				}
			}
			return nil
		})
	}()
	l.(*net.TCPListener).SetDeadline(time.Now().Add(lab.Patience))
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var total atomic.Int64
	go func() {
		c.SetDeadline(time.Now().Add(2 * lab.Patience))
		_, err := io.Copy(io.MultiWriter(got, counting{&total}), c)
		ended <- err
	}()
	until := func(what string, done func() bool) {
		t.Helper()
		for deadline := time.Now().Add(lab.Patience); !done(); pause(t.Context(), 10*time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %d bytes so far; %s", what, total.Load(), w.port(t))
			}
		}
	}
	for range 2 {
		at := total.Load()
		until("data", func() bool { return total.Load() > at+4<<20 })
		lab.Run(t, "ip", "-n", w.host.Name, "link", "del", "veth0")
		until("removed", func() bool { return strings.Contains(w.port(t), " removed ") })
		w.plug(t)
		until("up again", func() bool { return strings.Contains(w.port(t), " up ") })
	}
	at := total.Load()
	until("data at the end", func() bool { return total.Load() > at+4<<20 })
	stop.Store(true)
	for range 2 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	if !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
		t.Error("what came is not what was sent")
	}
}

// counting counts bytes.
type counting struct{ n *atomic.Int64 }

func (c counting) Write(b []byte) (int, error) {
	c.n.Add(int64(len(b)))
	return len(b), nil
}

// BenchmarkUplink sends data by TCP from a guest and to it, in turns over a TAP and over
// a veth as uplinks of one host. The ratio is that of the rates.
func BenchmarkUplink(b *testing.B) {
	need.Root(b)
	need.Tool(b, "ip")
	w := newWired(b, "--uplink", "tap:hv0")
	const tapAddr = "198.18.9.2"
	lab.Run(b, "ip", "-n", w.host.Name, "addr", "add", tapAddr+"/24", "dev", "hv0")
	lab.Run(b, "ip", "-n", w.host.Name, "link", "set", "hv0", "up")
	const size = 64 << 20
	for _, way := range []struct {
		name     string
		tap, nic func() error
	}{
		{"from guest", func() error { return transfer(w.guest, w.host, tapAddr, size) }, func() error { return transfer(w.guest, w.peer, w.addr[1], size) }},
		{"to guest", func() error { return transfer(w.host, w.guest, w.addr[0], size) }, func() error { return transfer(w.peer, w.guest, w.addr[0], size) }},
	} {
		b.Run(way.name, func(b *testing.B) {
			var spent [2]time.Duration
			for b.Loop() {
				for i, send := range []func() error{way.tap, way.nic} {
					start := time.Now()
					if err := send(); err != nil {
						b.Fatal(err)
					}
					spent[i] += time.Since(start)
				}
			}
			for i, name := range []string{"tap", "nic"} {
				b.ReportMetric(float64(b.N)*size*8e-9/spent[i].Seconds(), name+"_Gbit/s")
			}
			b.ReportMetric(float64(spent[0])/float64(spent[1]), "nic/tap")
		})
	}
}
