package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"hvnet/internal/lab"
	"hvnet/internal/need"
)

// TestIperfThroughSettings has users change everything about a guest's interface
// that can be changed while TCP streams go both ways: both live through it.
func TestIperfThroughSettings(t *testing.T) {
	needPair(t)
	need.Tool(t, "iperf3")
	p := lab.NewPairOn(t, "hvnet", []string{"--allow-spoofing"}, "--vcpus", "4")
	streams := []*lab.Stream{
		lab.StartStream(t, p.NS[0], p.NS[1], p.Addr[1], 12),
		lab.StartStream(t, p.NS[1], p.NS[0], p.Addr[0], 12),
	}
	pause(t.Context(), time.Second) // both have agreed on their segments' size, by an MTU of 1500
	changes := 0
	do := func(what string, guest int, argv ...string) {
		t.Helper()
		start := time.Now()
		p.Run(t, p.NS[guest].In(argv...)...)
		t.Logf("%s at guest %d: took %v", what, guest+1, time.Since(start).Round(time.Millisecond))
		changes++
		pause(t.Context(), 300*time.Millisecond)
	}
	link := func(guest int, words ...string) {
		t.Helper()
		do("ip link set "+strings.Join(words, " "), guest, append([]string{"ip", "link", "set", "dev", "eth0"}, words...)...)
	}
	for g := range p.NS {
		link(g, "mtu", "1400")
		link(g, "mtu", "9000")
		link(g, "address", fmt.Sprintf("02:00:00:00:00:0%d", g+1))
		link(g, "promisc", "on")
		do("-L", g, "hvnet", "ethtool", "-L", "eth0", "combined", "1")
		do("-G", g, "hvnet", "ethtool", "-G", "eth0", "rx", "500", "tx", "50")
		link(g, "promisc", "off")
		link(g, "down")
		link(g, "up")
		do("-L", g, "hvnet", "ethtool", "-L", "eth0", "combined", "4")
		link(g, "mtu", "1500")
		do("-G", g, "hvnet", "ethtool", "-G", "eth0", "rx", "5000", "tx", "170")
	}
	for i, s := range streams {
		r := s.Result(t)
		var rates []string
		idle := 0
		for _, i := range r.Intervals {
			rates = append(rates, fmt.Sprintf("%.2f", float64(i.Bytes)*8/(i.End-i.Start).Seconds()/1e9))
			if i.Bytes == 0 {
				idle++
			}
		}
		t.Logf("stream %d: %.2f Gbit/s, %d retransmits; of each second %s", i+1, r.Gbps, r.Retransmits, strings.Join(rates, " "))
		if len(r.Intervals) < 12 || idle > 2 { // one for each time that an interface was down
			t.Errorf("stream %d lived %d seconds, %d of them without data", i+1, len(r.Intervals), idle)
		}
	}
	ports := string(p.Run(t, "hvnet", "host", "ctl", p.Socket, "ports"))
	t.Logf("%d changes\n%s", changes, ports)
	for _, want := range []string{"02:00:00:00:00:01 ", "02:00:00:00:00:02 "} {
		if !strings.Contains(ports, want) {
			t.Errorf("the host does not know %s", want)
		}
	}
	p.Stop(t)
}
