package vmbus

import "fmt"

// A Version is a VMBus protocol version: major<<16 | minor. Later versions are
// greater. The version of a connection is fixed by INITIATE_CONTACT: the guest
// proposes one, the host takes exactly it or refuses.
type Version uint32

// The versions that exist, with the Windows release that brought each.
const (
	VersionWS2008 Version = 0x0000_000d // Windows Server 2008
	Version1_1    Version = 0x0001_0001 // 7, Server 2008 R2
	Version2_4    Version = 0x0002_0004 // 8, Server 2012
	Version3_0    Version = 0x0003_0000 // 8.1, Server 2012 R2
	Version4_0    Version = 0x0004_0000 // 10, Server 2016
	Version4_1    Version = 0x0004_0001 // 10 1709
	Version5_0    Version = 0x0005_0000 // 10 1709
	Version5_1    Version = 0x0005_0001 // 10 1803
	Version5_2    Version = 0x0005_0002 // 10 1809, Server 2019
	Version5_3    Version = 0x0005_0003 // Server 2022
	Version6_0    Version = 0x0006_0000 // Server 2025
)

// Versions returns all versions, newest first.
func Versions() []Version {
	return []Version{Version6_0, Version5_3, Version5_2, Version5_1, Version5_0, Version4_1, Version4_0,
		Version3_0, Version2_4, Version1_1, VersionWS2008}
}

// String returns major and minor, such as "5.3".
func (v Version) String() string { return fmt.Sprintf("%d.%d", v>>16, v&0xffff) }

// HasConnectionID reports whether an offer carries a connection id of its own and
// says if its interrupt is dedicated.
func (v Version) HasConnectionID() bool { return v >= Version1_1 }

// HasUnloadResponse reports whether the host answers UNLOAD.
func (v Version) HasUnloadResponse() bool { return v >= Version1_1 }

// HasEventFlags reports whether the host signals a channel by the event flag with
// the number of its relid. Before that both sides use the interrupt page.
func (v Version) HasEventFlags() bool { return v >= Version2_4 }

// HasSubChannels reports whether a device can have more than one channel.
func (v Version) HasSubChannels() bool { return v >= Version2_4 }

// HasTargetVP reports whether each channel has its own target VP. Before that it is
// always VP 0.
func (v Version) HasTargetVP() bool { return v >= Version2_4 }

// HasConnectionState reports whether the state in VERSION_RESPONSE means something;
// before, it may be any byte.
func (v Version) HasConnectionState() bool { return v >= Version2_4 }

// HasMessageVP reports whether control messages go to the VP that the guest asks
// for. Before that they go to VP 0.
func (v Version) HasMessageVP() bool { return v >= Version3_0 }

// HasReconnect reports whether a guest can connect again after UNLOAD. Linux sends
// UNLOAD only from this version on.
func (v Version) HasReconnect() bool { return v >= Version3_0 }

// HasModifyChannel reports whether an open channel can be moved to another VP.
func (v Version) HasModifyChannel() bool { return v >= Version4_1 }

// HasModifyChannelResponse reports whether the host confirms the move.
func (v Version) HasModifyChannelResponse() bool { return v >= Version5_3 }

// HasContactPort reports whether INITIATE_CONTACT goes to connection ConnContact
// with the SINT for replies, and VERSION_RESPONSE names the connection to go on with.
func (v Version) HasContactPort() bool { return v >= Version5_0 }

// HasVTL reports whether INITIATE_CONTACT names a virtual trust level.
func (v Version) HasVTL() bool { return v >= Version5_1 }

// HasSilo reports whether TL_CONNECT_REQUEST names a silo.
func (v Version) HasSilo() bool { return v >= Version5_2 }

// HasFeatures reports whether INITIATE_CONTACT asks for Features.
func (v Version) HasFeatures() bool { return v >= Version6_0 }

// Features are what a guest of version 6.0 asks for bit by bit. The host grants
// those that it has too.
type Features uint32

// The features.
const (
	FeatureGuestSignal          Features = 1 << iota // the guest chooses event flag and connection id in OPENCHANNEL
	FeatureInterruptRedirection                      // OPENCHANNEL can redirect the interrupt
	FeatureModifyConnection                          // MODIFY_CONNECTION
	FeatureClientID                                  // INITIATE_CONTACT names the client
	FeatureConfidentialChannels                      // rings or pages in encrypted memory
	FeaturePauseResume                               // PAUSE, RESUME
	FeatureServerMonitor                             // VERSION_RESPONSE names the host's monitor pages
	FeatureGPAPinning                                // channels that need pinned memory
)
