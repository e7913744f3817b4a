package matrix

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"hvnet/guest"
	"hvnet/internal/lab"
	"hvnet/internal/need"
	"hvnet/link/tap"
	"hvnet/netvsp/profile"
	"hvnet/nic"
)

// interfaceAxes are those of the cases with real interfaces and sockets: the kernel
// is the stack, told by its ethtool what to leave to the driver, and by the option
// UDP_SEGMENT what to leave to itself.
var interfaceAxes = []Axis{profiles, ways, versions, protocols, sizes, lro, gro, sums, lso, uso}

// The addresses of the near end, the gateway and the far end, by IP version.
var addresses = map[string][3]string{
	"IPv4": {"192.168.0.1", "192.168.0.2", "192.168.0.3"},
	"IPv6": {"2001:db8::1", "2001:db8::2", "2001:db8::3"},
}

// TestInterfaces sends a flow in each case of a cover of all pairs, between sockets in
// network namespaces. The payload arrives as it was sent, neither kernel counts a wrong
// checksum, no section is lost and no frame dropped.
func TestInterfaces(t *testing.T) {
	need.Root(t)
	need.Tool(t, "ip")
	need.Tool(t, "ethtool")
	cases := Pairs(interfaceAxes)
	if len(cases) > 60 {
		t.Errorf("%d cases, want at most 60", len(cases))
	}
	switch {
	case need.All():
	case testing.Short():
		cases = cases[:3]
	default:
		cases = cases[:9]
	}
	ends := lab.Namespaces(t)
	for _, c := range cases {
		t.Run(c.String(), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			s := newStage(ctx, t, c, ends)
			before := [2]map[string]uint64{faults(t, ends[0]), faults(t, ends[1])}
			if err := s.transfer(ctx, c); err != nil {
				t.Error(err)
			}
			s.balanced(ctx, t, c)
			for i, end := range ends {
				for name, n := range faults(t, end) {
					if n != before[i][name] {
						t.Errorf("the kernel of %s counts %d of %s", []string{"the near end", "the far end"}[i], n-before[i][name], name)
					}
				}
			}
		})
	}
}

// A stage is a world of which one guest or two have interfaces in namespaces.
type stage struct {
	*world
	near, far *lab.Netns

	flows int // that were sent to the far end, each to a port of its own
}

// newStage makes the world of a case: eth0 at the near end is a guest's, at the far
// end the other guest's or a TAP of the host.
func newStage(ctx context.Context, t *testing.T, c Case, ends [2]*lab.Netns) *stage {
	t.Helper()
	prof, err := profile.Lookup(c.Of("profile"))
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{world: newWorld(t, prof, c.mtu()), near: ends[0], far: ends[1]}
	s.rated = c.Of("protocol") == "TCP"
	s.plug(ctx, t, s.near, s.join(ctx, t, macA, c.mtu()))
	switch c.Of("way") {
	case "guest":
		s.plug(ctx, t, s.far, s.join(ctx, t, macB, c.mtu()))
	case "TAP":
		err := within(s.far, func() error {
			return s.host.AddTAP(tap.Config{Name: "eth0", MTU: c.mtu(), Offloads: tap.Offloads})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	var script strings.Builder
	for i, end := range ends {
		if i == 1 && c.Of("way") == "gateway" {
			break
		}
		for v, bits := range map[string]int{"IPv4": 24, "IPv6": 64} {
			fmt.Fprintf(&script, "ip -n %s addr add %s/%d dev eth0 %s && ", end.Name, addresses[v][2*i], bits,
				map[string]string{"IPv6": "nodad"}[v])
		}
		fmt.Fprintf(&script, "ip -n %s link set eth0 up && ", end.Name)
	}
	for axis, flag := range map[string]string{"checksum": "tx", "lso": "tso"} {
		if !c.On(axis) {
			fmt.Fprintf(&script, "ip netns exec %s ethtool -K eth0 %s off >&2 && ", s.near.Name, flag)
		}
	}
	lab.Run(t, "sh", "-c", script.String()+"true")
	if err := s.set(ctx, nic.FeatureChange{Change: joining, On: c.joining()}); err != nil {
		t.Fatal(err)
	}
	return s
}

// plug gives a guest an interface, eth0 of a namespace.
func (s *stage) plug(ctx context.Context, t *testing.T, ns *lab.Netns, g *guest.Guest) {
	t.Helper()
	var dev *tap.TAP
	err := within(ns, func() (err error) {
		dev, err = tap.Open(tap.Config{Name: "eth0", Queues: g.NIC.Channels().Max, MAC: g.NIC.MAC(), MTU: g.NIC.MTU(),
			Offloads: tap.Offloads, Largest: g.NIC.LargeSend()})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	leave, err := g.Join(ctx, dev, nil)
	if err != nil {
		t.Fatal(errors.Join(err, dev.Close()))
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := errors.Join(leave(ctx), dev.Close()); err != nil {
			t.Errorf("unplug: %v", err)
		}
	})
}

// within calls f in a network namespace. What f makes there stays there.
func within(ns *lab.Netns, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() { // the thread that says where the process is
			done <- within(ns, f)
			runtime.UnlockOSThread()
			return
		}
		h, err := netns.GetFromName(ns.Name)
		if err == nil {
			err = errors.Join(netns.Set(h), h.Close())
		}
		if err == nil {
			err = f()
		}
		done <- err // and the thread ends with the goroutine
	}()
	return <-done
}

// transfer sends the flow of a case.
func (s *stage) transfer(ctx context.Context, c Case) error {
	if c.Of("way") == "gateway" {
		return s.echoed(ctx, c)
	}
	to := net.JoinHostPort(addresses[c.Of("ip")][2], strconv.Itoa(5001+s.flows))
	s.flows++
	if c.Of("protocol") == "TCP" {
		return s.stream(ctx, to)
	}
	return s.datagrams(ctx, c, to)
}

// dial connects a socket of the near end.
func (s *stage) dial(ctx context.Context, network, to string) (c net.Conn, err error) {
	err = within(s.near, func() (err error) {
		var d net.Dialer
		c, err = d.DialContext(ctx, network, to)
		return err
	})
	if err == nil {
		err = c.SetDeadline(time.Now().Add(patience))
	}
	return c, err
}

// datagram is the length of the longest datagram of a case.
func (c Case) datagram() int {
	s := c.shape()
	return nic.HeaderLen + c.mtu() - len(s.Frame(nil))
}
