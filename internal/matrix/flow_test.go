package matrix

import (
	"encoding/binary"

	"hvnet/internal/packets"
	"hvnet/netvsp/profile"
	"hvnet/nic"
)

var be = binary.BigEndian

// The axes on which all cases lie.
var (
	onOff = []string{"on", "off"}

	profiles  = Axis{"profile", profile.Names()}
	versions  = Axis{"ip", []string{"IPv4", "IPv6"}}
	protocols = Axis{"protocol", []string{"TCP", "UDP"}}
	sizes     = Axis{"mtu", []string{"1500", "9000"}}
	ways      = Axis{"way", []string{"guest", "gateway", "TAP"}}
)

// What the stack above the driver leaves to it.
var (
	sums = Axis{"checksum", onOff}
	lso  = Axis{"lso", onOff}
	uso  = Axis{"uso", onOff}
)

// What is switched at the drivers while they work, as `ethtool -K` does: whether the host
// coalesces, if it can; whether they join segments themselves; and what they leave to the host.
var (
	lro   = Axis{"lro", onOff}
	gro   = Axis{"gro", onOff}
	leave = Axis{"leave", []string{"all", "no tso", "no sums"}}
)

// The features that are switched for that.
var (
	joining = nic.FeaturesOf(nic.FeatureLRO, nic.FeatureGRO)
	leaving = nic.FeaturesOf(nic.FeatureTSO, nic.FeatureTSO6, nic.FeatureTxIPv4, nic.FeatureTxIPv6, nic.FeatureRxChecksum)
)

// joining returns those features of joining that are on in a case.
func (c Case) joining() (on nic.FeatureSet) {
	if c.On("lro") {
		on |= nic.FeaturesOf(nic.FeatureLRO)
	}
	if c.On("gro") {
		on |= nic.FeaturesOf(nic.FeatureGRO)
	}
	return on
}

// leaving returns those of leaving.
func (c Case) leaving() nic.FeatureSet {
	switch c.Of("leave") {
	case "no tso":
		return leaving &^ nic.FeaturesOf(nic.FeatureTSO, nic.FeatureTSO6)
	case "no sums":
		return 0
	}
	return leaving
}

func (c Case) mtu() int {
	if c.Of("mtu") == "9000" {
		return 9000
	}
	return 1500
}

// shape is the kind of the packets of a case.
func (c Case) shape() packets.Shape {
	s := packets.Shape{V6: c.Of("ip") == "IPv6", UDP: c.Of("protocol") == "UDP"}
	if !s.UDP {
		s.TCPOptions = 12
	}
	return s
}

// mss is the payload of the longest segment of a shape. A tag is not of the MTU.
func mss(s packets.Shape, mtu int) int {
	s.Tag = false
	return nic.HeaderLen + mtu - len(s.Frame(nil))
}

// takes is what the stack of a case leaves to the driver: what is to be cut has a
// partial checksum, so without that none of it.
func (c Case) takes() (takes nic.Offloads) {
	if !c.On("checksum") {
		return 0
	}
	takes = nic.TakesChecksum
	if c.On("lso") {
		takes |= nic.TakesTCPv4 | nic.TakesTCPv6
	}
	if c.On("uso") {
		takes |= nic.TakesUDP
	}
	return takes
}

// stack is what a stack hands to the driver for a packet of any length, with right
// checksums, that is to be cut into segments of size bytes of payload: the packet
// whole, or cut; with checksums, or without.
func stack(s packets.Shape, b []byte, size int, takes nic.Offloads) (list []nic.Frame) {
	whole := nic.Offload{Checksum: nic.ChecksumPartial, Segment: s.Segment()}
	if len(b)-packets.Payload(b) > size && whole.Needs()&^takes == 0 {
		return append(list, packets.Partial(append([]byte(nil), b...), s.Segment(), size))
	}
	for _, p := range packets.Cut(b, size) {
		if takes&nic.TakesChecksum != 0 {
			list = append(list, packets.Partial(p, nic.SegmentNone, 0))
		} else {
			list = append(list, packets.Split(p))
		}
	}
	return list
}

// A header is what a flow sets in the packets of a shape.
type header struct {
	dst      nic.MAC
	from, to uint16 // ports
	seq, ack uint32
	flags    byte // of TCP, beside ACK
	loose    bool // IPv4 packets may be fragmented
}

// packet returns a packet of a shape with right checksums, of any length.
func (h header) packet(s packets.Shape, payload []byte) []byte {
	s.Flags = h.flags
	b := s.Frame(payload)
	copy(b, h.dst[:])
	copy(b[6:], macA[:])
	ip, l4, _, _ := packets.Parts(b)
	be.PutUint16(b[l4:], h.from)
	be.PutUint16(b[l4+2:], h.to)
	if !s.UDP {
		be.PutUint32(b[l4+4:], h.seq)
		be.PutUint32(b[l4+8:], h.ack)
		be.PutUint16(b[l4+14:], 0xffff)
	}
	if h.loose && !s.V6 {
		b[ip+6] &^= 0x40
	}
	packets.Correct(b)
	return b
}

// lengths are those of the payloads that a flow hands to its stack one after the
// other: from one byte to the longest packet, and around whole segments.
func lengths(s packets.Shape, size int) []int {
	list := []int{1, 100, size - 1, size, size + 1, 3 * size, 3*size + 1, 7*size + 77}
	if s.UDP { // in each super-frame no more datagrams than the kernel has
		return append(list, min(40*size, 60000))
	}
	return append(list, 60000, 65000, 2)
}
