// Package vnet reads and writes the virtio-net header that Linux has in front of the
// frames of TAPs and packet sockets: what is left to be done for a frame.
package vnet

import (
	"encoding/binary"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"hvnet/nic"
)

// A Header is struct virtio_net_hdr_v1, in the machine's own byte order: flags @0, kind
// of segments @1, length of the headers @2, payload of a segment @4, where the partial
// checksum begins @6 and where from there it is stored @8, number of buffers @10 (of
// receive queues with merged buffers only).
type Header [Len]byte

// Len is the length of a header in bytes, ShortLen that of struct virtio_net_hdr, which
// ends before the number of buffers.
const (
	Len      = 12
	ShortLen = 10
)

const (
	needsChecksum = 1 // flags
	dataValid     = 2

	segmentTCPv4 = 1 // kinds
	segmentTCPv6 = 4
	segmentUDP   = 5
	ecn          = 0x80 // with either of TCP: CWR is set
)

// Takes returns what the kernel takes from whoever hands it frames: checksums and
// segments are left to it without it being asked first; UDP since Linux 6.2. It goes by
// the kernel's release, for it cannot be asked without others seeing that.
func Takes() nic.Offloads { return takes() }

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

// Offload returns what the kernel says about a frame.
func (h *Header) Offload() (o nic.Offload) {
	if h[0]&needsChecksum == 0 {
		if h[0]&dataValid != 0 {
			o.Checksum = nic.ChecksumOK
		}
		return o
	}
	o.Checksum = nic.ChecksumPartial
	o.Start, o.Field = ne.Uint16(h[6:]), uint8(ne.Uint16(h[8:]))
	if o.Segment = segmentOf[h[1]&^ecn&7]; o.Segment != nic.SegmentNone {
		o.Size = ne.Uint16(h[4:])
	}
	return o
}

var segmentOf = [8]nic.Segment{
	segmentTCPv4: nic.SegmentTCPv4, segmentTCPv6: nic.SegmentTCPv6, segmentUDP: nic.SegmentUDP,
}

// Headers returns the length of the headers in front of each segment's payload, 0 for a
// frame that is not to be cut.
func (h *Header) Headers() int { return int(ne.Uint16(h[2:])) }

// Set makes it the header of a frame.
func (h *Header) Set(f *nic.Frame) {
	*h = Header{}
	o := &f.Offload
	switch o.Checksum {
	case nic.ChecksumOK:
		h[0] = dataValid
	case nic.ChecksumPartial:
		h[0] = needsChecksum
		ne.PutUint16(h[6:], o.Start)
		ne.PutUint16(h[8:], uint16(o.Field))
		if o.Segment != nic.SegmentNone {
			h.setSegment(f)
		}
	}
}

// setSegment is the part of Set for frames that are to be cut.
func (h *Header) setSegment(f *nic.Frame) {
	const (
		udpHeader, tcpHeader = 8, 20
		flags, cwr           = 13, 0x80
	)
	at := int(f.Offload.Start)
	headers := at + udpHeader
	switch f.Offload.Segment {
	case nic.SegmentTCPv4:
		h[1] = segmentTCPv4
	case nic.SegmentTCPv6:
		h[1] = segmentTCPv6
	case nic.SegmentUDP:
		h[1] = segmentUDP
	}
	if f.Offload.Segment != nic.SegmentUDP && at+tcpHeader <= len(f.Head) {
		headers = at + int(f.Head[at+12]>>4)*4
		if f.Head[at+flags]&cwr != 0 {
			h[1] |= ecn
		}
	}
	ne.PutUint16(h[2:], uint16(headers))
	ne.PutUint16(h[4:], f.Offload.Size)
}
