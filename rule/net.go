package rule

const (
	netvsc  = "Linux drivers/net/hyperv/netvsc.c, "
	netH    = "Linux drivers/net/hyperv/hyperv_net.h, "
	filter  = "Linux drivers/net/hyperv/rndis_filter.c, "
	msRNDIS = "MS-RNDIS, "
)

// The rules of the packets of a NIC's channels, and of NVSP in them.
var (
	PacketLayout = add("packet-layout",
		"a packet has a descriptor, ranges with the pages that they touch, and a payload, all inside its length",
		hyperv+"struct vmpacket_descriptor and struct gpa_range")
	PacketType = add("packet-type",
		"a guest sends in-band packets, GPA-direct packets and completions", hyperv+"enum vmbus_packet_type")
	PacketSize = add("packet-size",
		"a ring packet has at most 8192 bytes, and describes at most 128 KiB", here)
	Completion = add("completion",
		"a guest completes each transfer-pages packet once, by its transaction id, and nothing else", netvsc+"send_recv_completions")

	NVSPLayout = add("nvsp-layout",
		"an NVSP message has the fields of its structure, and is long enough for them", netH+"struct nvsp_message")
	NVSPChannel = add("nvsp-channel",
		"NVSP messages are in-band packets of the primary channel; other channels carry RNDIS packets only", netvsc+"netvsc_connect_vsp and netvsc_send_pkt")
	NVSPFirst = add("nvsp-first",
		"INIT comes first, one version at a time until one is accepted, and then no more", netvsc+"netvsc_connect_vsp and negotiate_nvsp_ver")
	NVSPVersion = add("nvsp-version",
		"a message is sent only if the negotiated NVSP version has it", netH+"the enums of message types NVSP_MSG…")
	NVSPDirection = add("nvsp-direction",
		"a guest sends the NVSP messages of guests only", netH+"struct nvsp_all_messages")
	NDISOnce = add("ndis-once",
		"SEND_NDIS_CONFIG and SEND_NDIS_VERSION are sent once, the first from NVSP 2 on and before the buffers", netvsc+"netvsc_connect_vsp and negotiate_nvsp_ver")
	BufferOnce = add("buffer-once",
		"a buffer is set up once while the channel is open", netvsc+"netvsc_init_buf")
	BufferID = add("buffer-id",
		"the receive buffer has the id 0xcafe", netH+"NETVSC_RECEIVE_BUFFER_ID")
	BufferGPADL = add("buffer-gpadl",
		"a buffer is a complete GPADL of the device, one range of whole pages", netvsc+"netvsc_init_buf")
	BufferSize = add("buffer-size",
		"a buffer has room for its sections and is not larger than the version allows: 15 MiB, for receiving 31 MiB from NVSP 4 on",
		netH+"NETVSC_RECEIVE_BUFFER_SIZE and NETVSC_SEND_BUFFER_SIZE")
	BufferRevoke = add("buffer-revoke",
		"a buffer is revoked after it was set up", netvsc+"netvsc_revoke_recv_buf")
	DataPath = add("data-path",
		"SWITCH_DATA_PATH names the synthetic path, or that of a virtual function after the host has announced one",
		netvsc+"netvsc_switch_datapath and netvsc_send_vf")
	SubChannels = add("sub-channels",
		"sub-channels are asked for once, after the receive buffer, at least one and where there may be some; those that were granted are opened",
		filter+"rndis_set_subchannel")
)

// The rules of RNDIS.
var (
	RNDISLayout = add("rndis-layout",
		"an RNDIS message has the fields of its type, and lengths and offsets that stay inside it", msRNDIS+"Message Syntax")
	RNDISBuffers = add("rndis-buffers",
		"RNDIS begins when the NVSP version is known and the receive buffer is there", filter+"rndis_filter_device_add")
	RNDISFirst = add("rndis-first",
		"INITIALIZE of RNDIS 1.0 comes first, and once until HALT", msRNDIS+"REMOTE_NDIS_INITIALIZE_MSG")
	RNDISDirection = add("rndis-direction",
		"a guest sends PACKET, INITIALIZE, HALT, QUERY, SET, RESET and KEEPALIVE", msRNDIS+"Message Syntax")
	RNDISAlone = add("rndis-alone",
		"a control message is alone in its packet, on the primary channel, and has at most 8192 bytes", filter+"rndis_filter_send_request")
	RNDISAnswers = add("rndis-answers",
		"a guest takes the answers and indications that it is sent before it asks for more", filter+"rndis_filter_receive")
	FrameFirst = add("frame-first",
		"frames are sent after INITIALIZE has succeeded and before HALT", msRNDIS+"REMOTE_NDIS_PACKET_MSG")
	FrameHeader = add("frame-header",
		"header and per-packet information of a frame lie in one send section, or in the first page range", filter+"rndis_filter_send_request")
	FrameOffload = add("frame-offload",
		"a frame asks for those offloads only that the host has offered, and for what is in it", msRNDIS+"Per-Packet-Info; OID_TCP_OFFLOAD_HARDWARE_CAPABILITIES of the Windows driver kit")
	SendSection = add("send-section",
		"a send section is one of the send buffer's, and holds no more than its size", netH+"struct nvsp_1_message_send_rndis_packet, send_buf_section_index")
	SendPages = add("send-pages",
		"the pages of a packet are page frame numbers of memory that the guest has", attach+"Guest memory")
)
