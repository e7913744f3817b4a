package doctor

import "fmt"

// trafficRules look at the counters of the driver. hvnet explain says what each counter
// is.
var trafficRules = []Rule{
	{
		Name: "send-sections", Severity: Advice,
		Text: "tx_send_full is more than 1 of 100 frames sent; a note if it is less, or if there are as many sections as can be.",
		Why:  "No section of the send buffer was free, so the frame was sent from its pages, which costs the host more. Nothing is lost.",
		check: func(e *examination) {
			full, sent := e.Counters["tx_send_full"], e.sentByDriver()
			switch {
			case full == 0:
			case full*100 > sent && e.TxSections < e.MaxTx:
				e.say(Advice, e.ethtool("-G", fmt.Sprintf("tx %d", min(2*e.TxSections, e.MaxTx))),
					"%s found no send section free for %s of %d sent (tx_send_full), with %d sections", e.Name, plural(full, "frame"), sent, e.TxSections)
			default:
				e.say(Note, "", "%s sent %s from pages since no send section was free (tx_send_full), which is harmless", e.Name, plural(full, "frame"))
			}
		},
	}, {
		Name: "completions-late", Severity: Warning,
		Text: "rx_comp_busy has counted.",
		Why:  "The ring to the host was full, so the host was told late that it may use receive sections again, and may have dropped frames meanwhile.",
		check: func(e *examination) {
			if n := e.Counters["rx_comp_busy"]; n > 0 {
				mend := e.ethtool("-L", fmt.Sprintf("combined %d", max(1, min(e.MaxChannels, e.Machine.CPUs))))
				if e.Channels >= min(e.MaxChannels, e.Machine.CPUs) && !e.Ours {
					mend = "echo options hv_netvsc ring_size=256 >/etc/modprobe.d/hv_netvsc.conf # and restart"
				}
				e.say(Warning, mend, "%s could not tell the host %s that it had received frames (rx_comp_busy)", e.Name, plural(n, "time"))
			}
		},
	}, {
		Name: "ring-full", Severity: Advice,
		Text: "A channel stopped for want of room in its ring (stop_queue, tx_busy) more than once in 1000 frames.",
		Why:  "The host is slower than the sender; more channels are more of the host's processors too.",
		check: func(e *examination) {
			n, sent := e.count("stop_queue", "tx_busy"), e.sentByDriver()
			if n*1000 > sent && e.Channels < min(e.MaxChannels, e.Machine.CPUs) {
				e.say(Advice, e.ethtool("-L", fmt.Sprintf("combined %d", min(e.MaxChannels, e.Machine.CPUs))),
					"%s stopped %s for want of room in a ring, for %s sent", e.Name, plural(n, "time"), plural(sent, "frame"))
			}
		},
	}, {
		Name: "receive-drops", Severity: Warning,
		Text: "The kernel has dropped more than 1 of 1000 received frames. How many receive sections there are decides how many frames may wait for it.",
		Why:  "The machine did not keep up. What the host itself dropped since no section was free it tells no guest: see its own counters ('hvnet host ctl PATH ports', or the switch port's in Windows).",
		check: func(e *examination) {
			if e.Dropped*1000 <= e.Received || e.Dropped < 10 {
				return
			}
			mend := "nstat -az 'Ip*Discards' # and 'softnet_stat' in /proc/net"
			if e.RxSections < e.MaxRx {
				mend = e.ethtool("-G", fmt.Sprintf("rx %d", min(2*e.RxSections, e.MaxRx)))
			}
			e.say(Warning, mend, "%s has dropped %d of %s received, with %d receive sections", e.Name, e.Dropped, plural(e.Received, "frame"), e.RxSections)
		},
	},
	counted("send-failed", Warning, "frames were dropped before they were sent", "The ring never got room, or there was no memory.", "free -m # and look at the host",
		"tx_no_space", "tx_no_memory", "tx_malformed"),
	counted("too-big", Warning, "frames were longer than the host takes", "Something sends longer frames than the MTU that the host was told.", "ip -d link show # and compare the MTU of what is built on it",
		"tx_too_big"),
	counted("receive-memory", Warning, "received frames were dropped for want of memory", "The kernel gave no memory in an interrupt.", "sysctl -w vm.min_free_kbytes=131072",
		"rx_no_memory"),
	counted("checksum", Warning, "received frames had a wrong TCP or UDP checksum", "They were damaged on their way, or their sender left the checksum to hardware that did not do it.", "nstat -az TcpInCsumErrors UdpInCsumErrors # and look at the senders' offloads",
		"rx_checksum_bad"),
	counted("vlan-damaged", Warning, "frames had a VLAN tag that could not be taken out", "Something sends damaged tags.", "tcpdump -e -nn vlan # shows who",
		"vlan_error"),
	counted("host-refused", Fault, "packets were refused by the host", "The host did not understand the driver.", "dmesg | grep -i netvsc # and report it with a capture",
		"host_refused"),
	counted("host-broken", Fault, "messages from the host were malformed", "The host is broken, or hostile.", "hvnet explain host_bad_packet # and report it with a capture",
		"host_bad_packet", "host_bad_message", "host_bad_completion"),
	{
		Name: "send-refused", Severity: Fault,
		Text: "The kernel has logged that the host refused a send (nvsp_rndis_pkt_complete).",
		Why:  "Kernels before 6.15, and their stable series of before mid 2025, cut a header that crosses a page into two pieces, which the host rejects: the frame is lost.",
		check: func(e *examination) {
			if e.Refused > 0 {
				e.say(Fault, newKernel,
					"the host refused sends of %s at least %s, as the kernel's log says", e.Name, plural(e.Refused, "time"))
			}
		},
	},
}

// counted makes the rule that has something to say if one of some counters is not zero.
func counted(name string, s Severity, what, why, mend string, counters ...string) Rule {
	text := ""
	for i, c := range counters {
		if i > 0 {
			text += " or "
		}
		text += c
	}
	return Rule{
		Name: name, Severity: s, Text: text + " has counted: " + what + ".", Why: why,
		check: func(e *examination) {
			for _, c := range counters {
				if n := e.Counters[c]; n > 0 {
					e.say(s, mend, "at %s %s, as %s counts: %d", e.Name, what, c, n)
				}
			}
		},
	}
}
