package nvsp

import "fmt"

// Init is the guest's first message: it asks for a version. A guest sends one per
// version that it tries, with Min and Max the same.
type Init struct {
	Min, Max Version // @4, @8
}

// Append appends the 12 bytes of the message.
func (m Init) Append(b []byte) []byte {
	return appendWords(b, TypeInit, uint32(m.Min), uint32(m.Max))
}

// ParseInit parses an Init.
func ParseInit(b []byte) (Init, error) {
	if err := check(b, TypeInit, 12); err != nil {
		return Init{}, err
	}
	return Init{Version(le.Uint32(b[4:])), Version(le.Uint32(b[8:]))}, nil
}

// InitComplete answers Init.
type InitComplete struct {
	// Version is the negotiated version for the oldest guests; today's ignore it
	// (the one asked for is meant), and hosts send 0xFFFFFFFF except for V1.
	Version uint32 // @4
	MaxMDL  uint32 // @8: longest chain of buffers in a packet; hosts say 34
	Status  Status // @12
}

// Append appends the 16 bytes of the message.
func (m InitComplete) Append(b []byte) []byte {
	return appendWords(b, TypeInitComplete, m.Version, m.MaxMDL, uint32(m.Status))
}

// ParseInitComplete parses an InitComplete.
func ParseInitComplete(b []byte) (InitComplete, error) {
	if err := check(b, TypeInitComplete, 16); err != nil {
		return InitComplete{}, err
	}
	return InitComplete{le.Uint32(b[4:]), le.Uint32(b[8:]), Status(le.Uint32(b[12:]))}, nil
}

// NDISVersion tells the host the guest's NDIS version: 6.1 or 6.30, see
// [Version.NDIS]. It is not answered.
type NDISVersion struct {
	Major, Minor uint32 // @4, @8
}

// Append appends the 12 bytes of the message.
func (m NDISVersion) Append(b []byte) []byte {
	return appendWords(b, TypeNDISVersion, m.Major, m.Minor)
}

// ParseNDISVersion parses an NDISVersion.
func ParseNDISVersion(b []byte) (NDISVersion, error) {
	if err := check(b, TypeNDISVersion, 12); err != nil {
		return NDISVersion{}, err
	}
	return NDISVersion{le.Uint32(b[4:]), le.Uint32(b[8:])}, nil
}

// String returns "6.30".
func (m NDISVersion) String() string { return fmt.Sprintf("%d.%d", m.Major, m.Minor) }

// NDISConfig tells the host MTU and capabilities, from version 2 on and before any
// buffer. It is not answered.
type NDISConfig struct {
	MTU          uint32       // @4: longest frame in bytes, the Ethernet header included
	Capabilities Capabilities // @12
}

// Append appends the 20 bytes of the message.
func (m NDISConfig) Append(b []byte) []byte {
	return appendWords(b, TypeNDISConfig, m.MTU, 0, uint32(m.Capabilities), uint32(m.Capabilities>>32))
}

// ParseNDISConfig parses an NDISConfig.
func ParseNDISConfig(b []byte) (NDISConfig, error) {
	if err := check(b, TypeNDISConfig, 20); err != nil {
		return NDISConfig{}, err
	}
	return NDISConfig{le.Uint32(b[4:]), Capabilities(le.Uint64(b[12:]))}, nil
}
