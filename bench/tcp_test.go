package bench

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"hvnet/control"
	"hvnet/host"
	"hvnet/internal/lab"
	"hvnet/internal/need"
)

// tcpRounds is how many streams go over each of the ways, in turn, and tcpSeconds
// how long each takes.
const (
	tcpRounds  = 3
	tcpSeconds = 3
)

// way is one of the ways from namespace to namespace that TCP is measured over.
type way struct {
	name        string
	ns          [2]*lab.Netns
	to          string // address in ns[1]
	gbps        []float64
	retransmits []float64
}

// BenchmarkTCP measures one TCP stream of iperf3 between two namespaces, in turn
// over
//
//	veth    the kernel alone
//	copier  two TAP interfaces and a process that copies frames between them
//	tso     the same, with frames of up to 64 KiB that nobody has segmented
//	hvnet   a host process and two guest processes
//
// All of it is one operation. The figures are medians. Beside the rates it tells
// how many frames there are to a wake-up of the drivers and of the host.
func BenchmarkTCP(b *testing.B) {
	need.Root(b)
	for _, tool := range []string{"go", "ip", "iperf3"} {
		need.Tool(b, tool)
	}
	hvnet := filepath.Join(b.TempDir(), "hvnet")
	if out, err := exec.Command("go", "build", "-o", hvnet, "hvnet/cmd/hvnet").CombinedOutput(); err != nil {
		b.Fatalf("build: %v: %s", err, out)
	}
	start := time.Now()
	pair := lab.NewPair(b, hvnet)
	lab.Run(b, pair.NS[0].In("ping", "-c", "1", "-i", "0.01", pair.Addr[1])...)
	b.Logf("a host, two guests and the first ping took %v", time.Since(start).Round(time.Millisecond))

	ways := []*way{
		{name: "veth", ns: veth(b)},
		{name: "copier", ns: startCopier(b, "plain")},
		{name: "tso", ns: startCopier(b, "tso")},
		{name: "hvnet", ns: pair.NS, to: pair.Addr[1]},
	}
	for _, w := range ways[:3] {
		w.to = "198.18.3.2"
		for i, ns := range w.ns {
			lab.Run(b, "ip", "-n", ns.Name, "addr", "add", fmt.Sprintf("198.18.3.%d/24", i+1), "dev", "eth0")
			lab.Run(b, "ip", "-n", ns.Name, "link", "set", "eth0", "up")
		}
	}
	var sum work
	b.ResetTimer()
	for range b.N {
		for range tcpRounds {
			for _, w := range ways {
				before := workOf(b, pair)
				r := lab.StartStream(b, w.ns[0], w.ns[1], w.to, tcpSeconds).Result(b)
				w.gbps = append(w.gbps, r.Gbps)
				w.retransmits = append(w.retransmits, float64(r.Retransmits))
				if w.name == "hvnet" {
					sum = sum.plus(workOf(b, pair).minus(before))
				}
			}
		}
	}
	b.StopTimer()
	ours := median(ways[3].gbps)
	for _, w := range ways {
		b.ReportMetric(median(w.gbps), w.name+"-Gbit/s")
		b.Logf("%-6s Gbit/s %.2f, retransmits %.0f", w.name, w.gbps, w.retransmits)
	}
	b.ReportMetric(ours/median(ways[0].gbps), "hvnet/veth")
	b.ReportMetric(ours/median(ways[1].gbps), "hvnet/copier")
	b.ReportMetric(ours/median(ways[2].gbps), "hvnet/tso")
	b.ReportMetric(median(ways[3].retransmits), "retransmits")
	b.ReportMetric(sum.frames/sum.guests, "frames/driver-wakeup")
	b.ReportMetric(sum.frames/sum.host, "frames/host-wakeup")
	b.ReportMetric(0, "ns/op")
}

// veth connects two new namespaces by the kernel's own pair of interfaces.
func veth(b *testing.B) [2]*lab.Netns {
	ns := lab.Namespaces(b)
	lab.Run(b, "ip", "link", "add", "eth0", "netns", ns[0].Name, "type", "veth", "peer", "name", "eth0", "netns", ns[1].Name)
	return ns
}

// work counts frames that passed the host, and wake-ups of the drivers' channels
// and of the host's.
type work struct{ frames, guests, host float64 }

func (w work) plus(o work) work {
	return work{w.frames + o.frames, w.guests + o.guests, w.host + o.host}
}
func (w work) minus(o work) work {
	return work{w.frames - o.frames, w.guests - o.guests, w.host - o.host}
}

var wakeupsLine = regexp.MustCompile(`(?m)^ *rx_queue_\d+_wakeups: (\d+)$`)

// workOf reads the counters of a pair.
func workOf(b *testing.B, p *lab.Pair) (w work) {
	b.Helper()
	var ports []host.PortInfo
	if err := control.Call(b.Context(), p.Socket+".ctl", "ports", nil, &ports); err != nil {
		b.Fatal(err)
	}
	for _, port := range ports {
		if port.Guest != nil {
			w.frames += float64(port.Guest.Stats.TxFrames)
			w.host += float64(port.Guest.Wakeups)
		}
	}
	for _, ns := range p.NS {
		for _, m := range wakeupsLine.FindAllSubmatch(p.Run(b, ns.In(p.Hvnet, "ethtool", "-S", "eth0")...), -1) {
			n, err := strconv.ParseFloat(string(m[1]), 64)
			if err != nil {
				b.Fatal(err)
			}
			w.guests += n
		}
	}
	return w
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}
