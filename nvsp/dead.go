package nvsp

// The messages here came with version 2 and were given up before any driver used
// them. A host refuses them.

// AllocateReceiveBuffer asks the host to make a receive buffer.
type AllocateReceiveBuffer struct {
	ID     uint32 // @4: names the request
	Length uint32 // @8: bytes
}

// Append appends the 12 bytes of the message.
func (m AllocateReceiveBuffer) Append(b []byte) []byte {
	return appendWords(b, TypeAllocateReceiveBuffer, m.ID, m.Length)
}

// ParseAllocateReceiveBuffer parses an AllocateReceiveBuffer.
func ParseAllocateReceiveBuffer(b []byte) (AllocateReceiveBuffer, error) {
	if err := check(b, TypeAllocateReceiveBuffer, 12); err != nil {
		return AllocateReceiveBuffer{}, err
	}
	return AllocateReceiveBuffer{le.Uint32(b[4:]), le.Uint32(b[8:])}, nil
}

// AllocateReceiveBufferComplete answers AllocateReceiveBuffer.
type AllocateReceiveBufferComplete struct {
	Status Status // @4
	ID     uint32 // @8: of the request
	GPADL  uint32 // @12
	Buffer uint64 // @16: names the buffer
}

// Append appends the 24 bytes of the message.
func (m AllocateReceiveBufferComplete) Append(b []byte) []byte {
	b = appendWords(b, TypeAllocateReceiveBufferComplete, uint32(m.Status), m.ID, m.GPADL)
	return le.AppendUint64(b, m.Buffer)
}

// ParseAllocateReceiveBufferComplete parses an AllocateReceiveBufferComplete.
func ParseAllocateReceiveBufferComplete(b []byte) (AllocateReceiveBufferComplete, error) {
	if err := check(b, TypeAllocateReceiveBufferComplete, 24); err != nil {
		return AllocateReceiveBufferComplete{}, err
	}
	return AllocateReceiveBufferComplete{Status(le.Uint32(b[4:])), le.Uint32(b[8:]), le.Uint32(b[12:]), le.Uint64(b[16:])}, nil
}

// FreeReceiveBuffer gives such a buffer back. It is not answered.
type FreeReceiveBuffer struct {
	Buffer uint64 // @4
}

// Append appends the 12 bytes of the message.
func (m FreeReceiveBuffer) Append(b []byte) []byte {
	return le.AppendUint64(appendWords(b, TypeFreeReceiveBuffer), m.Buffer)
}

// ParseFreeReceiveBuffer parses a FreeReceiveBuffer.
func ParseFreeReceiveBuffer(b []byte) (FreeReceiveBuffer, error) {
	if err := check(b, TypeFreeReceiveBuffer, 12); err != nil {
		return FreeReceiveBuffer{}, err
	}
	return FreeReceiveBuffer{le.Uint64(b[4:])}, nil
}
