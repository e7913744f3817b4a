package bench

import (
	"context"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"hvnet/control"
	"hvnet/host"
	"hvnet/internal/lab"
	"hvnet/internal/need"
)

// vfRounds is how many streams go by each of the two data paths, in turn, and vfSeconds how
// long each takes.
const (
	vfRounds  = 5
	vfSeconds = 2
)

// dataPath is one of the two between the same two guests.
type dataPath struct {
	name string
	gbps []float64
	cost []float64 // CPU time in ms for each Gbit, of all processes
}

// BenchmarkVF measures one TCP stream of iperf3 between two guests, by the synthetic device
// and by a virtual function beside each, in turn: the host moves the path between streams.
// All of it is one operation. Beside the rates it tells what CPU time the host, the two
// drivers and both ends of iperf3 take together, with what the kernel does for them; that of
// ksoftirqd is not theirs. The figures are medians of the rounds, the ratios medians of the
// ratios of each round.
func BenchmarkVF(b *testing.B) {
	need.Root(b)
	for _, tool := range []string{"go", "ip", "iperf3"} {
		need.Tool(b, tool)
	}
	hvnet := filepath.Join(b.TempDir(), "hvnet")
	if out, err := exec.Command("go", "build", "-o", hvnet, "hvnet/cmd/hvnet").CombinedOutput(); err != nil {
		b.Fatalf("build: %v: %s", err, out)
	}
	pair := lab.NewPairOn(b, hvnet, []string{"--sriov"})
	synthetic, vf := &dataPath{name: "synthetic"}, &dataPath{name: "vf"}
	b.ResetTimer()
	for range b.N {
		for range vfRounds {
			move(b, pair, "remove", synthetic)
			measure(b, pair, synthetic)
			move(b, pair, "add", vf)
			measure(b, pair, vf)
		}
	}
	b.StopTimer()
	for _, p := range []*dataPath{synthetic, vf} {
		b.Logf("%-9s Gbit/s %.2f, ms of CPU for a Gbit %.0f", p.name, p.gbps, p.cost)
		b.ReportMetric(median(p.gbps), p.name+"-Gbit/s")
		b.ReportMetric(median(p.cost), p.name+"-ms/Gbit")
	}
	b.ReportMetric(median(ratios(vf.gbps, synthetic.gbps)), "vf/synthetic")
	b.ReportMetric(median(ratios(vf.cost, synthetic.cost)), "vf/synthetic-CPU")
	b.ReportMetric(0, "ns/op")
}

// ratios returns the quotients of two lists.
func ratios(a, b []float64) []float64 {
	q := make([]float64, len(a))
	for i := range q {
		q[i] = a[i] / b[i]
	}
	return q
}

// move has the host give both guests a function or take it away, as `hvnet host ctl vf` does,
// and waits until their traffic goes by the other path.
func move(b *testing.B, p *lab.Pair, do string, to *dataPath) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), lab.Patience)
	defer cancel()
	for _, port := range guests(ctx, b, p) {
		if do == "remove" && !port.Guest.VF.Present {
			continue
		}
		args := map[string]string{"do": do, "port": port.Switch.Name}
		if err := control.Call(ctx, p.Socket+".ctl", "vf", args, nil); err != nil {
			b.Fatal(err)
		}
	}
	for there := 0; there < len(p.NS); {
		there = 0
		for _, port := range guests(ctx, b, p) {
			if port.Guest.VF.Active == (to.name == "vf") {
				there++
			}
		}
	}
	lab.Run(b, p.NS[0].In("ping", "-c", "1", "-i", "0.01", p.Addr[1])...)
}

// guests returns the ports that are guests'.
func guests(ctx context.Context, b *testing.B, p *lab.Pair) (list []host.PortInfo) {
	b.Helper()
	var ports []host.PortInfo
	if err := control.Call(ctx, p.Socket+".ctl", "ports", nil, &ports); err != nil {
		b.Fatal(err)
	}
	for _, port := range ports {
		if port.Guest != nil {
			list = append(list, port)
		}
	}
	return list
}

// measure sends a stream, all of which has to go by a path.
func measure(b *testing.B, p *lab.Pair, by *dataPath) {
	b.Helper()
	before, spent := byVF(b, p), processes(b, p)
	r := lab.StartStream(b, p.NS[0], p.NS[1], p.Addr[1], vfSeconds).Result(b)
	spent = processes(b, p) - spent + r.CPU
	switch bytes := byVF(b, p) - before; {
	case by.name == "vf" && bytes < uint64(r.Bytes), by.name != "vf" && bytes != 0:
		b.Fatalf("%s: of %d bytes %d went by the functions", by.name, r.Bytes, bytes)
	}
	by.gbps = append(by.gbps, r.Gbps)
	by.cost = append(by.cost, float64(spent.Milliseconds())/(float64(r.Bytes)*8e-9))
}

// byVF returns how many bytes have come to the switch by functions that are there.
func byVF(b *testing.B, p *lab.Pair) (bytes uint64) {
	b.Helper()
	for _, port := range guests(b.Context(), b, p) {
		if x := port.Switch.Path; x != nil {
			bytes += x.InBytes
		}
	}
	return bytes
}

// processes returns the CPU time of the pair's processes so far.
func processes(b *testing.B, p *lab.Pair) time.Duration {
	b.Helper()
	const tick = 10 * time.Millisecond // USER_HZ is 100
	n := ticks(b, p.Host.PID())
	for _, up := range p.Up {
		n += ticks(b, up.PID())
	}
	return time.Duration(n) * tick
}
