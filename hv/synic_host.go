package hv

import (
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"
)

const (
	// maxQueued bounds the messages that wait for the slot of one VP.
	maxQueued = 1024
	// congested is the number of waiting messages beyond which a guest may not
	// post: it would only make more of them.
	congested = 128
)

// A HostSynIC is the host's half of the synthetic interrupt controllers of one
// guest. It works on the guest's own message and event pages, wherever they are:
// for our own guests they are part of what they attach with, a kernel names them
// in SIMP and SIEFP whenever it likes.
//
// All methods may be called from any goroutine and none blocks. Setting a flag
// that is set already costs one atomic operation under a shared lock.
type HostSynIC struct {
	interrupt func(vp int)
	vps       []hostVP

	waiting   atomic.Uint64 // VPs with messages in their queue, a bit each
	congested atomic.Uint64 // VPs with too many

	mu         sync.RWMutex // held shared while signals are taken
	signals    bitmap
	signalPage *Mapping
	closed     bool
}

type hostVP struct {
	mu     sync.RWMutex // held shared by SetFlag, exclusively by all else
	slot   slot         // in message; nil while the guest has none
	flags  bitmap       // in event; nil while the guest has none
	queue  []Message    // waiting for the slot
	closed bool

	message, event *Mapping
}

// NewHostSynIC returns the host's half for a number of VPs, none of which has
// pages yet. interrupt is called, with locks held, to interrupt a VP; it must not
// block nor call back. It is not called after Close.
func NewHostSynIC(vps int, interrupt func(vp int)) *HostSynIC {
	return &HostSynIC{interrupt: interrupt, vps: make([]hostVP, vps)}
}

// Pages says where in guest memory the pages of a guest are, page-aligned.
type Pages struct {
	Signals GPA   // bitmap of signalled connections
	Message []GPA // message page of each VP
	Event   []GPA // event page of each VP
}

// MapPages makes the named pages those of the guest's VPs. An error leaves some
// of them set; Close lets them go.
func (s *HostSynIC) MapPages(m *Memory, p Pages) error {
	if len(p.Message) != len(s.vps) || len(p.Event) != len(s.vps) {
		return ErrRange
	}
	signals, err := mapPage(m, p.Signals)
	if err != nil {
		return fmt.Errorf("signal page: %w", err)
	}
	s.SetSignals(signals)
	for vp := range s.vps {
		message, err := mapPage(m, p.Message[vp])
		if err != nil {
			return fmt.Errorf("message page of virtual processor %d: %w", vp, err)
		}
		s.SetMessagePage(vp, message)
		event, err := mapPage(m, p.Event[vp])
		if err != nil {
			return fmt.Errorf("event page of virtual processor %d: %w", vp, err)
		}
		s.SetEventPage(vp, event)
	}
	return nil
}

func mapPage(m *Memory, gpa GPA) (*Mapping, error) {
	if gpa%PageSize != 0 {
		return nil, fmt.Errorf("%w: %#x is not the address of a page", ErrBounds, uint64(gpa))
	}
	return m.Map([]uint64{uint64(gpa) / PageSize})
}

// SetMessagePage makes a page the message page of a VP, nil for none, and closes
// the mapping of the one before. Messages wait while there is none.
func (s *HostSynIC) SetMessagePage(vp int, page *Mapping) {
	v := &s.vps[vp]
	v.mu.Lock()
	defer v.mu.Unlock()
	v.slot = nil
	if page = replace(&v.message, page, v.closed); page != nil {
		v.slot = slotAt(page.Bytes)
	}
	s.deliver(vp)
}

// SetEventPage makes a page the event page of a VP, nil for none, and closes the
// mapping of the one before. Flags are lost while there is none.
func (s *HostSynIC) SetEventPage(vp int, page *Mapping) {
	v := &s.vps[vp]
	v.mu.Lock()
	defer v.mu.Unlock()
	v.flags = nil
	if page = replace(&v.event, page, v.closed); page != nil {
		v.flags = flagsAt(page.Bytes)
	}
}

// SetSignals makes a page, or SignalBytes elsewhere, the bitmap of signalled
// connections, nil for none, and closes the mapping of the one before.
func (s *HostSynIC) SetSignals(page *Mapping) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.signals = nil
	if page = replace(&s.signalPage, page, s.closed); page != nil {
		s.signals = bitmapAt(page.Bytes, MaxConnectionID)
	}
}

// replace puts a mapping in place of another one and returns it. What comes after
// Close is closed itself.
func replace(place **Mapping, page *Mapping, closed bool) *Mapping {
	if closed && page != nil {
		page.Close()
		page = nil
	}
	if *place != nil {
		(*place).Close()
	}
	*place = page
	return page
}

// Post puts a message into the slot of a VP, or into the queue before it. Errors
// are ErrRange, ErrQueueFull, and ErrGone after Close.
func (s *HostSynIC) Post(vp int, payload []byte) error {
	if vp < 0 || vp >= len(s.vps) || len(payload) > MaxPayload {
		return ErrRange
	}
	v := &s.vps[vp]
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return ErrGone
	}
	if len(v.queue) == maxQueued {
		return ErrQueueFull
	}
	m := Message{Type: MessageVMBus, Size: len(payload)}
	copy(m.Data[:], payload)
	v.queue = append(v.queue, m)
	s.deliver(vp)
	return nil
}

// deliver moves messages from the queue to the slot while it is free. The VP is
// locked.
func (s *HostSynIC) deliver(vp int) {
	v, bit := &s.vps[vp], uint64(1)<<vp
	if len(v.queue) > 0 {
		// Before the pending flag: the guest's answer to the flag must find it.
		s.waiting.Or(bit)
	}
	n := 0
	for ; n < len(v.queue) && v.slot != nil; n++ {
		if !v.slot.free() {
			atomic.OrUint32(v.slot.info(), infoPending)
			if !v.slot.free() {
				break // the guest will see the flag
			}
			// It freed the slot just now, maybe before the flag was there.
		}
		v.slot.put(&v.queue[n], n+1 < len(v.queue))
		s.interrupt(vp)
	}
	v.queue = v.queue[n:]
	if len(v.queue) == 0 {
		v.queue = nil
		s.waiting.And(^bit)
	}
	if len(v.queue) > congested {
		s.congested.Or(bit)
	} else {
		s.congested.And(^bit)
	}
}

// EOM is called when a VP has emptied its slot and seen the pending flag.
func (s *HostSynIC) EOM(vp int) {
	if vp < 0 || vp >= len(s.vps) {
		return
	}
	v := &s.vps[vp]
	v.mu.Lock()
	defer v.mu.Unlock()
	s.deliver(vp)
}

// EOMs looks for free slots of all VPs with waiting messages. It is the EOM of
// guests that say so with a doorbell that does not name the VP.
func (s *HostSynIC) EOMs() {
	for w := s.waiting.Load(); w != 0; w &= w - 1 {
		s.EOM(bits.TrailingZeros64(w))
	}
}

// Congested tells whether so many messages wait for the guest that it may post no
// more of its own.
func (s *HostSynIC) Congested() bool { return s.congested.Load() != 0 }

// SetFlag sets an event flag of a VP and interrupts the VP if the flag was clear.
// Errors are ErrRange, and ErrGone after Close.
func (s *HostSynIC) SetFlag(vp, flag int) error {
	if vp < 0 || vp >= len(s.vps) || flag < 0 || flag >= Flags {
		return ErrRange
	}
	v := &s.vps[vp]
	v.mu.RLock()
	defer v.mu.RUnlock()
	if v.flags == nil {
		if v.closed {
			return ErrGone
		}
		return nil
	}
	if v.flags.set(flag) {
		s.interrupt(vp)
	}
	return nil
}

// TakeSignals clears the bitmap of signalled connections and calls each for every
// one that was set. It is what a host does when a guest rings.
func (s *HostSynIC) TakeSignals(each func(conn uint32)) {
	for i, v := s.takeSignals(0); v != 0; i, v = s.takeSignals(i + 1) {
		eachBit(i, v, func(n int) { each(uint32(n)) })
	}
}

// takeSignals takes the next word that is not 0, under a lock that is not held
// while each runs.
func (s *HostSynIC) takeSignals(from int) (word int, v uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.signals.take(from)
}

// Close lets go of all pages. When it returns none of them is touched any more
// and no interrupt is raised.
func (s *HostSynIC) Close() {
	for i := range s.vps {
		s.vps[i].shut()
		s.SetMessagePage(i, nil)
		s.SetEventPage(i, nil)
	}
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.SetSignals(nil)
}

// shut forgets the queue and refuses new messages.
func (v *hostVP) shut() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.queue, v.closed = nil, true
}

// Deliver hands posted messages to a handler and returns the status for the guest:
// that of the handler, or StatusInsufficientBuffers from a congested guest.
func (s *HostSynIC) Deliver(h Handler, conn uint32, m []Message) Status {
	for i := range m {
		if m[i].Type == 0 || m[i].Type >= 1<<31 {
			return StatusInvalidParameter // TLFS HvCallPostMessage: 0 is a free slot, the top bit is the hypervisor's
		}
	}
	if s.Congested() {
		return StatusInsufficientBuffers
	}
	return h.Messages(conn, m)
}
