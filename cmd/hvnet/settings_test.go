package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"hvnet/internal/lab"
	"hvnet/internal/need"
)

// streamTime is how long the streams of the test below go, in seconds.
const streamTime = 15

// TestIperfThroughSettings has users change whatever can be changed about two
// guests' interfaces, up to 200 times at random, while TCP streams go both ways: both live
// through it, and nothing is refused.
func TestIperfThroughSettings(t *testing.T) {
	needPair(t)
	need.Tool(t, "iperf3")
	need.Tool(t, "ethtool")
	p := lab.NewPairOn(t, "hvnet", []string{"--allow-spoofing"}, "--vcpus", "4")
	streams := []*lab.Stream{
		lab.StartStream(t, p.NS[0], p.NS[1], p.Addr[1], streamTime),
		lab.StartStream(t, p.NS[1], p.NS[0], p.Addr[0], streamTime),
	}
	pause(t.Context(), time.Second) // both have agreed on their segments' size, by an MTU of 1500
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	one := func(values ...string) string { return values[r.IntN(len(values))] }
	set := func(words ...string) []string { return append([]string{"ip", "link", "set", "dev", "eth0"}, words...) }
	start := time.Now()
	changes := 0
	for ; changes < 200 && time.Since(start) < streamTime*time.Second*2/3; changes++ {
		guest := r.IntN(2)
		var argv []string
		switch r.IntN(7) {
		case 0:
			argv = set("mtu", one("1400", "1500", "9000"))
		case 1:
			argv = set("address", fmt.Sprintf("02:00:00:00:0%d:%02x", guest+1, r.IntN(256)))
		case 2:
			argv = set("promisc", one("on", "off"))
		case 3:
			argv = []string{"sh", "-c", "ip link set eth0 down; ip link set eth0 up"}
		case 4:
			argv = []string{"sh", "-c", "hvnet ethtool -L eth0 combined " + one("1", "2", "3", "4") + " || true"} // unmodified is a failure
		case 5:
			argv = []string{"hvnet", "ethtool", "-G", "eth0", "rx", fmt.Sprint(500 + r.IntN(2500)), "tx", fmt.Sprint(30 + r.IntN(300))}
		case 6: // at either side; what needs something that is off is a failure
			what := one("hvnet ethtool -K eth0 lro ", "hvnet ethtool -K eth0 rx ", "hvnet ethtool -K eth0 tx-checksum-ipv4 ", "hvnet ethtool -K eth0 tso ",
				"ethtool -K eth0 tx ", "ethtool -K eth0 sg ", "ethtool -K eth0 tso ")
			argv = []string{"sh", "-c", what + one("on", "off") + " || true"}
		}
		p.Run(t, p.NS[guest].In(argv...)...)
	}
	t.Logf("%d changes took %v", changes, time.Since(start).Round(time.Millisecond))
	want := [2]string{} // what a quiet end looks like
	for g, ns := range p.NS {
		want[g] = fmt.Sprintf("02:00:00:00:0%d:ff", g+1)
		p.Run(t, ns.In(set("address", want[g], "mtu", "1500", "up")...)...)
	}
	for i, s := range streams {
		r := s.Result(t)
		var rates []string
		for _, i := range r.Intervals {
			rates = append(rates, fmt.Sprintf("%.2f", float64(i.Bytes)*8/(i.End-i.Start).Seconds()/1e9))
		}
		t.Logf("stream %d: %.2f Gbit/s, %d retransmits; of each second %s", i+1, r.Gbps, r.Retransmits, strings.Join(rates, " "))
		if n := len(r.Intervals); n < streamTime || r.Intervals[n-1].Bytes == 0 {
			t.Errorf("stream %d lived %d of %d seconds, and moved nothing in the last", i+1, n, streamTime)
		}
	}
	ports := string(p.Run(t, "hvnet", "host", "ctl", p.Socket, "ports"))
	t.Logf("%s", ports)
	for g, mac := range want {
		if !strings.Contains(ports, mac) {
			t.Errorf("the host does not know %s", mac)
		}
		if said := p.Up[g].Said(); strings.Contains(fmt.Sprint(said), "refused") {
			t.Errorf("guest %d: %v", g+1, said)
		}
	}
	p.Stop(t)
}
