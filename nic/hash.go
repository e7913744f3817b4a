package nic

// A Flow is a kind of packets whose flows a NIC tells apart by a hash.
type Flow uint8

// The kinds.
const (
	FlowTCPv4 Flow = iota
	FlowUDPv4
	FlowTCPv6
	FlowUDPv6
)

var flowNames = [...]string{"tcp4", "udp4", "tcp6", "udp6"}

// String returns the name that ethtool has for it, "tcp4".
func (f Flow) String() string {
	if int(f) < len(flowNames) {
		return flowNames[f]
	}
	return "unknown flow"
}

// HashLevels says for each Flow what the hash is computed over: HashL3 or HashL4. It
// is what `ethtool -n eth0 rx-flow-hash` shows.
type HashLevels [4]HashKind

// RSS is how a host spreads the frames that it has for a NIC over the channels, as
// `ethtool -x` shows it.
type RSS struct {
	// Table has the channel of each hash value modulo its length. It is empty if
	// the host takes none.
	Table []uint32
	// Key is that of the Toeplitz hash.
	Key []byte
}

// RSSChange is what `ethtool -X` changes of it.
type RSSChange struct {
	Table   []uint32 // nil: as it is
	Default bool     // the table is even again, and follows the number of channels
	Key     []byte   // nil: as it is
}
