// Package netvsc is the driver of a Hyper-V network adapter: the guest's half of
// NVSP and RNDIS over VMBus channels, the counterpart of Linux hv_netvsc.
//
// [Open] brings a device up, [NIC.Up] lets frames through. Frames to send come
// from [NIC.Send], which copies them, or from [NIC.Pump], whose source puts them
// straight into memory that is shared with the host; received frames go to a
// [nic.Sink] in batches. Settings change while frames flow: the driver takes the
// device apart and brings it up again below its users. It does so too when the device
// was lost and there is another one: see [NIC.Reattach].
//
// # How it works
//
// A session is one attachment to the device, from the first message to the last.
// Everything negotiated is in it and doesn't change during its life. A queue is one
// channel of a session; its goroutine handles all that comes in on the channel:
// frames, completions, control messages. Senders put packets into any channel under
// the channel's producer lock. The settings of a NIC are changed by one caller at a
// time, along one path: quiesce, detach, attach, resume, and back to what was if
// that fails.
//
// Beside the device there may be a virtual function, see [VF], by which frames go instead
// while host and guest want it.
//
// The host is not trusted. What decides is copied out of shared memory once; what
// makes no sense is counted, answered as the protocol has it, and dropped; every
// wait ends with the context or [Config.Timeout], and says what it was for.
package netvsc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"hvnet/counter"
	"hvnet/nic"
	"hvnet/nvsp"
	"hvnet/offload"
	"hvnet/rndis"
	"hvnet/vmbus/channel"
)

// Config says how to open a NIC. The sizes of the zero value are those of hv_netvsc.
type Config struct {
	// Queues is how many channels to use, 0 for 8. The guest's processors and
	// the host may allow fewer.
	Queues int
	// RxSections and TxSections are the sizes of the receive and the send
	// buffer in sections, 0 for 16 and 1 MiB. The host decides how long a
	// section is, and so how many there are in the end.
	RxSections, TxSections int
	// MTU is the longest packet in bytes, without Ethernet header; 0 for 1500.
	// The host may lower it.
	MTU int
	// RingBytes is the memory of each of the two rings of a channel, header
	// included: whole pages, 0 for the 128 of Linux.
	RingBytes int
	// NoFragmentCure has the fragments of UDP datagrams go by the channels that their
	// bytes say, see [NIC.SetFragmentCure].
	NoFragmentCure bool
	// VF announces SR-IOV to the host, so that it may associate a virtual function with
	// the NIC: see [NIC.AddVF].
	VF bool
	// VFRest is for how long a virtual function that was lost is left alone, so that one
	// that comes and goes does not take the traffic with it each time; 0 for not at all.
	VFRest time.Duration
	// Timeout bounds each wait for the host, besides the caller's context; 0
	// for 10 seconds.
	Timeout time.Duration
	// Pin keeps each channel's goroutine, with a thread of its own, on the processor of
	// the machine that stands for the channel's virtual one, see hv.Pin.
	Pin bool
	// Log is told of what happens to the device; nil for no log.
	Log *slog.Logger
}

// The limits of Config, and its defaults.
const (
	MaxChannels = 64 // of a device, as in hv_netvsc
	MinSections = 10 // of each buffer
	MinMTU      = 68
	MaxMTU      = 65521

	maxReceiveBuffer = 31 << 20 // bytes, of the newest protocol

	defaultQueues    = 8
	defaultMTU       = 1500
	defaultRingBytes = 128 * 4096
	defaultTimeout   = 10 * time.Second
)

// ErrClosed is returned by everything that is asked of a NIC after Close.
var ErrClosed = errors.New("netvsc: the NIC is closed")

// A NIC is an open device. Its methods may be called from any goroutine.
type NIC struct {
	log       *slog.Logger
	timeout   time.Duration
	ringBytes int
	pinned    bool // queues to processors

	// owner is held, as its one value, by whoever changes settings. It guards
	// the fields below it.
	owner    chan struct{}
	dev      channel.Device // to attach to
	want     settings
	up       bool
	promisc  bool // the packet filter lets everything through, when up
	attached bool // the session is more than a memory

	onFeatures func(nic.Features) // see OnFeatures

	// gate is held, shared, by whoever touches the memory or the channels of a
	// session to send, for one batch; and alone to let senders in and out.
	gate    sync.RWMutex
	flowing bool // under gate: senders may use the session
	held    bool // under gate: but not now, for the path is about to move

	suspended atomic.Bool   // changed by the owner
	byAddress atomic.Uint32 // offload.HashTypes whose ports don't count; changed by the owner
	noCure    atomic.Bool   // fragments go as they are; changed by the owner
	pairs     pairs         // of which fragments were seen

	session atomic.Pointer[session] // the last one attached; never nil
	lostMu  sync.Mutex              // held to change session, and to tell that it is lost
	lost    chan error              // capacity 1, see Lost
	outlet  atomic.Pointer[outlet]
	count   counter.Set

	link     link
	messages atomic.Uint32
	watch    watch
	look     look
	vf       vfPath

	pumpMu   sync.Mutex
	pumps    map[*pump]struct{}
	starving atomic.Int32 // pumps that wait for something to be freed

	done chan struct{} // closed by Close
}

// Open brings up a device: it negotiates versions, shares buffers, asks what the
// NIC is and opens its channels. The NIC is down then; see [NIC.Up]. The host's
// refusals and an end of ctx are errors that say at what; nothing is left behind.
func Open(ctx context.Context, dev channel.Device, cfg Config) (*NIC, error) {
	want, err := cfg.settings()
	if err != nil {
		return nil, err
	}
	n := &NIC{
		dev: dev, log: cfg.Log, timeout: cfg.Timeout, ringBytes: cfg.RingBytes, pinned: cfg.Pin,
		owner: make(chan struct{}, 1), want: want,
		pumps: map[*pump]struct{}{}, done: make(chan struct{}), lost: make(chan error, 1),
	}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	if n.timeout == 0 {
		n.timeout = defaultTimeout
	}
	if n.ringBytes == 0 {
		n.ringBytes = defaultRingBytes
	}
	n.link.init()
	n.messages.Store(defaultMessages)
	n.watch.init()
	n.pairs.init()
	n.noCure.Store(cfg.NoFragmentCure)
	n.vf.init(n, &cfg)
	if err := n.start(ctx, want); err != nil {
		return nil, fmt.Errorf("netvsc: open: %w", err)
	}
	n.vf.start()
	go n.link.run(n.done)
	go n.watch.run(n)
	return n, nil
}

// settings returns what a Config asks for, defaults filled in.
func (c Config) settings() (settings, error) {
	for _, f := range []struct {
		what         string
		v, low, high int
	}{
		{"queues", c.Queues, 1, MaxChannels},
		{"MTU", c.MTU, MinMTU, MaxMTU},
		{"receive sections", c.RxSections, MinSections, maxReceiveBuffer / nominalRxSection},
		{"send sections", c.TxSections, MinSections, nvsp.MaxSendBuffer / nominalTxSection},
	} {
		if f.v != 0 && (f.v < f.low || f.v > f.high) {
			return settings{}, fmt.Errorf("netvsc: open: %d %s: %w, want %d to %d", f.v, f.what, nic.ErrInvalid, f.low, f.high)
		}
	}
	w := settings{key: offload.DefaultKey, features: defaultFeatures, queues: c.Queues, rxBytes: c.RxSections * nominalRxSection, txBytes: c.TxSections * nominalTxSection, mtu: c.MTU}
	if w.queues == 0 {
		w.queues = defaultQueues
	}
	if w.rxBytes == 0 {
		w.rxBytes = defaultRxSections * nominalRxSection
	}
	if w.txBytes == 0 {
		w.txBytes = defaultTxSections * nominalTxSection
	}
	if w.mtu == 0 {
		w.mtu = defaultMTU
	}
	return w, nil
}

// settings are what a session is made with. A change takes effect by a new one,
// but for that of the address, the key and the table, which the host takes at any time.
type settings struct {
	queues           int
	rxBytes, txBytes int // of the buffers, before rounding up to pages
	mtu              int
	mac              nic.MAC // zero: the permanent address
	key              [rndis.KeySize]byte
	table            []uint32 // for receiving, as it was set; nil: an even one
	features         nic.FeatureSet
}

// closed reports whether Close was called.
func (n *NIC) closed() bool {
	select {
	case <-n.done:
		return true
	default:
		return false
	}
}

// open reports whether senders may use the session. The caller holds the gate.
func (n *NIC) open() bool { return n.flowing && !n.held }

// failure returns why the NIC can't be used now, nil if it can.
func (n *NIC) failure() error {
	if n.closed() {
		return ErrClosed
	}
	s := n.session.Load()
	select {
	case <-s.dev.Rescinded():
		s.fail(channel.ErrRescinded) // who hears of it first tells everybody
	default:
	}
	if s.broken() {
		return s.err
	}
	return nil
}

// closeTimeout is how long each answer may take when the NIC is being closed: whoever
// leaves does not wait for a host that has stopped.
const closeTimeout = time.Second

// bound returns ctx with the end that each wait for the host has.
func (n *NIC) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	timeout := n.timeout
	if n.closed() {
		timeout = min(timeout, closeTimeout)
	}
	return context.WithTimeout(ctx, timeout)
}

// ownTime returns a context for what has to be done after a failure, which may well
// be that the caller's time is over.
func (n *NIC) ownTime(ctx context.Context) (context.Context, context.CancelFunc) {
	return n.bound(context.WithoutCancel(ctx))
}

// MAC returns the address in use: the permanent one, as the host gave it, or that
// of the last [NIC.SetMAC].
func (n *NIC) MAC() nic.MAC { return *n.session.Load().address.Load() }

// MTU returns the longest packet in bytes, without Ethernet header, that host and
// configuration agree on.
func (n *NIC) MTU() int { return n.session.Load().mtu }

// Info is what was negotiated, for people to read.
type Info struct {
	VMBus, NVSP, NDIS  string // versions
	MAC                nic.MAC
	MTU                int
	Name               string // what the host calls the adapter
	Channels           int
	RxSections, RxSize int // sections of the receive buffer, and bytes of one
	TxSections, TxSize int // of the send buffer
	MaxPackets         int // frames in one send
	Link               nic.LinkState
	Up, Suspended      bool
}

// Details returns what ethtool does not show.
func (n *NIC) Details() nic.Details {
	i := n.Info()
	return nic.Details{VMBus: i.VMBus, NVSP: i.NVSP, NDIS: i.NDIS, FragmentCure: n.FragmentCure(), VF: n.VFStatus()}
}

// Info returns what was negotiated.
func (n *NIC) Info() Info {
	s := n.session.Load()
	return Info{
		VMBus: s.dev.Version().String(), NVSP: s.version.String(), NDIS: s.version.NDIS().String(),
		MAC: *s.address.Load(), MTU: s.mtu, Name: s.name, Channels: len(s.queues),
		RxSections: s.rxSections, RxSize: s.rxSectionSize,
		TxSections: s.txSections, TxSize: s.txSectionSize, MaxPackets: int(s.maxPackets),
		Link: n.Link(), Up: n.outlet.Load() != nil, Suspended: n.suspended.Load(),
	}
}
