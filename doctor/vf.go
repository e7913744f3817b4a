package doctor

import (
	"cmp"
	"fmt"
)

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
				e.say(Note, "", "accelerated networking of %s is on: %s%s is %s and up, and has sent %s and received %s",
					e.Name, e.VF.Name, e.VF.where(), e.joined(), plural(e.Counters["vf_tx_packets"], "frame"), plural(e.Counters["vf_rx_packets"], "frame"))
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
		Name: "vf-announced", Severity: Note,
		Text: "hvnet's driver has no virtual function, and either its user or its host wants none.",
		Why:  "A host announces one only if it has SR-IOV and the driver has asked for it.",
		check: func(e *examination) {
			switch v := e.SRIOV; {
			case v == nil || v.Associated:
			case !v.Wanted:
				e.say(Note, "", "accelerated networking of %s is off: its driver does not ask the host for it (it was started with --vf ignore, without rights, or by 'hvnet run' without --vf)", e.Name)
			case !v.Announced && e.Host["NVSP"] >= "5": // the driver is without its host, which no-link says
			case !v.Announced:
				e.say(Note, "", "accelerated networking of %s is off: its driver would ask for it, but the host has no message for that (NVSP %s)", e.Name, e.Host["NVSP"])
			default:
				e.say(Note, "", "accelerated networking of %s is off: its driver asks for it, and its host has given it no virtual function ('hvnet host ctl PATH vf add PORT' does, at a host with --sriov)", e.Name)
			}
		},
	}, {
		Name: "vf-missing", Severity: Warning,
		Text: "The host has associated a virtual function with the interface, and hvnet's driver does not find its device.",
		Why:  "The device is in another network namespace, has another address, or does not come up.",
		check: func(e *examination) {
			if v := e.SRIOV; v != nil && v.Wanted && v.Associated && !v.Device {
				e.say(Warning, "ip link", "the host has given %s the virtual function %d, and no device here has its address %s", e.Name, v.Serial, e.address())
			}
		},
	}, {
		Name: "vf-carrier", Severity: Warning,
		Text: "The virtual function has no carrier.",
		Why:  "Its other end is down, or not there any more; frames go the slow way.",
		check: func(e *examination) {
			if v := e.SRIOV; v != nil && v.Associated && v.Device && v.Up && !v.Carrier {
				e.say(Warning, "", "accelerated networking of %s is off: its virtual function%s has no carrier", e.Name, e.named())
			}
		},
	}, {
		Name: "vf-unwilling", Severity: Warning,
		Text: "The host does not want its virtual function used, or the driver leaves it alone after a loss (a note).",
		Why:  "The host has refused to move the data path, has taken it back, or has not answered; or the driver was started with --vf-rest.",
		check: func(e *examination) {
			switch v := e.SRIOV; {
			case v == nil || !v.Associated || !v.Device:
			case v.Unwilling:
				e.say(Warning, "hvnet vf timeline "+e.Name, "accelerated networking of %s is off: the host does not move the data path to its virtual function%s", e.Name, e.named())
			case v.Resting:
				e.say(Note, "hvnet vf timeline "+e.Name, "accelerated networking of %s is off: its virtual function%s was lost, and is left alone for a while", e.Name, e.named())
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
		Text: fmt.Sprintf("The kernel has logged, or hvnet's driver counted, more than %d changes of the data path.", manySwitches),
		Why:  "Each is the host taking the virtual function away or giving it back, such as for its maintenance, and holds traffic up.",
		check: func(e *examination) {
			if e.Switches > manySwitches {
				e.say(Advice, e.switchLog(), "the data path of %s has changed %d times", e.Name, e.Switches)
			}
		},
	},
}

// named is the name of the virtual function, with a space before it, if it is known.
func (i *Interface) named() string {
	if i.VF == nil {
		return ""
	}
	return " " + i.VF.Name
}

// address is the one by which the virtual function is known.
func (i *Interface) address() string { return cmp.Or(i.Burnt, i.MAC) }

// joined says how a virtual function belongs to its interface.
func (i *Interface) joined() string {
	if i.Ours {
		return "its virtual function"
	}
	return "its slave"
}

// switchLog is where the changes of the data path are told.
func (i *Interface) switchLog() string {
	if i.Ours {
		return "hvnet vf timeline " + i.Name
	}
	return "dmesg -T | grep 'Data path switched' # and ask the host's owner"
}

// idleVF reports whether frames are sent, and none over the virtual function; of a driver
// that tells which path it uses that is known better.
func (i *Interface) idleVF() bool {
	return i.SRIOV == nil && i.Counters["vf_tx_packets"] == 0 && i.sentByDriver() >= 1000
}

// where says which device a neighbour is.
func (n *Neighbour) where() string {
	switch {
	case n.Driver == "" && n.Kind != "":
		return " (" + n.Kind + ")"
	case n.Driver == "":
		return ""
	}
	return fmt.Sprintf(" (%s, %s)", n.Driver, n.Bus)
}
