package counter

import (
	"fmt"

	"hvnet/nic"
)

// Stats returns the counters as `ethtool -S` shows them on hv_netvsc: those of the
// device, of each channel in order, of each of the machine's cpus processors; and
// behind them, where no tool looks for hv_netvsc's, ours of the device and of each
// channel.
func Stats(s *Set, queues []*Queue, cpus int) []nic.Stat {
	stats := make([]nic.Stat, 0, numIDs+len(queues)*numQueueIDs+cpus*len(cpuDefs))
	device := func(from, to int) {
		for id := ID(from); id < ID(to); id++ {
			stats = append(stats, nic.Stat{Name: defs[id].Name, Value: s.Load(id)})
		}
	}
	channels := func(from, to int) {
		for i, q := range queues {
			for id := QueueID(from); id < QueueID(to); id++ {
				stats = append(stats, nic.Stat{Name: fmt.Sprintf(queueDefs[id].Name, i), Value: q.Load(id)})
			}
		}
	}
	device(0, kernelIDs)
	channels(0, kernelQueueIDs)
	for cpu := range cpus {
		var v [len(cpuDefs)]uint64
		for _, q := range queues {
			if int(q.CPU.Load()) == cpu {
				for i, id := range [...]QueueID{RxPackets, RxBytes, TxPackets, TxBytes,
					QueueVFRxPackets, QueueVFRxBytes, QueueVFTxPackets, QueueVFTxBytes} {
					v[i] += q.Load(id)
				}
			}
		}
		for i, d := range cpuDefs {
			stats = append(stats, nic.Stat{Name: fmt.Sprintf(d.Name, cpu), Value: v[i]})
		}
	}
	device(kernelIDs, numIDs)
	channels(kernelQueueIDs, numQueueIDs)
	return stats
}

// Defs returns the whole table in the order of Stats, for documents: names of
// channels and processors with %d for the number.
func Defs() []Def {
	table := append([]Def(nil), defs[:kernelIDs]...)
	table = append(table, queueDefs[:kernelQueueIDs]...)
	table = append(table, cpuDefs[:]...)
	table = append(table, defs[kernelIDs:]...)
	return append(table, queueDefs[kernelQueueIDs:]...)
}
