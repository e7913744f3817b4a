package function

import (
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"hvnet/link/rtnl"
	"hvnet/nic"
)

// A Device is a function in its guest's hands. It implements netvsc.VF. Settings of a device
// that is gone are no error.
type Device struct {
	g      *Guest
	index  int32
	mac    nic.MAC
	serial uint32
	name   atomic.Pointer[string]
	port   Port
}

var _ nic.Taker = (*Device)(nil)

// Name returns the interface's name, which its users may change.
func (d *Device) Name() string { return *d.name.Load() }

// Index returns the interface's number, which stays.
func (d *Device) Index() int { return int(d.index) }

// MAC returns the permanent address.
func (d *Device) MAC() nic.MAC { return d.mac }

// Serial returns the serial number, 0 if the device tells none.
func (d *Device) Serial() uint32 { return d.serial }

// Takes implements nic.Taker: checksums and super-frames stay as they are.
func (d *Device) Takes() nic.Offloads { return d.g.link.Takes() }

// WriteFrames has the device send frames. What it does not take is dropped and counted.
func (d *Device) WriteFrames(frames []nic.Frame) { d.g.link.WriteFrames(frames) }

// Dropped returns how many frames the device and those before it did not take to send.
func (d *Device) Dropped() uint64 { return d.g.link.Dropped() }

// Stats returns what was lost at the device and those before it, by reason.
func (d *Device) Stats() []nic.Stat { return d.g.link.Stats() }

// SetUp sets the device up or down.
func (d *Device) SetUp(up bool) error {
	var flags uint32
	if up {
		flags = unix.IFF_UP
	}
	return d.set("up or down", rtnl.Link(unix.RTM_SETLINK, d.index, flags, unix.IFF_UP))
}

// SetMTU sets its MTU in bytes.
func (d *Device) SetMTU(mtu int) error {
	return d.set("MTU", rtnl.Link(unix.RTM_SETLINK, d.index, 0, 0).PutUint32(unix.IFLA_MTU, uint32(mtu)))
}

// SetMAC sets the address that it has now.
func (d *Device) SetMAC(mac nic.MAC) error {
	return d.set("address", rtnl.Link(unix.RTM_SETLINK, d.index, 0, 0).Put(unix.IFLA_ADDRESS, mac[:]))
}

func (d *Device) set(what string, r *rtnl.Request) error {
	if _, err := d.g.settings.Do(r); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("set %s of %s: %w", what, d.Name(), err)
	}
	return nil
}

// SetPromiscuous has it receive frames for others too, or no longer. Users' own wish for
// that stays.
func (d *Device) SetPromiscuous(on bool) error { return d.g.link.SetPromiscuous(on) }
