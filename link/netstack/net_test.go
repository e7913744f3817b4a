package netstack

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hvnet/nic"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	gatewayMAC = nic.MAC{0x00, 0x15, 0x5d, 0, 0, 1}
	gateway4   = netip.MustParsePrefix("198.18.0.1/24")
	gateway6   = netip.MustParsePrefix("fd00:5d::1/64")
)

// hub joins ports: every frame goes to all other ports. Frames are handed on at
// once, so that order and batches stay.
type hub struct {
	mu    sync.Mutex
	ports []nic.Sink
}

// hubPort is what a station sends into.
type hubPort struct {
	h  *hub
	no int
}

func (h *hub) connect(station nic.Sink) *hubPort {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ports = append(h.ports, station)
	return &hubPort{h, len(h.ports) - 1}
}

func (p *hubPort) WriteFrames(frames []nic.Frame) {
	p.h.mu.Lock()
	ports := p.h.ports
	p.h.mu.Unlock()
	for i, station := range ports {
		if i != p.no {
			station.WriteFrames(frames)
		}
	}
}

// testNet is a hub with a gateway and hosts.
type testNet struct {
	t   testing.TB
	hub hub
	gw  *Gateway
}

func newTestNet(t testing.TB, cfg GatewayConfig) *testNet {
	t.Helper()
	cfg.MAC, cfg.IPv4, cfg.IPv6 = gatewayMAC, gateway4, gateway6
	if cfg.Upstream == nil {
		cfg.Upstream = []string{"127.0.0.1:1"} // nobody
	}
	gw, err := NewGateway(cfg)
	if err != nil {
		t.Fatal(err)
	}
	n := &testNet{t: t, gw: gw}
	gw.Start(n.hub.connect(gw))
	t.Cleanup(func() { gw.Close() })
	return n
}

// host adds host number no with static addresses.
func (n *testNet) host(no byte) *Host {
	n.t.Helper()
	return n.add(HostConfig{
		MAC: hostMAC(no),
		Addrs: []netip.Prefix{
			netip.PrefixFrom(host4(no), 24),
			netip.PrefixFrom(host6(no), 64),
		},
		Gateways: []netip.Addr{gateway4.Addr(), gateway6.Addr()},
	})
}

func (n *testNet) add(cfg HostConfig) *Host {
	n.t.Helper()
	h, err := NewHost(cfg)
	if err != nil {
		n.t.Fatal(err)
	}
	h.Start(n.hub.connect(h))
	n.t.Cleanup(func() { h.Close() })
	return h
}

func hostMAC(no byte) nic.MAC { return nic.MAC{0x00, 0x15, 0x5d, 0, 1, no} }

func host4(no byte) netip.Addr {
	b := gateway4.Addr().As4()
	b[3] = no
	return netip.AddrFrom4(b)
}

func host6(no byte) netip.Addr {
	b := gateway6.Addr().As16()
	b[15] = no
	return netip.AddrFrom16(b)
}

// soon is a context for what takes no time unless something is broken.
func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}
