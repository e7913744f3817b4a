package rndis

// The RNDIS version, 1.0, and what else has one value only.
const (
	MajorVersion = 1
	MinorVersion = 0

	FlagConnectionless = 1 // InitializeComplete.Flags
	MediumEthernet     = 0 // InitializeComplete.Medium
)

// Initialize is the guest's first message.
type Initialize struct {
	RequestID    uint32 // body @0
	Major, Minor uint32 // @4, @8: 1.0
	MaxTransfer  uint32 // @12: largest message in bytes that the guest takes; Linux says 0x4000
}

// Append appends the 24 bytes of the message.
func (m Initialize) Append(b []byte) []byte {
	return message(b, TypeInitialize, 0, m.RequestID, m.Major, m.Minor, m.MaxTransfer)
}

// ParseInitialize parses an Initialize.
func ParseInitialize(b []byte) (Initialize, error) {
	p, err := body(b, TypeInitialize, 16)
	if err != nil {
		return Initialize{}, err
	}
	return Initialize{le.Uint32(p), le.Uint32(p[4:]), le.Uint32(p[8:]), le.Uint32(p[12:])}, nil
}

// InitializeComplete answers Initialize and sets the limits for frames from the
// guest. They are the host's word: see Batch.
type InitializeComplete struct {
	RequestID       uint32 // body @0
	Status          Status // @4
	Major, Minor    uint32 // @8, @12
	Flags           uint32 // @16: FlagConnectionless
	Medium          uint32 // @20: MediumEthernet
	MaxPackets      uint32 // @24: PACKET messages in one send; hosts say 8
	MaxTransfer     uint32 // @28: bytes in one send
	AlignmentFactor uint32 // @32: log2 of the alignment of a PACKET behind another; hosts say 3
	// @36, @40: address family list, unused
}

// Append appends the 52 bytes of the message.
func (m InitializeComplete) Append(b []byte) []byte {
	return message(b, TypeInitializeComplete, 0, m.RequestID, uint32(m.Status), m.Major, m.Minor,
		m.Flags, m.Medium, m.MaxPackets, m.MaxTransfer, m.AlignmentFactor, 0, 0)
}

// ParseInitializeComplete parses an InitializeComplete.
func ParseInitializeComplete(b []byte) (InitializeComplete, error) {
	p, err := body(b, TypeInitializeComplete, 44)
	if err != nil {
		return InitializeComplete{}, err
	}
	return InitializeComplete{RequestID: le.Uint32(p), Status: Status(le.Uint32(p[4:])),
		Major: le.Uint32(p[8:]), Minor: le.Uint32(p[12:]), Flags: le.Uint32(p[16:]), Medium: le.Uint32(p[20:]),
		MaxPackets: le.Uint32(p[24:]), MaxTransfer: le.Uint32(p[28:]), AlignmentFactor: le.Uint32(p[32:])}, nil
}

// Batch returns the limits that a guest uses: 1 to 64 packets in a send, and an
// alignment of 1 to 128 bytes. A host's word beyond them is brought into them, for
// it would be used as a shift.
func (m InitializeComplete) Batch() (packets, align int) {
	return int(min(max(m.MaxPackets, 1), 64)), 1 << min(m.AlignmentFactor, 7)
}

// Halt ends the conversation. It is not answered.
type Halt struct {
	RequestID uint32 // body @0
}

// Append appends the 12 bytes of the message.
func (m Halt) Append(b []byte) []byte { return message(b, TypeHalt, 0, m.RequestID) }

// ParseHalt parses a Halt.
func ParseHalt(b []byte) (Halt, error) {
	p, err := body(b, TypeHalt, 4)
	if err != nil {
		return Halt{}, err
	}
	return Halt{le.Uint32(p)}, nil
}

// Reset asks for a reset. It has no request id; today's guests never send it.
type Reset struct{}

// Append appends the 12 bytes of the message.
func (m Reset) Append(b []byte) []byte { return message(b, TypeReset, 0, 0) }

// ParseReset parses a Reset.
func ParseReset(b []byte) (Reset, error) {
	_, err := body(b, TypeReset, 4)
	return Reset{}, err
}

// ResetComplete answers Reset, without a request id.
type ResetComplete struct {
	Status          Status // body @0
	AddressingReset uint32 // @4: 1 if the guest has to set filter and addresses again
}

// Append appends the 16 bytes of the message.
func (m ResetComplete) Append(b []byte) []byte {
	return message(b, TypeResetComplete, 0, uint32(m.Status), m.AddressingReset)
}

// ParseResetComplete parses a ResetComplete.
func ParseResetComplete(b []byte) (ResetComplete, error) {
	p, err := body(b, TypeResetComplete, 8)
	if err != nil {
		return ResetComplete{}, err
	}
	return ResetComplete{Status(le.Uint32(p)), le.Uint32(p[4:])}, nil
}

// Keepalive asks the other side for a sign of life.
type Keepalive struct {
	RequestID uint32 // body @0
}

// Append appends the 12 bytes of the message.
func (m Keepalive) Append(b []byte) []byte { return message(b, TypeKeepalive, 0, m.RequestID) }

// ParseKeepalive parses a Keepalive.
func ParseKeepalive(b []byte) (Keepalive, error) {
	p, err := body(b, TypeKeepalive, 4)
	if err != nil {
		return Keepalive{}, err
	}
	return Keepalive{le.Uint32(p)}, nil
}

// KeepaliveComplete answers Keepalive.
type KeepaliveComplete struct {
	RequestID uint32 // body @0
	Status    Status // @4
}

// Append appends the 16 bytes of the message.
func (m KeepaliveComplete) Append(b []byte) []byte {
	return message(b, TypeKeepaliveComplete, 0, m.RequestID, uint32(m.Status))
}

// ParseKeepaliveComplete parses a KeepaliveComplete.
func ParseKeepaliveComplete(b []byte) (KeepaliveComplete, error) {
	p, err := body(b, TypeKeepaliveComplete, 8)
	if err != nil {
		return KeepaliveComplete{}, err
	}
	return KeepaliveComplete{le.Uint32(p), Status(le.Uint32(p[4:]))}, nil
}

// IndicateStatus tells the guest of a change at the host.
type IndicateStatus struct {
	Status Status // body @0
	Info   []byte // length @4, offset @8 from the body start
}

// Append appends the message: 20 bytes and Info.
func (m IndicateStatus) Append(b []byte) []byte {
	var off uint32
	if len(m.Info) > 0 {
		off = 12
	}
	b = message(b, TypeIndicateStatus, len(m.Info), uint32(m.Status), uint32(len(m.Info)), off)
	return append(b, m.Info...)
}

// ParseIndicateStatus parses an IndicateStatus. b is all that the host sent: Info
// may lie behind the end of the message, for hosts before 2019 do not count it in
// the message length.
func ParseIndicateStatus(b []byte) (IndicateStatus, error) {
	if _, err := body(b, TypeIndicateStatus, 12); err != nil {
		return IndicateStatus{}, err
	}
	p := b[HeaderSize:]
	in, err := info(TypeIndicateStatus, p, 12, le.Uint32(p[8:]), le.Uint32(p[4:]))
	if err != nil {
		return IndicateStatus{}, err
	}
	return IndicateStatus{Status(le.Uint32(p)), in}, nil
}
