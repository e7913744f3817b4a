// Package hv is the partition boundary: the only thing that a guest and its
// host have in common at run time, and it offers what a hypervisor offers and
// nothing more.
//
//   - Guest memory: regions of guest-physical pages, which the guest allocates
//     and the host reaches by bounds-checked address ([Memory]).
//   - Messages of at most 240 bytes: the guest posts to a connection id, the
//     host posts to the message slot of a virtual processor.
//   - Event flags: the guest signals a connection id, the host sets one of 2048
//     flags of a virtual processor and interrupts it.
//
// The guest holds a [Partition], the host a [Guest]. [Pipe] joins the two in one
// process; package hv/attach joins them between processes. Message and event
// pages are ordinary guest memory in all of them, as on a real machine.
//
// Rules: Hypervisor Top-Level Functional Specification, "Inter-Partition
// Communication".
package hv

import (
	"errors"
	"fmt"
)

// PageSize is the size in bytes of a guest-physical page: 4096, also where the
// guest's own pages are larger.
const PageSize = 4096

// MaxPayload is the largest payload in bytes of a message, in either direction.
const MaxPayload = 240

// MaxPosts is how many messages a guest may post together.
const MaxPosts = 64

// MessageVMBus is the type of a message that carries VMBus.
const MessageVMBus = 1

// SINT is the synthetic interrupt source that VMBus uses.
const SINT = 2

// Flags is the number of event flags of one SINT of one virtual processor.
// Flag 0 is reserved.
const Flags = 2048

// MaxConnectionID bounds the connection ids that a guest may signal: ids are
// below it.
const MaxConnectionID = 16384

// MaxVPs is the largest number of virtual processors of a partition.
const MaxVPs = 64

// A GPA is a guest-physical address in bytes.
type GPA uint64

// A Region is a run of guest-physical pages as the guest that allocated it sees it.
type Region struct {
	GPA   GPA    // of the first byte, page-aligned, never 0
	Bytes []byte // whole pages, zeroed at allocation
}

// PFN returns the page frame number of the region's page i.
func (r Region) PFN(i int) uint64 { return uint64(r.GPA)/PageSize + uint64(i) }

// Pages returns the number of pages.
func (r Region) Pages() int { return len(r.Bytes) / PageSize }

// A Message is what crosses the boundary in one piece.
type Message struct {
	Type uint32 // MessageVMBus; never 0
	Size int    // bytes of Data in use, at most MaxPayload
	Data [MaxPayload]byte
}

// messages returns payloads as VMBus messages. It fails with StatusInvalidParameter
// for what cannot be posted.
func messages(payloads [][]byte) ([]Message, error) {
	if len(payloads) == 0 || len(payloads) > MaxPosts {
		return nil, StatusInvalidParameter
	}
	m := make([]Message, len(payloads))
	for i, b := range payloads {
		if len(b) > MaxPayload {
			return nil, StatusInvalidParameter
		}
		m[i].Type, m[i].Size = MessageVMBus, copy(m[i].Data[:], b)
	}
	return m, nil
}

// Payload returns the bytes in use. They are the message's own.
func (m *Message) Payload() []byte { return m.Data[:m.Size] }

// A Partition is the hypervisor as one guest sees it. All methods may be called
// from any goroutine; Wait, TakeFlags and TakeMessage of one VP only from one at
// a time.
type Partition interface {
	// VPs returns the number of virtual processors, 1 to MaxVPs.
	VPs() int

	// Alloc adds pages to the guest's physical memory: at least bytes, rounded
	// up to whole pages, zeroed.
	Alloc(bytes int) (Region, error)
	// Free takes a region that Alloc returned away again. The caller has made
	// sure that the host holds no GPADL of it.
	Free(Region) error

	// PostMessage posts at least one and at most MaxPosts payloads to a connection,
	// in order and either all or none, and returns the hypercall's status as an
	// error: StatusInvalidConnectionID, StatusInsufficientBuffers (try again later),
	// StatusInvalidParameter for payloads too many or too long, or the reason why
	// the host can't be reached.
	PostMessage(conn uint32, payloads ...[]byte) error
	// SignalEvent signals a connection. It never blocks; signals of one
	// connection may coalesce, none is lost. Signals of connections that the
	// host does not know vanish. The error is ErrRange for an id that is not
	// below MaxConnectionID, and ErrGone once the partition is closed.
	SignalEvent(conn uint32) error

	// Wait blocks until the VP has been interrupted since the last Wait. It
	// may return without a reason. It returns an error when the partition is
	// closed or its host gone.
	Wait(vp int) error
	// TakeFlags clears the VP's event flags and calls each with every flag
	// that was set.
	TakeFlags(vp int, each func(flag int))
	// TakeMessage copies the VP's next message to m and frees the slot. It
	// returns false if there is none.
	TakeMessage(vp int, m *Message) bool

	// Done is closed when the host is gone or the partition closed.
	Done() <-chan struct{}
	// Leave detaches from the host without its consent: from here on it is as if
	// the host was gone. Memory stays until Close.
	Leave()
	// Close detaches from the host, wakes all waiters and frees all memory: the
	// caller has stopped using regions. All other methods may still be called
	// and return ErrGone, false or nothing.
	Close() error
}

// A Guest is one attached guest as its host sees it. All methods may be called
// from any goroutine.
type Guest interface {
	// VPs returns the number of virtual processors, 1 to MaxVPs.
	VPs() int
	// Memory returns the guest's physical memory.
	Memory() *Memory

	// PostMessage queues payload for the message slot of a VP. It never
	// blocks. Errors are ErrRange if the VP does not exist or the payload is
	// too long, ErrQueueFull if the guest does not take its messages, ErrGone.
	PostMessage(vp int, payload []byte) error
	// SetFlag sets an event flag of a VP and interrupts the VP if the flag was
	// clear. It never blocks nor allocates, and may be called under
	// Memory.RLock. Errors are ErrRange and ErrGone.
	SetFlag(vp, flag int) error

	// Serve calls h for what the guest does until the guest is gone or closed,
	// closes it and returns why: ErrGone if the guest left or was closed, else
	// what it did wrong. It is called once. Messages wait for it.
	Serve(h Handler) error

	// Done is closed when the guest is gone or closed.
	Done() <-chan struct{}
	// Close detaches the guest and makes Serve return. Its memory is gone then,
	// Bytes returns ErrBounds; what was mapped stays until the Mapping is
	// closed. All other methods may still be called.
	Close() error
}

// A Handler is where the hypercalls of a guest end. Messages and Signal are called
// from two goroutines, so they may run at the same time.
type Handler interface {
	// Messages is called for the messages that were posted together, mostly one,
	// in order, one call at a time. It takes all of them or, with a status other
	// than StatusSuccess, none. They are valid during the call. The status goes
	// back to the guest.
	Messages(conn uint32, m []Message) Status
	// Signal is called for a signalled connection, one at a time. It must not
	// block.
	Signal(conn uint32)
}

// A Status is the result of a hypercall.
type Status uint16

// The statuses that VMBus meets.
const (
	StatusSuccess             Status = 0
	StatusInvalidCode         Status = 2
	StatusInvalidInput        Status = 3
	StatusInvalidAlignment    Status = 4
	StatusInvalidParameter    Status = 5
	StatusAccessDenied        Status = 6
	StatusOperationDenied     Status = 8
	StatusInsufficientMemory  Status = 11
	StatusInvalidPort         Status = 17
	StatusInvalidConnectionID Status = 18
	StatusInsufficientBuffers Status = 19
	StatusTimeout             Status = 0x78
)

var statusText = map[Status]string{
	StatusSuccess:             "success",
	StatusInvalidCode:         "invalid hypercall code",
	StatusInvalidInput:        "invalid hypercall input",
	StatusInvalidAlignment:    "invalid alignment",
	StatusInvalidParameter:    "invalid parameter",
	StatusAccessDenied:        "access denied",
	StatusOperationDenied:     "operation denied",
	StatusInsufficientMemory:  "insufficient memory",
	StatusInvalidPort:         "invalid port",
	StatusInvalidConnectionID: "invalid connection id",
	StatusInsufficientBuffers: "insufficient buffers",
	StatusTimeout:             "timeout",
}

// Err returns the status as an error, nil for StatusSuccess.
func (s Status) Err() error {
	if s == StatusSuccess {
		return nil
	}
	return s
}

// Error says what the status means. Only a status other than StatusSuccess is
// an error.
func (s Status) Error() string {
	if t, ok := statusText[s]; ok {
		return "hypercall: " + t
	}
	return fmt.Sprintf("hypercall: status %#x", uint16(s))
}

// ErrGone is returned when the other side of the boundary has left.
var ErrGone = errors.New("hv: the other side is gone")

// ErrBounds is returned for guest-physical addresses outside the guest's memory.
var ErrBounds = errors.New("hv: address outside guest memory")
