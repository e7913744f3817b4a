package rndis

// Bytes in front of the information of a request and of its answer.
const (
	querySize         = 20
	queryCompleteSize = 16
)

// Query asks for the value of an OID.
type Query struct {
	RequestID uint32 // body @0
	OID       OID    // @4
	Info      []byte // length @8, offset @12; @16 is unused
}

// Append appends the message: 28 bytes and Info.
func (m Query) Append(b []byte) []byte {
	return appendRequest(b, TypeQuery, m.RequestID, m.OID, m.Info)
}

// ParseQuery parses a Query.
func ParseQuery(b []byte) (m Query, err error) {
	m.RequestID, m.OID, m.Info, err = parseRequest(b, TypeQuery)
	return
}

// QueryComplete answers Query.
type QueryComplete struct {
	RequestID uint32 // body @0
	Status    Status // @4
	Info      []byte // length @8, offset @12
}

// Append appends the message: 24 bytes and Info.
func (m QueryComplete) Append(b []byte) []byte {
	return appendAnswer(b, TypeQueryComplete, m.RequestID, m.Status, m.Info)
}

// ParseQueryComplete parses a QueryComplete.
func ParseQueryComplete(b []byte) (m QueryComplete, err error) {
	m.RequestID, m.Status, m.Info, err = parseAnswer(b, TypeQueryComplete)
	return
}

// Set changes the value of an OID to Info.
type Set struct {
	RequestID uint32 // body @0
	OID       OID    // @4
	Info      []byte // length @8, offset @12; @16 is unused
}

// Append appends the message: 28 bytes and Info.
func (m Set) Append(b []byte) []byte { return appendRequest(b, TypeSet, m.RequestID, m.OID, m.Info) }

// ParseSet parses a Set.
func ParseSet(b []byte) (m Set, err error) {
	m.RequestID, m.OID, m.Info, err = parseRequest(b, TypeSet)
	return
}

// SetComplete answers Set.
type SetComplete struct {
	RequestID uint32 // body @0
	Status    Status // @4
}

// Append appends the 16 bytes of the message.
func (m SetComplete) Append(b []byte) []byte {
	return message(b, TypeSetComplete, 0, m.RequestID, uint32(m.Status))
}

// ParseSetComplete parses a SetComplete.
func ParseSetComplete(b []byte) (SetComplete, error) {
	p, err := body(b, TypeSetComplete, 8)
	if err != nil {
		return SetComplete{}, err
	}
	return SetComplete{le.Uint32(p), Status(le.Uint32(p[4:]))}, nil
}

// SetEx is a Set that is answered with information.
type SetEx struct {
	RequestID uint32 // body @0
	OID       OID    // @4
	Info      []byte // length @8, offset @12; @16 is unused
}

// Append appends the message: 28 bytes and Info.
func (m SetEx) Append(b []byte) []byte {
	return appendRequest(b, TypeSetEx, m.RequestID, m.OID, m.Info)
}

// ParseSetEx parses a SetEx.
func ParseSetEx(b []byte) (m SetEx, err error) {
	m.RequestID, m.OID, m.Info, err = parseRequest(b, TypeSetEx)
	return
}

// SetExComplete answers SetEx.
type SetExComplete struct {
	RequestID uint32 // body @0
	Status    Status // @4
	Info      []byte // length @8, offset @12
}

// Append appends the message: 24 bytes and Info.
func (m SetExComplete) Append(b []byte) []byte {
	return appendAnswer(b, TypeSetExComplete, m.RequestID, m.Status, m.Info)
}

// ParseSetExComplete parses a SetExComplete.
func ParseSetExComplete(b []byte) (m SetExComplete, err error) {
	m.RequestID, m.Status, m.Info, err = parseAnswer(b, TypeSetExComplete)
	return
}

func appendRequest(b []byte, t MessageType, id uint32, oid OID, in []byte) []byte {
	b = message(b, t, len(in), id, uint32(oid), uint32(len(in)), querySize, 0)
	return append(b, in...)
}

func parseRequest(b []byte, t MessageType) (id uint32, oid OID, in []byte, err error) {
	p, err := body(b, t, querySize)
	if err != nil {
		return 0, 0, nil, err
	}
	if in, err = info(t, p, querySize, le.Uint32(p[12:]), le.Uint32(p[8:])); err != nil {
		return 0, 0, nil, err
	}
	return le.Uint32(p), OID(le.Uint32(p[4:])), in, nil
}

func appendAnswer(b []byte, t MessageType, id uint32, s Status, in []byte) []byte {
	b = message(b, t, len(in), id, uint32(s), uint32(len(in)), queryCompleteSize)
	return append(b, in...)
}

func parseAnswer(b []byte, t MessageType) (id uint32, s Status, in []byte, err error) {
	p, err := body(b, t, queryCompleteSize)
	if err != nil {
		return 0, 0, nil, err
	}
	if in, err = info(t, p, queryCompleteSize, le.Uint32(p[12:]), le.Uint32(p[8:])); err != nil {
		return 0, 0, nil, err
	}
	return le.Uint32(p), Status(le.Uint32(p[4:])), in, nil
}
