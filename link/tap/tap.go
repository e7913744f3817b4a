// Package tap joins a NIC's queues to a Linux network interface: a TAP device
// with one descriptor per queue and a virtio-net header in front of each frame.
//
// The interface belongs to the network namespace of the thread that opens it, but
// the descriptors work from anywhere: a helper process opens the queues where it
// has the right to ([OpenFiles]) and whoever gets the files moves the frames
// ([FromFiles]). [Open] does both in one place.
//
// A frame is read by one readv into memory that the caller prepared and written
// by one writev from the memory where it lies. Neither allocates.
package tap

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"hvnet/link/rtnl"
	"hvnet/nic"
)

// Device is the file that TAP interfaces are made with.
const Device = "/dev/net/tun"

// MaxQueues is the number of queues that one TAP interface can have
// (MAX_TAP_QUEUES of Linux).
const MaxQueues = 256

// What opening an interface fails with. Test with errors.Is.
var (
	// ErrNoTun says that the kernel has no TUN/TAP driver or the machine no
	// device file for it.
	ErrNoTun = errors.New("no " + Device + " on this machine")
	// ErrPermission says that the caller may not open the device file or may not
	// make interfaces in its network namespace.
	ErrPermission = errors.New("permission denied")
	// ErrExists says that the namespace already has an interface of the name.
	ErrExists = errors.New("the interface exists")
	// ErrRemoved says that somebody removed the interface under an open queue.
	ErrRemoved = errors.New("the interface was removed")
)

// Config says what interface to make.
type Config struct {
	Name   string  // 1 to 15 bytes, such as "eth0"
	Queues int     // 0 means 1
	MAC    nic.MAC // zero: the kernel chooses
	MTU    int     // bytes without Ethernet header; 0: 1500
	// Offloads is the set of offloads that whoever writes to and reads from the
	// queues understands, as TUNSETOFFLOAD takes it: a part of the constant
	// Offloads. With none the kernel gives frames no longer than the MTU, checksums
	// filled in; else of up to nic.MaxFrame and a tag.
	Offloads uint
	// Largest is the length in bytes of the longest frame that the kernel leaves to
	// be cut, headers included; 0 is the kernel's own limit.
	Largest int
}

// A TAP is an interface of the kernel as its NIC sees it: what the kernel sends is
// read from the queues, what is written to them the kernel receives.
type TAP struct {
	name   string
	queues []*Queue
	ctl    *os.File // an rtnetlink socket in the interface's namespace, or nil

	featuresMu sync.Mutex
	features   *kernelNumbers // once somebody has asked
}

// Open makes the interface in the network namespace of the calling thread (see
// runtime.LockOSThread) and returns it down, with its carrier on. It fails with
// an error that is ErrNoTun, ErrPermission or ErrExists where that is the reason.
func Open(cfg Config) (*TAP, error) {
	files, ctl, err := OpenFiles(cfg)
	if err != nil {
		return nil, err
	}
	return FromFiles(cfg.Name, files, ctl)
}

// OpenFiles makes the interface like [Open] and returns its descriptors: one
// non-blocking file per queue and a socket that keeps the namespace at hand for
// settings and their changes. They are meant for [FromFiles], in this process or another.
func OpenFiles(cfg Config) (queues []*os.File, ctl *os.File, err error) {
	if err := cfg.check(); err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			closeAll(append(queues, ctl))
			queues, ctl = nil, nil
		}
	}()
	for i := range max(cfg.Queues, 1) {
		q, err := openQueue(cfg, i == 0)
		if err != nil {
			return queues, ctl, fmt.Errorf("make interface %s: %w", cfg.Name, err)
		}
		queues = append(queues, q)
	}
	if ctl, err = rtnl.Open(); err != nil {
		return queues, ctl, fmt.Errorf("make interface %s: %w", cfg.Name, err)
	}
	if cfg.MTU != 0 {
		if err := setMTU(ctl, cfg.Name, cfg.MTU); err != nil {
			return queues, ctl, fmt.Errorf("set MTU %d of %s: %w", cfg.MTU, cfg.Name, err)
		}
	}
	if cfg.Largest != 0 {
		index, err := rtnl.Index(ctl, cfg.Name)
		if err == nil {
			err = setLargest(index, cfg.Largest)
		}
		if err != nil {
			return queues, ctl, fmt.Errorf("set longest frame %d of %s: %w", cfg.Largest, cfg.Name, err)
		}
	}
	if !cfg.MAC.IsZero() {
		if err := setMAC(queues[0], cfg.Name, cfg.MAC); err != nil {
			return queues, ctl, fmt.Errorf("set address %s of %s: %w", cfg.MAC, cfg.Name, err)
		}
	}
	return queues, ctl, nil
}

// FromFiles makes a TAP of descriptors that [OpenFiles] returned, here or in
// another process. It owns them from now on, also if it fails. Without ctl, which
// may be nil, the interface's MTU, speed and flags cannot be set, nor watched.
func FromFiles(name string, queues []*os.File, ctl *os.File) (*TAP, error) {
	t := &TAP{name: name, ctl: ctl}
	for i, f := range queues {
		q, err := newQueue(f)
		if err != nil {
			closeAll(append(queues, ctl))
			return nil, fmt.Errorf("queue %d of %s: %w", i, name, err)
		}
		t.queues = append(t.queues, q)
	}
	if len(t.queues) == 0 {
		closeAll([]*os.File{ctl})
		return nil, fmt.Errorf("interface %s: no queues", name)
	}
	return t, nil
}

// Name returns the name that the interface was made with. Its users may rename it.
func (t *TAP) Name() string { return t.name }

// Queues returns the number of queues.
func (t *TAP) Queues() int { return len(t.queues) }

// Queue returns queue i, 0 ≤ i < Queues().
func (t *TAP) Queue(i int) *Queue { return t.queues[i] }

// WriteFrames hands the frames to the kernel, each through the queue of its
// channel (modulo the number of queues): the kernel then sends what belongs to
// the same flow through the same queue. It implements nic.Sink.
func (t *TAP) WriteFrames(frames []nic.Frame) {
	n := uint16(len(t.queues))
	for len(frames) > 0 {
		q := frames[0].Channel % n
		run := 1
		for run < len(frames) && frames[run].Channel%n == q {
			run++
		}
		t.queues[q].WriteFrames(frames[:run])
		frames = frames[run:]
	}
}

// SetCarrier says whether the interface has a link. Without it the kernel sends
// nothing and users see "NO-CARRIER".
func (t *TAP) SetCarrier(up bool) error {
	v := 0
	if up {
		v = 1
	}
	if err := t.queues[0].ioctl(unix.TUNSETCARRIER, v); err != nil {
		return fmt.Errorf("set carrier of %s: %w", t.name, err)
	}
	return nil
}

// SetLink makes the interface show the link: carrier, and speed if it is known
// and the TAP can set it.
func (t *TAP) SetLink(l nic.LinkState) error {
	if t.ctl != nil && l.Mbps != 0 {
		if err := t.byName(func(name string) error { return setSpeed(t.ctl, name, l.Mbps) }); err != nil {
			return fmt.Errorf("set speed of %s: %w", t.name, err)
		}
	}
	return t.SetCarrier(l.Up)
}

// SetMTU sets the interface's MTU in bytes.
func (t *TAP) SetMTU(mtu int) error {
	if t.ctl == nil {
		return fmt.Errorf("set MTU of %s: %w", t.name, nic.ErrNotSupported)
	}
	if err := t.byName(func(name string) error { return setMTU(t.ctl, name, mtu) }); err != nil {
		return fmt.Errorf("set MTU %d of %s: %w", mtu, t.name, err)
	}
	return nil
}

// SetMAC sets the interface's address.
func (t *TAP) SetMAC(mac nic.MAC) error {
	if err := setMAC(t.queues[0].file, t.name, mac); err != nil {
		return fmt.Errorf("set address %s of %s: %w", mac, t.name, err)
	}
	return nil
}

// SetDown takes the interface down, as its user may have done.
func (t *TAP) SetDown() error { return t.clear("down", unix.IFF_UP) }

// SetNormal takes back what `ip link set promisc on` has set. If others want all
// frames, the interface stays promiscuous.
func (t *TAP) SetNormal() error { return t.clear("not promiscuous", unix.IFF_PROMISC) }

func (t *TAP) clear(what string, flag uint16) error {
	err := nic.ErrNotSupported
	if t.ctl != nil {
		err = t.byName(func(name string) error { return clearFlag(t.ctl, name, flag) })
	}
	if err != nil {
		return fmt.Errorf("set %s %s: %w", t.name, what, err)
	}
	return nil
}

// Close removes the interface, unless another process holds a queue of it. Calls
// that wait on a queue return net.ErrClosed.
func (t *TAP) Close() error {
	var errs []error
	for _, q := range t.queues {
		errs = append(errs, q.file.Close())
	}
	if t.ctl != nil {
		errs = append(errs, t.ctl.Close())
	}
	if err := errors.Join(errs...); err != nil && !errors.Is(err, fs.ErrClosed) {
		return fmt.Errorf("remove interface %s: %w", t.name, err)
	}
	return nil
}

// check refuses what the kernel would misunderstand: it takes a name with a %d
// for a pattern, and truncates a long one.
func (c Config) check() error {
	if n := len(c.Name); n == 0 || n >= unix.IFNAMSIZ || c.Name == "." || c.Name == ".." ||
		strings.ContainsAny(c.Name, "/:% \t\n\v\f\r\x00") {
		return fmt.Errorf("interface name %q: want 1 to %d bytes without blank, '/', ':' or '%%'", c.Name, unix.IFNAMSIZ-1)
	}
	if c.Queues < 0 || c.Queues > MaxQueues {
		return fmt.Errorf("interface %s: %d queues: want 1 to %d", c.Name, c.Queues, MaxQueues)
	}
	return nil
}

// closeAll closes the files that are not nil.
func closeAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}
