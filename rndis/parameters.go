package rndis

import (
	"encoding/hex"
	"fmt"
)

// An OffloadChoice is what OffloadParameters ask for one offload.
type OffloadChoice uint8

// The choices for checksums.
const (
	ChecksumNoChange OffloadChoice = iota
	ChecksumOff
	ChecksumTx
	ChecksumRx
	ChecksumBoth
)

// The choices for large send and coalescing.
const (
	OffloadNoChange OffloadChoice = iota
	OffloadOff
	OffloadOn
)

// OffloadParameters ask the host to use its offloads, OIDOffloadParameters.
type OffloadParameters struct {
	IPv4                             OffloadChoice // @4: IPv4 header checksum
	TCPv4, UDPv4, TCPv6, UDPv6       OffloadChoice // @5 to @8
	LSOv1                            OffloadChoice // @9; hosts refuse it
	IPsecV1                          OffloadChoice // @10
	LSOv4, LSOv6                     OffloadChoice // @11, @12: large send version 2
	TCPConnectionV4, TCPConnectionV6 OffloadChoice // @13, @14
	Flags                            uint32        // @16
	IPsecV2, IPsecV2IPv4             OffloadChoice // @20, @21
	RSCv4, RSCv6                     OffloadChoice // @22, @23; beyond the short form
	Encap, EncapTypes                OffloadChoice // @24, @25
}

// The sizes of OffloadParameters: Linux sends the short form, without RSC, up to
// NVSP version 4, and the whole of revision 3 later.
const (
	OffloadParametersShort = 22
	OffloadParametersSize  = 28

	offloadParametersMin = 20
)

// Append appends the structure, revision 3, cut to size bytes:
// OffloadParametersShort or OffloadParametersSize.
func (p OffloadParameters) Append(b []byte, size int) []byte {
	size = min(max(size, offloadParametersMin), OffloadParametersSize)
	start := len(b)
	b = ObjectHeader{ObjectDefault, 3, uint16(size)}.Append(b)
	b = append(b, byte(p.IPv4), byte(p.TCPv4), byte(p.UDPv4), byte(p.TCPv6), byte(p.UDPv6), byte(p.LSOv1), byte(p.IPsecV1),
		byte(p.LSOv4), byte(p.LSOv6), byte(p.TCPConnectionV4), byte(p.TCPConnectionV6), 0)
	b = le.AppendUint32(b, p.Flags)
	b = append(b, byte(p.IPsecV2), byte(p.IPsecV2IPv4), byte(p.RSCv4), byte(p.RSCv6),
		byte(p.Encap), byte(p.EncapTypes), 0, 0)
	return b[:start+size]
}

// ParseOffloadParameters parses what a guest sets: revision 1 or later, at least 20
// bytes. Fields beyond its size are zero, no change.
func ParseOffloadParameters(b []byte) (OffloadParameters, error) {
	b, err := object(b, "offload parameters", ObjectDefault, offloadParametersMin)
	if err != nil {
		return OffloadParameters{}, err
	}
	var a [OffloadParametersSize]byte
	copy(a[:], b)
	c := func(i int) OffloadChoice { return OffloadChoice(a[i]) }
	return OffloadParameters{
		IPv4: c(4), TCPv4: c(5), UDPv4: c(6), TCPv6: c(7), UDPv6: c(8), LSOv1: c(9), IPsecV1: c(10), LSOv4: c(11), LSOv6: c(12),
		TCPConnectionV4: c(13), TCPConnectionV6: c(14), Flags: le.Uint32(a[16:]), IPsecV2: c(20), IPsecV2IPv4: c(21),
		RSCv4: c(22), RSCv6: c(23), Encap: c(24), EncapTypes: c(25),
	}, nil
}

// The types of a ConfigParameter's value.
const (
	ConfigInteger = 0
	ConfigString  = 2
)

// NetworkAddress is the name of the ConfigParameter that changes the MAC.
const NetworkAddress = "NetworkAddress"

// ConfigParameter sets a named parameter of the adapter, as in the Windows
// registry: OIDConfigParameter.
type ConfigParameter struct {
	Name  string // offset @0, bytes @4; UTF-16 without terminator
	Type  uint32 // @8
	Value []byte // offset @12, bytes @16; UTF-16 if a string, u32 if an integer
}

// A parameter's header, and a host's limit for name and value in bytes.
const (
	configHeader = 20
	configMax    = 255
)

// NewNetworkAddress returns the parameter that sets the MAC: 12 lower-case hex
// digits, 72 bytes in all.
func NewNetworkAddress(mac [6]byte) ConfigParameter {
	return ConfigParameter{NetworkAddress, ConfigString, AppendUTF16(nil, fmt.Sprintf("%x", mac[:]))}
}

// Append appends header, name and value.
func (p ConfigParameter) Append(b []byte) []byte {
	name := AppendUTF16(nil, p.Name)
	b = appendAll(b, configHeader, uint32(len(name)), p.Type, uint32(configHeader+len(name)), uint32(len(p.Value)))
	return append(append(b, name...), p.Value...)
}

// ParseConfigParameter parses what a guest sets. Name and value are inside b,
// behind the header, and at most 255 bytes each.
func ParseConfigParameter(b []byte) (ConfigParameter, error) {
	if len(b) < configHeader {
		return ConfigParameter{}, fmt.Errorf("parse config parameter: %d bytes, want %d: %w", len(b), configHeader, ErrMalformed)
	}
	part := func(what string, off, n uint32) ([]byte, error) {
		if n > configMax || uint64(off) < configHeader || uint64(off)+uint64(n) > uint64(len(b)) {
			return nil, fmt.Errorf("parse config parameter: %s of %d bytes at %d of %d: %w", what, n, off, len(b), ErrMalformed)
		}
		return b[off:][:n:n], nil
	}
	name, err := part("name", le.Uint32(b), le.Uint32(b[4:]))
	if err != nil {
		return ConfigParameter{}, err
	}
	value, err := part("value", le.Uint32(b[12:]), le.Uint32(b[16:]))
	if err != nil {
		return ConfigParameter{}, err
	}
	p := ConfigParameter{Type: le.Uint32(b[8:]), Value: value}
	if p.Name, err = ParseUTF16(name); err != nil {
		return ConfigParameter{}, fmt.Errorf("parse config parameter: name: %w", err)
	}
	return p, nil
}

// MAC returns the address that a NetworkAddress parameter sets. Digits of both
// cases are taken; anything but 12 of them is malformed.
func (p ConfigParameter) MAC() (mac [6]byte, err error) {
	s, err := ParseUTF16(p.Value)
	if err == nil && p.Name == NetworkAddress && p.Type == ConfigString && len(s) == 12 {
		if _, err = hex.Decode(mac[:], []byte(s)); err == nil {
			return mac, nil
		}
	}
	return [6]byte{}, fmt.Errorf("parse config parameter %s: value %q, want 12 hex digits: %w", p.Name, s, ErrMalformed)
}
