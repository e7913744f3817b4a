package doctor

import (
	"fmt"
	"slices"
	"strings"
)

// settingRules look at what is set.
var settingRules = []Rule{
	{
		Name: "channels-few", Severity: Advice,
		Text: "There are fewer channels than the host offers and the machine has processors for.",
		Why:  "A channel is one processor's work. Linux opens 8 (16 since 6.12) by itself; on large machines more are faster.",
		check: func(e *examination) {
			if n := min(e.MaxChannels, e.Machine.CPUs); e.Channels < n {
				e.say(Advice, e.ethtool("-L", fmt.Sprintf("combined %d", n)),
					"%s has %s, and could have %d on the %d processors of this machine", e.Name, plural(e.Channels, "channel"), n, e.Machine.CPUs)
			}
		},
	}, {
		Name: "channels-many", Severity: Advice,
		Text: "The kernel's driver has more channels than the machine has processors.",
		Why:  "Channels that share a processor cost interrupts and bring nothing.",
		check: func(e *examination) {
			if n := e.Machine.CPUs; e.Channels > n && n > 0 && !e.Ours {
				e.say(Advice, e.ethtool("-L", fmt.Sprintf("combined %d", n)),
					"%s has %d channels on %s", e.Name, e.Channels, plural(n, "processor"))
			}
		},
	}, {
		Name: "channels-crowded", Severity: Advice,
		Text: "Two channels have their interrupts at one processor, although there is one for each.",
		Why:  "The kernel spreads them when it opens them; processors that went offline, or programs for interrupts, may have moved them.",
		check: func(e *examination) {
			cpus := e.Machine.CPUs
			if e.Ours { // of a guest with as many virtual processors as there can be channels, at least
				cpus = e.MaxChannels
			}
			used := map[int]bool{}
			guest := -1 // the first channel that is at another one's processor
			for k, p := range e.Places {
				if used[p.CPU] && guest < 0 {
					guest = k
				}
				used[p.CPU] = true
			}
			n, free := len(e.Places), 0
			for used[free] {
				free++
			}
			if guest < 0 || n > cpus || free >= cpus {
				return
			}
			mend := fmt.Sprintf("echo %d >/sys/bus/vmbus/devices/%s/channels/%d/cpu", free, e.Device, e.Places[guest].Relid)
			if e.Ours {
				mend = fmt.Sprintf("hvnet channels %s --move %d:%d", e.Name, guest, free)
			}
			e.say(Advice, mend, "the %d channels of %s share %s, of %d", n, e.Name, plural(len(used), "processor"), cpus)
		},
	}, {
		Name: "rss-uneven", Severity: Advice,
		Text: "The table for received frames leaves channels out.",
		Why:  "What the table does not name gets no frames from the host.",
		check: func(e *examination) {
			if n := e.RSSChannels; n > 0 && n < e.Channels && e.RSSEntries >= e.Channels {
				e.say(Advice, e.ethtool("-X", fmt.Sprintf("equal %d", e.Channels)),
					"%s receives on %d of its %d channels", e.Name, n, e.Channels)
			}
		},
	}, {
		Name: "offload-off", Severity: Advice,
		Text: "Checksums, segmentation or GRO could be on and are off.",
		Why:  "Often they were switched off once in search of a fault; without them TCP takes several times the processor's work.",
		check: func(e *examination) {
			names := []struct{ feature, option string }{
				{"rx-checksum", "rx"}, {"tx-checksum-ipv4", "tx"}, {"tx-scatter-gather", "sg"}, {"tx-tcp-segmentation", "tso"}, {"rx-gro", "gro"},
			}
			var off []string
			for _, n := range names {
				if slices.Contains(e.Off, n.feature) {
					off = append(off, n.option)
				}
			}
			if len(off) > 0 {
				e.say(Advice, e.ethtool("-K", strings.Join(off, " on ")+" on"),
					"%s is switched off at %s, which the host could do", strings.Join(off, ", "), e.Name)
			}
		},
	}, {
		Name: "lro-router", Severity: Warning,
		Text: "The kernel's driver has LRO (RSC) on, and the machine forwards.",
		Why:  "What the host has joined is longer than the MTU, and the kernel does not cut it into the segments that it was: it is dropped, or goes on in fragments. Linux switches LRO off when it becomes a router; somebody has switched it on again. hvnet's driver has the kernel cut it.",
		check: func(e *examination) {
			if e.has("rx-lro") && e.Machine.Forward && !e.Ours {
				e.say(Warning, e.ethtool("-K", "lro off"), "%s receives frames joined by the host (LRO), and this machine is a router", e.Name)
			}
		},
	}, {
		Name: "lro-xdp", Severity: Warning,
		Text: "The kernel's driver has LRO (RSC) on, and an XDP program runs in generic mode.",
		Why:  "hv_netvsc takes no XDP program while LRO is on; in generic mode a program sees each frame late and after a copy.",
		check: func(e *examination) {
			if e.has("rx-lro") && e.XDP == "generic" && !e.Ours {
				e.say(Warning, e.ethtool("-K", "lro off")+" # and attach the program again",
					"the XDP program at %s runs in generic mode, since LRO is on", e.Name)
			}
		},
	}, {
		Name: "monitor", Severity: Note,
		Text: "The host finds out what is sent by polling a page.",
		Why:  "A signal then waits up to the latency that the page names, and an emulated host has to look all the time. Dedicated interrupts are the other way.",
		check: func(e *examination) {
			if e.Monitor != "" {
				e.say(Note, "", "%s signals its host by bit %s of the monitor page, which the host polls", e.Name, e.Monitor)
			}
		},
	},
}

// plural returns a number of things.
func plural[N int | uint64](n N, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
