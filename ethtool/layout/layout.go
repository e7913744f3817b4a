// Package layout has the numbers and offsets of the structures of Linux's SIOCETHTOOL
// system call (linux/ethtool.h) that both who asks and who answers need. Structures are
// in the machine's own byte order and begin with the command.
package layout

import "encoding/binary"

// Order is that of the machine: both sides of a system call are on the same.
var Order = binary.NativeEndian

// Commands, by their names in Linux behind ETHTOOL_, without low lines.
const (
	GSET          = 0x01
	SSET          = 0x02
	GDRVINFO      = 0x03
	GREGS         = 0x04
	GWOL          = 0x05
	SWOL          = 0x06
	GMSGLVL       = 0x07
	SMSGLVL       = 0x08
	NWAYRST       = 0x09
	GLINK         = 0x0a
	GEEPROM       = 0x0b
	SEEPROM       = 0x0c
	GCOALESCE     = 0x0e
	SCOALESCE     = 0x0f
	GRINGPARAM    = 0x10
	SRINGPARAM    = 0x11
	GPAUSEPARAM   = 0x12
	SPAUSEPARAM   = 0x13
	GRXCSUM       = 0x14
	SRXCSUM       = 0x15
	GTXCSUM       = 0x16
	STXCSUM       = 0x17
	GSG           = 0x18
	SSG           = 0x19
	TEST          = 0x1a
	GSTRINGS      = 0x1b
	PHYSID        = 0x1c
	GSTATS        = 0x1d
	GTSO          = 0x1e
	STSO          = 0x1f
	GPERMADDR     = 0x20
	GUFO          = 0x21
	GGSO          = 0x23
	SGSO          = 0x24
	GFLAGS        = 0x25
	SFLAGS        = 0x26
	GPFLAGS       = 0x27
	SPFLAGS       = 0x28
	GRXFH         = 0x29
	SRXFH         = 0x2a
	GGRO          = 0x2b
	SGRO          = 0x2c
	GRXRINGS      = 0x2d
	GRXCLSRLCNT   = 0x2e
	GRXCLSRULE    = 0x2f
	GRXCLSRLALL   = 0x30
	SRXCLSRLDEL   = 0x31
	FLASHDEV      = 0x33
	RESET         = 0x34
	GSSETINFO     = 0x37
	GRXFHINDIR    = 0x38
	SRXFHINDIR    = 0x39
	GFEATURES     = 0x3a
	SFEATURES     = 0x3b
	GCHANNELS     = 0x3c
	SCHANNELS     = 0x3d
	SETDUMP       = 0x3e
	GETDUMPFLAG   = 0x3f
	GETTSINFO     = 0x41
	GMODULEINFO   = 0x42
	GEEE          = 0x44
	GRSSH         = 0x46
	SRSSH         = 0x47
	GTUNABLE      = 0x48
	STUNABLE      = 0x49
	GPHYSTATS     = 0x4a
	PERQUEUE      = 0x4b
	GLINKSETTINGS = 0x4c
	SLINKSETTINGS = 0x4d
	PHYGTUNABLE   = 0x4e
	PHYSTUNABLE   = 0x4f
	GFECPARAM     = 0x50
	SFECPARAM     = 0x51
)

// Sets of strings (ETH_SS_…).
const (
	SetTest       = 0
	SetStats      = 1
	SetPrivate    = 2
	SetFeatures   = 4
	SetHashFuncs  = 5
	SetTunables   = 6
	SetPHYStats   = 7
	SetPHYTunable = 8
)

// NameLen is ETH_GSTRING_LEN, the room of a string, its ending zero included.
const NameLen = 32

// Offsets in struct ethtool_link_settings, which is LinkEnd bytes long and followed by
// three masks of link modes of so many words each as the byte at LinkWords says:
// supported, advertised, and advertised by the peer.
const (
	LinkSpeed       = 4
	LinkDuplex      = 8
	LinkPort        = 9
	LinkPHY         = 10
	LinkAutoneg     = 11
	LinkMDIX        = 13
	LinkMDIXControl = 14
	LinkWords       = 15
	LinkTransceiver = 16
	LinkMasters     = 17 // master_slave_cfg and master_slave_state
	LinkEnd         = 48
)

// Offsets in the structure of GRSSH and SRSSH: behind RSSEnd are the table, of words, and
// the key.
const (
	RSSContext  = 4
	RSSEntries  = 8  // of the table
	RSSKeyLen   = 12 // in bytes
	RSSFunction = 16 // a mask, by the strings of SetHashFuncs
	RSSEnd      = 24

	// RSSTableStays is in place of the number of entries.
	RSSTableStays = 1<<32 - 1
)

// What a hash is over (RXH_…), of GRXFH and SRXFH.
const (
	HashL2Dst   = 1 << 1
	HashVLAN    = 1 << 2
	HashL3Proto = 1 << 3
	HashIPSrc   = 1 << 4
	HashIPDst   = 1 << 5
	HashL4First = 1 << 6 // the source port
	HashL4Next  = 1 << 7 // the destination port
	HashDiscard = 1 << 31
)

// Kinds of flows (…_FLOW). A kind with FlowContext is one of another RSS context.
const (
	FlowTCPv4  = 1
	FlowUDPv4  = 2
	FlowSCTPv4 = 3
	FlowAHESP4 = 4
	FlowTCPv6  = 5
	FlowUDPv6  = 6
	FlowSCTPv6 = 7
	FlowAHESP6 = 8
	FlowAHv4   = 9
	FlowESPv4  = 10
	FlowAHv6   = 11
	FlowESPv6  = 12
	FlowIPv4   = 16
	FlowIPv6   = 17
	FlowEther  = 18

	FlowContext = 1 << 29
)

// Text returns the string in front of the first zero.
func Text(b []byte) string {
	for i, x := range b {
		if x == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

// PutText writes s with zeros behind it, one at least.
func PutText(b []byte, s string) {
	n := copy(b[:len(b)-1], s)
	clear(b[n:])
}
