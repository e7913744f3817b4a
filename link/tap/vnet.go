package tap

import (
	"encoding/binary"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"hvnet/nic"
)

// The virtio-net header in front of a frame, struct virtio_net_hdr_v1, in the
// machine's own byte order: flags @0, kind of segments @1, length of the headers @2,
// payload of a segment @4, where the partial checksum begins @6 and where from there
// it is stored @8, number of buffers @10 (of receive queues with merged buffers
// only).
const (
	vnetNeedsChecksum = 1 // flags
	vnetDataValid     = 2

	vnetSegmentTCPv4 = 1 // kinds
	vnetSegmentTCPv6 = 4
	vnetSegmentUDP   = 5
	vnetECN          = 0x80 // with either of TCP: CWR is set
)

// Offloads is all of TUNSETOFFLOAD that this package understands: the kernel may
// leave checksums and TCP segmentation to whoever reads the queues.
const Offloads = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN

// Takes implements nic.Taker: the kernel takes checksums and segments that are left to
// it, without being asked first; UDP since Linux 6.2.
func (t *TAP) Takes() nic.Offloads { return takes() }

// Takes implements nic.Taker, as TAP.Takes.
func (q *Queue) Takes() nic.Offloads { return takes() }

// takes asks for the kernel's release: what a TAP takes can be tried out only by having
// it leave that to be done (TUNSETOFFLOAD), which others see.
var takes = sync.OnceValue(func() nic.Offloads {
	o := nic.TakesChecksum | nic.TakesTCPv4 | nic.TakesTCPv6
	var u unix.Utsname
	if unix.Uname(&u) == nil && takesUDP(unix.ByteSliceToString(u.Release[:])) {
		o |= nic.TakesUDP
	}
	return o
})

// takesUDP reports whether a kernel of a release, such as "6.18.3-arm64", takes UDP that
// is to be cut (VIRTIO_NET_HDR_GSO_UDP_L4).
func takesUDP(release string) bool {
	var major, minor int
	n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor)
	return n == 2 && (major > 6 || major == 6 && minor >= 2)
}

var ne = binary.NativeEndian

// parseVnet returns what the kernel says about a frame.
func parseVnet(h *[VnetHeaderLen]byte) (o nic.Offload) {
	if h[0]&vnetNeedsChecksum == 0 {
		if h[0]&vnetDataValid != 0 {
			o.Checksum = nic.ChecksumOK
		}
		return o
	}
	o.Checksum = nic.ChecksumPartial
	o.Start, o.Field = ne.Uint16(h[6:]), uint8(ne.Uint16(h[8:]))
	o.Segment, o.Size = segmentOf[h[1]&^vnetECN&7], ne.Uint16(h[4:])
	return o
}

var segmentOf = [8]nic.Segment{
	vnetSegmentTCPv4: nic.SegmentTCPv4, vnetSegmentTCPv6: nic.SegmentTCPv6, vnetSegmentUDP: nic.SegmentUDP,
}

// putVnet writes the header for a frame.
func putVnet(h *[VnetHeaderLen]byte, f *nic.Frame) {
	*h = [VnetHeaderLen]byte{}
	o := &f.Offload
	switch o.Checksum {
	case nic.ChecksumOK:
		h[0] = vnetDataValid
	case nic.ChecksumPartial:
		h[0] = vnetNeedsChecksum
		ne.PutUint16(h[6:], o.Start)
		ne.PutUint16(h[8:], uint16(o.Field))
		if o.Segment != nic.SegmentNone {
			putSegment(h, f)
		}
	}
}

// putSegment is the part of putVnet for frames that are to be cut.
func putSegment(h *[VnetHeaderLen]byte, f *nic.Frame) {
	const (
		udpHeader, tcpHeader = 8, 20
		flags, cwr           = 13, 0x80
	)
	at := int(f.Offload.Start)
	headers := at + udpHeader
	switch f.Offload.Segment {
	case nic.SegmentTCPv4:
		h[1] = vnetSegmentTCPv4
	case nic.SegmentTCPv6:
		h[1] = vnetSegmentTCPv6
	case nic.SegmentUDP:
		h[1] = vnetSegmentUDP
	}
	if f.Offload.Segment != nic.SegmentUDP && at+tcpHeader <= len(f.Head) {
		headers = at + int(f.Head[at+12]>>4)*4
		if f.Head[at+flags]&cwr != 0 {
			h[1] |= vnetECN
		}
	}
	ne.PutUint16(h[2:], uint16(headers))
	ne.PutUint16(h[4:], f.Offload.Size)
}
