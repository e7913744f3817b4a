// Package nvsp holds the bytes of NVSP, the protocol between a netvsc driver and
// its host that sets up buffers, versions and channels and that carries RNDIS.
//
// Each message is a struct with an Append method that writes it bare, as short as
// the protocol defines it, and a Parse function that checks what it reads. [Pad]
// brings a message to the size that a version sends, [Version.Size]. All fields
// are little-endian; offset 0 of every message is its type. The layouts are those
// of Linux drivers/net/hyperv/hyperv_net.h.
//
// The bytes given to Parse functions must be private: copy a message out of shared
// memory first.
package nvsp

import (
	"encoding/binary"
	"errors"
	"fmt"
)

var le = binary.LittleEndian

// ErrMalformed is what every error of a Parse function is: the message is too
// short, of another type, or contradicts itself. Test with errors.Is.
var ErrMalformed = errors.New("malformed NVSP message")

// A Version is a version of NVSP by its number on the wire. The numbers grow with
// the versions, so versions can be compared.
type Version uint32

// The versions, and the host that came with each. There is no version 3.
const (
	V1  Version = 0x00002 // Windows Server 2008
	V2  Version = 0x30002 // 2008 R2: MTU and VLAN
	V4  Version = 0x40000 // 2012: virtual functions
	V5  Version = 0x50000 // 2012 R2: sub-channels
	V6  Version = 0x60000 // 2016
	V61 Version = 0x60001 // 2019 and later: RSC, longer messages
)

// Versions returns all versions in the order in which a guest tries them, newest
// first, one INIT each.
func Versions() []Version { return []Version{V61, V6, V5, V4, V2, V1} }

// String returns the number as people write it, "6.1".
func (v Version) String() string {
	switch v {
	case V1:
		return "1"
	case V2:
		return "2"
	case V4:
		return "4"
	case V5:
		return "5"
	case V6:
		return "6"
	case V61:
		return "6.1"
	}
	return fmt.Sprintf("unknown version 0x%x", uint32(v))
}

// Known reports whether v is one of the versions above.
func (v Version) Known() bool { return v.Highest() != TypeNone }

// Size returns the size in bytes of the fixed message structure of this version,
// to which messages are padded: 40 from 6.1 on, 28 before. Only receive
// completions are sent at their own 8 bytes. Guests may send 40 always, and a host
// pads its completions to at least 28: Linux before 6.6 checks an INIT_COMPLETE
// against the size of the other completions too.
func (v Version) Size() int {
	if v >= V61 {
		return 40
	}
	return 28
}

// MaxSize is the largest fixed message structure of any version.
const MaxSize = 40

// Highest returns the highest message type that is legal in this version, TypeNone
// if the version is unknown.
func (v Version) Highest() MessageType {
	switch v {
	case V1:
		return TypeRNDISPacketComplete
	case V2:
		return TypeAllocateChimneyHandleComplete
	case V4:
		return TypeUplinkConnectState
	case V5:
		return TypeIndirectionTable
	case V6, V61:
		return TypePDPostBatch
	}
	return TypeNone
}

// Allows reports whether a message of type t may be sent in this version.
func (v Version) Allows(t MessageType) bool {
	return t == TypeInit || t == TypeInitComplete || t >= TypeNDISVersion && t <= v.Highest()
}

// NDIS returns the NDIS version that a guest announces with this version.
func (v Version) NDIS() NDISVersion {
	if v <= V4 {
		return NDISVersion{6, 1}
	}
	return NDISVersion{6, 30}
}

// MaxReceiveBuffer returns the largest receive buffer in bytes: 15 MiB up to
// version 2, 31 MiB later. MaxSendBuffer is the same for all versions.
func (v Version) MaxReceiveBuffer() int {
	if v <= V2 {
		return 15 << 20
	}
	return 31 << 20
}

// MaxSendBuffer is the largest send buffer in bytes.
const MaxSendBuffer = 15 << 20

// The ids under which a guest shares its buffers. Transfer-pages packets name the
// receive buffer by its id.
const (
	ReceiveBufferID = 0xcafe
	SendBufferID    = 0
)

// A Status is how a request went. A value other than StatusSuccess is an error.
type Status uint32

// The statuses. A guest treats everything but success as failure of that step; as
// answer to INIT it means "try the next version".
const (
	StatusNone               Status = 0 // also what hosts answer to an unknown version
	StatusSuccess            Status = 1
	StatusFail               Status = 2
	StatusTooNew             Status = 3
	StatusTooOld             Status = 4
	StatusInvalidRNDISPacket Status = 5
	StatusBusy               Status = 6
	StatusVersionUnsupported Status = 7
)

var statusNames = [...]string{"no status", "success", "failure", "protocol too new", "protocol too old",
	"invalid RNDIS packet", "busy", "version not supported"}

// String names the status.
func (s Status) String() string {
	if int(s) < len(statusNames) {
		return statusNames[s]
	}
	return fmt.Sprintf("unknown status %d", uint32(s))
}

// Error makes a status that is not StatusSuccess usable as an error.
func (s Status) Error() string { return "NVSP status " + s.String() }

// Capabilities are what a guest announces in NDISConfig.
type Capabilities uint64

// The capability bits. Linux sets VLAN always, SRIOV and Teaming from version 5 (a
// host sends no link speed to a guest without Teaming), and RSC from 6.1.
const (
	CapVMQ Capabilities = 1 << iota
	CapChimney
	CapSRIOV
	CapVLAN
	CapCorrelationID
	CapTeaming
	CapVirtualSubnetID
	CapRSC
)

// Pad extends b with zeros until the message that begins at b[start] has at least
// size bytes.
func Pad(b []byte, start, size int) []byte {
	for len(b)-start < size {
		b = append(b, 0)
	}
	return b
}

// check refuses a message that is not of type t or shorter than size bytes.
func check(b []byte, t MessageType, size int) error {
	got, err := PeekType(b)
	if err != nil {
		return err
	}
	if got != t {
		return fmt.Errorf("parse %v: type is %v: %w", t, got, ErrMalformed)
	}
	if len(b) < size {
		return fmt.Errorf("parse %v: %d bytes, want %d: %w", t, len(b), size, ErrMalformed)
	}
	return nil
}

// PeekType returns the type of the message in b without looking further.
func PeekType(b []byte) (MessageType, error) {
	if len(b) < 4 {
		return TypeNone, fmt.Errorf("parse NVSP type: %d bytes, want 4: %w", len(b), ErrMalformed)
	}
	return MessageType(le.Uint32(b)), nil
}

func appendWords(b []byte, t MessageType, words ...uint32) []byte {
	b = le.AppendUint32(b, uint32(t))
	for _, w := range words {
		b = le.AppendUint32(b, w)
	}
	return b
}
