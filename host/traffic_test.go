package host_test

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"

	"hvnet/guest"
	"hvnet/host"
	"hvnet/hv"
	"hvnet/link/netstack"
	"hvnet/netvsp"
	"hvnet/nic"
)

// prefix returns an address of the test's network.
func prefix(n byte) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, 7, n}), 24)
}

// A station is a guest with an IP stack.
type station struct {
	*guest.Guest
	stack  *netstack.Host
	served chan error
	stop   func()
}

// join attaches a station, in this process.
func join(t testing.TB, h *host.Host, want host.PortConfig, addr netip.Prefix) *station {
	t.Helper()
	part, far, err := hv.Pipe(2)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- h.Serve(far, want) }()
	g, err := guest.Start(soon(t), part, guest.Config{})
	if err != nil {
		t.Fatal(err)
	}
	s := stand(t, g, addr)
	s.served = served
	return s
}

// stand gives a guest an IP stack. It leaves with the test, or by stop.
func stand(t testing.TB, g *guest.Guest, addr netip.Prefix) *station {
	t.Helper()
	stack, err := netstack.NewHost(netstack.HostConfig{MAC: g.NIC.MAC(), MTU: g.NIC.MTU()})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(stack.AddAddr(addr), g.NIC.Up(soon(t), stack)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var pump sync.WaitGroup
	pump.Go(func() { g.NIC.Pump(ctx, stack.Source()) })
	s := &station{Guest: g, stack: stack}
	s.stop = sync.OnceFunc(func() {
		cancel()
		pump.Wait()
		if err := errors.Join(g.Close(soon(t)), stack.Close()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(s.stop)
	return s
}

// reach checks that a station gets an answer from an address.
func (s *station) reach(t testing.TB, to netip.Prefix) {
	t.Helper()
	if _, err := s.stack.Ping(soon(t), to.Addr()); err != nil {
		t.Fatalf("ping %v: %v", to.Addr(), err)
	}
}

// Two guests and the gateway reach each other, and the ports tell.
func TestTraffic(t *testing.T) {
	h := newHost(t, host.Config{})
	if err := h.AddGateway(netstack.GatewayConfig{MAC: nic.MAC{0, 0x15, 0x5d, 0, 0, 1}, IPv4: prefix(1)}); err != nil {
		t.Fatal(err)
	}
	a := join(t, h, host.PortConfig{}, prefix(2))
	b := join(t, h, host.PortConfig{Name: "b", MAC: nic.MAC{2, 0, 0, 0, 0, 7}}, prefix(3))
	if a.NIC.MAC() != host.PortMAC("guest1") || b.NIC.MAC() != (nic.MAC{2, 0, 0, 0, 0, 7}) {
		t.Errorf("addresses %v and %v", a.NIC.MAC(), b.NIC.MAC())
	}
	a.reach(t, prefix(3))
	b.reach(t, prefix(1))

	ports := h.Ports()
	if len(ports) != 3 {
		t.Fatalf("%d ports", len(ports))
	}
	for i, name := range []string{"b", "gateway", "guest1"} {
		p := &ports[i]
		if p.Switch.Name != name || p.Switch.InFrames == 0 || p.Switch.OutFrames == 0 {
			t.Errorf("port %s: %+v", name, p.Switch)
		}
		if g := p.Guest; (g == nil) != (name == "gateway") {
			t.Errorf("port %s: guest %+v", name, g)
		} else if g != nil && (g.Stage != netvsp.StageUp || g.Channels != 2 || g.MAC.String() != p.Address()) {
			t.Errorf("port %s: guest %+v", name, g)
		}
		for reason, n := range p.Drops() {
			if n > 0 && name == "gateway" {
				t.Errorf("port %s: %d dropped: %s", name, n, reason)
			}
		}
	}
	a.stop()
	if err := await(t, a.served, "the end of Serve"); !errors.Is(err, hv.ErrGone) {
		t.Errorf("Serve: %v", err)
	}
	if ports := h.Ports(); len(ports) != 2 || ports[0].Switch.Name != "b" {
		t.Errorf("%d ports after a guest has left", len(ports))
	}
	b.reach(t, prefix(1))
}

// Guests let go of the NICs that a closing host takes away, and nothing is left.
func TestClose(t *testing.T) {
	h := host.New(host.Config{})
	stations := []*station{join(t, h, host.PortConfig{}, prefix(2)), join(t, h, host.PortConfig{}, prefix(3))}
	stations[0].reach(t, prefix(3))
	for _, s := range stations {
		go func() {
			<-s.Done()
			s.stop()
		}()
	}
	if err := h.Close(soon(t)); err != nil {
		t.Error(err)
	}
	for _, s := range stations {
		if err := await(t, s.served, "the end of Serve"); !errors.Is(err, hv.ErrGone) {
			t.Errorf("Serve: %v", err)
		}
		s.stop()
	}
	if ports := h.Ports(); len(ports) != 0 {
		t.Errorf("%d ports are left", len(ports))
	}
}
