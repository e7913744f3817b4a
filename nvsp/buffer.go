package nvsp

import "fmt"

// SendReceiveBuffer shares the receive buffer with the host, which divides it into
// sections and answers with SendReceiveBufferComplete.
type SendReceiveBuffer struct {
	GPADL uint32 // @4
	ID    uint16 // @8
}

// Append appends the 12 bytes of the message.
func (m SendReceiveBuffer) Append(b []byte) []byte {
	return appendWords(b, TypeSendReceiveBuffer, m.GPADL, uint32(m.ID))
}

// ParseSendReceiveBuffer parses a SendReceiveBuffer.
func ParseSendReceiveBuffer(b []byte) (SendReceiveBuffer, error) {
	if err := check(b, TypeSendReceiveBuffer, 10); err != nil {
		return SendReceiveBuffer{}, err
	}
	return SendReceiveBuffer{le.Uint32(b[4:]), le.Uint16(b[8:])}, nil
}

// A ReceiveSection is a run of equal parts of the receive buffer. Hosts answer
// with one run at offset 0, and guests insist on it, see
// [SendReceiveBufferComplete.Only].
type ReceiveSection struct {
	Offset uint32 // @0: of the first part, in bytes
	Size   uint32 // @4: of a part
	Count  uint32 // @8: of parts
	End    uint32 // @12: Offset + Size*Count
}

// SendReceiveBufferComplete answers SendReceiveBuffer.
type SendReceiveBufferComplete struct {
	Status   Status           // @4
	Sections []ReceiveSection // count @8, 16 bytes each @12
}

// MinSection is the smallest section in bytes that a guest accepts, for either
// buffer: the smallest MTU that IPv4 allows.
const MinSection = 68

// Append appends the message: 12 bytes and 16 for each section.
func (m SendReceiveBufferComplete) Append(b []byte) []byte {
	b = appendWords(b, TypeSendReceiveBufferComplete, uint32(m.Status), uint32(len(m.Sections)))
	for _, s := range m.Sections {
		b = le.AppendUint32(b, s.Offset)
		b = le.AppendUint32(b, s.Size)
		b = le.AppendUint32(b, s.Count)
		b = le.AppendUint32(b, s.End)
	}
	return b
}

// ParseSendReceiveBufferComplete parses a SendReceiveBufferComplete. All sections
// must be inside the message.
func ParseSendReceiveBufferComplete(b []byte) (SendReceiveBufferComplete, error) {
	if err := check(b, TypeSendReceiveBufferComplete, 12); err != nil {
		return SendReceiveBufferComplete{}, err
	}
	m := SendReceiveBufferComplete{Status: Status(le.Uint32(b[4:]))}
	n, rest := le.Uint32(b[8:]), b[12:]
	if uint64(n) > uint64(len(rest)/16) {
		return SendReceiveBufferComplete{}, fmt.Errorf("parse %v: %d sections in %d bytes: %w",
			TypeSendReceiveBufferComplete, n, len(b), ErrMalformed)
	}
	for ; n > 0; n-- {
		m.Sections = append(m.Sections, ReceiveSection{le.Uint32(rest), le.Uint32(rest[4:]), le.Uint32(rest[8:]), le.Uint32(rest[12:])})
		rest = rest[16:]
	}
	return m, nil
}

// Only returns the one section that a guest accepts for a buffer of the given
// length in bytes: exactly one, at offset 0, of parts of at least MinSection bytes
// that fit into the buffer. The status is not looked at.
func (m SendReceiveBufferComplete) Only(buffer int) (ReceiveSection, error) {
	bad := func(format string, a ...any) (ReceiveSection, error) {
		return ReceiveSection{}, fmt.Errorf("receive buffer of %d bytes: host's "+format+": %w",
			append(append([]any{buffer}, a...), ErrMalformed)...)
	}
	if len(m.Sections) != 1 {
		return bad("answer has %d sections, want 1", len(m.Sections))
	}
	s := m.Sections[0]
	if s.Offset != 0 {
		return bad("section is at offset %d, want 0", s.Offset)
	}
	if s.Size < MinSection {
		return bad("section size is %d, want at least %d", s.Size, MinSection)
	}
	if s.Count == 0 || uint64(s.Size)*uint64(s.Count) > uint64(buffer) {
		return bad("%d sections of %d bytes do not fit", s.Count, s.Size)
	}
	return s, nil
}

// RevokeReceiveBuffer takes the receive buffer back. It is not answered.
type RevokeReceiveBuffer struct {
	ID uint16 // @4
}

// Append appends the 8 bytes of the message.
func (m RevokeReceiveBuffer) Append(b []byte) []byte {
	return appendWords(b, TypeRevokeReceiveBuffer, uint32(m.ID))
}

// ParseRevokeReceiveBuffer parses a RevokeReceiveBuffer.
func ParseRevokeReceiveBuffer(b []byte) (RevokeReceiveBuffer, error) {
	if err := check(b, TypeRevokeReceiveBuffer, 6); err != nil {
		return RevokeReceiveBuffer{}, err
	}
	return RevokeReceiveBuffer{le.Uint16(b[4:])}, nil
}

// SendSendBuffer shares the send buffer with the host, which chooses the section
// size and answers with SendSendBufferComplete.
type SendSendBuffer struct {
	GPADL uint32 // @4
	ID    uint16 // @8
}

// Append appends the 12 bytes of the message.
func (m SendSendBuffer) Append(b []byte) []byte {
	return appendWords(b, TypeSendSendBuffer, m.GPADL, uint32(m.ID))
}

// ParseSendSendBuffer parses a SendSendBuffer.
func ParseSendSendBuffer(b []byte) (SendSendBuffer, error) {
	if err := check(b, TypeSendSendBuffer, 10); err != nil {
		return SendSendBuffer{}, err
	}
	return SendSendBuffer{le.Uint32(b[4:]), le.Uint16(b[8:])}, nil
}

// SendSendBufferComplete answers SendSendBuffer. The number of sections is the
// length of the buffer divided by SectionSize.
type SendSendBufferComplete struct {
	Status      Status // @4
	SectionSize uint32 // @8: in bytes; guests want at least MinSection
}

// Append appends the 12 bytes of the message.
func (m SendSendBufferComplete) Append(b []byte) []byte {
	return appendWords(b, TypeSendSendBufferComplete, uint32(m.Status), m.SectionSize)
}

// ParseSendSendBufferComplete parses a SendSendBufferComplete.
func ParseSendSendBufferComplete(b []byte) (SendSendBufferComplete, error) {
	if err := check(b, TypeSendSendBufferComplete, 12); err != nil {
		return SendSendBufferComplete{}, err
	}
	return SendSendBufferComplete{Status(le.Uint32(b[4:])), le.Uint32(b[8:])}, nil
}

// RevokeSendBuffer takes the send buffer back. It is not answered.
type RevokeSendBuffer struct {
	ID uint16 // @4
}

// Append appends the 8 bytes of the message.
func (m RevokeSendBuffer) Append(b []byte) []byte {
	return appendWords(b, TypeRevokeSendBuffer, uint32(m.ID))
}

// ParseRevokeSendBuffer parses a RevokeSendBuffer.
func ParseRevokeSendBuffer(b []byte) (RevokeSendBuffer, error) {
	if err := check(b, TypeRevokeSendBuffer, 6); err != nil {
		return RevokeSendBuffer{}, err
	}
	return RevokeSendBuffer{le.Uint16(b[4:])}, nil
}
