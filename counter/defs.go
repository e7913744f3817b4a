package counter

// The units.
const (
	packets = "packets"
	bytes   = "bytes"
	events  = "events"
)

const nothing = "Nothing."

var defs = [numIDs]Def{
	TxScattered: {"tx_scattered", packets, "The frame was in more pieces than a ring packet can describe, and was copied together.",
		"Nothing if rare. If it grows with the traffic, the sender makes frames of many small pieces."},
	TxNoMemory: {"tx_no_memory", packets, "The frame was dropped for want of memory to send it from.",
		"Look at the memory of the machine."},
	TxNoSpace: {"tx_no_space", packets, "The ring was full although nothing was under way that could make room; the frame was dropped.",
		"The host does not read its ring: look at the host. Larger rings do not help."},
	TxTooBig: {"tx_too_big", packets, "The frame was longer than what the driver or the host takes, and was dropped.",
		"Compare the MTU of the interface with the largest frame of the sender."},
	TxBusy: {"tx_busy", events, "The ring was full; the frames wait until the host has made room.",
		"Nothing if rare. Otherwise the host is slower than the sender: use more channels."},
	TxSendFull: {"tx_send_full", packets, "No section of the send buffer was free; the frame was sent from pages.",
		"Ask for more send sections (ethtool -G, tx)."},
	RxCompBusy: {"rx_comp_busy", events, "The ring was full, so the host could not be told that frames were received; it is told later.",
		"Nothing if rare. Otherwise the host does not read its ring."},
	RxNoMemory: {"rx_no_memory", packets, "A received frame was dropped for want of memory.",
		"Look at the memory of the machine."},
	StopQueue: {"stop_queue", events, "A channel stopped taking frames because its ring was almost full.",
		"Nothing: this is flow control. If frames are slow, use more channels."},
	WakeQueue: {"wake_queue", events, "A stopped channel went on, because the host has made room.",
		"Nothing. It follows stop_queue."},
	VLANError: {"vlan_error", packets, "A frame's VLAN tag could not be taken out; the frame was dropped.",
		"Look at what sends frames with a damaged tag."},
	VFRxPackets: {"vf_rx_packets", packets, "Received over the virtual function.", nothing},
	VFRxBytes:   {"vf_rx_bytes", bytes, "Received over the virtual function.", nothing},
	VFTxPackets: {"vf_tx_packets", packets, "Sent over the virtual function.", nothing},
	VFTxBytes:   {"vf_tx_bytes", bytes, "Sent over the virtual function.", nothing},
	VFTxDropped: {"vf_tx_dropped", packets, "The virtual function did not take the frame.",
		"Look at the counters of the virtual function itself."},

	TxSteerCopy: {"tx_steer_copy", packets, "The frame was read into a section of one channel and belonged to another, so it was copied once more.",
		"Nothing: a copy of a small frame. If it is most of the traffic, many flows share one queue of the interface."},
	UDPFragL3Sticky: {"udp_frag_l3_sticky", packets, "The UDP frame was a fragment, or its pair of addresses had one lately, and its channel was chosen by addresses although the level has the ports.",
		"Nothing: this keeps fragments in order. Datagrams that fit the MTU are spread over more channels."},
	TxMalformed: {"tx_malformed", packets, "The frame was too short to be one of Ethernet, and was dropped.",
		"Look at what sends it."},
	TxLost: {"tx_lost", packets, "The frame was with the driver when the channels were closed or the host had gone, and was not confirmed.",
		"Nothing at a change of settings. Otherwise look at why the host went away."},
	RxChecksumBad: {"rx_checksum_bad", packets, "The host found the TCP or UDP checksum of a received frame wrong; the frame is left to the stack.",
		"The frame was damaged on its way: look at the line, or at what sends it."},
	HostRefused: {"host_refused", events, "The host answered a packet of frames or a received one with failure.",
		"The host did not understand the driver: report it with a capture."},
	HostBadPacket: {"host_bad_packet", packets, "A frame from the host was malformed, and was dropped.",
		"The host is broken or hostile: report it with a capture."},
	HostBadMessage: {"host_bad_message", events, "A message from the host that is not a frame was malformed or out of place, and was dropped.",
		"The host is broken or hostile: report it with a capture."},
	HostBadCompletion: {"host_bad_completion", events, "The host completed something that was not under way, and it was ignored.",
		"The host is broken or hostile: report it with a capture."},
	VFSwitches: {"vf_switches", events, "Frames were sent over the virtual function from then on, or no longer.",
		"Nothing if rare. If it grows all the time, the virtual function or its link comes and goes."},
	VFUndrained: {"vf_undrained", packets, "The host had yet to complete the frame when the next ones went over the virtual function, which may overtake it.",
		"The host was slow to complete what was sent: look at its load."},
}

var queueDefs = [numQueueIDs]Def{
	TxPackets:     {"tx_queue_%d_packets", packets, "Sent by the channel and confirmed by the host.", nothing},
	TxBytes:       {"tx_queue_%d_bytes", bytes, "Length of the frames sent by the channel and confirmed by the host.", nothing},
	TxXDPXmit:     {"tx_queue_%d_xdp_xmit", packets, "Sent by another interface's XDP program.", nothing},
	RxPackets:     {"rx_queue_%d_packets", packets, "Received on the channel.", nothing},
	RxBytes:       {"rx_queue_%d_bytes", bytes, "Length of the frames received on the channel.", nothing},
	RxXDPDrop:     {"rx_queue_%d_xdp_drop", packets, "Dropped by the XDP program.", "Look at the program if this is not meant."},
	RxXDPRedirect: {"rx_queue_%d_xdp_redirect", packets, "Redirected by the XDP program.", nothing},
	RxXDPTx:       {"rx_queue_%d_xdp_tx", packets, "Sent back by the XDP program.", nothing},

	TxBatches: {"tx_queue_%d_batches", events, "Ring packets with frames that were sent; frames in one share its cost.", nothing},
	RxBatches: {"rx_queue_%d_batches", events, "Batches of received frames that were handed on.", nothing},
	Wakeups: {"rx_queue_%d_wakeups", events, "Times that the channel was woken by the host.",
		"If there is nearly one for each frame under load, the machine is short of processors."},
	RxGRO: {"rx_queue_%d_gro", packets, "Received frames that went up behind another one of their flow, as a part of it (GRO).",
		"Nothing: the more of rx_queue_%d_packets, the less work for the stack."},
	QueueVFRxPackets: {"rx_queue_%d_vf_packets", packets, "Received over the virtual function, on its queue of the channel's number.", nothing},
	QueueVFRxBytes:   {"rx_queue_%d_vf_bytes", bytes, "Received over the virtual function, on its queue of the channel's number.", nothing},
	QueueVFTxPackets: {"tx_queue_%d_vf_packets", packets, "Sent over the virtual function, on its queue of the channel's number.", nothing},
	QueueVFTxBytes:   {"tx_queue_%d_vf_bytes", bytes, "Sent over the virtual function, on its queue of the channel's number.", nothing},
}

// The counters of a processor, shown behind those of the channels: the traffic of
// the channels that are bound to it, and of the queues of a virtual function with the
// numbers of those channels.
var cpuDefs = [...]Def{
	{"cpu%d_rx_packets", packets, "Received on channels of the processor.", nothing},
	{"cpu%d_rx_bytes", bytes, "Received on channels of the processor.", nothing},
	{"cpu%d_tx_packets", packets, "Sent on channels of the processor.", nothing},
	{"cpu%d_tx_bytes", bytes, "Sent on channels of the processor.", nothing},
	{"cpu%d_vf_rx_packets", packets, "Received over the virtual function on the processor.", nothing},
	{"cpu%d_vf_rx_bytes", bytes, "Received over the virtual function on the processor.", nothing},
	{"cpu%d_vf_tx_packets", packets, "Sent over the virtual function on the processor.", nothing},
	{"cpu%d_vf_tx_bytes", bytes, "Sent over the virtual function on the processor.", nothing},
}
