package doctor

// fragmentRules look at IP fragments, of which Azure loses many.
var fragmentRules = []Rule{
	{
		Name: "udp-hash", Severity: Warning,
		Text: "Fragments are seen, and UDP flows are told apart by their ports. A warning if fragments were lost, else advice.",
		Why:  "Only the first fragment shows ports, so the fragments of a datagram go by different channels and arrive in another order, which Azure answers with loss. A driver that keeps them together by itself (hvnet, but for --fragment-cure off) needs no change.",
		check: func(e *examination) {
			for _, ip := range ipVersions {
				made, seen, lost := ip.count(e, "FragCreates"), ip.count(e, "ReasmReqds"), ip.count(e, "ReasmFails")
				if e.Hash[ip.udp] != "L4" || made+seen == 0 || e.Cure {
					continue
				}
				s, loss := Advice, ""
				if lost > 0 {
					s, loss = Warning, ", and could not put together "+plural(lost, "datagram")
				}
				e.say(s, e.ethtool("-N", "rx-flow-hash "+ip.udp+" sd"),
					"%s spreads %s by ports, and this machine has sent %s and received %d%s", e.Name, ip.udp, plural(made, "fragment"), seen, loss)
			}
		},
	}, {
		Name: "fragments-lost", Severity: Warning,
		Text: "Datagrams could not be put together from their fragments, and UDP is told apart by addresses already. More than 1 of 1000 fragments, or any on Azure.",
		Why:  "Azure does not promise to deliver fragments in order, or at all. Datagrams that fit the MTU are no fragments.",
		check: func(e *examination) {
			for _, ip := range ipVersions {
				seen, lost := ip.count(e, "ReasmReqds"), ip.count(e, "ReasmFails")
				if lost > 0 && e.Hash[ip.udp] != "L4" && (e.Machine.Azure || lost*1000 > seen) {
					e.say(Warning, "nstat -az '"+ip.name+"Reasm*' # and have senders keep datagrams below the MTU",
						"%s could not be put together, of %s received", plural(lost, "datagram"), plural(seen, "fragment"))
				}
			}
		},
	}, {
		Name: "fragments-refused", Severity: Advice, machine: true,
		Text: "Packets were longer than their way takes, and might not be cut.",
		Why:  "The sender was told so by ICMP. If that gets lost, connections hang: a black hole of the MTU.",
		check: func(e *examination) {
			if n := e.Machine.SNMP["IpFragFails"] + e.Machine.SNMP["Ip6FragFails"]; n > 0 {
				e.say(Advice, "sysctl -w net.ipv4.tcp_mtu_probing=1",
					"%s of this machine were too long for their way and might not be cut", plural(n, "packet"))
			}
		},
	},
}

// ipVersions are those of IP, by the beginning of their counters, with their UDP.
var ipVersions = []ipVersion{{"Ip", "udp4"}, {"Ip6", "udp6"}}

type ipVersion struct{ name, udp string }

// count returns one of its counters.
func (v ipVersion) count(e *examination, what string) uint64 { return e.Machine.SNMP[v.name+what] }
