package function

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"hvnet/link/iface"
	"hvnet/link/packet"
	"hvnet/link/rtnl"
	"hvnet/link/xdp"
	"hvnet/nic"
)

// GuestFiles are the descriptors by which a guest finds and uses the functions that appear
// in its network namespace. They may be passed to another process. They are for one function
// after the other.
type GuestFiles struct {
	packet.Files          // joined to no interface yet
	Settings     *os.File // an rtnetlink socket for settings
	Filter       *os.File // one of nf_tables
	Namespace    *os.File // the namespace itself
}

// OpenGuestFiles opens the files in the network namespace of the calling thread, which takes
// CAP_NET_ADMIN and CAP_NET_RAW there. There need not be a function yet.
func OpenGuestFiles() (files GuestFiles, err error) {
	files.Files, err = packet.OpenSockets()
	if err == nil {
		files.Settings, err = rtnl.Open()
	}
	if err == nil {
		files.Filter, err = openWall()
	}
	if err == nil {
		files.Namespace, err = os.Open("/proc/thread-self/ns/net")
	}
	if err != nil {
		files.Close()
		return GuestFiles{}, fmt.Errorf("watch for virtual functions: %w", err)
	}
	return files, nil
}

// List returns the files in the order that [ListedGuestFiles] wants.
func (f *GuestFiles) List() []*os.File {
	return []*os.File{f.Receive, f.Send, f.Control, f.Settings, f.Filter, f.Namespace}
}

// ListedGuestFiles returns the files that were passed in the order of [GuestFiles.List]. If
// there are not as many, it closes them and fails.
func ListedGuestFiles(list []*os.File) (GuestFiles, error) {
	if err := listed(list, 6); err != nil {
		return GuestFiles{}, err
	}
	return GuestFiles{packet.Files{Receive: list[0], Send: list[1], Control: list[2]}, list[3], list[4], list[5]}, nil
}

// Close closes the files that are open.
func (f *GuestFiles) Close() error {
	err := f.Files.Close()
	for _, file := range []*os.File{f.Settings, f.Filter, f.Namespace} {
		if file != nil {
			err = errors.Join(err, file.Close())
		}
	}
	return err
}

// A Port is where a device is joined to a NIC: what it receives is written there.
type Port interface {
	nic.Sink
	// Changed tells the device's state, now and whenever it may have changed.
	Changed(up, carrier bool)
	// Leave has the NIC let go of the device, and returns when it has: in order if the
	// device is still there. Nothing is written after that.
	Leave(there bool)
	// Done is closed when the NIC has let go of the device, by its own will too.
	Done() <-chan struct{}
}

// A Guest finds the functions of a NIC in a network namespace, and joins them to it.
type Guest struct {
	// Refused, if not nil, is told of each device that can't be taken over, and why.
	Refused func(error)

	// MTU, if not nil, tells that of the NIC in bytes: a device that can't have it is refused.
	MTU func() int

	way      iface.Way
	link     iface.Link
	control  *os.File
	rest     []*os.File
	settings *rtnl.Client
	wall     wall

	device atomic.Pointer[Device]
	ended  sync.WaitGroup // of Receive
}

// NewGuest returns a guest that joins functions the way that is asked for, and owns the files
// from now on, also if it fails. By AF_XDP it refuses those of veths without Config.Wire.
func NewGuest(files GuestFiles, way iface.Way) (*Guest, error) {
	g := &Guest{
		way: way, control: files.Control, rest: []*os.File{files.Settings, files.Filter},
		settings: rtnl.NewClient(files.Settings), wall: wall{rtnl.NewClient(files.Filter)},
	}
	if way == iface.XDP {
		g.link = xdp.NewFollower(files.Namespace)
		g.rest = append(g.rest, files.Receive, files.Send, files.Control)
	} else {
		link, err := packet.FromFiles("vf", files.Files)
		if err != nil {
			return nil, errors.Join(err, files.Settings.Close(), files.Filter.Close(), files.Namespace.Close())
		}
		g.link = link
		g.rest = append(g.rest, files.Namespace)
	}
	g.link.SetPromiscuous(false) // it can't fail: there is no interface
	return g, nil
}

// fits returns why a device can't have an MTU, nil if it can.
func (g *Guest) fits(mtu int) error {
	if g.way == iface.XDP && mtu > xdp.MaxMTU {
		return fmt.Errorf("%w: it would be %d, and AF_XDP takes %d at most", xdp.ErrMTU, mtu, xdp.MaxMTU)
	}
	return nil
}

// Run joins the function of the NIC with a permanent address whenever there is one, until
// ctx ends, or join fails. A function is an interface with that address: a veth, whose alias
// tells a serial number, or hardware; not what others make on top of a NIC. Before it is joined
// the namespace's own IP stack is kept away from it, for it would get each frame a second
// time. The path to the device is as its users make it: one that they set down stays down,
// names don't matter.
//
// Between changes it costs nothing. It returns nil at the end of ctx, else the error. It
// is called once.
func (g *Guest) Run(ctx context.Context, mac nic.MAC, join func(*Device) (Port, error)) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	g.ended.Go(func() { stop(g.link.Receive(g)) })
	for {
		found, err := rtnl.Find(ctx, g.control, func(s *rtnl.State) bool { return isFunction(s, mac) })
		if err == nil {
			err = g.serve(ctx, found, mac, join)
		}
		switch {
		case ctx.Err() != nil && context.Cause(ctx) == ctx.Err():
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx) // why nothing can be received
		case err != nil:
			return err
		}
	}
}

// isFunction tells whether an interface is a function of the NIC with an address. Others may
// have the address from the NIC: bridges, VLANs, and the NIC itself.
func isFunction(s *rtnl.State, mac nic.MAC) bool {
	return s.Ethernet && s.MAC == mac && (s.Kind == "" || s.Kind == "veth")
}

// errGone says that the device is no longer there.
var errGone = errors.New("it is gone")

// flushTime is for how long a device that is gone is still received from.
const flushTime = time.Second

// serve serves a device until it is gone, the NIC lets go of it, or ctx ends.
func (g *Guest) serve(ctx context.Context, s rtnl.State, mac nic.MAC, join func(*Device) (Port, error)) error {
	d := &Device{g: g, index: s.Index, mac: mac}
	d.name.Store(&s.Name)
	d.serial, _, _ = ParseAlias(s.Alias)
	defer func() {
		g.link.Follow(rtnl.State{Removed: true})
		g.wall.tear(s.Index)
	}()
	switch err := g.takeOver(s); {
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENOENT):
		return nil // gone already, or renamed meanwhile
	case err != nil:
		if g.Refused != nil {
			g.Refused(fmt.Errorf("take over virtual function %s: %w", s.Name, err))
		}
		return g.await(ctx, s.Index, func(rtnl.State) error { return nil })
	}
	port, err := join(d)
	if err != nil {
		return err
	}
	d.port = port
	g.device.Store(d)
	defer g.device.Store(nil)
	soon, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-port.Done():
			cancel()
		case <-soon.Done():
		}
	}()
	gone := false
	err = g.await(soon, s.Index, func(now rtnl.State) error {
		if gone = now.Removed; gone {
			return nil
		}
		if now.Name != d.Name() {
			if err := g.wall.move(s.Index, now.Name); err != nil && g.Refused != nil {
				g.Refused(fmt.Errorf("keep the IP stack away from %s: %w", now.Name, err))
			}
			d.name.Store(&now.Name)
		}
		if _, err := g.link.Follow(now); err != nil {
			return err
		}
		if now.Carrier {
			g.settle(s.Index)
		}
		d.tell(now.Up, now.Carrier)
		return nil
	})
	if gone {
		d.tell(false, false)
		// What it has received before is the NIC's.
		last, cancel := context.WithTimeout(ctx, flushTime)
		defer cancel()
		g.link.Flush(last)
	}
	port.Leave(!gone)
	if !gone {
		d.SetMAC(mac) // by which it is found again
	}
	return err
}

// settle waits until the kernel has done what it has told of: that an interface is up it says
// before its packet sockets receive. It answers a request when what it is at is over.
func (g *Guest) settle(index int32) {
	g.settings.Do(rtnl.Link(unix.RTM_SETLINK, index, 0, 0)) // of one that is gone news comes
}

// await watches an interface until it is removed or ctx ends.
func (g *Guest) await(ctx context.Context, index int32, changed func(rtnl.State) error) error {
	err := rtnl.Watch(ctx, g.control, rtnl.Interface{Index: index}, func(s rtnl.State) error {
		if err := changed(s); err != nil {
			return err
		}
		if s.Removed {
			return errGone
		}
		return nil
	})
	if errors.Is(err, errGone) {
		return nil
	}
	return err
}

// takeOver keeps the IP stack away from an interface, and joins it.
func (g *Guest) takeOver(s rtnl.State) error {
	if _, wire, ok := ParseAlias(s.Alias); g.way == iface.XDP && ok && !wire {
		return ErrNotWire
	}
	if g.MTU != nil {
		if err := g.fits(g.MTU()); err != nil {
			return err
		}
	}
	if err := g.wall.build(s.Index, s.Name); err != nil {
		return err
	}
	if err := silence(g.settings, s.Index); err != nil {
		return err
	}
	joined, err := g.link.Follow(s)
	if err == nil && !joined.Present {
		return unix.ENODEV
	}
	return err
}

// WriteFrames passes on what was received to the NIC.
func (g *Guest) WriteFrames(frames []nic.Frame) {
	if d := g.device.Load(); d != nil {
		d.port.WriteFrames(frames)
	}
}

// Device returns the device that is joined now, nil if there is none.
func (g *Guest) Device() *Device { return g.device.Load() }

// Close closes the files. It is for after Run.
func (g *Guest) Close() error {
	err := g.link.Close()
	for _, f := range g.rest {
		err = errors.Join(err, f.Close())
	}
	g.ended.Wait()
	return err
}
