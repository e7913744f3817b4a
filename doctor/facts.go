// Package doctor says what is wrong with the network interfaces of a Hyper-V guest, and
// how to mend it: facts go in, findings come out. It asks nobody for anything; package
// gather collects the facts of a machine.
package doctor

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Facts are what is known of a machine. They can be written to a file and examined
// elsewhere.
type Facts struct {
	Machine    Machine     `json:"machine"`
	Interfaces []Interface `json:"interfaces"`
}

// Keep leaves the named interfaces alone in the facts; all, if there are no names. It
// fails for a name that is not among them.
func (f *Facts) Keep(names []string) error {
	if len(names) == 0 {
		return nil
	}
	f.Interfaces = slices.DeleteFunc(f.Interfaces, func(i Interface) bool { return !slices.Contains(names, i.Name) })
	for _, name := range names {
		if !slices.ContainsFunc(f.Interfaces, func(i Interface) bool { return i.Name == name }) {
			return fmt.Errorf("interface %s: %w", name, ErrNotAmong)
		}
	}
	return nil
}

// ErrNotAmong says that the facts have no interface of a name.
var ErrNotAmong = errors.New("not among the facts")

// A Machine is what all its interfaces share. What is not known is empty.
type Machine struct {
	Kernel  string `json:"kernel"`            // its release, as uname -r prints it
	Release string `json:"release,omitempty"` // the one of kernel.org that it is made from, "6.1.158"
	CPUs    int    `json:"cpus"`              // processors that are online
	Azure   bool   `json:"azure"`             // the chassis is marked as one of Azure's
	VMBus   string `json:"vmbus,omitempty"`   // version of the bus, "5.3"
	Build   string `json:"build,omitempty"`   // of the host, as it names itself
	Forward bool   `json:"forward,omitempty"` // the machine is a router, of IPv4 or IPv6
	// SNMP has the counters of fragments in this network namespace, by the names that
	// nstat has for them: "IpReasmFails", "Ip6ReasmFails".
	SNMP map[string]uint64 `json:"snmp,omitempty"`
	// UIO tells that uio_hv_generic is loaded, UIODevices which devices it has.
	UIO        bool     `json:"uio,omitempty"`
	UIODevices []string `json:"uio_devices,omitempty"`
}

// An Interface is a NIC with a netvsc driver: the kernel's, or this project's.
type Interface struct {
	Name   string `json:"name"`
	Ours   bool   `json:"ours,omitempty"` // the driver is this project's
	Up     bool   `json:"up"`             // by its administrator
	Link   bool   `json:"link"`           // frames can go
	MTU    int    `json:"mtu"`
	MAC    string `json:"mac"`
	Burnt  string `json:"permanent_mac,omitempty"` // the address that it came with
	Driver string `json:"driver"`
	// Version is the driver's.
	Version string `json:"version"`
	// Host has the versions that were agreed upon with the host, as far as the driver
	// tells: "VMBus", "NVSP", "NDIS".
	Host map[string]string `json:"host,omitempty"`

	Channels    int `json:"channels"`
	MaxChannels int `json:"max_channels"`
	RxSections  int `json:"rx_sections"`
	TxSections  int `json:"tx_sections"`
	MaxRx       int `json:"max_rx_sections"`
	MaxTx       int `json:"max_tx_sections"`

	// RSSEntries is how long the table for received frames is, RSSChannels how many
	// channels it names.
	RSSEntries  int `json:"rss_entries,omitempty"`
	RSSChannels int `json:"rss_channels,omitempty"`

	Hash     map[string]string `json:"hash,omitempty"`          // of sent flows, by kind: "udp4": "L4"
	Cure     bool              `json:"fragment_cure,omitempty"` // the driver keeps the fragments of a UDP datagram on one channel
	Features []string          `json:"features,omitempty"`      // that are on
	Off      []string          `json:"off,omitempty"`           // features that are off, and could be on
	XDP      string            `json:"xdp,omitempty"`           // how an XDP program runs: "driver" or "generic"

	Counters map[string]uint64 `json:"counters"` // of the driver, as ethtool -S shows them, without those of processors
	Received uint64            `json:"received"` // frames, as the kernel counts them
	Sent     uint64            `json:"sent"`
	Dropped  uint64            `json:"rx_dropped"` // of what was received, by the kernel

	Device  string  `json:"device,omitempty"`  // on the bus: its GUID
	Places  []Place `json:"places,omitempty"`  // of the channels
	Monitor string  `json:"monitor,omitempty"` // its bit in the page that the host polls

	// Others are the interfaces that have to do with this one.
	Master   *Neighbour  `json:"master,omitempty"`   // what it is a part of
	Uppers   []Neighbour `json:"uppers,omitempty"`   // what is built on it
	VF       *Neighbour  `json:"vf,omitempty"`       // its virtual function
	SRIOV    *SRIOV      `json:"sriov,omitempty"`    // what a driver of this project knows of it
	Switches int         `json:"switches,omitempty"` // changes of the data path, as the kernel has logged them or the driver has counted
	Refused  int         `json:"refused,omitempty"`  // sends that the host refused, as the kernel has logged them
}

// SRIOV is what a driver knows of its virtual function: all that it takes for frames to go
// by it.
type SRIOV struct {
	Wanted     bool   `json:"wanted"`     // the driver uses one if it gets one
	Announced  bool   `json:"announced"`  // the host was told so
	Associated bool   `json:"associated"` // the host has associated one with the NIC,
	Serial     uint32 `json:"serial"`     // with this number
	Device     bool   `json:"device"`     // the driver has found its device
	Up         bool   `json:"up"`         // which is up
	Carrier    bool   `json:"carrier"`    // and has a link
	Unwilling  bool   `json:"unwilling"`  // the host does not want it used
	Resting    bool   `json:"resting"`    // it is left alone for a while, after a loss
	Active     bool   `json:"active"`     // frames are sent by it
}

// A Place is where a channel interrupts.
type Place struct {
	Relid int `json:"relid"` // by which the bus knows the channel
	CPU   int `json:"cpu"`   // a virtual one of its guest for a driver of this project
}

// A Neighbour is another interface of the machine.
type Neighbour struct {
	Name      string   `json:"name"`
	Kind      string   `json:"kind,omitempty"` // "bridge", "macvlan", "vlan" and the like
	Driver    string   `json:"driver,omitempty"`
	Bus       string   `json:"bus,omitempty"` // address of its device
	MTU       int      `json:"mtu"`
	Up        bool     `json:"up"`
	Slave     bool     `json:"slave,omitempty"`     // it is a part of the interface
	Addresses []string `json:"addresses,omitempty"` // of its own, without link-local ones
}

// HasVF tells whether frames can pass by a virtual function, around the host's switch.
func (i *Interface) HasVF() bool {
	return i.VF != nil && i.VF.Slave && i.VF.Up && (i.SRIOV == nil || i.SRIOV.Active)
}

// has reports whether a feature is on.
func (i *Interface) has(feature string) bool { return slices.Contains(i.Features, feature) }

// SetTable takes the table for received frames: the channel of each hash value.
func (i *Interface) SetTable(table []uint32) {
	sorted := slices.Clone(table)
	slices.Sort(sorted)
	i.RSSEntries, i.RSSChannels = len(table), len(slices.Compact(sorted))
}

// SetCounter takes one counter of the driver.
func (i *Interface) SetCounter(name string, value uint64) {
	if strings.HasPrefix(name, "cpu") {
		return // what the channels have counted already
	}
	if i.Counters == nil {
		i.Counters = map[string]uint64{}
	}
	i.Counters[name] = value
}

// count returns the sum of a driver's counters.
func (i *Interface) count(names ...string) (n uint64) {
	for _, name := range names {
		n += i.Counters[name]
	}
	return n
}

// sentByDriver returns how many frames the channels have sent, which does not count
// those of the virtual function.
func (i *Interface) sentByDriver() (n uint64) {
	for name, v := range i.Counters {
		if strings.HasPrefix(name, "tx_queue_") && strings.HasSuffix(name, "_packets") {
			n += v
		}
	}
	return n
}

// version returns a version that was agreed upon with the host, of the interface if it
// is known there, else of the machine.
func (f *Facts) version(i *Interface, name string) string {
	if v := i.Host[name]; v != "" {
		return v
	}
	if name == "VMBus" && !i.Ours {
		return f.Machine.VMBus
	}
	return ""
}
