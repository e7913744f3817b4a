package function

import (
	"errors"
	"fmt"
	"sync"
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

	news  atomic.Uint64 // states that the kernel has told so far; written under state
	state sync.Mutex    // held while the port is told a state
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

// Takes implements nic.Taker: checksums and super-frames stay as they are, by packet sockets.
func (d *Device) Takes() nic.Offloads { return d.g.link.Takes() }

// WriteFrames has the device send frames. What it does not take is dropped and counted. One
// that is down is noticed here first: the kernel tells others when it is done with it.
func (d *Device) WriteFrames(frames []nic.Frame) {
	news, down := d.news.Load(), d.g.link.Down()
	d.g.link.WriteFrames(frames)
	if d.g.link.Down() != down {
		d.down(news)
	}
}

// down tells the port that the device is down, unless there are news since: these may be
// that it is up again. If there are none, that it is down is yet to be told, and so is all
// that comes after.
func (d *Device) down(news uint64) {
	d.state.Lock()
	defer d.state.Unlock()
	if d.news.Load() == news {
		d.port.Changed(false, false)
	}
}

// tell tells the port what the kernel has told.
func (d *Device) tell(up, carrier bool) {
	d.state.Lock()
	defer d.state.Unlock()
	d.news.Add(1)
	d.port.Changed(up, carrier)
}

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

// SetMTU sets its MTU in bytes. By AF_XDP it can't exceed [xdp.MaxMTU].
func (d *Device) SetMTU(mtu int) error {
	if err := d.g.fits(mtu); err != nil {
		return fmt.Errorf("set MTU of %s: %w", d.Name(), err)
	}
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
