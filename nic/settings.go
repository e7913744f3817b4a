package nic

import "errors"

// Errors that a setting is refused with. Test with errors.Is. The ethtool layer
// prints them as the errno of the same meaning.
var (
	ErrInvalid      = errors.New("invalid argument")         // EINVAL
	ErrNotSupported = errors.New("operation not supported")  // EOPNOTSUPP
	ErrNoDevice     = errors.New("no such device")           // ENODEV
	ErrBusy         = errors.New("device or resource busy")  // EBUSY
	ErrTimeout      = errors.New("the host does not answer") // ETIMEDOUT
	ErrIO           = errors.New("input/output error")       // EIO
)

// DriverInfo is what `ethtool -i` shows.
type DriverInfo struct {
	Driver       string
	Version      string
	Firmware     string
	Bus          string
	Stats        bool
	RegisterDump bool

	// Drivers of the kernel's have more.
	ExpansionROM               string `json:",omitzero"`
	Test, EEPROM, PrivateFlags bool   `json:",omitzero"`
}

// Details is what a driver tells of itself that ethtool does not show.
type Details struct {
	VMBus, NVSP, NDIS string // versions that were agreed upon with the host, "5.3", "6.1", "6.30"
	FragmentCure      bool   // the fragments of UDP datagrams are kept on one channel
	VF                VFStatus
}

// Channels is what `ethtool -l` shows of a NIC with combined channels: the host's
// maximum and the number in use.
type Channels struct {
	Max, Combined int
}

// Rings is what `ethtool -g` shows: receive and send sections.
type Rings struct {
	RxMax, TxMax int
	Rx, Tx       int
}

// A Stat is one line of `ethtool -S`.
type Stat struct {
	Name  string
	Value uint64
}

// LinkState is what the host says of the link.
type LinkState struct {
	Up   bool
	Mbps uint32 // 0: unknown
}

// A Duplex says whether a link carries both directions at once.
type Duplex uint8

// The values, as Linux numbers them.
const (
	DuplexHalf    Duplex = 0
	DuplexFull    Duplex = 1
	DuplexUnknown Duplex = 0xff
)

// SpeedUnknown is the speed of a link of which none is known.
const SpeedUnknown = 1<<32 - 1

// LinkSettings is what `ethtool eth0` shows of a link.
type LinkSettings struct {
	Mbps     uint32 // SpeedUnknown: unknown
	Duplex   Duplex
	Detected bool // the interface is up, and so is the link
}

// Registers is what `ethtool -d` shows of the NIC: the host's table for sending, which has
// the channel of each value of a flow hash modulo 16.
type Registers [16]uint32

// A Place is where a channel interrupts its guest.
type Place struct {
	Channel int    // index, 0 for the primary
	Relid   uint32 // child relative id, by which the bus knows it
	VP      int    // virtual processor
	Node    int    // the processor's NUMA node
}
