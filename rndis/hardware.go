package rndis

// HardwareOffload is what a host can do for frames, OIDOffloadHardwareCaps, or does
// now, OIDOffloadCurrentConfig. It is the NDIS_OFFLOAD structure in its first three
// revisions.
type HardwareOffload struct {
	IPv4, IPv6 ChecksumOffload // @4, @20
	LSOv1      [4]uint32       // @36, unused
	IPsecV1    [7]uint32       // @52, unused
	LSOv4      LSOOffload      // @80: large send version 2 over IPv4
	LSOv6      LSOOffload      // @92: large send version 2 over IPv6
	LSOv6Opts  uint32          // @104: LSO6 bits
	Flags      uint32          // @108
	IPsecV2    [8]uint32       // @112, unused; from revision 2
	RSCv4      uint8           // @144: not 0 if received segments are coalesced; from revision 3
	RSCv6      uint8           // @145
	EncapFlags uint32          // @148: encapsulated packets
	EncapMax   uint32          // @152: largest encapsulation header
}

// ChecksumOffload is what can be done for the checksums of one IP version, each way.
type ChecksumOffload struct {
	TxEncap, Tx uint32 // EncapEthernet, Checksum bits
	RxEncap, Rx uint32
}

// LSOOffload is what can be segmented for one IP version.
type LSOOffload struct {
	Encap    uint32 // EncapEthernet
	MaxBytes uint32 // longest frame
	MinSegs  uint32 // fewest segments
}

// The bits of encapsulations, checksums and large-send options.
const (
	EncapEthernet = 0x2

	ChecksumIPOptions  = 0x001 // v6: extension headers
	ChecksumTCPOptions = 0x004
	ChecksumTCP        = 0x010
	ChecksumUDP        = 0x040
	ChecksumIPHeader   = 0x100 // v4 only

	LSO6Extensions = 0x001
	LSO6TCPOptions = 0x004
)

// hardwareOffloadSizes are the sizes in bytes of the revisions.
var hardwareOffloadSizes = [...]int{1: 112, 2: 144, 3: 156}

// HardwareOffloadQuery returns the header that a guest passes in its query, sent
// with zeros up to the size of the structure. Linux asks for revision 1 below NVSP
// version 4, revision 2 with 4 and revision 3 later.
func HardwareOffloadQuery(revision int) ObjectHeader {
	revision = min(max(revision, 1), 3)
	return ObjectHeader{ObjectOffload, uint8(revision), uint16(hardwareOffloadSizes[revision])}
}

// Append appends the structure in the given revision, 1 to 3: 112, 144 or 156
// bytes. What the revision does not have is left out.
func (o HardwareOffload) Append(b []byte, revision int) []byte {
	h := HardwareOffloadQuery(revision)
	start := len(b)
	b = h.Append(b)
	for _, c := range [...]ChecksumOffload{o.IPv4, o.IPv6} {
		b = appendAll(b, c.TxEncap, c.Tx, c.RxEncap, c.Rx)
	}
	b = appendAll(b, o.LSOv1[:]...)
	b = appendAll(b, o.IPsecV1[:]...)
	for _, l := range [...]LSOOffload{o.LSOv4, o.LSOv6} {
		b = appendAll(b, l.Encap, l.MaxBytes, l.MinSegs)
	}
	b = appendAll(b, o.LSOv6Opts, o.Flags)
	b = appendAll(b, o.IPsecV2[:]...)
	b = append(b, o.RSCv4, o.RSCv6, 0, 0)
	b = appendAll(b, o.EncapFlags, o.EncapMax)
	return b[:start+int(h.Size)]
}

// ParseHardwareOffload parses a host's answer: any revision from 1, of at least 112
// bytes and no longer than b. Fields that the host's revision does not have are
// zero; later revisions only add fields.
func ParseHardwareOffload(b []byte) (HardwareOffload, error) {
	b, err := object(b, "hardware offload", ObjectOffload, hardwareOffloadSizes[1])
	if err != nil {
		return HardwareOffload{}, err
	}
	var all [156]byte
	copy(all[:], b)
	r := words(all[objectHeaderSize:])
	o := HardwareOffload{RSCv4: all[144], RSCv6: all[145]}
	for _, c := range [...]*ChecksumOffload{&o.IPv4, &o.IPv6} {
		r.read(&c.TxEncap, &c.Tx, &c.RxEncap, &c.Rx)
	}
	r.fill(o.LSOv1[:])
	r.fill(o.IPsecV1[:])
	for _, l := range [...]*LSOOffload{&o.LSOv4, &o.LSOv6} {
		r.read(&l.Encap, &l.MaxBytes, &l.MinSegs)
	}
	r.read(&o.LSOv6Opts, &o.Flags)
	r.fill(o.IPsecV2[:])
	r = words(all[148:])
	r.read(&o.EncapFlags, &o.EncapMax)
	return o, nil
}

func appendAll(b []byte, words ...uint32) []byte {
	for _, w := range words {
		b = le.AppendUint32(b, w)
	}
	return b
}

// words is read word by word; it is long enough.
type words []byte

func (r *words) read(dst ...*uint32) {
	for _, d := range dst {
		*d = le.Uint32(*r)
		*r = (*r)[4:]
	}
}

func (r *words) fill(dst []uint32) {
	for i := range dst {
		r.read(&dst[i])
	}
}
