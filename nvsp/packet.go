package nvsp

// The channels of RNDISPacket.
const (
	ChannelData    = 0
	ChannelControl = 1
)

// NoSection is the section index of a message that has no bytes in the send
// buffer.
const NoSection = 0xffffffff

// RNDISPacket carries RNDIS, both ways. From the guest the RNDIS bytes are those
// in the send section, if any, followed by the page ranges of the packet; from the
// host they are the ranges of the transfer-pages packet, and Section is NoSection.
type RNDISPacket struct {
	Channel      uint32 // @4: ChannelData or ChannelControl
	Section      uint32 // @8: index of the send section, or NoSection
	SectionBytes uint32 // @12: bytes used in the section; 0 if none
}

// RNDISPacketSize is the bare size of an RNDISPacket, RNDISPacketCompleteSize that
// of an RNDISPacketComplete.
const (
	RNDISPacketSize         = 16
	RNDISPacketCompleteSize = 8
)

// Append appends the 16 bytes of the message.
func (m RNDISPacket) Append(b []byte) []byte {
	b = le.AppendUint32(b, uint32(TypeRNDISPacket))
	b = le.AppendUint32(b, m.Channel)
	b = le.AppendUint32(b, m.Section)
	return le.AppendUint32(b, m.SectionBytes)
}

// ParseRNDISPacket parses an RNDISPacket.
func ParseRNDISPacket(b []byte) (RNDISPacket, error) {
	if err := check(b, TypeRNDISPacket, RNDISPacketSize); err != nil {
		return RNDISPacket{}, err
	}
	return RNDISPacket{le.Uint32(b[4:]), le.Uint32(b[8:]), le.Uint32(b[12:])}, nil
}

// RNDISPacketComplete answers RNDISPacket, both ways, once all RNDIS messages of
// the packet were consumed. It frees the section, or the receive sections. A guest
// sends it bare, a host padded.
type RNDISPacketComplete struct {
	Status Status // @4: StatusFail if any of the messages failed
}

// Append appends the 8 bytes of the message.
func (m RNDISPacketComplete) Append(b []byte) []byte {
	b = le.AppendUint32(b, uint32(TypeRNDISPacketComplete))
	return le.AppendUint32(b, uint32(m.Status))
}

// ParseRNDISPacketComplete parses an RNDISPacketComplete.
func ParseRNDISPacketComplete(b []byte) (RNDISPacketComplete, error) {
	if err := check(b, TypeRNDISPacketComplete, RNDISPacketCompleteSize); err != nil {
		return RNDISPacketComplete{}, err
	}
	return RNDISPacketComplete{Status(le.Uint32(b[4:]))}, nil
}
