package nvsp

import "fmt"

// SubChannelAllocate is the one operation of a SubChannelRequest.
const SubChannelAllocate = 1

// SubChannelRequest asks for more channels. The host grants some or all in its
// SubChannelComplete and then offers them. From version 5 on.
type SubChannelRequest struct {
	Op    uint32 // @4: SubChannelAllocate
	Count uint32 // @8: channels wanted, the primary not counted
}

// Append appends the 12 bytes of the message.
func (m SubChannelRequest) Append(b []byte) []byte {
	return appendWords(b, TypeSubChannel, m.Op, m.Count)
}

// ParseSubChannelRequest parses a SubChannelRequest.
func ParseSubChannelRequest(b []byte) (SubChannelRequest, error) {
	if err := check(b, TypeSubChannel, 12); err != nil {
		return SubChannelRequest{}, err
	}
	return SubChannelRequest{le.Uint32(b[4:]), le.Uint32(b[8:])}, nil
}

// SubChannelComplete answers SubChannelRequest; it has the same message type.
type SubChannelComplete struct {
	Status Status // @4
	Count  uint32 // @8: channels granted; more than were asked for is an error
}

// Append appends the 12 bytes of the message.
func (m SubChannelComplete) Append(b []byte) []byte {
	return appendWords(b, TypeSubChannel, uint32(m.Status), m.Count)
}

// ParseSubChannelComplete parses a SubChannelComplete.
func ParseSubChannelComplete(b []byte) (SubChannelComplete, error) {
	if err := check(b, TypeSubChannel, 12); err != nil {
		return SubChannelComplete{}, err
	}
	return SubChannelComplete{Status(le.Uint32(b[4:])), le.Uint32(b[8:])}, nil
}

// TableEntries is the number of entries of the indirection table for sending.
const TableEntries = 16

const (
	tableHeader = 12 // type, count, offset
	tableBytes  = TableEntries * 4
	tableFixed  = MaxSize // what old hosts put in front of the table
)

// IndirectionTable is the host's table for sending: a frame with hash h goes out
// on channel Table[h%16]. It is not answered.
type IndirectionTable struct {
	// Offset is where the table is in the message, in bytes: at least 12.
	Offset uint32
	// Table holds channel numbers. They are not checked: reduce them modulo the
	// channels in use.
	Table [TableEntries]uint32
}

// Append appends the message: Offset+64 bytes. An Offset below 12 is written as 12.
func (m IndirectionTable) Append(b []byte) []byte {
	off := max(m.Offset, tableHeader)
	start := len(b)
	b = appendWords(b, TypeIndirectionTable, TableEntries, off)
	b = Pad(b, start, int(off))
	for _, c := range m.Table {
		b = le.AppendUint32(b, c)
	}
	return b
}

// ParseIndirectionTable parses an IndirectionTable of a connection of version v.
// Hosts up to version 6 report a wrong offset when they put the table behind a
// whole message structure, so there a message that is long enough for that has the
// table at 40 whatever it says.
func ParseIndirectionTable(b []byte, v Version) (IndirectionTable, error) {
	if err := check(b, TypeIndirectionTable, tableHeader+tableBytes); err != nil {
		return IndirectionTable{}, err
	}
	count, m := le.Uint32(b[4:]), IndirectionTable{Offset: le.Uint32(b[8:])}
	if count != TableEntries {
		return IndirectionTable{}, fmt.Errorf("parse %v: %d entries, want %d: %w",
			TypeIndirectionTable, count, TableEntries, ErrMalformed)
	}
	if v <= V6 && len(b) >= tableFixed+tableBytes {
		m.Offset = tableFixed
	}
	if m.Offset < tableHeader || uint64(m.Offset) > uint64(len(b)-tableBytes) {
		return IndirectionTable{}, fmt.Errorf("parse %v: table at %d in %d bytes: %w",
			TypeIndirectionTable, m.Offset, len(b), ErrMalformed)
	}
	for i := range m.Table {
		m.Table[i] = le.Uint32(b[int(m.Offset)+4*i:])
	}
	return m, nil
}
