// Package profile is the table of host releases that the emulated device can be:
// which protocol versions each speaks, how it divides the buffers, how many
// channels it offers.
//
// A release that is emulated offers only what the device implements. A driver never
// sees the name.
package profile

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"hvnet/nvsp"
	"hvnet/rndis"
	"hvnet/vmbus"
)

// Default is the name of the release that a host is when nobody says otherwise.
const Default = "ws2022"

// A Profile is what sets one host release apart from the others.
type Profile struct {
	Name    string // as users write it, "ws2022"
	Release string // as its maker writes it, "Windows Server 2022"

	// VMBus and NVSP are the versions that the host accepts, newest first.
	VMBus []vmbus.Version
	NVSP  []nvsp.Version
	// NDIS is the version that the release brought. A guest of an older one is
	// served all the same.
	NDIS nvsp.NDISVersion

	// SectionOverhead is what a receive section has beyond a frame of the MTU,
	// DataOffset where in it the frame begins; both in bytes. Between header
	// with PPIs and frame is a gap.
	SectionOverhead int
	DataOffset      int
	// SendSectionSize is the size in bytes of a section of the send buffer.
	SendSectionSize int
	// MaxReceiveBuffer is the largest receive buffer that is taken, in bytes.
	MaxReceiveBuffer int

	// MaxChannels is how many channels a NIC can have, the primary counted.
	MaxChannels int
	// RSSEntries is the size of the host's indirection table for receiving, 0 if
	// there is only one channel to receive on.
	RSSEntries int
	// UDPByAddress is set for hosts that do not look at the ports of UDP, even if the
	// guest asks for that, which Linux does not; and FragmentsFirst for those that
	// have all fragments of IP packets come on the first channel.
	UDPByAddress   bool
	FragmentsFirst bool
	// FragmentSkew is for hosts behind which fragments are lost that come out of order: by
	// how much the delays of a guest's channels differ there, at most; 0 for the others. A
	// device knows nothing of it, nor does a host unless it is asked for the fault.
	FragmentSkew time.Duration
	// LinkMbps is the speed of the link in Mbit/s.
	LinkMbps uint32

	// Offload is what the host does for frames, as a guest is told it.
	Offload rndis.HardwareOffload

	// SpoiledUDP is set for hosts that offer the checksum of UDP and get it wrong: over
	// IPv4, if the packet is longer than that many bytes, IP header included, and may be
	// fragmented. 0 is never.
	SpoiledUDP int

	// UncountedPayload is set for switches whose indications have their payload
	// behind the end of the message as its length has it.
	UncountedPayload bool

	// MaxPackets, MaxTransfer and AlignmentFactor are the limits for sends that
	// RNDIS INITIALIZE answers: packets, bytes, log2 of bytes.
	MaxPackets      uint32
	MaxTransfer     uint32
	AlignmentFactor uint32
}

// ReceiveSectionSize returns the size in bytes of a section of the receive buffer
// for an mtu that includes the Ethernet header, as in NVSP: 1806 for 1514 with
// today's hosts, 1728 with old ones.
func (p Profile) ReceiveSectionSize(mtu int) int { return p.SectionOverhead + mtu }

// A release is a row of the table: what differs.
type release struct {
	name, release string
	vmbus         vmbus.Version // newest
	nvsp          nvsp.Version  // newest
	linkMbps      uint32
	spoiledUDP    int
}

// The releases, oldest first.
//
// Windows Server 2008 R2 is here for its NVSP 2. Its real bus speaks VMBus 1.1, and
// no driver of today would get as far as NVSP on it: Linux wants 2.4, and so does
// the guest bus of this project. So its bus is that of the next release, and what
// is emulated is its NIC.
//
// "win10" is Windows 10 version 1803, between Server 2016 and 2019; later versions
// are like those servers. Azure runs newer builds of the same host than any server
// that is sold, and is the only one here to take VMBus 6.0.
var releases = [...]release{
	{"ws2008r2", "Windows Server 2008 R2", vmbus.Version2_4, nvsp.V2, 10000, 0},
	{"ws2012", "Windows Server 2012", vmbus.Version2_4, nvsp.V4, 10000, 0},
	{"ws2012r2", "Windows Server 2012 R2", vmbus.Version3_0, nvsp.V5, 10000, 0},
	{"ws2016", "Windows Server 2016", vmbus.Version4_0, nvsp.V6, 10000, 0},
	{"win10", "Windows 10", vmbus.Version5_1, nvsp.V6, 10000, 0},
	{"ws2019", "Windows Server 2019", vmbus.Version5_2, nvsp.V61, 10000, 0},
	{"ws2022", "Windows Server 2022", vmbus.Version5_3, nvsp.V61, 10000, 0},
	{"azure", "Azure", vmbus.Version6_0, nvsp.V61, 50000, 1420},
}

// profile completes a row with what follows from its versions.
func (r release) profile() Profile {
	p := Profile{
		Name: r.name, Release: r.release,
		NDIS:            r.nvsp.NDIS(),
		SectionOverhead: 256 + 36, DataOffset: 256, // Windows guests must not see the last 36 bytes used
		SendSectionSize:  6144,
		MaxReceiveBuffer: r.nvsp.MaxReceiveBuffer(),
		MaxChannels:      64, RSSEntries: 128,
		LinkMbps:   r.linkMbps,
		Offload:    offload(r.nvsp),
		SpoiledUDP: r.spoiledUDP,
		MaxPackets: 8, MaxTransfer: 0xefffffff, AlignmentFactor: 3,
	}
	for _, v := range vmbus.Versions() {
		if v >= vmbus.Version2_4 && v <= r.vmbus {
			p.VMBus = append(p.VMBus, v)
		}
	}
	for _, v := range nvsp.Versions() {
		if v <= r.nvsp {
			p.NVSP = append(p.NVSP, v)
		}
	}
	if r.name == "azure" {
		p.FragmentSkew = time.Millisecond
	}
	if r.nvsp < nvsp.V5 { // no sub-channels
		p.MaxChannels, p.RSSEntries = 1, 0
	}
	if r.nvsp < nvsp.V61 { // 1728 bytes for the usual MTU, which Linux still asks memory for
		p.SectionOverhead, p.DataOffset = 214, 128
		p.UncountedPayload = true
		p.UDPByAddress, p.FragmentsFirst = true, true
	}
	return p
}

// largeSend is the longest large send of Hyper-V's virtual switch, in bytes of
// payload, and of how many segments at least.
const (
	largeSend     = 0xf53c
	largeSegments = 2
)

// offload returns what the hosts of a version of NVSP do for frames: TCP over IPv4
// first, then IPv6 too, then UDP, then coalescing of what guests receive.
func offload(v nvsp.Version) (o rndis.HardwareOffload) {
	sums := uint32(rndis.ChecksumIPOptions | rndis.ChecksumTCPOptions | rndis.ChecksumTCP)
	if v >= nvsp.V5 {
		sums |= rndis.ChecksumUDP
	}
	both := func(bits uint32) rndis.ChecksumOffload {
		return rndis.ChecksumOffload{TxEncap: rndis.EncapEthernet, Tx: bits, RxEncap: rndis.EncapEthernet, Rx: bits}
	}
	large := rndis.LSOOffload{Encap: rndis.EncapEthernet, MaxBytes: largeSend, MinSegs: largeSegments}
	o.IPv4, o.LSOv4 = both(sums|rndis.ChecksumIPHeader), large
	if v >= nvsp.V4 {
		o.IPv6, o.LSOv6 = both(sums), large
		o.LSOv6Opts = rndis.LSO6Extensions | rndis.LSO6TCPOptions
	}
	if v >= nvsp.V61 {
		o.RSCv4, o.RSCv6 = 1, 1
	}
	return o
}

// Lookup returns the profile of a release by its name. The error of an unknown name
// lists those that there are.
func Lookup(name string) (Profile, error) {
	i := slices.IndexFunc(releases[:], func(r release) bool { return r.name == name })
	if i < 0 {
		return Profile{}, fmt.Errorf("host profile %q: unknown; there are %s", name, strings.Join(Names(), ", "))
	}
	return releases[i].profile(), nil
}

// Names returns the names of all releases, oldest first.
func Names() []string {
	var names []string
	for _, r := range releases {
		names = append(names, r.name)
	}
	return names
}
