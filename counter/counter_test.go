package counter

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"hvnet/nic"

	"github.com/google/go-cmp/cmp"
)

// The lines of `ethtool -S` on hv_netvsc with two channels and two processors, and
// behind them ours.
const want = `tx_scattered 1
tx_no_memory 2
tx_no_space 3
tx_too_big 4
tx_busy 5
tx_send_full 6
rx_comp_busy 7
rx_no_memory 8
stop_queue 9
wake_queue 10
vlan_error 11
vf_rx_packets 12
vf_rx_bytes 13
vf_tx_packets 14
vf_tx_bytes 15
vf_tx_dropped 16
tx_queue_0_packets 101
tx_queue_0_bytes 102
tx_queue_0_xdp_xmit 103
rx_queue_0_packets 104
rx_queue_0_bytes 105
rx_queue_0_xdp_drop 106
rx_queue_0_xdp_redirect 107
rx_queue_0_xdp_tx 108
tx_queue_1_packets 201
tx_queue_1_bytes 202
tx_queue_1_xdp_xmit 203
rx_queue_1_packets 204
rx_queue_1_bytes 205
rx_queue_1_xdp_drop 206
rx_queue_1_xdp_redirect 207
rx_queue_1_xdp_tx 208
cpu0_rx_packets 0
cpu0_rx_bytes 0
cpu0_tx_packets 0
cpu0_tx_bytes 0
cpu0_vf_rx_packets 0
cpu0_vf_rx_bytes 0
cpu0_vf_tx_packets 0
cpu0_vf_tx_bytes 0
cpu1_rx_packets 308
cpu1_rx_bytes 310
cpu1_tx_packets 302
cpu1_tx_bytes 304
cpu1_vf_rx_packets 326
cpu1_vf_rx_bytes 328
cpu1_vf_tx_packets 330
cpu1_vf_tx_bytes 332
tx_steer_copy 17
udp_frag_l3_sticky 18
tx_malformed 19
tx_lost 20
rx_checksum_bad 21
host_refused 22
host_bad_packet 23
host_bad_message 24
host_bad_completion 25
vf_switches 26
vf_undrained 27
tx_queue_0_batches 109
rx_queue_0_batches 110
rx_queue_0_wakeups 111
rx_queue_0_gro 112
rx_queue_0_vf_packets 113
rx_queue_0_vf_bytes 114
tx_queue_0_vf_packets 115
tx_queue_0_vf_bytes 116
tx_queue_1_batches 209
rx_queue_1_batches 210
rx_queue_1_wakeups 211
rx_queue_1_gro 212
rx_queue_1_vf_packets 213
rx_queue_1_vf_bytes 214
tx_queue_1_vf_packets 215
tx_queue_1_vf_bytes 216
`

func TestStats(t *testing.T) {
	var s Set
	for id := range ID(numIDs) {
		s.Add(id, uint64(id))
		s.Add(id, 1)
	}
	queues := []*Queue{new(Queue), new(Queue)}
	for i, q := range queues {
		q.CPU.Store(1) // none on processor 0
		for id := range QueueID(numQueueIDs) {
			q.Add(id, uint64(id))
			q.Add(id, uint64(100*(i+1)+1))
		}
	}
	got := Stats(&s, queues, 2)
	if diff := cmp.Diff(want, text(got)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if got := len(Stats(&s, nil, 0)); got != numIDs {
		t.Errorf("without channels: %d lines, want %d", got, numIDs)
	}
}

func text(stats []nic.Stat) string {
	var b strings.Builder
	for _, s := range stats {
		fmt.Fprintf(&b, "%s %d\n", s.Name, s.Value)
	}
	return b.String()
}

// A name is ethtool's to show: it has 31 characters at most.
func TestTable(t *testing.T) {
	seen := map[string]bool{}
	for _, d := range Defs() {
		if d.Name == "" || d.Meaning == "" || d.Advice == "" {
			t.Errorf("%+v: something is missing", d)
		}
		if d.Unit != packets && d.Unit != bytes && d.Unit != events {
			t.Errorf("%s: unit %q", d.Name, d.Unit)
		}
		for _, s := range []string{d.Meaning, d.Advice} {
			if !strings.HasSuffix(s, ".") {
				t.Errorf("%s: %q is not a sentence", d.Name, s)
			}
		}
		if seen[d.Name] {
			t.Errorf("%s: twice", d.Name)
		}
		seen[d.Name] = true
		if name := strings.Replace(d.Name, "%d", "63", 1); len(name) > 31 || strings.ContainsAny(name, "% ") {
			t.Errorf("%q: not a name that ethtool can show", name)
		}
	}
	if n := numIDs + numQueueIDs + len(cpuDefs); len(seen) != n {
		t.Errorf("%d counters in the table, want %d", len(seen), n)
	}
}

func TestSetFromManyGoroutines(t *testing.T) {
	var s Set
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				s.Add(TxBusy, 1)
			}
		})
	}
	wg.Wait()
	if got := s.Load(TxBusy); got != 8000 {
		t.Errorf("%d, want 8000", got)
	}
}

func TestNoAllocations(t *testing.T) {
	var s Set
	var q Queue
	if n := testing.AllocsPerRun(100, func() { s.Add(TxLost, 1); q.Add(RxPackets, 1) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAdd(b *testing.B) {
	b.Run("set", func(b *testing.B) {
		var s Set
		for b.Loop() {
			s.Add(TxSteerCopy, 1)
		}
	})
	b.Run("queue", func(b *testing.B) {
		var q Queue
		for b.Loop() {
			q.Add(RxPackets, 1)
		}
	})
}
