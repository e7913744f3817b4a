package nvsp

// VFAssociation tells the guest that a virtual function belongs to this NIC, or no
// longer does. It is not answered. From version 4 on.
type VFAssociation struct {
	Allocated bool   // @4: a u32, 1 or 0
	Serial    uint32 // @8: serial number of the PCI function
}

// Append appends the 12 bytes of the message.
func (m VFAssociation) Append(b []byte) []byte {
	var a uint32
	if m.Allocated {
		a = 1
	}
	return appendWords(b, TypeVFAssociation, a, m.Serial)
}

// ParseVFAssociation parses a VFAssociation; any non-zero word means allocated.
func ParseVFAssociation(b []byte) (VFAssociation, error) {
	if err := check(b, TypeVFAssociation, 12); err != nil {
		return VFAssociation{}, err
	}
	return VFAssociation{le.Uint32(b[4:]) != 0, le.Uint32(b[8:])}, nil
}

// The data paths of SwitchDataPath.
const (
	PathSynthetic = 0
	PathVF        = 1
)

// SwitchDataPath moves the guest's traffic between virtual function and synthetic
// NIC. The host answers with an empty completion. A host sends it too, as a notice
// that it took the path back.
type SwitchDataPath struct {
	Path uint32 // @4: PathSynthetic or PathVF
}

// Append appends the 8 bytes of the message.
func (m SwitchDataPath) Append(b []byte) []byte {
	return appendWords(b, TypeSwitchDataPath, m.Path)
}

// ParseSwitchDataPath parses a SwitchDataPath.
func ParseSwitchDataPath(b []byte) (SwitchDataPath, error) {
	if err := check(b, TypeSwitchDataPath, 8); err != nil {
		return SwitchDataPath{}, err
	}
	return SwitchDataPath{le.Uint32(b[4:])}, nil
}

// OIDQueryEx asks for an OID's value outside RNDIS. From version 5 on.
type OIDQueryEx struct {
	ObjectType     uint8  // @4: NDIS object header
	ObjectRevision uint8  // @5
	ObjectSize     uint16 // @6
	OID            uint32 // @8
}

// Append appends the 12 bytes of the message.
func (m OIDQueryEx) Append(b []byte) []byte {
	return appendWords(b, TypeOIDQueryEx,
		uint32(m.ObjectType)|uint32(m.ObjectRevision)<<8|uint32(m.ObjectSize)<<16, m.OID)
}

// ParseOIDQueryEx parses an OIDQueryEx.
func ParseOIDQueryEx(b []byte) (OIDQueryEx, error) {
	if err := check(b, TypeOIDQueryEx, 12); err != nil {
		return OIDQueryEx{}, err
	}
	return OIDQueryEx{b[4], b[5], le.Uint16(b[6:]), le.Uint32(b[8:])}, nil
}

// OIDQueryExComplete answers OIDQueryEx.
type OIDQueryExComplete struct {
	Status uint32 // @4: an NDIS status, unlike in all other completions
	Bytes  uint32 // @8
}

// Append appends the 12 bytes of the message.
func (m OIDQueryExComplete) Append(b []byte) []byte {
	return appendWords(b, TypeOIDQueryExComplete, m.Status, m.Bytes)
}

// ParseOIDQueryExComplete parses an OIDQueryExComplete.
func ParseOIDQueryExComplete(b []byte) (OIDQueryExComplete, error) {
	if err := check(b, TypeOIDQueryExComplete, 12); err != nil {
		return OIDQueryExComplete{}, err
	}
	return OIDQueryExComplete{le.Uint32(b[4:]), le.Uint32(b[8:])}, nil
}
