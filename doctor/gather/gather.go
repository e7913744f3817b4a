// Package gather collects what package doctor examines: from the drivers of this project
// over their control sockets, and from the kernel by rtnetlink, SIOCETHTOOL, sysfs, procfs
// and its log.
//
// What may not be read, or is not there, is left out of the facts.
package gather

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"hvnet/control"
	"hvnet/doctor"
	"hvnet/nic"
)

// ErrNone is the error if there is nothing to look at: no interface, and no device that
// uio_hv_generic has.
var ErrNone = errors.New("no netvsc interface in this network namespace, neither of Linux's hv_netvsc nor of hvnet")

// xdpGeneric is how rtnetlink tells that an XDP program runs in generic mode
// (XDP_ATTACHED_SKB).
const xdpGeneric = 2

// kernelDriver is the name of Linux's driver.
const kernelDriver = "hv_netvsc"

// Facts collects the facts of this machine and of interfaces of this network namespace;
// of all that have a netvsc driver if names is empty. The error is [ErrNone] if there is
// none then, and nic.ErrNoDevice for a name that there is not.
func Facts(ctx context.Context, names []string) (*doctor.Facts, error) {
	netns, err := control.NetNSInode()
	if err != nil {
		return nil, err
	}
	served, err := control.Interfaces(netns)
	if err != nil {
		return nil, err
	}
	links, err := netlink.LinkList()
	if err != nil && len(links) == 0 {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	c := collector{root: "/", log: kernelLog(), links: links}
	if c.socket, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("ask for interfaces: %w", err)
	}
	defer unix.Close(c.socket)

	f := &doctor.Facts{Machine: c.machine(), Interfaces: []doctor.Interface{}}
	for _, l := range links {
		name := l.Attrs().Name
		if len(names) > 0 && !slices.Contains(names, name) {
			continue
		}
		i := c.link(l)
		if slices.Contains(served, name) {
			if err := c.ours(ctx, netns, &i); err != nil {
				return nil, err
			}
		} else if err := c.kernels(l, &i); err != nil {
			if len(names) > 0 {
				return nil, err
			}
			continue
		}
		f.Interfaces = append(f.Interfaces, i)
	}
	for _, name := range names {
		if !slices.ContainsFunc(f.Interfaces, func(i doctor.Interface) bool { return i.Name == name }) {
			return nil, fmt.Errorf("interface %s: %w", name, nic.ErrNoDevice)
		}
	}
	if len(f.Interfaces) == 0 && len(f.Machine.UIODevices) == 0 {
		return nil, ErrNone
	}
	return f, nil
}

// A collector knows where to look.
type collector struct {
	root   string // of the file system, as tests have one of their own
	log    string // of the kernel
	links  []netlink.Link
	socket int // for SIOCETHTOOL
}

// link returns what rtnetlink tells of an interface and of those around it.
func (c *collector) link(l netlink.Link) doctor.Interface {
	a := l.Attrs()
	i := doctor.Interface{
		Name: a.Name, MTU: a.MTU, MAC: a.HardwareAddr.String(),
		Up: a.Flags&net.FlagUp != 0, Link: a.RawFlags&unix.IFF_LOWER_UP != 0,
	}
	if len(a.PermHWAddr) == len(nic.MAC{}) {
		i.Burnt = a.PermHWAddr.String()
	}
	if s := a.Statistics; s != nil {
		i.Received, i.Sent, i.Dropped = s.RxPackets, s.TxPackets, s.RxDropped
	}
	if x := a.Xdp; x != nil && x.Attached {
		i.XDP = "driver"
		if x.AttachMode == xdpGeneric {
			i.XDP = "generic"
		}
	}
	for _, o := range c.links {
		switch b := o.Attrs(); {
		case b.Index == a.Index:
		case b.Index == a.MasterIndex:
			n := c.neighbour(o)
			i.Master = &n
		case b.ParentIndex == a.Index && b.NetNsID <= 0:
			i.Uppers = append(i.Uppers, c.neighbour(o))
		case c.isVF(o, l):
			n := c.neighbour(o)
			n.Slave = b.MasterIndex == a.Index
			i.VF = &n
		}
	}
	return i
}

// isVF reports whether an interface is the virtual function behind another one, as
// hv_netvsc finds it: the same address, and a device of its own.
func (c *collector) isVF(o, l netlink.Link) bool {
	if o.Type() != "device" || len(o.Attrs().HardwareAddr) == 0 || o.Attrs().HardwareAddr.String() != l.Attrs().HardwareAddr.String() {
		return false
	}
	d, err := c.driver(o.Attrs().Name)
	return err == nil && d.Driver != kernelDriver && d.Bus != ""
}

func (c *collector) neighbour(l netlink.Link) doctor.Neighbour {
	a := l.Attrs()
	n := doctor.Neighbour{Name: a.Name, MTU: a.MTU, Up: a.Flags&net.FlagUp != 0}
	if n.Kind = l.Type(); n.Kind == "device" {
		n.Kind = ""
		if d, err := c.driver(a.Name); err == nil {
			n.Driver, n.Bus = d.Driver, d.Bus
		}
	}
	addrs, _ := netlink.AddrList(l, netlink.FAMILY_ALL)
	for _, x := range addrs {
		if !x.IP.IsLinkLocalUnicast() {
			n.Addresses = append(n.Addresses, x.IPNet.String())
		}
	}
	return n
}

// ours adds what a driver of this project tells.
func (c *collector) ours(ctx context.Context, netns uint64, i *doctor.Interface) error {
	d, err := control.Device(ctx, netns, i.Name)
	if err != nil {
		return err
	}
	i.Ours = true
	info := d.DriverInfo()
	i.Driver, i.Version = info.Driver, info.Version
	i.Burnt = d.PermanentMAC().String()
	ch, r := d.Channels(), d.Rings()
	i.Channels, i.MaxChannels = ch.Combined, ch.Max
	i.RxSections, i.TxSections, i.MaxRx, i.MaxTx = r.Rx, r.Tx, r.RxMax, r.TxMax
	i.SetTable(d.RSS().Table)
	i.Hash = map[string]string{}
	for flow, level := range d.HashLevels() {
		i.Hash[nic.Flow(flow).String()] = map[bool]string{true: "L4", false: "L3"}[level == nic.HashL4]
	}
	features := d.Features()
	for n := range nic.Feature(nic.NumFeatures) {
		switch {
		case n.String() == "":
		case features.Active.Has(n):
			i.Features = append(i.Features, n.String())
		case features.Available.Has(n):
			i.Off = append(i.Off, n.String())
		}
	}
	for _, s := range d.Stats() {
		i.SetCounter(s.Name, s.Value)
	}
	h, err := d.Details(ctx)
	if err != nil && !errors.Is(err, control.ErrUnknownMethod) {
		return err
	}
	i.Host = map[string]string{"VMBus": h.VMBus, "NVSP": h.NVSP, "NDIS": h.NDIS}
	i.Cure = h.FragmentCure
	c.virtual(h.VF, i)
	places, err := d.Placement(ctx)
	if err != nil && !errors.Is(err, control.ErrUnknownMethod) {
		return err
	}
	for _, p := range places {
		i.Places = append(i.Places, doctor.Place{Relid: int(p.Relid), CPU: p.VP})
	}
	return nil
}

// virtual adds what a driver of this project knows of its virtual function, and what
// rtnetlink tells of its device: what has the NIC's own address.
func (c *collector) virtual(v nic.VFStatus, i *doctor.Interface) {
	i.SRIOV = &doctor.SRIOV{
		Wanted: v.Wanted, Announced: v.Announced, Associated: v.Associated, Serial: v.Serial,
		Device: v.Device, Up: v.Up, Carrier: v.Carrier, Unwilling: v.Unwilling, Resting: v.Resting, Active: v.Active,
	}
	i.Switches = int(i.Counters["vf_switches"])
	if !v.Device {
		return
	}
	for _, o := range c.links {
		a := o.Attrs()
		if a.Name == i.Name || a.HardwareAddr.String() != i.Burnt && a.HardwareAddr.String() != i.MAC ||
			slices.ContainsFunc(i.Uppers, func(u doctor.Neighbour) bool { return u.Name == a.Name }) {
			continue
		}
		n := c.neighbour(o)
		n.Slave = true
		i.VF = &n
	}
}

// kernels adds what the kernel tells of an interface of its own driver.
func (c *collector) kernels(l netlink.Link, i *doctor.Interface) error {
	d, err := c.driver(i.Name)
	if err != nil || d.Driver != kernelDriver {
		what := "no driver that says its name"
		if d.Driver != "" {
			what = "the driver " + d.Driver
		}
		return fmt.Errorf("interface %s has %s: want one of hv_netvsc or of hvnet", i.Name, what)
	}
	i.Driver, i.Version = d.Driver, d.Version
	c.settings(i)
	c.device(l.Attrs().Index, i)
	c.logged(i)
	return nil
}
