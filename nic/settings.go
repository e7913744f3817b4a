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

// A Place is where a channel interrupts its guest.
type Place struct {
	Channel int    // index, 0 for the primary
	Relid   uint32 // child relative id, by which the bus knows it
	VP      int    // virtual processor
	Node    int    // the processor's NUMA node
}
