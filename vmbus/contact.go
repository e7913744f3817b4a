package vmbus

// InitiateContact (14) opens a connection, or starts it anew: the host drops all
// that it had. It answers with VERSION_RESPONSE.
type InitiateContact struct {
	Version  Version // 8
	TargetVP uint32  // 12: where the host posts its messages; see Version.HasMessageVP

	InterruptPage uint64   // 16, below 5.0: GPA of the page for signals; hosts ignore it from 2.4 on
	SINT          uint8    // 16, from 5.0: where the host posts, 2 for VMBus
	VTL           uint8    // 17, from 5.1: the virtual trust level of the host that is meant
	Features      Features // 20, from 6.0: those that the guest would like

	// The GPAs of the two monitor pages. Both or none are zero; the guest
	// triggers in the second.
	ParentToChild uint64 // 24
	ChildToParent uint64 // 32

	ClientID GUID // 40, with FeatureClientID
}

const (
	initiateContactSize     = 40
	initiateContactLongSize = 56 // with FeatureClientID
)

// Append appends the message: 40 bytes, 56 with FeatureClientID.
func (m InitiateContact) Append(b []byte) []byte {
	b = words(begin(b, TypeInitiateContact), uint32(m.Version), m.TargetVP)
	switch {
	case m.Version.HasFeatures():
		b = append(b, m.SINT, m.VTL, 0, 0)
		b = words(b, uint32(m.Features))
	case m.Version.HasVTL():
		b = append(b, m.SINT, m.VTL, 0, 0, 0, 0, 0, 0)
	case m.Version.HasContactPort():
		b = append(b, m.SINT, 0, 0, 0, 0, 0, 0, 0)
	default:
		b = le.AppendUint64(b, m.InterruptPage)
	}
	b = le.AppendUint64(b, m.ParentToChild)
	b = le.AppendUint64(b, m.ChildToParent)
	if m.hasClientID() {
		b = append(b, m.ClientID[:]...)
	}
	return b
}

func (m InitiateContact) hasClientID() bool {
	return m.Version.HasFeatures() && m.Features&FeatureClientID != 0
}

// ParseInitiateContact parses the message, whatever version it asks for.
func ParseInitiateContact(b []byte) (m InitiateContact, err error) {
	if err := check(b, TypeInitiateContact, initiateContactSize); err != nil {
		return m, err
	}
	m.Version = Version(le.Uint32(b[8:]))
	m.TargetVP = le.Uint32(b[12:])
	if m.Version.HasContactPort() {
		m.SINT = b[16]
	} else {
		m.InterruptPage = le.Uint64(b[16:])
	}
	if m.Version.HasVTL() {
		m.VTL = b[17]
	}
	if m.Version.HasFeatures() {
		m.Features = Features(le.Uint32(b[20:]))
	}
	m.ParentToChild = le.Uint64(b[24:])
	m.ChildToParent = le.Uint64(b[32:])
	if m.hasClientID() {
		if err := check(b, TypeInitiateContact, initiateContactLongSize); err != nil {
			return InitiateContact{}, err
		}
		m.ClientID = GUID(b[40:56])
	}
	return m, nil
}

// A ConnectionState says why a host that supports a version still does not connect.
type ConnectionState uint8

// The connection states.
const (
	ConnectionOK             ConnectionState = 0
	ConnectionLowResources   ConnectionState = 1
	ConnectionUnknownFailure ConnectionState = 2
)

// VersionResponse (15) answers INITIATE_CONTACT.
type VersionResponse struct {
	Supported bool            // 8; if not, all else is zero
	State     ConnectionState // 9; see Version.HasConnectionState
	Version   Version         // 12, below 5.0: the version asked for
	ConnID    uint32          // 12, from 5.0: the connection for all further messages
	Features  Features        // 16, from 6.0: those granted

	// With FeatureServerMonitor the GPAs of the host's monitor pages. The second
	// is not zero then.
	ParentToChild uint64 // 24
	ChildToParent uint64 // 32
}

const (
	versionResponseSize        = 16
	versionResponseFeatureSize = 20 // from 6.0, if supported
	versionResponseMonitorSize = 40 // and with FeatureServerMonitor
)

// Append appends the answer to a guest that asked for version v: 16 bytes, from
// 6.0 on 20, or 40 with FeatureServerMonitor. If the version is not supported it is
// the short form with nothing in it, which any guest understands.
func (m VersionResponse) Append(b []byte, v Version) []byte {
	b = begin(b, TypeVersionResponse)
	if !m.Supported {
		return words(b, 0, 0)
	}
	b = append(b, 1, byte(m.State), 0, 0)
	if v.HasContactPort() {
		b = words(b, m.ConnID)
	} else {
		b = words(b, uint32(m.Version))
	}
	if !v.HasFeatures() {
		return b
	}
	b = words(b, uint32(m.Features))
	if m.Features&FeatureServerMonitor != 0 {
		b = words(b, 0)
		b = le.AppendUint64(b, m.ParentToChild)
		b = le.AppendUint64(b, m.ChildToParent)
	}
	return b
}

// ParseVersionResponse parses the answer to a guest that asked for version v.
// Fields that a response of that version does not have stay zero.
func ParseVersionResponse(b []byte, v Version) (m VersionResponse, err error) {
	if err := check(b, TypeVersionResponse, versionResponseSize); err != nil {
		return m, err
	}
	if b[8] == 0 {
		return m, nil
	}
	m.Supported = true
	m.State = ConnectionState(b[9])
	if v.HasContactPort() {
		m.ConnID = le.Uint32(b[12:])
	} else {
		m.Version = Version(le.Uint32(b[12:]))
	}
	if !v.HasFeatures() {
		return m, nil
	}
	if err := check(b, TypeVersionResponse, versionResponseFeatureSize); err != nil {
		return VersionResponse{}, err
	}
	m.Features = Features(le.Uint32(b[16:]))
	if m.Features&FeatureServerMonitor == 0 {
		return m, nil
	}
	if err := check(b, TypeVersionResponse, versionResponseMonitorSize); err != nil {
		return VersionResponse{}, err
	}
	m.ParentToChild = le.Uint64(b[24:])
	m.ChildToParent = le.Uint64(b[32:])
	if m.ChildToParent == 0 {
		return VersionResponse{}, malformed(TypeVersionResponse, "monitor pages granted without an address")
	}
	return m, nil
}

// ModifyConnection (25) moves the monitor pages. Both addresses or none are zero.
type ModifyConnection struct {
	ParentToChild uint64 // 8
	ChildToParent uint64 // 16
}

const modifyConnectionSize = 24

// Append appends the message, 24 bytes.
func (m ModifyConnection) Append(b []byte) []byte {
	b = le.AppendUint64(begin(b, TypeModifyConnection), m.ParentToChild)
	return le.AppendUint64(b, m.ChildToParent)
}

// ParseModifyConnection parses the message.
func ParseModifyConnection(b []byte) (m ModifyConnection, err error) {
	if err := check(b, TypeModifyConnection, modifyConnectionSize); err != nil {
		return m, err
	}
	return ModifyConnection{le.Uint64(b[8:]), le.Uint64(b[16:])}, nil
}

// ModifyConnectionResponse (26) answers MODIFY_CONNECTION.
type ModifyConnectionResponse struct {
	State ConnectionState // 8
}

const modifyConnectionResponseSize = 9

// Append appends the message, 9 bytes.
func (m ModifyConnectionResponse) Append(b []byte) []byte {
	return append(begin(b, TypeModifyConnectionResponse), byte(m.State))
}

// ParseModifyConnectionResponse parses the message.
func ParseModifyConnectionResponse(b []byte) (m ModifyConnectionResponse, err error) {
	if err := check(b, TypeModifyConnectionResponse, modifyConnectionResponseSize); err != nil {
		return m, err
	}
	return ModifyConnectionResponse{ConnectionState(b[8])}, nil
}
