// Package nic holds the small types that driver, device, switch and links share:
// a frame with its offload metadata, an address, and what a NIC can be asked and
// told. It has no behaviour of its own.
package nic

import (
	"errors"
	"fmt"
	"net"
)

// A MAC is an Ethernet address.
type MAC [6]byte

// String returns the usual form, "00:15:5d:01:02:03".
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// MarshalText implements encoding.TextMarshaler: in JSON an address is what String returns.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. Unlike ParseMAC it takes any address.
func (m *MAC) UnmarshalText(b []byte) error {
	hw, err := net.ParseMAC(string(b))
	if err != nil || len(hw) != len(m) {
		return fmt.Errorf("MAC address %q: want six bytes such as 00:15:5d:01:02:03", b)
	}
	*m = MAC(hw)
	return nil
}

// Multicast reports whether the group bit is set; the broadcast address is
// multicast too.
func (m MAC) Multicast() bool { return m[0]&1 != 0 }

// IsZero reports whether m is all zero, which no station has.
func (m MAC) IsZero() bool { return m == MAC{} }

// Broadcast is the address of all stations.
var Broadcast = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// ParseMAC parses the form that String prints. Only unicast addresses other than
// zero name a NIC; others are refused.
func ParseMAC(s string) (MAC, error) {
	var m MAC
	if err := m.UnmarshalText([]byte(s)); err != nil {
		return MAC{}, err
	}
	if m.Multicast() || m.IsZero() {
		return MAC{}, fmt.Errorf("MAC address %q: not the address of one station", s)
	}
	return m, nil
}

// OptionMAC is the name of the option by which an attaching guest asks for an
// address; its value is what String prints.
const OptionMAC = "nic.mac"

// HeaderLen is the length of an Ethernet header, MinFrame and MaxFrame the
// shortest and longest frame in bytes that any part handles: a header, and a
// header with the largest IP packet.
const (
	HeaderLen = 14
	MinFrame  = HeaderLen
	MaxFrame  = HeaderLen + 65535
)

// TagLen is the length of an 802.1Q tag, by which a frame that has one may be longer.
const TagLen = 4

// HeadLen is how many bytes of a frame are copied to private memory, checked and
// then used: enough for Ethernet with a tag, IPv6 with an extension header, and TCP
// with all options.
const HeadLen = 128

// A Frame is one Ethernet frame on its way. The bytes are Head, then each piece of
// Body in order, with its VLAN tags: only between driver and device the outer one travels
// beside them. Nothing of it may be kept after the call that it was passed to.
type Frame struct {
	// Head holds the first bytes: at least min(HeadLen, length). They are
	// private memory of whoever passes the frame, so they do not change between
	// check and use.
	Head []byte
	// Body holds the rest in place. It may be memory that a hostile peer
	// changes at any time: copy it, never look at it twice.
	Body [][]byte
	// Hash is the flow hash, valid if HashKind is not HashNone.
	Hash     uint32
	HashKind HashKind
	// Channel is the index of the channel that the frame came in on, for links
	// that keep flows apart.
	Channel uint16
	// Offload is what is left to be done for the frame, or known about it.
	Offload Offload
	// VF says that the frame came in over a virtual function, whose Channel it is then.
	VF bool
}

// Len returns the frame's length in bytes.
func (f *Frame) Len() int {
	n := len(f.Head)
	for _, b := range f.Body {
		n += len(b)
	}
	return n
}

// Dst and Src return the addresses. The frame must be at least MinFrame long.
func (f *Frame) Dst() MAC { return MAC(f.Head[0:6]) }

// Src returns the source address; see Dst.
func (f *Frame) Src() MAC { return MAC(f.Head[6:12]) }

// CopyTo copies the frame to b, which must be at least Len long, and returns the
// number of bytes copied.
func (f *Frame) CopyTo(b []byte) int {
	n := copy(b, f.Head)
	for _, p := range f.Body {
		n += copy(b[n:], p)
	}
	return n
}

// A HashKind says what a flow hash was computed over.
type HashKind uint8

// The kinds of flow hash.
const (
	HashNone HashKind = iota // no hash
	HashL3                   // addresses
	HashL4                   // addresses and ports
)

// A Sink takes frames: a port of a switch, a link, a program. It takes all it can
// and drops and counts the rest; it never blocks on another party. It is called
// with batches, and may be called from several goroutines.
type Sink interface {
	WriteFrames(frames []Frame)
}

// A Source gives frames one at a time into memory that the caller prepared, so that
// nothing is copied on the way (a TAP does one readv).
type Source interface {
	// ReadFrame reads one frame: the first bytes go to first, what is over to
	// rest. n is the frame's length, o what it leaves to be done. It does not
	// block: ErrNoFrame says that there is none now. A frame that does not fit is
	// dropped and counted.
	ReadFrame(first, rest []byte) (n int, o Offload, err error)
	// Wait blocks until there may be a frame, the source is closed
	// (net.ErrClosed), or Wake was called.
	Wait() error
	// Wake makes a Wait that is going on, or else the next one, return nil.
	Wake()
}

// A Relay is a source that stands behind another one, for a part of the time. Whoever
// reads batches asks before each whom to read this one from.
type Relay interface {
	Source
	Batch() Source
}

// ErrNoFrame is returned by Source.ReadFrame when there is no frame now.
var ErrNoFrame = errors.New("nic: no frame now")
