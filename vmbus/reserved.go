package vmbus

// OpenReserved (18) opens a channel that is not offered and outlives UNLOAD, for
// crash dumps. The host answers with OPENCHANNEL_RESULT to the VP and SINT named.
type OpenReserved struct {
	ID         uint32 // 8
	TargetVP   uint32 // 12
	SINT       uint32 // 16
	GPADL      uint32 // 20
	DownOffset uint32 // 24: where the downstream ring begins, in pages
}

const openReservedSize = 28

// Append appends the message, 28 bytes.
func (m OpenReserved) Append(b []byte) []byte {
	return words(begin(b, TypeOpenReserved), m.ID, m.TargetVP, m.SINT, m.GPADL, m.DownOffset)
}

// ParseOpenReserved parses the message.
func ParseOpenReserved(b []byte) (m OpenReserved, err error) {
	if err := check(b, TypeOpenReserved, openReservedSize); err != nil {
		return m, err
	}
	return OpenReserved{le.Uint32(b[8:]), le.Uint32(b[12:]), le.Uint32(b[16:]), le.Uint32(b[20:]), le.Uint32(b[24:])}, nil
}

// CloseReserved (19) closes such a channel; it works without a connection.
type CloseReserved struct {
	ID       uint32 // 8
	TargetVP uint32 // 12
	SINT     uint32 // 16
}

const closeReservedSize = 20

// Append appends the message, 20 bytes.
func (m CloseReserved) Append(b []byte) []byte {
	return words(begin(b, TypeCloseReserved), m.ID, m.TargetVP, m.SINT)
}

// ParseCloseReserved parses the message.
func ParseCloseReserved(b []byte) (m CloseReserved, err error) {
	if err := check(b, TypeCloseReserved, closeReservedSize); err != nil {
		return m, err
	}
	return CloseReserved{le.Uint32(b[8:]), le.Uint32(b[12:]), le.Uint32(b[16:])}, nil
}

// CloseReservedResponse (20) answers CLOSE_RESERVED_CHANNEL.
type CloseReservedResponse struct {
	ID uint32 // 8
}

const closeReservedResponseSize = 12

// Append appends the message, 12 bytes.
func (m CloseReservedResponse) Append(b []byte) []byte {
	return words(begin(b, TypeCloseReservedResponse), m.ID)
}

// ParseCloseReservedResponse parses the message.
func ParseCloseReservedResponse(b []byte) (m CloseReservedResponse, err error) {
	if err := check(b, TypeCloseReservedResponse, closeReservedResponseSize); err != nil {
		return m, err
	}
	return CloseReservedResponse{le.Uint32(b[8:])}, nil
}

// TLConnectRequest (21) asks for an hv_sock connection to a service of the host. It
// is answered by the offer of a channel, or by TL_CONNECT_RESULT if it failed.
type TLConnectRequest struct {
	Endpoint GUID // 8
	Service  GUID // 24
	Silo     GUID // 40, from 5.2; zero if the guest sent the short form
}

const (
	tlConnectRequestSize     = 40
	tlConnectRequestLongSize = 56 // from 5.2; hosts still take the short form
)

// Append appends the message in the form of version v: 40 bytes, 56 from 5.2 on.
func (m TLConnectRequest) Append(b []byte, v Version) []byte {
	b = begin(b, TypeTLConnectRequest)
	b = append(b, m.Endpoint[:]...)
	b = append(b, m.Service[:]...)
	if v.HasSilo() {
		b = append(b, m.Silo[:]...)
	}
	return b
}

// ParseTLConnectRequest parses the message in the form of version v.
func ParseTLConnectRequest(b []byte, v Version) (m TLConnectRequest, err error) {
	if err := check(b, TypeTLConnectRequest, tlConnectRequestSize); err != nil {
		return m, err
	}
	m.Endpoint = GUID(b[8:24])
	m.Service = GUID(b[24:40])
	if v.HasSilo() && len(b) >= tlConnectRequestLongSize {
		m.Silo = GUID(b[40:56])
	}
	return m, nil
}

// TLConnectResult (23) tells that an hv_sock connection failed.
type TLConnectResult struct {
	Endpoint GUID   // 8
	Service  GUID   // 24
	Status   uint32 // 40
}

const tlConnectResultSize = 44

// Append appends the message, 44 bytes.
func (m TLConnectResult) Append(b []byte) []byte {
	b = begin(b, TypeTLConnectResult)
	b = append(b, m.Endpoint[:]...)
	b = append(b, m.Service[:]...)
	return words(b, m.Status)
}

// ParseTLConnectResult parses the message.
func ParseTLConnectResult(b []byte) (m TLConnectResult, err error) {
	if err := check(b, TypeTLConnectResult, tlConnectResultSize); err != nil {
		return m, err
	}
	return TLConnectResult{GUID(b[8:24]), GUID(b[24:40]), le.Uint32(b[40:])}, nil
}
