package nic

// An Offload says what the bytes of a frame leave to be done by whoever comes later,
// or what is known about them already. The zero value is a frame as on a wire, about
// which nothing is known. It travels with the frame and is never guessed from bytes.
//
// The form is that of Linux and virtio-net: a frame with Segment has IP lengths, IPv4
// header checksum and TCP sequence number as if it were one long packet, and its
// Checksum is ChecksumPartial. An 802.1Q tag stays in the bytes; offsets count it.
type Offload struct {
	Checksum Checksum
	Segment  Segment
	// Start is the offset in the frame where a partial checksum begins, which is
	// where the transport header is, and Field that of the checksum from there.
	// The field holds the sum of the pseudo header; what belongs there is the
	// complement of the sum of everything from Start to the end.
	Start uint16
	Field uint8
	// FixedID says that all segments have the IPv4 identification that the frame has;
	// else it counts up. virtio-net has no word for it.
	FixedID bool
	// Size is the payload of a segment in bytes, of all but the last.
	Size uint16
}

// A Checksum is the state of a frame's TCP or UDP checksum.
type Checksum uint8

// The states.
const (
	ChecksumUnknown Checksum = iota // as on a wire: nobody has looked
	ChecksumPartial                 // to be completed, see Offload
	ChecksumOK                      // right, somebody has verified or computed it
	ChecksumBad                     // wrong, somebody has looked
)

// A Segment says how a frame is to be cut.
type Segment uint8

// The kinds.
const (
	SegmentNone  Segment = iota // not at all
	SegmentTCPv4                // into TCP segments (TSO, LSO)
	SegmentTCPv6
	SegmentUDP // into UDP datagrams (USO)
)

// Offloads is a set of what frames may leave to be done by somebody who takes them.
type Offloads uint8

// The elements.
const (
	TakesChecksum Offloads = 1 << iota // partial checksums, of any protocol
	TakesTCPv4                         // frames to be cut into TCP segments, which have partial checksums too
	TakesTCPv6
	TakesUDP // and into UDP datagrams
)

// Needs returns what one must take to take a frame with this metadata: one element,
// or none.
func (o Offload) Needs() Offloads {
	if o.Checksum != ChecksumPartial {
		return 0
	}
	return needs[o.Segment&3]
}

var needs = [4]Offloads{SegmentNone: TakesChecksum, SegmentTCPv4: TakesTCPv4, SegmentTCPv6: TakesTCPv6, SegmentUDP: TakesUDP}

// A Taker is a sink that takes frames that leave something to be done. Other sinks
// take none: whoever hands frames to a sink completes and cuts them first.
type Taker interface {
	Sink
	Takes() Offloads
}
