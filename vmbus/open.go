package vmbus

// OpenChannel (5) opens an offered channel. The host answers with
// OPENCHANNEL_RESULT; data may come before it.
type OpenChannel struct {
	Relid      uint32    // 8
	OpenID     uint32    // 12: the guest's choice, echoed in the result
	GPADL      uint32    // 16: of the memory of both rings, upstream first
	TargetVP   uint32    // 20: whom the host interrupts, or NoVP; see Version.HasTargetVP
	DownOffset uint32    // 24: where the downstream ring begins in the GPADL, in pages
	UserData   [120]byte // 28

	// The rest is sent with FeatureGuestSignal or FeatureInterruptRedirection.

	ConnID    uint32 // 148: the connection that the guest will signal
	EventFlag uint16 // 152: the flag that the host shall set
	Redirect  bool   // 154, bit 0: redirect the interrupt
}

const (
	openChannelSize     = 148
	openChannelLongSize = 156
)

// longOpen reports whether the granted features f ask for the long form. The host
// looks at nothing else: a short message is refused then.
func longOpen(f Features) bool {
	return f&(FeatureGuestSignal|FeatureInterruptRedirection) != 0
}

// Append appends the message: 148 bytes, 156 if the granted features f ask for it.
func (m OpenChannel) Append(b []byte, f Features) []byte {
	b = words(begin(b, TypeOpenChannel), m.Relid, m.OpenID, m.GPADL, m.TargetVP, m.DownOffset)
	b = append(b, m.UserData[:]...)
	if !longOpen(f) {
		return b
	}
	b = words(b, m.ConnID)
	b = le.AppendUint16(b, m.EventFlag)
	return append(b, bit(m.Redirect), 0)
}

// ParseOpenChannel parses the message in the form that the granted features f ask
// for.
func ParseOpenChannel(b []byte, f Features) (m OpenChannel, err error) {
	size := openChannelSize
	if longOpen(f) {
		size = openChannelLongSize
	}
	if err := check(b, TypeOpenChannel, size); err != nil {
		return m, err
	}
	m.Relid = le.Uint32(b[8:])
	m.OpenID = le.Uint32(b[12:])
	m.GPADL = le.Uint32(b[16:])
	m.TargetVP = le.Uint32(b[20:])
	m.DownOffset = le.Uint32(b[24:])
	m.UserData = [120]byte(b[28:148])
	if longOpen(f) {
		m.ConnID = le.Uint32(b[148:])
		m.EventFlag = le.Uint16(b[152:])
		m.Redirect = b[154]&1 != 0
	}
	return m, nil
}

// OpenResult (6) answers OPENCHANNEL and OPEN_RESERVED_CHANNEL.
type OpenResult struct {
	Relid  uint32 // 8
	OpenID uint32 // 12
	Status uint32 // 16: StatusSuccess, or the reason why not
}

const openResultSize = 20

// Append appends the message, 20 bytes.
func (m OpenResult) Append(b []byte) []byte {
	return words(begin(b, TypeOpenResult), m.Relid, m.OpenID, m.Status)
}

// ParseOpenResult parses the message.
func ParseOpenResult(b []byte) (m OpenResult, err error) {
	if err := check(b, TypeOpenResult, openResultSize); err != nil {
		return m, err
	}
	return OpenResult{le.Uint32(b[8:]), le.Uint32(b[12:]), le.Uint32(b[16:])}, nil
}

// CloseChannel (7) closes a channel. Nothing answers it: the guest knows that the
// host has let go when the teardown of the rings' GPADL is confirmed.
type CloseChannel struct {
	Relid uint32 // 8
}

const closeChannelSize = 12

// Append appends the message, 12 bytes.
func (m CloseChannel) Append(b []byte) []byte { return words(begin(b, TypeCloseChannel), m.Relid) }

// ParseCloseChannel parses the message.
func ParseCloseChannel(b []byte) (m CloseChannel, err error) {
	if err := check(b, TypeCloseChannel, closeChannelSize); err != nil {
		return m, err
	}
	return CloseChannel{le.Uint32(b[8:])}, nil
}

// ModifyChannel (22) moves an open channel to another target VP. Before 5.3 nothing
// answers it; interrupts may go to the old VP for a while.
type ModifyChannel struct {
	Relid    uint32 // 8
	TargetVP uint32 // 12
}

const modifyChannelSize = 16

// Append appends the message, 16 bytes.
func (m ModifyChannel) Append(b []byte) []byte {
	return words(begin(b, TypeModifyChannel), m.Relid, m.TargetVP)
}

// ParseModifyChannel parses the message.
func ParseModifyChannel(b []byte) (m ModifyChannel, err error) {
	if err := check(b, TypeModifyChannel, modifyChannelSize); err != nil {
		return m, err
	}
	return ModifyChannel{le.Uint32(b[8:]), le.Uint32(b[12:])}, nil
}

// ModifyChannelResponse (24) answers MODIFYCHANNEL from 5.3 on.
type ModifyChannelResponse struct {
	Relid  uint32 // 8
	Status uint32 // 12
}

const modifyChannelResponseSize = 16

// Append appends the message, 16 bytes.
func (m ModifyChannelResponse) Append(b []byte) []byte {
	return words(begin(b, TypeModifyChannelResponse), m.Relid, m.Status)
}

// ParseModifyChannelResponse parses the message.
func ParseModifyChannelResponse(b []byte) (m ModifyChannelResponse, err error) {
	if err := check(b, TypeModifyChannelResponse, modifyChannelResponseSize); err != nil {
		return m, err
	}
	return ModifyChannelResponse{le.Uint32(b[8:]), le.Uint32(b[12:])}, nil
}
