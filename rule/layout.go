package rule

// Layout returns err as a message that does not have the layout of its type, with
// the structure in which that is written; nil if err is nil. r is [MessageLayout],
// [NVSPLayout] or [RNDISLayout], and message the name of the type.
func Layout(r *Rule, message string, err error) error {
	if source, ok := layouts[message]; ok {
		return r.In(source, err)
	}
	return r.Err(err)
}

// The messages of the bus that Linux does not have are in the protocol definitions
// of Microsoft's openvmm.
const openvmm = "openvmm vm/devices/vmbus/vmbus_core/src/protocol.rs, "

// layouts is where the layout of each message of a guest is written.
var layouts = map[string]string{
	"INITIATE_CONTACT":       hyperv + "struct vmbus_channel_initiate_contact",
	"OPENCHANNEL":            hyperv + "struct vmbus_channel_open_channel",
	"CLOSECHANNEL":           hyperv + "struct vmbus_channel_close_channel",
	"GPADL_HEADER":           hyperv + "struct vmbus_channel_gpadl_header",
	"GPADL_BODY":             hyperv + "struct vmbus_channel_gpadl_body",
	"GPADL_TEARDOWN":         hyperv + "struct vmbus_channel_gpadl_teardown",
	"RELID_RELEASED":         hyperv + "struct vmbus_channel_relid_released",
	"MODIFYCHANNEL":          hyperv + "struct vmbus_channel_modifychannel",
	"TL_CONNECT_REQUEST":     hyperv + "struct vmbus_channel_tl_connect_request",
	"OPEN_RESERVED_CHANNEL":  openvmm + "OpenReservedChannel",
	"CLOSE_RESERVED_CHANNEL": openvmm + "CloseReservedChannel",

	"INIT":                    netH + "struct nvsp_message_init",
	"SEND_NDIS_VERSION":       netH + "struct nvsp_1_message_send_ndis_version",
	"SEND_RECEIVE_BUFFER":     netH + "struct nvsp_1_message_send_receive_buffer",
	"REVOKE_RECEIVE_BUFFER":   netH + "struct nvsp_1_message_revoke_receive_buffer",
	"SEND_SEND_BUFFER":        netH + "struct nvsp_1_message_send_send_buffer",
	"REVOKE_SEND_BUFFER":      netH + "struct nvsp_1_message_revoke_send_buffer",
	"SEND_RNDIS_PACKET":       netH + "struct nvsp_1_message_send_rndis_packet",
	"SEND_NDIS_CONFIG":        netH + "struct nvsp_2_send_ndis_config",
	"SWITCH_DATA_PATH":        netH + "struct nvsp_4_message_switch_data_path",
	"SUBCHANNEL":              netH + "struct nvsp_5_subchannel_request",
	"ALLOCATE_RECEIVE_BUFFER": netH + "struct nvsp_2_alloc_rxbuf",

	"PACKET":     msRNDIS + "REMOTE_NDIS_PACKET_MSG",
	"INITIALIZE": msRNDIS + "REMOTE_NDIS_INITIALIZE_MSG",
	"HALT":       msRNDIS + "REMOTE_NDIS_HALT_MSG",
	"QUERY":      msRNDIS + "REMOTE_NDIS_QUERY_MSG",
	"SET":        msRNDIS + "REMOTE_NDIS_SET_MSG",
	"RESET":      msRNDIS + "REMOTE_NDIS_RESET_MSG",
	"KEEPALIVE":  msRNDIS + "REMOTE_NDIS_KEEPALIVE_MSG",
}
