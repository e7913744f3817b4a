package rndis

import (
	"fmt"
	"math"
	"unicode/utf16"
)

// AppendUint32 appends the value of an OID that is one u32.
func AppendUint32(b []byte, v uint32) []byte { return le.AppendUint32(b, v) }

// ParseUint32 parses the value of an OID that is one u32. More bytes are ignored.
func ParseUint32(b []byte) (uint32, error) {
	if len(b) < 4 {
		return 0, fmt.Errorf("parse u32 value: %d bytes, want 4: %w", len(b), ErrMalformed)
	}
	return le.Uint32(b), nil
}

// ParseMAC parses the value of OIDPermanentAddress or OIDCurrentAddress.
func ParseMAC(b []byte) (mac [6]byte, err error) {
	if len(b) < 6 {
		return mac, fmt.Errorf("parse MAC value: %d bytes, want 6: %w", len(b), ErrMalformed)
	}
	return [6]byte(b), nil
}

// LinkSpeed converts Mbit/s to the unit of OIDLinkSpeed, 100 bit/s. A u32 of them
// ends at 429 Gbit/s; faster links report that.
func LinkSpeed(mbps uint32) uint32 { return uint32(min(uint64(mbps)*10000, math.MaxUint32)) }

// LinkMbps converts a value of OIDLinkSpeed to Mbit/s.
func LinkMbps(speed uint32) uint32 { return speed / 10000 }

// LinkState is the value of OIDLinkState.
type LinkState struct {
	Connect      uint32 // @4: 1 connected, 2 not
	Duplex       uint32 // @8: 2 full
	TxBPS, RxBPS uint64 // @16, @24: bit/s
	Pause        uint32 // @32: 1 unsupported
	AutoNeg      uint32 // @36
}

// The values of LinkState.Connect and Duplex.
const (
	LinkConnected    = 1
	LinkDisconnected = 2
	DuplexFull       = 2
)

const linkStateSize = 40

// Append appends the 40 bytes of the structure.
func (s LinkState) Append(b []byte) []byte {
	b = ObjectHeader{ObjectDefault, 1, linkStateSize}.Append(b)
	b = appendAll(b, s.Connect, s.Duplex, 0)
	b = le.AppendUint64(b, s.TxBPS)
	b = le.AppendUint64(b, s.RxBPS)
	return appendAll(b, s.Pause, s.AutoNeg)
}

// ParseLinkState parses a LinkState.
func ParseLinkState(b []byte) (LinkState, error) {
	b, err := object(b, "link state", ObjectDefault, linkStateSize)
	if err != nil {
		return LinkState{}, err
	}
	return LinkState{le.Uint32(b[4:]), le.Uint32(b[8:]), le.Uint64(b[16:]), le.Uint64(b[24:]), le.Uint32(b[32:]), le.Uint32(b[36:])}, nil
}

// AppendUTF16 appends a string as NDIS has them: UTF-16, little-endian, without
// terminator.
func AppendUTF16(b []byte, s string) []byte {
	for _, r := range s {
		for _, u := range utf16.AppendRune(nil, r) {
			b = le.AppendUint16(b, u)
		}
	}
	return b
}

// ParseUTF16 returns the string in b up to a terminator. The length must be even;
// what is not valid UTF-16 becomes U+FFFD.
func ParseUTF16(b []byte) (string, error) {
	if len(b)%2 != 0 {
		return "", fmt.Errorf("parse UTF-16: %d bytes, want an even number: %w", len(b), ErrMalformed)
	}
	var u []uint16
	for ; len(b) > 0; b = b[2:] {
		c := le.Uint16(b)
		if c == 0 {
			break
		}
		u = append(u, c)
	}
	return string(utf16.Decode(u)), nil
}
