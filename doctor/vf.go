package doctor

import "fmt"

// manySwitches is how many changes of the data path are more than a host's maintenance.
const manySwitches = 20

// vfRules tell whether accelerated networking (SR-IOV) is on, and by what that is known.
var vfRules = []Rule{
	{
		Name: "vf", Severity: Note,
		Text: "Accelerated networking is on: a virtual function is a part of the interface, is up, and takes frames.",
		Why:  "By what it is known is said: the device on the PCI bus with the same MAC address, and the counters vf_*.",
		check: func(e *examination) {
			if e.HasVF() && !e.idleVF() {
				e.say(Note, "", "accelerated networking of %s is on: %s%s is its slave and up, and has sent %s and received %s",
					e.Name, e.VF.Name, e.VF.where(), plural(e.Counters["vf_tx_packets"], "frame"), plural(e.Counters["vf_rx_packets"], "frame"))
			}
		},
	}, {
		Name: "vf-none", Severity: Advice,
		Text: "There is no virtual function on Azure.",
		Why:  "Without it all frames go through the host's switch. Some sizes of machines have none.",
		check: func(e *examination) {
			if e.VF == nil && e.Machine.Azure {
				e.say(Advice, "az network nic update --resource-group GROUP --name NIC --accelerated-networking true",
					"accelerated networking of %s is off: no other interface has its address %s, and vf_rx_packets is %d", e.Name, e.MAC, e.Counters["vf_rx_packets"])
			}
		},
	}, {
		Name: "vf-alone", Severity: Fault,
		Text: "A virtual function has the interface's address and is not a part of it.",
		Why:  "Two interfaces then answer for one address, and DHCP or udev may take the wrong one.",
		check: func(e *examination) {
			if e.VF != nil && !e.VF.Slave {
				e.say(Fault, fmt.Sprintf("echo 1 >/sys/class/net/%s/device/remove; echo 1 >/sys/bus/pci/rescan", e.VF.Name),
					"%s%s has the address of %s and is not its slave", e.VF.Name, e.VF.where(), e.Name)
			}
		},
	}, {
		Name: "vf-down", Severity: Warning,
		Text: "The virtual function is down.",
		Why:  "Somebody has set it down; frames go the slow way.",
		check: func(e *examination) {
			if e.VF != nil && e.VF.Slave && !e.VF.Up && e.Up {
				e.say(Warning, fmt.Sprintf("ip link set %s up", e.VF.Name), "accelerated networking of %s is off: its virtual function %s is down", e.Name, e.VF.Name)
			}
		},
	}, {
		Name: "vf-idle", Severity: Warning,
		Text: "The virtual function is up, and of 1000 frames or more that were sent none went over it.",
		Why:  "The data path was not switched over to it.",
		check: func(e *examination) {
			if e.HasVF() && e.idleVF() {
				e.say(Warning, fmt.Sprintf("ip link set %s down; ip link set %s up", e.VF.Name, e.VF.Name),
					"%s is a slave of %s and up, and none of %s went over it (vf_tx_packets is 0)", e.VF.Name, e.Name, plural(e.sentByDriver(), "frame"))
			}
		},
	}, {
		Name: "vf-address", Severity: Warning,
		Text: "The virtual function has IP addresses of its own.",
		Why:  "It is a part of the interface. With addresses of its own it answers beside it.",
		check: func(e *examination) {
			if e.VF != nil && len(e.VF.Addresses) > 0 {
				e.say(Warning, "ip addr flush dev "+e.VF.Name, "%s, the virtual function of %s, has an address of its own, %s", e.VF.Name, e.Name, e.VF.Addresses[0])
			}
		},
	}, {
		Name: "vf-switches", Severity: Advice,
		Text: fmt.Sprintf("The kernel has logged more than %d changes of the data path.", manySwitches),
		Why:  "Each is the host taking the virtual function away or giving it back, such as for its maintenance, and holds traffic up.",
		check: func(e *examination) {
			if e.Switches > manySwitches {
				e.say(Advice, "dmesg -T | grep 'Data path switched' # and ask the host's owner", "the data path of %s has changed %d times", e.Name, e.Switches)
			}
		},
	},
}

// idleVF reports whether frames are sent, and none over the virtual function.
func (i *Interface) idleVF() bool {
	return i.Counters["vf_tx_packets"] == 0 && i.sentByDriver() >= 1000
}

// where says which device a neighbour is.
func (n *Neighbour) where() string {
	if n.Driver == "" {
		return ""
	}
	return fmt.Sprintf(" (%s, %s)", n.Driver, n.Bus)
}
