package nvsp

import (
	"encoding/binary"
	"fmt"
)

// A PDOp is an operation of PacketDirect, by which a guest could have driven queues
// of the host's NIC itself. Hosts from version 6 on have the numbers; no driver in
// use sends them.
type PDOp uint32

// The operations.
const (
	PDConfigure      PDOp = 1
	PDSwitchPath     PDOp = 2
	PDOpen           PDOp = 3
	PDClose          PDOp = 4
	PDCreateQueue    PDOp = 5
	PDFlushQueue     PDOp = 6
	PDFreeQueue      PDOp = 7
	PDAllocateBuffer PDOp = 8
	PDFreeBuffer     PDOp = 9
)

var pdNames = [...]string{1: "CONFIGURE", "SWITCH_PATH", "OPEN", "CLOSE", "CREATE_QUEUE", "FLUSH_QUEUE", "FREE_QUEUE",
	"ALLOCATE_BUFFER", "FREE_BUFFER"}

// String returns the operation's name.
func (o PDOp) String() string {
	if o >= PDConfigure && o <= PDFreeBuffer {
		return pdNames[o]
	}
	return fmt.Sprintf("PD operation %d", uint32(o))
}

// PDAffinity says on which processors a queue's interrupts may come.
type PDAffinity struct {
	Mask  uint64
	Group uint16
	_     [3]uint16
}

// PDRequest asks for an operation of PacketDirect. Of the fields those count that
// the operation has; they follow Op at @8, packed.
type PDRequest struct {
	Op PDOp // @4

	MMIO            uint64 // PDConfigure: physical address
	MMIOLen         uint32
	Queues          uint16
	HostPD, GuestPD bool   // PDSwitchPath
	Provider        uint32 // PDOpen to PDFreeQueue
	Flags           uint32 // PDOpen
	QueueID         uint16 // PDCreateQueue to PDFreeQueue
	QueueSize       uint16 // PDCreateQueue
	Receive, RSS    bool
	ReceiveLen      uint32
	Affinity        PDAffinity
	Length          uint32 // PDAllocateBuffer, PDFreeBuffer
	Address         uint64 // PDFreeBuffer
	Node            uint32 // PDAllocateBuffer, PDFreeBuffer
	Region          uint16
	Cache           uint8 // PDFreeBuffer
}

// fields returns what the operation has, in order.
func (m *PDRequest) fields() []any {
	switch m.Op {
	case PDConfigure:
		return []any{&m.MMIO, &m.MMIOLen, &m.Queues}
	case PDSwitchPath:
		return []any{&m.HostPD, &m.GuestPD}
	case PDOpen:
		return []any{&m.Provider, &m.Flags}
	case PDClose:
		return []any{&m.Provider}
	case PDCreateQueue:
		return []any{&m.Provider, &m.QueueID, &m.QueueSize, &m.Receive, &m.RSS, &m.ReceiveLen, &m.Affinity}
	case PDFlushQueue, PDFreeQueue:
		return []any{&m.Provider, &m.QueueID}
	case PDAllocateBuffer:
		return []any{&m.Length, &m.Node, &m.Region}
	case PDFreeBuffer:
		return []any{&m.Length, &m.Address, &m.Node, &m.Region, &m.Cache}
	}
	return nil
}

// Append appends the message: 8 bytes and the fields of the operation.
func (m PDRequest) Append(b []byte) []byte {
	return appendFields(appendWords(b, TypePDAPI, uint32(m.Op)), m.fields())
}

// ParsePDRequest parses a PDRequest. An unknown operation has no fields.
func ParsePDRequest(b []byte) (m PDRequest, err error) {
	if err := check(b, TypePDAPI, 8); err != nil {
		return m, err
	}
	m.Op = PDOp(le.Uint32(b[4:]))
	if err := parseFields(b[8:], m.fields()); err != nil {
		return PDRequest{}, fmt.Errorf("parse %v %v: %w", TypePDAPI, m.Op, err)
	}
	return m, nil
}

// PDComplete answers PDRequest; it has the same message type. Of the fields those
// count that the operation has; they follow Status at @12, packed.
type PDComplete struct {
	Op     PDOp   // @4
	Status Status // @8

	Queues             uint16 // PDConfigure
	RSSQueues          uint8
	Supported, Enabled bool
	Provider           uint32 // PDOpen, PDCreateQueue
	QueueID            uint16 // PDCreateQueue
	QueueSize          uint16
	ReceiveLen         uint32
	Affinity           PDAffinity
	Address            uint64 // PDAllocateBuffer
	Length             uint32
	Node               uint32
	Region             uint16
	Cache              uint8
}

func (m *PDComplete) fields() []any {
	switch m.Op {
	case PDConfigure:
		return []any{&m.Queues, &m.RSSQueues, &m.Supported, &m.Enabled}
	case PDOpen:
		return []any{&m.Provider}
	case PDCreateQueue:
		return []any{&m.Provider, &m.QueueID, &m.QueueSize, &m.ReceiveLen, &m.Affinity}
	case PDAllocateBuffer:
		return []any{&m.Address, &m.Length, &m.Node, &m.Region, &m.Cache}
	}
	return nil
}

// Append appends the message: 12 bytes and the fields of the operation.
func (m PDComplete) Append(b []byte) []byte {
	return appendFields(appendWords(b, TypePDAPI, uint32(m.Op), uint32(m.Status)), m.fields())
}

// ParsePDComplete parses a PDComplete. An unknown operation has no fields.
func ParsePDComplete(b []byte) (m PDComplete, err error) {
	if err := check(b, TypePDAPI, 12); err != nil {
		return m, err
	}
	m.Op, m.Status = PDOp(le.Uint32(b[4:])), Status(le.Uint32(b[8:]))
	if err := parseFields(b[12:], m.fields()); err != nil {
		return PDComplete{}, fmt.Errorf("parse %v %v completion: %w", TypePDAPI, m.Op, err)
	}
	return m, nil
}

func appendFields(b []byte, fields []any) []byte {
	for _, f := range fields {
		b, _ = binary.Append(b, le, f) // all are of fixed size
	}
	return b
}

func parseFields(b []byte, fields []any) error {
	for _, f := range fields {
		n, err := binary.Decode(b, le, f)
		if err != nil {
			return ErrMalformed
		}
		b = b[n:]
	}
	return nil
}

// The flags of PDPostBatch.
const (
	PDFromGuest = 1 << 0 // else from the host
	PDReceive   = 1 << 1 // else for sending
)

// PDPostBatch hands a batch of PacketDirect buffers over.
type PDPostBatch struct {
	Flags   uint16    // @6: PDFromGuest, PDReceive
	Entries []PDEntry // count @4, 8 bytes each @8
}

// A PDEntry is one buffer of PDPostBatch.
type PDEntry struct {
	Offset  uint32 // @0: in the region
	Region  uint16 // @4
	Partial bool   // @6, bit 0: the packet goes on in the next entry
}

// Append appends the message: 8 bytes and 8 for each entry.
func (m PDPostBatch) Append(b []byte) []byte {
	b = appendWords(b, TypePDPostBatch, uint32(uint16(len(m.Entries)))|uint32(m.Flags)<<16)
	for _, e := range m.Entries {
		b = le.AppendUint32(b, e.Offset)
		b = le.AppendUint16(b, e.Region)
		var partial uint16
		if e.Partial {
			partial = 1
		}
		b = le.AppendUint16(b, partial)
	}
	return b
}

// ParsePDPostBatch parses a PDPostBatch. All entries must be inside the message.
func ParsePDPostBatch(b []byte) (m PDPostBatch, err error) {
	if err := check(b, TypePDPostBatch, 8); err != nil {
		return m, err
	}
	n, rest := int(le.Uint16(b[4:])), b[8:]
	if n > len(rest)/8 {
		return m, fmt.Errorf("parse %v: %d entries in %d bytes: %w", TypePDPostBatch, n, len(b), ErrMalformed)
	}
	m.Flags = le.Uint16(b[6:])
	for ; n > 0; n-- {
		m.Entries = append(m.Entries, PDEntry{le.Uint32(rest), le.Uint16(rest[4:]), rest[6]&1 != 0})
		rest = rest[8:]
	}
	return m, nil
}
