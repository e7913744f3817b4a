// Package counter is the one table of a driver's counters: what each is called,
// what it counts and what to do about it. `ethtool -S`, documents and explanations
// all read it.
//
// Names, meaning and order are those of Linux hv_netvsc where it has the counter
// (drivers/net/hyperv/netvsc_drv.c); ours come after them.
package counter

import "sync/atomic"

// A Def says what a counter is.
type Def struct {
	Name    string // as shown; in the name of a queue's counter %d is the queue
	Unit    string // "packets", "bytes", "events"
	Meaning string // when it counts
	Advice  string // what to do when it grows
}

// An ID is a counter of the whole device.
type ID int

// The counters of the device, in the order in which they are shown. The first
// eleven and the five of the virtual function are hv_netvsc's.
const (
	TxScattered ID = iota
	TxNoMemory
	TxNoSpace
	TxTooBig
	TxBusy
	TxSendFull
	RxCompBusy
	RxNoMemory
	StopQueue
	WakeQueue
	VLANError
	VFRxPackets
	VFRxBytes
	VFTxPackets
	VFTxBytes
	VFTxDropped

	TxSteerCopy
	UDPFragL3Sticky
	TxMalformed
	TxLost
	RxChecksumBad
	HostRefused
	HostBadPacket
	HostBadMessage
	HostBadCompletion
	VFSwitches
	VFUndrained

	numIDs    int = iota
	kernelIDs     = int(VFTxDropped) + 1
)

// A QueueID is a counter of one channel.
type QueueID int

// The counters of a channel, in the order in which they are shown. The first eight
// are hv_netvsc's. The last four are of the queue of a virtual function that has the
// channel's number; hv_netvsc shows them for processors only.
const (
	TxPackets QueueID = iota
	TxBytes
	TxXDPXmit
	RxPackets
	RxBytes
	RxXDPDrop
	RxXDPRedirect
	RxXDPTx

	TxBatches
	RxBatches
	Wakeups
	RxGRO
	QueueVFRxPackets
	QueueVFRxBytes
	QueueVFTxPackets
	QueueVFTxBytes

	numQueueIDs    int = iota
	kernelQueueIDs     = int(RxXDPTx) + 1
)

// line is the size in bytes of what one processor takes from another at once.
const line = 64

// A Set holds the counters of a device. They live as long as the driver. Any
// goroutine may add; what they count is rare, or is added once for a batch.
type Set struct {
	v [numIDs]struct {
		atomic.Uint64
		_ [line - 8]byte
	}
}

// Add adds n to a counter.
func (s *Set) Add(id ID, n uint64) { s.v[id].Add(n) }

// Load returns a counter's value.
func (s *Set) Load(id ID) uint64 { return s.v[id].Load() }

// A Queue holds the counters of one channel. They begin anew when the channel is
// opened anew, as hv_netvsc's do.
//
// Any goroutine may add, once for a batch. No other channel's counters are on the
// same cache lines.
type Queue struct {
	// CPU is the processor that the channel is bound to now. Its traffic is shown
	// for that one too.
	CPU atomic.Int32

	_ [line]byte
	v [numQueueIDs]atomic.Uint64
	_ [line]byte
}

// Add adds n to a counter.
func (q *Queue) Add(id QueueID, n uint64) { q.v[id].Add(n) }

// Load returns a counter's value.
func (q *Queue) Load(id QueueID) uint64 { return q.v[id].Load() }
