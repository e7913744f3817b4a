package ivshmem

import (
	"encoding/binary"
	"sync/atomic"

	"hvnet/hv"
)

// An exit slot: what a virtual processor asks for, and the answer. The processor
// spins meanwhile with its interrupts off, so the host answers at once.
const (
	exitState  = 0 // u32
	exitKind   = 4 // u32
	exitA0     = 8
	exitA1     = 16
	exitA2     = 24
	exitResult = 32

	statePosted = 1 // by the guest, last
	stateDone   = 2 // by the host, last

	kindHypercall = 1 // a0 = RCX, a1 = RDX, a2 = R8; the result is RAX
	kindReadMSR   = 2 // a0 = number; the result is the value
	kindWriteMSR  = 3 // a0 = number, a1 = value
)

// serveExits answers what virtual processors have posted.
func (g *guest) serveExits(h hv.Handler) {
	for vp := range g.msrs {
		slot := g.window.Bytes[offExits+vp*exitSize:][:exitSize]
		if atomic.LoadUint32(u32(slot, exitState)) != statePosted {
			continue
		}
		// The guest can write to the slot at any time: copy once.
		kind := atomic.LoadUint32(u32(slot, exitKind))
		a0 := atomic.LoadUint64(u64(slot, exitA0))
		a1 := atomic.LoadUint64(u64(slot, exitA1))
		var result uint64
		switch kind {
		case kindHypercall:
			result = uint64(g.hypercall(h, a0, a1))
		case kindReadMSR:
			result = g.readMSR(vp, a0)
		case kindWriteMSR:
			g.writeMSR(vp, a0, a1)
		}
		atomic.StoreUint64(u64(slot, exitResult), result)
		atomic.StoreUint32(u32(slot, exitState), stateDone)
	}
}

// A hypercall's input value, TLFS "Hypercall Inputs". All bits above that of a fast
// one are for other calls than those that VMBus makes, or reserved.
const (
	callCode = 0xffff
	callFast = 1 << 16

	callPostMessage = 0x5c
	callSignalEvent = 0x5d
)

// hypercall carries out a hypercall of VMBus. A guest needs no other.
func (g *guest) hypercall(h hv.Handler, control, input uint64) hv.Status {
	if control&^uint64(callCode|callFast) != 0 {
		return hv.StatusInvalidInput
	}
	fast := control&callFast != 0
	switch control & callCode {
	case callPostMessage:
		if fast {
			return hv.StatusInvalidInput // its input does not fit into registers
		}
		return g.postMessage(h, hv.GPA(input))
	case callSignalEvent:
		if fast {
			return signalEvent(h, input)
		}
		var in [8]byte
		if status := g.input(hv.GPA(input), in[:]); status != hv.StatusSuccess {
			return status
		}
		return signalEvent(h, binary.LittleEndian.Uint64(in[:]))
	}
	return hv.StatusInvalidCode
}

// input copies the input of a hypercall from the guest's memory. It must be aligned
// and must not cross a page, TLFS "Hypercall Inputs".
func (g *guest) input(gpa hv.GPA, to []byte) hv.Status {
	if gpa%8 != 0 || gpa%hv.PageSize+hv.GPA(len(to)) > hv.PageSize {
		return hv.StatusInvalidAlignment
	}
	g.memory.RLock()
	defer g.memory.RUnlock()
	b, err := g.memory.Bytes(gpa, len(to))
	if err != nil {
		return hv.StatusInvalidParameter
	}
	copy(to, b)
	return hv.StatusSuccess
}

// The input of HvCallPostMessage: u32 connection id, u32 reserved, u32 message type,
// u32 payload size, payload.
const postHeader = 16

// postMessage is HvCallPostMessage.
func (g *guest) postMessage(h hv.Handler, gpa hv.GPA) hv.Status {
	var head [postHeader]byte
	if status := g.input(gpa, head[:]); status != hv.StatusSuccess {
		return status
	}
	m := hv.Message{Type: binary.LittleEndian.Uint32(head[8:])}
	size := binary.LittleEndian.Uint32(head[12:])
	if size > hv.MaxPayload {
		return hv.StatusInvalidParameter
	}
	m.Size = int(size)
	if status := g.payload(gpa+postHeader, m.Payload()); status != hv.StatusSuccess {
		return status
	}
	return g.synic.Deliver(h, binary.LittleEndian.Uint32(head[0:]), []hv.Message{m})
}

// payload is input for what may be empty, at the very end of a page.
func (g *guest) payload(gpa hv.GPA, to []byte) hv.Status {
	if len(to) == 0 {
		return hv.StatusSuccess
	}
	return g.input(gpa, to)
}

// signalEvent is HvCallSignalEvent with its one word of input: u32 connection id, u16
// flag number, u16 reserved. The connections of VMBus have one flag.
func signalEvent(h hv.Handler, input uint64) hv.Status {
	conn, flag := uint32(input), uint32(input>>32)
	switch {
	case flag != 0:
		return hv.StatusInvalidParameter
	case conn >= hv.MaxConnectionID:
		return hv.StatusInvalidConnectionID
	}
	h.Signal(conn)
	return hv.StatusSuccess
}
