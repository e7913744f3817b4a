// Package top shows what a NIC does while it runs: a driver's counters, read twice, become
// rates for each channel ([Compute]), which become a page of text ([View.Page]), which
// stays on a terminal until its user has seen enough ([Run]). Only the last knows of
// terminals and clocks.
package top

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"hvnet/nic"
)

// A Snapshot is what a driver shows at one moment.
type Snapshot struct {
	At       time.Time
	Channels nic.Channels
	Levels   nic.HashLevels
	RSS      nic.RSS
	Stats    []nic.Stat
	Flows    []nic.Flows // of the channels since the snapshot before; nil: not known
}

// Rates are those of a channel, or of all, in one second. What goes over a virtual function
// counts for the channel with the number of its queue there. A bit is one of a frame, from
// its Ethernet header on.
type Rates struct {
	RxPackets float64 `json:"rx_packets"`
	RxBits    float64 `json:"rx_bits"`
	TxPackets float64 `json:"tx_packets"`
	TxBits    float64 `json:"tx_bits"`
	Wakeups   float64 `json:"wakeups"` // by the host
}

// A Queue is a channel.
type Queue struct {
	Queue int `json:"queue"`
	Rates
	// Flows are how many it had in the time of the rates, nil if that is not known.
	Flows *nic.Flows `json:"flows"`
	// Table is the part of the table for receiving that leads here, 0 to 1.
	Table float64 `json:"table"`
}

// A Counter is one of the device that has counted something.
type Counter struct {
	Name      string  `json:"name"`
	Value     uint64  `json:"value"`
	PerSecond float64 `json:"per_second"`
	Drop      bool    `json:"drop"` // it counts frames that are lost
}

// A View is what there is to see. Its JSON is what `hvnet top --json` prints.
type View struct {
	Interface   string    `json:"interface"`
	At          time.Time `json:"time"`
	Seconds     float64   `json:"seconds"` // that the rates are of
	Channels    int       `json:"channels"`
	MaxChannels int       `json:"max_channels"`
	// Path is what frames went over: synthetic, the virtual function, or both.
	Path string `json:"path"`
	// Levels says what flows of a kind are told apart by: addresses or ports.
	Levels   map[string]string `json:"hash_levels"`
	Entries  int               `json:"table_entries"` // 0: the host takes no table
	Queues   []Queue           `json:"queues"`
	All      Rates             `json:"all"`
	Flows    *nic.Flows        `json:"flows"`   // of all channels, as Queue.Flows
	Dropped  uint64            `json:"dropped"` // so far, the sum of the counters of drops
	Counters []Counter         `json:"counters"`
}

// drops are the counters of frames that are lost.
var drops = []string{
	"tx_no_memory", "tx_no_space", "tx_too_big", "rx_no_memory", "vlan_error", "vf_tx_dropped",
	"tx_malformed", "tx_lost", "host_bad_packet",
}

// flows are the kinds of flows, in the order in which they are shown.
var flows = [...]nic.Flow{nic.FlowTCPv4, nic.FlowUDPv4, nic.FlowTCPv6, nic.FlowUDPv6}

// Compute returns the rates between two snapshots of an interface.
func Compute(iface string, before, now Snapshot) View {
	v := View{
		Interface: iface, At: now.At, Seconds: now.At.Sub(before.At).Seconds(),
		Channels: now.Channels.Combined, MaxChannels: now.Channels.Max,
		Levels: map[string]string{}, Entries: len(now.RSS.Table),
		Queues: make([]Queue, max(now.Channels.Combined, 0)), Counters: []Counter{},
	}
	for _, f := range flows {
		v.Levels[f.String()] = "ports"
		if now.Levels[f] == nic.HashL3 {
			v.Levels[f.String()] = "addresses"
		}
	}
	old := make(map[string]uint64, len(before.Stats))
	for _, s := range before.Stats {
		old[s.Name] = s.Value
	}
	synthetic, vf := 0.0, 0.0 // frames
	for _, s := range now.Stats {
		rate := perSecond(old[s.Name], s.Value, v.Seconds)
		if i, field := channel(s.Name); field != "" {
			if i >= len(v.Queues) {
				continue
			}
			v.Queues[i].add(field, rate)
			v.All.add(field, rate)
			switch field {
			case "rx_packets", "tx_packets":
				synthetic += rate
			case "rx_vf_packets", "tx_vf_packets":
				vf += rate
			}
			continue
		}
		if strings.HasPrefix(s.Name, "cpu") || s.Value == 0 {
			continue
		}
		drop := slices.Contains(drops, s.Name)
		if drop {
			v.Dropped += s.Value
		}
		v.Counters = append(v.Counters, Counter{s.Name, s.Value, rate, drop})
	}
	for i := range v.Queues {
		v.Queues[i].Queue = i
	}
	if len(now.Flows) > 0 && len(now.Flows) == len(v.Queues) {
		v.Flows = new(nic.Flows)
		for i, f := range now.Flows {
			v.Queues[i].Flows = &f
			v.Flows.Received += f.Received
			v.Flows.Sent += f.Sent
		}
	}
	for _, c := range now.RSS.Table {
		if int(c) < len(v.Queues) {
			v.Queues[c].Table += 1 / float64(len(now.RSS.Table))
		}
	}
	switch v.Path = "synthetic"; {
	case vf > 0 && synthetic > 0:
		v.Path = "synthetic and virtual function"
	case vf > 0:
		v.Path = "virtual function"
	}
	return v
}

// perSecond returns the rate of a counter. One that is less than before has begun anew, as
// those of channels do when they are opened anew.
func perSecond(before, now uint64, seconds float64) float64 {
	if now < before {
		before = 0
	}
	if seconds <= 0 {
		return 0
	}
	return float64(now-before) / seconds
}

// channel takes the name of a channel's counter apart: tx_queue_3_packets. The field is
// empty for others.
func channel(name string) (i int, field string) {
	dir, rest, ok := strings.Cut(name, "_queue_")
	number, what, ok2 := strings.Cut(rest, "_")
	i, err := strconv.Atoi(number)
	if !ok || !ok2 || err != nil || i < 0 || dir != "rx" && dir != "tx" {
		return 0, ""
	}
	return i, dir + "_" + what
}

// add adds the rate of a channel's counter.
func (r *Rates) add(field string, rate float64) {
	switch field {
	case "rx_packets", "rx_vf_packets":
		r.RxPackets += rate
	case "rx_bytes", "rx_vf_bytes":
		r.RxBits += 8 * rate
	case "tx_packets", "tx_vf_packets":
		r.TxPackets += rate
	case "tx_bytes", "tx_vf_bytes":
		r.TxBits += 8 * rate
	case "rx_wakeups":
		r.Wakeups += rate
	}
}
