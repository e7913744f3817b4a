package rndis

import "fmt"

// An OID names a value of the NIC that is queried or set.
type OID uint32

// The OIDs that guests use or hosts answer, with the type of the value.
const (
	OIDSupportedList          OID = 0x00010101 // u32 of each
	OIDHardwareStatus         OID = 0x00010102 // u32, 0 ready
	OIDMediaSupported         OID = 0x00010103 // u32, 0 Ethernet
	OIDMediaInUse             OID = 0x00010104 // u32
	OIDMaximumLookahead       OID = 0x00010105 // u32 bytes, without Ethernet header
	OIDMaximumFrameSize       OID = 0x00010106 // u32 bytes, without Ethernet header: the MTU
	OIDLinkSpeed              OID = 0x00010107 // u32 in 100 bit/s, see LinkSpeed
	OIDTransmitBufferSpace    OID = 0x00010108 // u32 bytes
	OIDReceiveBufferSpace     OID = 0x00010109 // u32 bytes
	OIDTransmitBlockSize      OID = 0x0001010a // u32 bytes, with Ethernet header
	OIDReceiveBlockSize       OID = 0x0001010b // u32 bytes, with Ethernet header
	OIDVendorID               OID = 0x0001010c // u32, the first half of the MAC
	OIDVendorDescription      OID = 0x0001010d // ASCII
	OIDCurrentPacketFilter    OID = 0x0001010e // u32 of Filter bits
	OIDCurrentLookahead       OID = 0x0001010f // u32 bytes
	OIDDriverVersion          OID = 0x00010110 // u16, 0x0100
	OIDMaximumTotalSize       OID = 0x00010111 // u32 bytes, with Ethernet header
	OIDMACOptions             OID = 0x00010113 // u32
	OIDMediaConnectStatus     OID = 0x00010114 // u32, 0 connected
	OIDMaximumSendPackets     OID = 0x00010115 // u32
	OIDVendorDriverVersion    OID = 0x00010116 // u32
	OIDNetworkLayerAddresses  OID = 0x00010118 // set only
	OIDReceiveScaleCaps       OID = 0x00010203 // RSSCapabilities
	OIDReceiveScaleParameters OID = 0x00010204 // RSSParameters, set only
	OIDMaxLinkSpeed           OID = 0x00010206 // u64 transmit, u64 receive, in bit/s
	OIDLinkState              OID = 0x00010207 // LinkState
	OIDLinkParameters         OID = 0x00010208
	OIDConfigParameter        OID = 0x0001021b // ConfigParameter, set only
	OIDTransmitOK             OID = 0x00020101 // u32 frames, as all statistics
	OIDReceiveOK              OID = 0x00020102
	OIDTransmitError          OID = 0x00020103
	OIDReceiveError           OID = 0x00020104
	OIDReceiveNoBuffer        OID = 0x00020105
	OIDFriendlyName           OID = 0x00020216 // UTF-16, see AppendUTF16
	OIDPermanentAddress       OID = 0x01010101 // 6 bytes
	OIDCurrentAddress         OID = 0x01010102 // 6 bytes
	OIDMulticastList          OID = 0x01010103 // 6 bytes each
	OIDMaximumListSize        OID = 0x01010104 // u32
	OIDReceiveErrorAlignment  OID = 0x01020101
	OIDTransmitOneCollision   OID = 0x01020102
	OIDTransmitCollisions     OID = 0x01020103 // with more than one collision
	OIDOffloadEncapsulation   OID = 0x0101010a // 28 bytes, for Windows guests
	OIDOffloadCurrentConfig   OID = 0xfc01020b // HardwareOffload
	OIDOffloadParameters      OID = 0xfc01020c // OffloadParameters, set only
	OIDOffloadHardwareCaps    OID = 0xfc01020d // HardwareOffload
)

var oidNames = map[OID]string{
	OIDSupportedList: "GEN_SUPPORTED_LIST", OIDHardwareStatus: "GEN_HARDWARE_STATUS", OIDMediaSupported: "GEN_MEDIA_SUPPORTED",
	OIDMediaInUse: "GEN_MEDIA_IN_USE", OIDMaximumLookahead: "GEN_MAXIMUM_LOOKAHEAD", OIDMaximumFrameSize: "GEN_MAXIMUM_FRAME_SIZE",
	OIDLinkSpeed: "GEN_LINK_SPEED", OIDTransmitBufferSpace: "GEN_TRANSMIT_BUFFER_SPACE", OIDReceiveBufferSpace: "GEN_RECEIVE_BUFFER_SPACE",
	OIDTransmitBlockSize: "GEN_TRANSMIT_BLOCK_SIZE", OIDReceiveBlockSize: "GEN_RECEIVE_BLOCK_SIZE", OIDVendorID: "GEN_VENDOR_ID",
	OIDVendorDescription: "GEN_VENDOR_DESCRIPTION", OIDCurrentPacketFilter: "GEN_CURRENT_PACKET_FILTER", OIDCurrentLookahead: "GEN_CURRENT_LOOKAHEAD",
	OIDDriverVersion: "GEN_DRIVER_VERSION", OIDMaximumTotalSize: "GEN_MAXIMUM_TOTAL_SIZE", OIDMACOptions: "GEN_MAC_OPTIONS",
	OIDMediaConnectStatus: "GEN_MEDIA_CONNECT_STATUS", OIDMaximumSendPackets: "GEN_MAXIMUM_SEND_PACKETS", OIDVendorDriverVersion: "GEN_VENDOR_DRIVER_VERSION",
	OIDNetworkLayerAddresses: "GEN_NETWORK_LAYER_ADDRESSES", OIDReceiveScaleCaps: "GEN_RECEIVE_SCALE_CAPABILITIES",
	OIDReceiveScaleParameters: "GEN_RECEIVE_SCALE_PARAMETERS", OIDMaxLinkSpeed: "GEN_MAX_LINK_SPEED", OIDLinkState: "GEN_LINK_STATE",
	OIDLinkParameters: "GEN_LINK_PARAMETERS", OIDConfigParameter: "GEN_RNDIS_CONFIG_PARAMETER", OIDFriendlyName: "GEN_FRIENDLY_NAME",
	OIDPermanentAddress: "802_3_PERMANENT_ADDRESS", OIDCurrentAddress: "802_3_CURRENT_ADDRESS", OIDMulticastList: "802_3_MULTICAST_LIST",
	OIDMaximumListSize: "802_3_MAXIMUM_LIST_SIZE", OIDOffloadEncapsulation: "OFFLOAD_ENCAPSULATION",
	OIDTransmitOK: "GEN_XMIT_OK", OIDReceiveOK: "GEN_RCV_OK", OIDTransmitError: "GEN_XMIT_ERROR", OIDReceiveError: "GEN_RCV_ERROR",
	OIDReceiveNoBuffer: "GEN_RCV_NO_BUFFER", OIDReceiveErrorAlignment: "802_3_RCV_ERROR_ALIGNMENT",
	OIDTransmitOneCollision: "802_3_XMIT_ONE_COLLISION", OIDTransmitCollisions: "802_3_XMIT_MORE_COLLISIONS",
	OIDOffloadCurrentConfig: "TCP_OFFLOAD_CURRENT_CONFIG", OIDOffloadParameters: "TCP_OFFLOAD_PARAMETERS",
	OIDOffloadHardwareCaps: "TCP_OFFLOAD_HARDWARE_CAPABILITIES",
}

// String returns the OID's name in the Windows headers, without "OID_".
func (o OID) String() string {
	if n, ok := oidNames[o]; ok {
		return n
	}
	return fmt.Sprintf("OID 0x%08x", uint32(o))
}

// The bits of OIDCurrentPacketFilter. A guest sets 0 when it is down; Linux sets
// directed, broadcast and all-multicast, 0x0d, when it goes up.
const (
	FilterDirected     = 0x01
	FilterMulticast    = 0x02
	FilterAllMulticast = 0x04
	FilterBroadcast    = 0x08
	FilterPromiscuous  = 0x20
)

// The values of OIDMediaConnectStatus.
const (
	MediaConnected    = 0
	MediaDisconnected = 1
)
