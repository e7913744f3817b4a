package vmbus

// ChannelFlags say what kind of channel an offer is.
type ChannelFlags uint16

// The channel flags. Before 6.0 the confidential bits have older meanings, so a
// guest looks at them only if it was granted FeatureConfidentialChannels.
const (
	ChannelEnumerate            ChannelFlags = 0x1    // enumerate a device interface
	ChannelConfidentialRing     ChannelFlags = 0x2    // rings in encrypted memory
	ChannelConfidentialExternal ChannelFlags = 0x4    // other memory encrypted too
	ChannelPinned               ChannelFlags = 0x8    // needs pinned memory; FeatureGPAPinning
	ChannelNamedPipe            ChannelFlags = 0x10   // user data holds pipe parameters
	ChannelLoopback             ChannelFlags = 0x100  // the guest's own
	ChannelParent               ChannelFlags = 0x200  // offered by the parent partition
	ChannelMonitor              ChannelFlags = 0x400  // wants to be signalled by monitor page
	ChannelHVSock               ChannelFlags = 0x2000 // a provider of hv_sock connections
)

// Offer (1) offers a channel: the primary channel of a device, or one more of it.
type Offer struct {
	Class      GUID         // 8: of the device; a sub-channel has that of its primary
	Instance   GUID         // 24: the same
	Flags      ChannelFlags // 56
	MMIO       uint16       // 58: MMIO space that the device wants, in MiB
	UserData   [120]byte    // 60
	SubChannel uint16       // 180, from 2.4: index in the device, 0 for the primary
	Relid      uint32       // 184: names the channel in all messages, 1 to RelidLimit-1
	MonitorID  uint8        // 188: bit in the monitor page, if Monitored
	Monitored  bool         // 189, bit 0: signalled by monitor page
	Dedicated  bool         // 190, bit 0, from 1.1: has an interrupt of its own
	ConnID     uint32       // 192, from 1.1: the connection that the guest signals
}

const (
	offerSize    = 196
	offerOldSize = 190 // before 1.1
)

// Append appends the message in the form of version v: 196 bytes, 190 before 1.1.
func (m Offer) Append(b []byte, v Version) []byte {
	b = begin(b, TypeOffer)
	b = append(b, m.Class[:]...)
	b = append(b, m.Instance[:]...)
	b = append(b, make([]byte, 16)...)
	b = le.AppendUint16(b, uint16(m.Flags))
	b = le.AppendUint16(b, m.MMIO)
	b = append(b, m.UserData[:]...)
	b = le.AppendUint16(b, m.SubChannel)
	b = le.AppendUint16(b, 0)
	b = words(b, m.Relid)
	b = append(b, m.MonitorID, bit(m.Monitored))
	if !v.HasConnectionID() {
		return b
	}
	b = append(b, bit(m.Dedicated), 0)
	return words(b, m.ConnID)
}

// ParseOffer parses the message in the form of version v. Whether the relid is one
// that may be offered is for the caller to say, who knows those in use.
func ParseOffer(b []byte, v Version) (m Offer, err error) {
	size := offerOldSize
	if v.HasConnectionID() {
		size = offerSize
	}
	if err := check(b, TypeOffer, size); err != nil {
		return m, err
	}
	m.Class = GUID(b[8:24])
	m.Instance = GUID(b[24:40])
	m.Flags = ChannelFlags(le.Uint16(b[56:]))
	m.MMIO = le.Uint16(b[58:])
	m.UserData = [120]byte(b[60:180])
	if v.HasSubChannels() {
		m.SubChannel = le.Uint16(b[180:])
	}
	m.Relid = le.Uint32(b[184:])
	m.MonitorID = b[188]
	m.Monitored = b[189]&1 != 0
	if v.HasConnectionID() {
		m.Dedicated = b[190]&1 != 0
		m.ConnID = le.Uint32(b[192:])
	}
	return m, nil
}

func bit(set bool) byte {
	if set {
		return 1
	}
	return 0
}

// RescindOffer (2) takes an offer back. The guest closes the channel and answers
// with RELID_RELEASED.
type RescindOffer struct {
	Relid uint32 // 8
}

const rescindOfferSize = 12

// Append appends the message, 12 bytes.
func (m RescindOffer) Append(b []byte) []byte { return words(begin(b, TypeRescindOffer), m.Relid) }

// ParseRescindOffer parses the message.
func ParseRescindOffer(b []byte) (m RescindOffer, err error) {
	if err := check(b, TypeRescindOffer, rescindOfferSize); err != nil {
		return m, err
	}
	return RescindOffer{le.Uint32(b[8:])}, nil
}

// RelidReleased (13) tells that the guest has forgotten a rescinded channel. Only
// then the host may offer the relid again.
type RelidReleased struct {
	Relid uint32 // 8
}

const relidReleasedSize = 12

// Append appends the message, 12 bytes.
func (m RelidReleased) Append(b []byte) []byte { return words(begin(b, TypeRelidReleased), m.Relid) }

// ParseRelidReleased parses the message.
func ParseRelidReleased(b []byte) (m RelidReleased, err error) {
	if err := check(b, TypeRelidReleased, relidReleasedSize); err != nil {
		return m, err
	}
	return RelidReleased{le.Uint32(b[8:])}, nil
}
