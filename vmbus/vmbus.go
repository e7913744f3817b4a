// Package vmbus is the bytes of VMBus: the control messages that guest and host
// exchange through the hypervisor's message slots, and the descriptors of the
// packets on a channel's rings. It holds no state and does no I/O.
//
// Each control message is a struct with Append and a Parse function. The number at
// a field is its offset in the message, whose first 8 bytes are the header: u32 type
// and u32 zero. The constant behind the struct is its size. Parse functions accept
// messages that are longer than needed, since some guests always post 240 bytes,
// and check everything whose check needs the message alone. A few messages have a
// form that depends on the negotiated [Version] or [Features]; those take it as an
// argument.
//
// Layouts are those of Linux hyperv.h and of the protocol definitions in Microsoft's
// openvmm and mu_msvm. Everything is little-endian; a page is 4096 bytes.
package vmbus

import (
	"encoding/binary"
	"errors"
	"fmt"
)

var le = binary.LittleEndian

// PageSize is the page of PFNs, GPADLs and ring offsets, whatever the guest's own
// page size is.
const PageSize = 4096

// MaxMessage is the size in bytes of the largest control message.
const MaxMessage = 240

// ErrMalformed is what all errors of Parse functions are.
var ErrMalformed = errors.New("vmbus: malformed")

// Connection ids on which a guest posts and signals.
const (
	ConnMessage = 1 // messages; from 5.0 VERSION_RESPONSE names the id to use
	ConnEvent   = 2 // the event of all channels without a dedicated interrupt
	ConnContact = 4 // INITIATE_CONTACT of version 5.0 and later
)

// Relids are below RelidLimit, the number of event flags, and above 0, whose flag
// is reserved.
const RelidLimit = 2048

// NoVP as target VP of a channel means that the host never interrupts the guest.
const NoVP = 0xffffffff

// Statuses of responses. A guest treats all but success as failure.
const (
	StatusSuccess           = 0
	StatusUnsuccessful      = 0x8000ffff
	StatusConnectionRefused = 0xc0000236
)

// A MessageType is the first word of a control message.
type MessageType uint32

// The message types.
const (
	TypeOffer                    MessageType = 1
	TypeRescindOffer             MessageType = 2
	TypeRequestOffers            MessageType = 3
	TypeAllOffersDelivered       MessageType = 4
	TypeOpenChannel              MessageType = 5
	TypeOpenResult               MessageType = 6
	TypeCloseChannel             MessageType = 7
	TypeGPADLHeader              MessageType = 8
	TypeGPADLBody                MessageType = 9
	TypeGPADLCreated             MessageType = 10
	TypeGPADLTeardown            MessageType = 11
	TypeGPADLTorndown            MessageType = 12
	TypeRelidReleased            MessageType = 13
	TypeInitiateContact          MessageType = 14
	TypeVersionResponse          MessageType = 15
	TypeUnload                   MessageType = 16
	TypeUnloadResponse           MessageType = 17
	TypeOpenReserved             MessageType = 18
	TypeCloseReserved            MessageType = 19
	TypeCloseReservedResponse    MessageType = 20
	TypeTLConnectRequest         MessageType = 21
	TypeModifyChannel            MessageType = 22
	TypeTLConnectResult          MessageType = 23
	TypeModifyChannelResponse    MessageType = 24
	TypeModifyConnection         MessageType = 25
	TypeModifyConnectionResponse MessageType = 26
	TypePause                    MessageType = 27
	TypePauseResponse            MessageType = 28
	TypeResume                   MessageType = 29
)

// messages says of each type its name, who sends it, and from which version and
// with which granted feature it exists.
var messages = [...]struct {
	name    string
	guest   bool
	since   Version
	feature Features
}{
	TypeOffer:                    {"OFFERCHANNEL", false, VersionWS2008, 0},
	TypeRescindOffer:             {"RESCIND_CHANNELOFFER", false, VersionWS2008, 0},
	TypeRequestOffers:            {"REQUESTOFFERS", true, VersionWS2008, 0},
	TypeAllOffersDelivered:       {"ALLOFFERS_DELIVERED", false, VersionWS2008, 0},
	TypeOpenChannel:              {"OPENCHANNEL", true, VersionWS2008, 0},
	TypeOpenResult:               {"OPENCHANNEL_RESULT", false, VersionWS2008, 0},
	TypeCloseChannel:             {"CLOSECHANNEL", true, VersionWS2008, 0},
	TypeGPADLHeader:              {"GPADL_HEADER", true, VersionWS2008, 0},
	TypeGPADLBody:                {"GPADL_BODY", true, VersionWS2008, 0},
	TypeGPADLCreated:             {"GPADL_CREATED", false, VersionWS2008, 0},
	TypeGPADLTeardown:            {"GPADL_TEARDOWN", true, VersionWS2008, 0},
	TypeGPADLTorndown:            {"GPADL_TORNDOWN", false, VersionWS2008, 0},
	TypeRelidReleased:            {"RELID_RELEASED", true, VersionWS2008, 0},
	TypeInitiateContact:          {"INITIATE_CONTACT", true, 0, 0},
	TypeVersionResponse:          {"VERSION_RESPONSE", false, 0, 0},
	TypeUnload:                   {"UNLOAD", true, VersionWS2008, 0},
	TypeUnloadResponse:           {"UNLOAD_RESPONSE", false, Version1_1, 0},
	TypeOpenReserved:             {"OPEN_RESERVED_CHANNEL", true, Version4_0, 0},
	TypeCloseReserved:            {"CLOSE_RESERVED_CHANNEL", true, 0, 0},
	TypeCloseReservedResponse:    {"CLOSE_RESERVED_RESPONSE", false, Version4_0, 0},
	TypeTLConnectRequest:         {"TL_CONNECT_REQUEST", true, Version4_0, 0},
	TypeModifyChannel:            {"MODIFYCHANNEL", true, Version4_1, 0},
	TypeTLConnectResult:          {"TL_CONNECT_RESULT", false, Version4_1, 0},
	TypeModifyChannelResponse:    {"MODIFYCHANNEL_RESPONSE", false, Version5_3, 0},
	TypeModifyConnection:         {"MODIFY_CONNECTION", true, Version6_0, FeatureModifyConnection},
	TypeModifyConnectionResponse: {"MODIFY_CONNECTION_RESPONSE", false, Version6_0, FeatureModifyConnection},
	TypePause:                    {"PAUSE", true, Version6_0, FeaturePauseResume},
	TypePauseResponse:            {"PAUSE_RESPONSE", false, Version6_0, FeaturePauseResume},
	TypeResume:                   {"RESUME", true, Version6_0, FeaturePauseResume},
}

// known reports whether t is a type of the table.
func (t MessageType) known() bool { return t > 0 && int(t) < len(messages) }

// String returns the protocol's name of the type, such as "OPENCHANNEL".
func (t MessageType) String() string {
	if t.known() {
		return messages[t].name
	}
	return fmt.Sprintf("message type %d", uint32(t))
}

// FromGuest reports whether it is the guest that sends this type.
func (t MessageType) FromGuest() bool { return t.known() && messages[t].guest }

// ExistsIn reports whether the type exists on a connection of version v that was
// granted the features f. A receiver drops messages that do not. INITIATE_CONTACT,
// VERSION_RESPONSE and CLOSE_RESERVED_CHANNEL exist always, also with version 0,
// which stands for "not connected".
func (t MessageType) ExistsIn(v Version, f Features) bool {
	return t.known() && v >= messages[t].since && f&messages[t].feature == messages[t].feature
}

// headerSize is the size of what all control messages begin with: u32 type, u32 0.
const headerSize = 8

// PeekType returns the type of a control message. The type may be unknown. It
// returns an error if b is shorter than a message header or longer than a message
// can be.
func PeekType(b []byte) (MessageType, error) {
	if len(b) < headerSize || len(b) > MaxMessage {
		return 0, fmt.Errorf("%w message: %d bytes, want %d to %d", ErrMalformed, len(b), headerSize, MaxMessage)
	}
	return MessageType(le.Uint32(b)), nil
}

// begin appends a message header.
func begin(b []byte, t MessageType) []byte {
	b = le.AppendUint32(b, uint32(t))
	return le.AppendUint32(b, 0)
}

// check verifies that b is a message of type t with at least size bytes.
func check(b []byte, t MessageType, size int) error {
	got, err := PeekType(b)
	if err != nil {
		return err
	}
	if got != t {
		return malformed(t, "the message is %v", got)
	}
	if len(b) < size {
		return malformed(t, "%d bytes, want at least %d", len(b), size)
	}
	return nil
}

func malformed(t MessageType, format string, args ...any) error {
	return fmt.Errorf("%w %v: %s", ErrMalformed, t, fmt.Sprintf(format, args...))
}

// words appends 32-bit words, which most messages consist of.
func words(b []byte, ws ...uint32) []byte {
	for _, w := range ws {
		b = le.AppendUint32(b, w)
	}
	return b
}
