// Package netvsp is the emulated network device of a Hyper-V host: what a netvsc
// driver in a guest finds behind a channel of class NIC. It speaks NVSP and RNDIS
// with the guest and hands frames to a port of whatever is behind, a switch as a
// rule; frames for the guest come in as to any other [nic.Sink].
//
// A [Device] is one NIC with its MAC and lasts; a guest may connect to it, go and
// come back. [Device.Backend] joins it to a guest's bus. The state machines of NVSP
// and RNDIS are values without channel and clock (control, adapter); around them
// are, for each open channel, a goroutine that takes what the guest sends, and the
// goroutines of others that deliver frames.
//
// The guest is hostile. Everything of it that is looked at is copied first, and the
// copy is what travels on: of each frame the first [nic.HeadLen] bytes, while the
// rest stays in the guest's memory until the receiver copies it, the one copy on
// the way from guest to guest. A message that is wrong is answered as NVSP says,
// counted and dropped. A guest that does not take what it is sent loses frames, and
// nobody else waits for it.
//
// The protocol is that of Linux hyperv_net.h and MS-RNDIS, the order rules and
// limits those of Hyper-V's virtual switch.
package netvsp

import (
	"log/slog"
	"sync"
	"sync/atomic"

	"hvnet/netvsp/profile"
	"hvnet/nic"
	"hvnet/vmbus/channel"
)

// A Config says what NIC a device is.
type Config struct {
	Name    string          // of the port; guests show it as the interface's alias
	MAC     nic.MAC         // the permanent address
	Profile profile.Profile // the host release to be; zero means the default one
	// AllowSpoofing lets the guest send with any source address and change its
	// own; its port at a switch then has no fixed address. Otherwise such frames
	// are dropped and counted, as on Hyper-V.
	AllowSpoofing bool
	// SRIOV lets the NIC have a virtual function beside it, see [Device.AddVF]. Guests
	// of NVSP 4 and later that ask for it are told.
	SRIOV bool
	// Log gets what guests do wrong; nil means nothing is logged.
	Log *slog.Logger
	// Broken, if not nil, is called for each rule that a guest breaks: the error is
	// a [rule.Fault]. It is called from the goroutines of the data path, and must
	// not call the device.
	Broken func(error)
	// Fault is called, from a goroutine of the device, when guest memory that it
	// uses is not there any more. Whoever attached the guest then closes it. nil
	// means the device just stops.
	Fault func(error)
}

// A Port is where the frames of the guest go. It takes whatever they leave to be done;
// an [offload.Sink] does that for one that does not.
type Port interface {
	nic.Sink
	Close()
}

// A Device is one emulated NIC. It is the sink for frames to its guest; without a
// guest that wants them they are dropped and counted.
type Device struct {
	cfg     Config
	log     *slog.Logger
	connect func(sink nic.Sink) (Port, error)

	live   atomic.Pointer[session] // nil while no guest has the primary channel open
	opened atomic.Uint64           // sessions so far

	mu       sync.Mutex
	port     Port // from the first open to the guest's end
	link     nic.LinkState
	backends int // made so far
	away     int // of those, the ones that the device was unplugged from

	function function // beside the NIC

	lost counters // of guests that have left, and of frames that met none
}

// New returns a device. When a guest opens it, connect joins it to its port: sink
// is the device. If that fails the guest's channel is refused.
func New(cfg Config, connect func(sink nic.Sink) (Port, error)) *Device {
	if cfg.Profile.Name == "" {
		cfg.Profile, _ = profile.Lookup(profile.Default)
	}
	d := &Device{cfg: cfg, log: cfg.Log, connect: connect}
	d.link = nic.LinkState{Up: true, Mbps: cfg.Profile.LinkMbps}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	d.log = d.log.With("port", cfg.Name)
	return d
}

// Backend returns the device as the bus of one guest drives it. One guest at a
// time has the device.
func (d *Device) Backend(bus channel.Bus) channel.Backend {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.backends++
	return &backend{d: d, bus: bus, number: d.backends}
}

// Takes implements nic.Taker: packets that are to be cut are whole to a guest that
// coalesces what it receives. Those to others are cut here.
func (d *Device) Takes() nic.Offloads { return coalescing }

// WriteFrames delivers frames to the guest. It never blocks: what the guest has no
// room for is dropped and counted.
func (d *Device) WriteFrames(frames []nic.Frame) {
	if s := d.live.Load(); s != nil {
		s.in.Load().WriteFrames(frames)
		return
	}
	d.lost.rxDropped[DropNoGuest].Add(uint64(len(frames)))
}

// open joins the device to its port, if it is not joined yet. A backend that it was
// unplugged from gets none.
func (d *Device) open(b *backend) (Port, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if b.number <= d.away {
		return nowhere{}, nil
	}
	if d.port != nil {
		return d.port, nil
	}
	port, err := d.connect(d)
	if err != nil {
		return nil, err
	}
	d.port = port
	return port, nil
}

// A nowhere is the port of a device that is unplugged.
type nowhere struct{}

func (nowhere) WriteFrames([]nic.Frame) {}
func (nowhere) Close()                  {}

// Unplug takes the device off its port until it is given to a guest anew, by Backend: the
// guest is told that its link is down; what it sends all the same goes nowhere, but is still
// answered, and nothing comes to it any more. That the guest opens the device again makes no
// difference.
func (d *Device) Unplug() {
	d.mu.Lock()
	d.away = d.backends
	d.mu.Unlock()
	d.disconnect()
	if s := d.live.Load(); s != nil {
		s.unplug() // whoever sends may not have seen yet that the port is closed
	}
}

// unplugged reports whether the device was unplugged from a backend.
func (d *Device) unplugged(b *backend) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return b.number <= d.away
}

// disconnect takes the device off its port until it is opened again.
func (d *Device) disconnect() {
	d.mu.Lock()
	port := d.port
	d.port = nil
	d.mu.Unlock()
	if port != nil {
		port.Close()
	}
}
