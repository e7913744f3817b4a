package doctor

import "fmt"

// linkRules look at what an interface is on its wire: link, address, length of frames.
var linkRules = []Rule{
	{
		Name: "no-link", Severity: Warning,
		Text: "The interface is up and has no link.",
		Why:  "The host has the port's cable pulled, or the driver has lost its host.",
		check: func(e *examination) {
			if e.Up && !e.Link {
				mend := "Connect-VMNetworkAdapter -VMName VM -SwitchName SWITCH # in PowerShell on the host"
				if e.Ours {
					mend = "hvnet host ctl PATH link up PORT # or hvnet resume"
				}
				e.say(Warning, mend, "%s is up and has no link: the host has not connected it", e.Name)
			}
		},
	}, {
		Name: "address-changed", Severity: Warning,
		Text: "The interface has another MAC address than its host gave it.",
		Why:  "A switch port drops what comes from an address that is not its own, unless it allows spoofing; Azure never does.",
		check: func(e *examination) {
			if e.Burnt != "" && e.MAC != e.Burnt {
				e.say(Warning, fmt.Sprintf("ip link set %s address %s", e.Name, e.Burnt),
					"%s sends from %s and its host has given it %s, so a port without MAC spoofing drops all it sends", e.Name, e.MAC, e.Burnt)
			}
		},
	}, {
		Name: "spoofing", Severity: Warning,
		Text: "Other stations send through the interface: it is in a bridge, or has macvlans.",
		Why:  "They have MAC addresses of their own, which a switch port without MAC spoofing drops.",
		check: func(e *examination) {
			who := ""
			if e.Master != nil && e.Master.Kind == "bridge" {
				who = "bridge " + e.Master.Name
			}
			for _, u := range e.Uppers {
				if u.Kind == "macvlan" || u.Kind == "macvtap" {
					who = u.Kind + " " + u.Name
				}
			}
			if who == "" {
				return
			}
			mend := "Set-VMNetworkAdapter -VMName VM -MacAddressSpoofing On # in PowerShell on the host"
			switch {
			case e.Ours:
				mend = "hvnet host --listen PATH --allow-spoofing # start the host so"
			case e.Machine.Azure:
				mend = "ip link add link " + e.Name + " type ipvlan # has one MAC address; Azure allows no other"
			}
			e.say(Warning, mend, "the stations behind %s send through %s, and the host drops that unless the port allows MAC spoofing", who, e.Name)
		},
	}, {
		Name: "mtu-upper", Severity: Warning,
		Text: "What is built on the interface has a larger MTU.",
		Why:  "Its longest frames cannot be sent.",
		check: func(e *examination) {
			uppers := e.Uppers
			if e.Master != nil {
				uppers = append([]Neighbour{*e.Master}, uppers...)
			}
			for _, u := range uppers {
				if u.MTU > e.MTU {
					e.say(Warning, fmt.Sprintf("ip link set %s mtu %d", u.Name, e.MTU), "%s has MTU %d on %s, which has %d", u.Name, u.MTU, e.Name, e.MTU)
				}
			}
		},
	}, {
		Name: "mtu-vf", Severity: Warning,
		Text: "The virtual function has another MTU than the interface.",
		Why:  "Frames are lost, or slow, depending on the way that they take.",
		check: func(e *examination) {
			if e.VF != nil && e.VF.MTU != e.MTU {
				e.say(Warning, fmt.Sprintf("ip link set %s mtu %d", e.VF.Name, e.MTU), "%s has MTU %d, and its virtual function %s %d", e.Name, e.MTU, e.VF.Name, e.VF.MTU)
			}
		},
	},
}
