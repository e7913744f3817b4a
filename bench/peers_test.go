package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"hvnet/internal/lab"
	"hvnet/internal/need"
)

// A peer is another way from a namespace to programs outside that needs no kernel
// module either.
type peer struct {
	name  string
	tools []string
	// start returns how a client is started that reaches the machine, a namespace
	// here, and by which address.
	start func(b *testing.B, machine *lab.Netns) (from func(argv ...string) []string, addr string)
	flags []string // further ones of iperf3
	gbps  []float64
}

var peers = []peer{
	{name: "pasta", tools: []string{"pasta"}, start: startPasta, flags: usualControl()}, // drops much of what Cubic sends
	{name: "slirp4netns", tools: []string{"slirp4netns"}, start: startSlirp},
	{name: "gvisor-tap-vsock", tools: []string{"gvproxy", "gvforwarder"}, start: startGvisor},
}

// BenchmarkPeers measures one TCP stream of iperf3 from a guest to its machine by the TAP
// paths of pasta, slirp4netns and gvisor-tap-vsock, as far as they are installed, in turn
// with ours: from a guest to another one ("hvnet"), and by the gateway to the machine
// ("gateway"). All of it is one operation. The figures are medians.
func BenchmarkPeers(b *testing.B) {
	need.Root(b)
	for _, tool := range []string{"go", "ip", "iperf3"} {
		need.Tool(b, tool)
	}
	hvnet := filepath.Join(b.TempDir(), "hvnet")
	if out, err := exec.Command("go", "build", "-o", hvnet, "hvnet/cmd/hvnet").CombinedOutput(); err != nil {
		b.Fatalf("build: %v: %s", err, out)
	}
	pair := lab.NewPair(b, hvnet)
	gateway := peer{name: "gateway", start: func(_ *testing.B, machine *lab.Netns) (func(argv ...string) []string, string) {
		return after(machine, hvnet, "run", "--"), "198.18.0.1"
	}}
	type route struct {
		*peer
		from func(argv ...string) []string
		to   *lab.Netns
		addr string
	}
	routes := []route{{&peer{name: "hvnet"}, pair.NS[0].In, pair.NS[1], pair.Addr[1]}}
	for _, p := range append([]peer{gateway}, peers...) {
		if why := lacks(p.tools); why != "" {
			b.Logf("%s is left out: there is no program %s", p.name, why)
			continue
		}
		machine := lab.Namespaces(b)[0]
		lab.Run(b, "ip", "-n", machine.Name, "link", "add", "out", "type", "veth", "peer", "name", "far")
		lab.Run(b, "ip", "-n", machine.Name, "addr", "add", "198.18.9.1/24", "dev", "out")
		lab.Run(b, "ip", "-n", machine.Name, "link", "set", "out", "up")
		lab.Run(b, "ip", "-n", machine.Name, "link", "set", "far", "up")
		lab.Run(b, "ip", "-n", machine.Name, "route", "add", "default", "via", "198.18.9.254")
		from, addr := p.start(b, machine)
		routes = append(routes, route{&p, from, machine, addr})
	}
	b.ResetTimer()
	for range b.N {
		for range tcpRounds {
			for _, r := range routes {
				s := lab.StartStreamBy(b, r.from, r.to, r.addr, tcpSeconds, r.flags...)
				r.gbps = append(r.gbps, s.Result(b).Gbps)
			}
		}
	}
	b.StopTimer()
	for _, r := range routes {
		b.Logf("%-16s Gbit/s %.2f", r.name, r.gbps)
		b.ReportMetric(median(r.gbps), r.name+"-Gbit/s")
	}
	for _, r := range routes[2:] {
		b.ReportMetric(median(routes[0].gbps)/median(r.gbps), "hvnet/"+r.name)
		b.ReportMetric(median(routes[1].gbps)/median(r.gbps), "gateway/"+r.name)
	}
	b.ReportMetric(0, "ns/op")
}

// lacks returns the first of some programs that is not installed, "" if all are.
func lacks(tools []string) string {
	for _, t := range tools {
		if _, err := exec.LookPath(t); err != nil {
			return t
		}
	}
	return ""
}

// after returns what puts a program behind another one's command line in a namespace.
func after(ns *lab.Netns, front ...string) func(argv ...string) []string {
	return func(argv ...string) []string { return ns.In(append(front[:len(front):len(front)], argv...)...) }
}

// beside starts a program of the machine that ends with the benchmark.
func beside(b *testing.B, argv []string, awaited string) {
	p, err := lab.Spawn(strings.Join(argv, " "), "", nil, argv)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(p.Kill)
	lab.Await(b, p, awaited)
}

// usualControl asks iperf3 for the congestion control that this kernel uses by itself.
func usualControl() []string {
	name, err := os.ReadFile("/proc/sys/net/ipv4/tcp_congestion_control")
	if err != nil {
		return nil
	}
	return []string{"-C", strings.TrimSpace(string(name))}
}

// startPasta: pasta starts the client itself, which waits a while, for a stream that
// begins with the interface stays slow.
// There is no user namespace, for in one the client could not choose its congestion control.
func startPasta(_ *testing.B, machine *lab.Netns) (func(argv ...string) []string, string) {
	return after(machine, "pasta", "--runas", "0:0", "--netns-only", "--config-net", "--", "sh", "-c", `
		sleep 1.5; exec "$@"`, "sh"), "198.18.9.254"
}

func startSlirp(b *testing.B, machine *lab.Netns) (func(argv ...string) []string, string) {
	inner := lab.Namespaces(b)[0]
	beside(b, machine.In("slirp4netns", "--configure", "--mtu=65520", "--netns-type=path",
		"/run/netns/"+inner.Name, "tap0"), "received tapfd")
	return inner.In, "10.0.2.2"
}

func startGvisor(b *testing.B, machine *lab.Netns) (func(argv ...string) []string, string) {
	inner := lab.Namespaces(b)[0]
	socket := filepath.Join(b.TempDir(), "s")
	beside(b, machine.In("gvproxy", "-listen", "unix://"+socket, "-mtu", "4000", "-ssh-port", "-1"), "waiting for clients|listening")
	lab.Run(b, "ip", "-n", inner.Name, "tuntap", "add", "tap0", "mode", "tap")
	lab.Run(b, "ip", "-n", inner.Name, "addr", "add", "192.168.127.2/24", "dev", "tap0")
	lab.Run(b, "ip", "-n", inner.Name, "link", "set", "tap0", "mtu", "4000", "up")
	beside(b, inner.In("gvforwarder", "-iface", "tap0", "-preexisting", "-url", fmt.Sprintf("unix://%s?path=/connect", socket)), "waiting for packets")
	return inner.In, "192.168.127.254"
}
