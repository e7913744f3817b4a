package nvsp

import "fmt"

// A MessageType is the number in front of every NVSP message.
type MessageType uint32

// The message types that this package has a struct for. Chimney and VMQ messages
// only have a name: no driver of today sends them.
const (
	TypeNone                          MessageType = 0
	TypeInit                          MessageType = 1
	TypeInitComplete                  MessageType = 2
	TypeNDISVersion                   MessageType = 100
	TypeSendReceiveBuffer             MessageType = 101
	TypeSendReceiveBufferComplete     MessageType = 102
	TypeRevokeReceiveBuffer           MessageType = 103
	TypeSendSendBuffer                MessageType = 104
	TypeSendSendBufferComplete        MessageType = 105
	TypeRevokeSendBuffer              MessageType = 106
	TypeRNDISPacket                   MessageType = 107
	TypeRNDISPacketComplete           MessageType = 108
	TypeAllocateReceiveBuffer         MessageType = 120
	TypeAllocateReceiveBufferComplete MessageType = 121
	TypeFreeReceiveBuffer             MessageType = 122
	TypeNDISConfig                    MessageType = 125
	TypeVFAssociation                 MessageType = 128
	TypeSwitchDataPath                MessageType = 129
	TypeOIDQueryEx                    MessageType = 131
	TypeOIDQueryExComplete            MessageType = 132
	TypeSubChannel                    MessageType = 133 // request and completion
	TypeIndirectionTable              MessageType = 134
	TypePDAPI                         MessageType = 135 // request and completion
	TypePDPostBatch                   MessageType = 136

	// The highest types of versions 2 and 4, without a struct.
	TypeAllocateChimneyHandleComplete MessageType = 127
	TypeUplinkConnectState            MessageType = 130
)

var typeNames = map[MessageType]string{
	0: "NONE", 1: "INIT", 2: "INIT_COMPLETE",
	100: "SEND_NDIS_VERSION",
	101: "SEND_RECEIVE_BUFFER", 102: "SEND_RECEIVE_BUFFER_COMPLETE", 103: "REVOKE_RECEIVE_BUFFER",
	104: "SEND_SEND_BUFFER", 105: "SEND_SEND_BUFFER_COMPLETE", 106: "REVOKE_SEND_BUFFER",
	107: "SEND_RNDIS_PACKET", 108: "SEND_RNDIS_PACKET_COMPLETE",
	109: "SEND_CHIMNEY_DELEGATED_BUFFER", 110: "SEND_CHIMNEY_DELEGATED_BUFFER_COMPLETE", 111: "REVOKE_CHIMNEY_DELEGATED_BUFFER",
	112: "RESUME_CHIMNEY_RECEIVE", 113: "TERMINATE_CHIMNEY", 114: "TERMINATE_CHIMNEY_COMPLETE", 115: "INDICATE_CHIMNEY_EVENT",
	116: "SEND_CHIMNEY_PACKET", 117: "SEND_CHIMNEY_PACKET_COMPLETE",
	118: "POST_CHIMNEY_RECEIVE", 119: "POST_CHIMNEY_RECEIVE_COMPLETE",
	120: "ALLOCATE_RECEIVE_BUFFER", 121: "ALLOCATE_RECEIVE_BUFFER_COMPLETE", 122: "FREE_RECEIVE_BUFFER",
	123: "SEND_VMQ_RNDIS_PACKET", 124: "SEND_VMQ_RNDIS_PACKET_COMPLETE",
	125: "SEND_NDIS_CONFIG", 126: "ALLOCATE_CHIMNEY_HANDLE", 127: "ALLOCATE_CHIMNEY_HANDLE_COMPLETE",
	128: "SEND_VF_ASSOCIATION", 129: "SWITCH_DATA_PATH", 130: "UPLINK_CONNECT_STATE",
	131: "OID_QUERY_EX", 132: "OID_QUERY_EX_COMPLETE", 133: "SUBCHANNEL", 134: "SEND_INDIRECTION_TABLE",
	135: "PD_API", 136: "PD_POST_BATCH",
}

// String returns the protocol's name of the type.
func (t MessageType) String() string {
	if n, ok := typeNames[t]; ok {
		return n
	}
	return fmt.Sprintf("NVSP type %d", uint32(t))
}
