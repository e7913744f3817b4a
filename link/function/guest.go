package function

import (
	"context"
	"errors"
	"os"

	"hvnet/link/packet"
	"hvnet/nic"
)

// GuestFiles are the descriptors by which a guest finds and uses the functions that appear
// in its network namespace. They may be passed to another process. They are for one function
// after the other.
type GuestFiles struct {
	packet.Files          // joined to no interface yet
	Settings     *os.File // an rtnetlink socket for settings
	Filter       *os.File // a socket of netfilter; nil: this kernel has none
	IPv6         *os.File // /proc/sys/net/ipv6/conf, opened in the namespace; nil: there is none
}

// OpenGuestFiles opens the files in the network namespace of the calling thread, which takes
// CAP_NET_ADMIN and CAP_NET_RAW there. There need not be a function yet.
func OpenGuestFiles() (GuestFiles, error) { return GuestFiles{}, errors.New("not yet") }

// List returns the files that there are, for [ListedGuestFiles].
func (f *GuestFiles) List() []*os.File { return nil }

// ListedGuestFiles returns the files that were passed in the order of [GuestFiles.List]. It
// closes them if they are not such.
func ListedGuestFiles(list []*os.File) (GuestFiles, error) {
	return GuestFiles{}, errors.New("not yet")
}

// Close closes the files that are open.
func (f *GuestFiles) Close() error { return nil }

// A Port is where a device is joined to a NIC: what it receives is written there.
type Port interface {
	nic.Sink
	// Changed tells the device's state, now and whenever it may have changed.
	Changed(up, carrier bool)
	// Gone tells that the device is no longer there. Nothing is written after that.
	Gone()
	// Done is closed when the NIC has let go of the device, by its own will too.
	Done() <-chan struct{}
}

// A Guest finds the functions of a NIC in a network namespace, and joins them to it.
type Guest struct {
	files GuestFiles

	// Refused, if not nil, is told of each device that can't be taken over, and why.
	Refused func(error)
}

// NewGuest returns a guest that owns the files from now on, also if it fails.
func NewGuest(files GuestFiles) (*Guest, error) { return nil, errors.New("not yet") }

// Run joins the function of the NIC with a permanent address whenever there is one, until
// ctx ends, or join fails. A function is an interface with that address, whose alias tells a
// serial number, or, if it is hardware, without. Before it is joined the namespace's own IP
// stack is kept away from it, for it would get each frame a second time. The path to the
// device is as its users make it: one that they set down stays down, names don't matter.
//
// Between changes it costs nothing. It returns nil at the end of ctx, else the error. It
// is called once.
func (g *Guest) Run(ctx context.Context, mac nic.MAC, join func(*Device) (Port, error)) error {
	return errors.New("not yet")
}

// Device returns the device that is joined now, nil if there is none.
func (g *Guest) Device() *Device { return nil }

// Close closes the files. It is for after Run.
func (g *Guest) Close() error { return nil }

// A Device is a function in its guest's hands. It implements netvsc.VF. Settings of a device
// that is gone are no error.
type Device struct {
	link *packet.Link
}

var _ nic.Taker = (*Device)(nil)

// Name returns the interface's name, which its users may change.
func (d *Device) Name() string { return "" }

// Index returns the interface's number, which stays.
func (d *Device) Index() int { return 0 }

// MAC returns the permanent address.
func (d *Device) MAC() nic.MAC { return nic.MAC{} }

// Serial returns the serial number, 0 if the device tells none.
func (d *Device) Serial() uint32 { return 0 }

// Takes implements nic.Taker: checksums and super-frames stay as they are.
func (d *Device) Takes() nic.Offloads { return 0 }

// WriteFrames has the device send frames. What it does not take is dropped and counted.
func (d *Device) WriteFrames(frames []nic.Frame) {}

// Dropped returns how many frames the device did not take to send so far.
func (d *Device) Dropped() uint64 { return 0 }

// Stats returns what was lost at the device, by reason.
func (d *Device) Stats() []nic.Stat { return nil }

// SetUp sets the device up or down.
func (d *Device) SetUp(up bool) error { return nil }

// SetMTU sets its MTU in bytes.
func (d *Device) SetMTU(mtu int) error { return nil }

// SetMAC sets the address that it has now.
func (d *Device) SetMAC(mac nic.MAC) error { return nil }

// SetPromiscuous has it receive frames for others too, or no longer. Users' own wish for
// that stays.
func (d *Device) SetPromiscuous(on bool) error { return nil }
