// Package rndis holds the bytes of RNDIS as netvsc uses it: control messages, the
// header and per-packet information in front of every frame, and the NDIS
// structures that queries and sets carry.
//
// Each message is a struct with an Append method and a Parse function; lengths in
// headers are computed when appending and checked when parsing. Frames take the
// short way: [PutPacket] writes a header in place and [ParsePacket] reads one, and
// neither allocates. All fields are little-endian. Offsets inside a message count
// from its body, which begins at byte 8, behind type and length.
//
// The bytes given to Parse functions must be private: copy them out of shared
// memory first. Parsed messages keep slices of them.
//
// Layouts and numbers: MS-RNDIS, and the NDIS headers of the Windows driver kit;
// Linux drivers/net/hyperv/hyperv_net.h has both.
package rndis

import (
	"encoding/binary"
	"errors"
	"fmt"
)

var le = binary.LittleEndian

// ErrMalformed is what every error of a Parse function is. Test with errors.Is.
var ErrMalformed = errors.New("malformed RNDIS message")

// A MessageType is the number in front of every RNDIS message.
type MessageType uint32

// The message types. A completion is its request with the top bit set.
const (
	TypePacket             MessageType = 1
	TypeInitialize         MessageType = 2
	TypeHalt               MessageType = 3
	TypeQuery              MessageType = 4
	TypeSet                MessageType = 5
	TypeReset              MessageType = 6
	TypeIndicateStatus     MessageType = 7
	TypeKeepalive          MessageType = 8
	TypeSetEx              MessageType = 9
	TypeInitializeComplete MessageType = 0x80000002
	TypeQueryComplete      MessageType = 0x80000004
	TypeSetComplete        MessageType = 0x80000005
	TypeResetComplete      MessageType = 0x80000006
	TypeKeepaliveComplete  MessageType = 0x80000008
	TypeSetExComplete      MessageType = 0x80000009
	TypeBus                MessageType = 0xff000001 // private to the bus, unused
)

// String returns the protocol's name of the type.
func (t MessageType) String() string {
	switch t {
	case TypePacket:
		return "PACKET"
	case TypeInitialize:
		return "INITIALIZE"
	case TypeHalt:
		return "HALT"
	case TypeQuery:
		return "QUERY"
	case TypeSet:
		return "SET"
	case TypeReset:
		return "RESET"
	case TypeIndicateStatus:
		return "INDICATE_STATUS"
	case TypeKeepalive:
		return "KEEPALIVE"
	case TypeSetEx:
		return "SET_EX"
	case TypeInitializeComplete:
		return "INITIALIZE_COMPLETE"
	case TypeQueryComplete:
		return "QUERY_COMPLETE"
	case TypeSetComplete:
		return "SET_COMPLETE"
	case TypeResetComplete:
		return "RESET_COMPLETE"
	case TypeKeepaliveComplete:
		return "KEEPALIVE_COMPLETE"
	case TypeSetExComplete:
		return "SET_EX_COMPLETE"
	case TypeBus:
		return "BUS"
	}
	return fmt.Sprintf("RNDIS type 0x%x", uint32(t))
}

// HeaderSize is the size in bytes of what every message begins with.
const HeaderSize = 8

// A Header is what every message begins with.
type Header struct {
	Type   MessageType // @0
	Length uint32      // @4: of the whole message, header included
}

// ParseHeader parses the header of the message at the start of b. The length is at
// least HeaderSize and at most limit, which is how many bytes there are of which b
// may be only the first.
func ParseHeader(b []byte, limit int) (Header, error) {
	if len(b) < HeaderSize {
		return Header{}, errHeaderShort
	}
	h := Header{MessageType(le.Uint32(b)), le.Uint32(b[4:])}
	if h.Length < HeaderSize || uint64(h.Length) > uint64(max(limit, 0)) {
		return Header{}, errHeaderLength
	}
	return h, nil
}

// The errors of headers and packets are values, so that a hostile peer cannot make
// the data path allocate.
var (
	errHeaderShort  = fmt.Errorf("parse RNDIS header: fewer than 8 bytes: %w", ErrMalformed)
	errHeaderLength = fmt.Errorf("parse RNDIS header: length below 8 or beyond the end: %w", ErrMalformed)
)

// RequestID returns the request id of a control message or completion, and false
// for the types that have none: PACKET, RESET, its completion, INDICATE_STATUS, and
// unknown ones.
func RequestID(b []byte) (uint32, bool) {
	if len(b) < 12 {
		return 0, false
	}
	switch MessageType(le.Uint32(b)) {
	case TypeInitialize, TypeHalt, TypeQuery, TypeSet, TypeKeepalive, TypeSetEx,
		TypeInitializeComplete, TypeQueryComplete, TypeSetComplete, TypeKeepaliveComplete, TypeSetExComplete:
		return le.Uint32(b[8:]), true
	}
	return 0, false
}

// body checks that b begins with a whole message of type t with a body of at least
// size bytes, and returns the body.
func body(b []byte, t MessageType, size int) ([]byte, error) {
	h, err := ParseHeader(b, len(b))
	if err != nil {
		return nil, fmt.Errorf("parse %v of %d bytes: %w", t, len(b), err)
	}
	if h.Type != t {
		return nil, fmt.Errorf("parse %v: type is %v: %w", t, h.Type, ErrMalformed)
	}
	if int(h.Length) < HeaderSize+size {
		return nil, fmt.Errorf("parse %v: length %d, want at least %d: %w", t, h.Length, HeaderSize+size, ErrMalformed)
	}
	return b[HeaderSize:h.Length], nil
}

// info returns the information buffer at body[off:][:n]. It may not overlap the
// first fixed bytes of the body. The offset of an empty one is not looked at.
func info(t MessageType, body []byte, fixed int, off, n uint32) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	if uint64(off) < uint64(fixed) || uint64(off)+uint64(n) > uint64(len(body)) {
		return nil, fmt.Errorf("parse %v: %d bytes of information at %d of a body of %d: %w", t, n, off, len(body), ErrMalformed)
	}
	return body[off:][:n:n], nil
}

// message appends header and words of a message that has extra bytes behind them.
func message(b []byte, t MessageType, extra int, words ...uint32) []byte {
	b = le.AppendUint32(b, uint32(t))
	b = le.AppendUint32(b, uint32(HeaderSize+4*len(words)+extra))
	for _, w := range words {
		b = le.AppendUint32(b, w)
	}
	return b
}
