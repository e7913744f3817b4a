package hv

import (
	"errors"
	"sync/atomic"
	"unsafe"
)

// ErrQueueFull is returned when a guest does not take its messages.
var ErrQueueFull = errors.New("hv: message queue of the virtual processor is full")

// ErrRange is returned for the number of a virtual processor, event flag or
// connection that can't exist.
var ErrRange = errors.New("hv: no such virtual processor, event flag or connection")

// Both SynIC pages of a VP are arrays of 16 entries of 256 bytes, one a SINT (TLFS
// "SynIC Message Page", "SynIC Event Flags Page"). A signal page is ours: one bit
// a connection id, set by the guest for HvCallSignalEvent.
const (
	synicEntry = 256
	sintOffset = SINT * synicEntry

	// SignalBytes is the size of the bitmap of signalled connections, which
	// begins at a page.
	SignalBytes = MaxConnectionID / 8
)

// A slot is the place of one message in a message page:
//
//	0  u32  type, 0 = free
//	4  u8   payload size
//	5  u8   flags, bit 0 = more messages pending
//	8  u64  sender
//	16      payload
type slot []byte

const (
	slotInfo    = 4 // size and flags, as one word of 32 bits
	slotPayload = 16

	infoSize    = 0xFF
	infoPending = 1 << 8
)

func slotAt(messagePage []byte) slot { return messagePage[sintOffset : sintOffset+synicEntry] }

func (s slot) typ() *uint32  { return (*uint32)(unsafe.Pointer(&s[0])) }
func (s slot) info() *uint32 { return (*uint32)(unsafe.Pointer(&s[slotInfo])) }

func (s slot) free() bool { return atomic.LoadUint32(s.typ()) == 0 }

// put fills a free slot. The type goes last: with it the message is the guest's.
func (s slot) put(m *Message, more bool) {
	info := uint32(m.Size)
	if more {
		info |= infoPending
	}
	clear(s[8:slotPayload])
	n := copy(s[slotPayload:], m.Payload())
	clear(s[slotPayload+n:])
	atomic.StoreUint32(s.info(), info)
	atomic.StoreUint32(s.typ(), m.Type)
}

// take copies the message out, frees the slot and tells whether the host waits
// to hear of that. The order is the protocol: the slot must be seen free before
// the flag is read, else a message that is posted in between waits for ever.
func (s slot) take(m *Message) (ok, pending bool) {
	m.Type = atomic.LoadUint32(s.typ())
	if m.Type == 0 {
		return false, false
	}
	m.Size = int(atomic.LoadUint32(s.info()) & infoSize)
	copy(m.Data[:], s[slotPayload:])
	if m.Size > MaxPayload {
		m.Size = 0
	}
	atomic.SwapUint32(s.typ(), 0) // a full barrier too; of a store the race detector makes a plain one here
	return true, atomic.LoadUint32(s.info())&infoPending != 0
}

// flagsAt returns the event flags of our SINT.
func flagsAt(eventPage []byte) bitmap { return bitmapAt(eventPage[sintOffset:], Flags) }
