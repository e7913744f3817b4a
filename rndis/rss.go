package rndis

import "fmt"

// An ObjectHeader is what the structures of NDIS begin with.
type ObjectHeader struct {
	Type     uint8  // @0
	Revision uint8  // @1
	Size     uint16 // @2: of the structure as its type and revision define it
}

// The types of objects.
const (
	ObjectDefault              = 0x80 // OffloadParameters, LinkState
	ObjectRSSCapabilities      = 0x88
	ObjectRSSParameters        = 0x89
	ObjectOffload              = 0xa7 // HardwareOffload
	ObjectOffloadEncapsulation = 0xa8 // value of OIDOffloadEncapsulation
)

// objectHeaderSize is the size of an ObjectHeader.
const objectHeaderSize = 4

// Append appends the 4 bytes of the header. A query of a structure carries the
// header of what the guest wants.
func (h ObjectHeader) Append(b []byte) []byte {
	return le.AppendUint16(append(b, h.Type, h.Revision), h.Size)
}

// ParseObjectHeader parses the header at the start of b.
func ParseObjectHeader(b []byte) (ObjectHeader, error) {
	if len(b) < objectHeaderSize {
		return ObjectHeader{}, fmt.Errorf("parse NDIS object: %d bytes, want %d: %w", len(b), objectHeaderSize, ErrMalformed)
	}
	return ObjectHeader{b[0], b[1], le.Uint16(b[2:])}, nil
}

// object checks that b begins with an object of type t and at least size bytes,
// and returns the object's bytes.
func object(b []byte, what string, t uint8, size int) ([]byte, error) {
	h, err := ParseObjectHeader(b)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", what, err)
	}
	if h.Type != t || h.Revision == 0 {
		return nil, fmt.Errorf("parse %s: object type 0x%x revision %d, want 0x%x: %w", what, h.Type, h.Revision, t, ErrMalformed)
	}
	if int(h.Size) < size || int(h.Size) > len(b) {
		return nil, fmt.Errorf("parse %s: size %d, want %d to %d: %w", what, h.Size, size, len(b), ErrMalformed)
	}
	return b[:h.Size], nil
}

// HashInfo says what a flow hash is computed over, and how: a hash function in the
// low byte and hash types above.
type HashInfo uint32

// The hash function, and the hash types that netvsc knows.
const (
	HashToeplitz HashInfo = 0x0001
	HashIPv4     HashInfo = 0x0100
	HashTCPv4    HashInfo = 0x0200
	HashIPv6     HashInfo = 0x0400
	HashTCPv6    HashInfo = 0x1000
	HashUDPv4    HashInfo = 0x4000
	HashUDPv6    HashInfo = 0x8000

	// HashDefault is what Linux asks for: ports for TCP, addresses for all else.
	HashDefault = HashToeplitz | HashIPv4 | HashTCPv4 | HashIPv6 | HashTCPv6
)

// Function returns the hash function, 0 if none.
func (h HashInfo) Function() uint8 { return uint8(h) }

// Ports reports whether the hash is over ports too.
func (h HashInfo) Ports() bool { return h&(HashTCPv4|HashTCPv6|HashUDPv4|HashUDPv6) != 0 }

// KeySize is the size in bytes of a Toeplitz key.
const KeySize = 40

// RSSCapabilities is what a host can do to spread received frames,
// OIDReceiveScaleCaps.
type RSSCapabilities struct {
	Flags      uint32 // @4: RSS flags and hash function
	Interrupts uint32 // @8: interrupt messages
	Queues     uint32 // @12: receive queues; with fewer than 2 a guest uses one channel
	Entries    uint16 // @16: of the indirection table; absent in revision 1
}

// The bits of RSSCapabilities.Flags besides the hash function, and what hosts with
// TCP over both families report.
const (
	RSSFlagTCPv4     = 0x0100
	RSSFlagTCPv6     = 0x0200
	RSSFlagTCPv6Ext  = 0x0400
	RSSFlagUDPv4     = 0x0800
	RSSFlagUDPv6     = 0x1000
	RSSFlagUDPv6Ext  = 0x2000
	RSSFlagMSI       = 0x01000000
	RSSFlagISR       = 0x02000000
	RSSFlagDPC       = 0x04000000
	RSSFlagMSIX      = 0x08000000
	RSSFlagsStandard = RSSFlagTCPv4 | RSSFlagTCPv6 | uint32(HashToeplitz)
)

const rssCapabilitiesSize = 18

// RSSCapabilitiesQuery returns the header that a guest passes in its query; Linux
// sends it with zeros up to the size of the structure.
func RSSCapabilitiesQuery() ObjectHeader {
	return ObjectHeader{ObjectRSSCapabilities, 2, rssCapabilitiesSize}
}

// Append appends the 18 bytes of revision 2.
func (c RSSCapabilities) Append(b []byte) []byte {
	b = RSSCapabilitiesQuery().Append(b)
	b = le.AppendUint32(b, c.Flags)
	b = le.AppendUint32(b, c.Interrupts)
	b = le.AppendUint32(b, c.Queues)
	return le.AppendUint16(b, c.Entries)
}

// ParseRSSCapabilities parses a host's answer.
func ParseRSSCapabilities(b []byte) (RSSCapabilities, error) {
	b, err := object(b, "RSS capabilities", ObjectRSSCapabilities, 16)
	if err != nil {
		return RSSCapabilities{}, err
	}
	c := RSSCapabilities{Flags: le.Uint32(b[4:]), Interrupts: le.Uint32(b[8:]), Queues: le.Uint32(b[12:])}
	if len(b) >= rssCapabilitiesSize {
		c.Entries = le.Uint16(b[16:])
	}
	return c, nil
}

// DefaultTableEntries is the size of the indirection table where the host does not
// say it.
const DefaultTableEntries = 128

// TableEntries returns how many entries a guest's indirection table has: what the
// host says if that is 1 to 256, else 128.
func (c RSSCapabilities) TableEntries() int {
	if c.Entries >= 1 && c.Entries <= 256 {
		return int(c.Entries)
	}
	return DefaultTableEntries
}

// The bits of RSSParameters.Flags.
const (
	RSSBaseCPUUnchanged  = 0x01
	RSSHashInfoUnchanged = 0x02
	RSSTableUnchanged    = 0x04
	RSSKeyUnchanged      = 0x08
	RSSDisable           = 0x10
)

const rssParametersSize = 40

// RSSParameters tells the host how to spread received frames over the channels,
// OIDReceiveScaleParameters. Linux sends it twice, first with RSSDisable and then
// without flags.
type RSSParameters struct {
	Flags    uint16   // @4
	BaseCPU  uint16   // @6
	HashInfo HashInfo // @8
	Table    []uint32 // bytes (u16) @12, offset @16: channel of each hash value modulo its length
	Key      []byte   // bytes (u16) @20, offset @24: KeySize
	// @28 processor masks: offset, count @32, entry size @36; not used
}

// Append appends the structure, its table and its key.
func (p RSSParameters) Append(b []byte) []byte {
	b = ObjectHeader{ObjectRSSParameters, 2, rssParametersSize}.Append(b)
	b = le.AppendUint16(b, p.Flags)
	b = le.AppendUint16(b, p.BaseCPU)
	table := uint32(4 * len(p.Table))
	for _, w := range [...]uint32{uint32(p.HashInfo), table, rssParametersSize,
		uint32(len(p.Key)), rssParametersSize + table, 0, 0, 0} {
		b = le.AppendUint32(b, w)
	}
	for _, c := range p.Table {
		b = le.AppendUint32(b, c)
	}
	return append(b, p.Key...)
}

// Disabled reports whether the host is to use one channel only: the flag says so,
// or there is no hash function.
func (p RSSParameters) Disabled() bool {
	return p.Flags&RSSDisable != 0 || p.Flags&RSSHashInfoUnchanged == 0 && p.HashInfo.Function() == 0
}

// ParseRSSParameters parses what a guest sets, with a host's checks: a key of
// KeySize bytes and a table of whole entries, both inside b. What a flag calls
// unchanged is left out, and neither is looked at if the parameters disable RSS.
// The header is not checked, as OpenVMM does not; guests differ in it. The channels
// of the table are for FillTable.
func ParseRSSParameters(b []byte) (RSSParameters, error) {
	if len(b) < rssParametersSize {
		return RSSParameters{}, fmt.Errorf("parse RSS parameters: %d bytes, want %d: %w", len(b), rssParametersSize, ErrMalformed)
	}
	p := RSSParameters{Flags: le.Uint16(b[4:]), BaseCPU: le.Uint16(b[6:]), HashInfo: HashInfo(le.Uint32(b[8:]))}
	if p.Disabled() {
		return p, nil
	}
	if p.Flags&RSSTableUnchanged == 0 {
		n, off := int(le.Uint16(b[12:])), le.Uint32(b[16:])
		if n == 0 || n%4 != 0 || off < rssParametersSize || uint64(off)+uint64(n) > uint64(len(b)) {
			return RSSParameters{}, fmt.Errorf("parse RSS parameters: table of %d bytes at %d of %d: %w", n, off, len(b), ErrMalformed)
		}
		for t := b[off:][:n]; len(t) > 0; t = t[4:] {
			p.Table = append(p.Table, le.Uint32(t))
		}
	}
	if p.Flags&RSSKeyUnchanged == 0 {
		n, off := int(le.Uint16(b[20:])), le.Uint32(b[24:])
		if n != KeySize || off < rssParametersSize || uint64(off)+KeySize > uint64(len(b)) {
			return RSSParameters{}, fmt.Errorf("parse RSS parameters: key of %d bytes at %d of %d: %w", n, off, len(b), ErrMalformed)
		}
		p.Key = b[off:][:KeySize:KeySize]
	}
	return p, nil
}

// FillTable fills a host's own table, dst, from the guest's: longer ones are cut,
// shorter ones repeated. Every entry used must be below channels, or dst is left as
// it was. An absent table changes nothing.
func (p RSSParameters) FillTable(dst []uint32, channels int) error {
	n := min(len(p.Table), len(dst))
	for i, c := range p.Table[:n] {
		if uint64(c) >= uint64(channels) {
			return fmt.Errorf("RSS table: entry %d is channel %d of %d: %w", i, c, channels, ErrMalformed)
		}
	}
	for i := range dst {
		if n > 0 {
			dst[i] = p.Table[i%n]
		}
	}
	return nil
}
