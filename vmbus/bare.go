package vmbus

// The messages here are a header and nothing else: 8 bytes.

// RequestOffers (3) asks for all offers, once per connection.
type RequestOffers struct{}

// Append appends the message.
func (RequestOffers) Append(b []byte) []byte { return begin(b, TypeRequestOffers) }

// ParseRequestOffers parses the message.
func ParseRequestOffers(b []byte) (m RequestOffers, err error) {
	return m, check(b, TypeRequestOffers, headerSize)
}

// AllOffersDelivered (4) ends the offers that answer REQUESTOFFERS. Later ones, of
// hot-added devices and of sub-channels, have no such end.
type AllOffersDelivered struct{}

// Append appends the message.
func (AllOffersDelivered) Append(b []byte) []byte { return begin(b, TypeAllOffersDelivered) }

// ParseAllOffersDelivered parses the message.
func ParseAllOffersDelivered(b []byte) (m AllOffersDelivered, err error) {
	return m, check(b, TypeAllOffersDelivered, headerSize)
}

// Unload (16) ends the connection: the host releases all channels and GPADLs, then
// answers with UNLOAD_RESPONSE.
type Unload struct{}

// Append appends the message.
func (Unload) Append(b []byte) []byte { return begin(b, TypeUnload) }

// ParseUnload parses the message.
func ParseUnload(b []byte) (m Unload, err error) { return m, check(b, TypeUnload, headerSize) }

// UnloadResponse (17) answers UNLOAD.
type UnloadResponse struct{}

// Append appends the message.
func (UnloadResponse) Append(b []byte) []byte { return begin(b, TypeUnloadResponse) }

// ParseUnloadResponse parses the message.
func ParseUnloadResponse(b []byte) (m UnloadResponse, err error) {
	return m, check(b, TypeUnloadResponse, headerSize)
}

// Pause (27) asks the host to hold its messages back. It answers with
// PAUSE_RESPONSE and holds them until RESUME, UNLOAD or INITIATE_CONTACT.
type Pause struct{}

// Append appends the message.
func (Pause) Append(b []byte) []byte { return begin(b, TypePause) }

// ParsePause parses the message.
func ParsePause(b []byte) (m Pause, err error) { return m, check(b, TypePause, headerSize) }

// PauseResponse (28) is the last message before a pause.
type PauseResponse struct{}

// Append appends the message.
func (PauseResponse) Append(b []byte) []byte { return begin(b, TypePauseResponse) }

// ParsePauseResponse parses the message.
func ParsePauseResponse(b []byte) (m PauseResponse, err error) {
	return m, check(b, TypePauseResponse, headerSize)
}

// Resume (29) ends a pause.
type Resume struct{}

// Append appends the message.
func (Resume) Append(b []byte) []byte { return begin(b, TypeResume) }

// ParseResume parses the message.
func ParseResume(b []byte) (m Resume, err error) { return m, check(b, TypeResume, headerSize) }
