package rule

// Where most rules are written.
const (
	hyperv  = "Linux include/linux/hyperv.h, "
	channel = "Linux drivers/hv/channel.c, "
	mgmt    = "Linux drivers/hv/channel_mgmt.c, "
	attach  = "docs/attach.md, "
	here    = "this host's own bound; Windows hosts have one like it"
)

// The rules of the bus: the control messages.
var (
	MessageLayout = add("message-layout",
		"a message has the fields of its structure, and is long enough for them", hyperv+"struct vmbus_channel_message_header")
	ContactFirst = add("contact-first",
		"INITIATE_CONTACT comes first, and everything else after a VERSION_RESPONSE that supports the version", "Linux drivers/hv/connection.c, vmbus_connect")
	MessageVersion = add("message-version",
		"a message is sent only if the version of the connection has it", hyperv+"enum vmbus_channel_message_type and VERSION_…")
	MessageDirection = add("message-direction",
		"a guest sends the messages of guests only", hyperv+"enum vmbus_channel_message_type")
	ConnectionEnds = add("connection-ends",
		"between UNLOAD or a new INITIATE_CONTACT and its answer a guest sends nothing", mgmt+"vmbus_initiate_unload")
	ContactVTL = add("contact-vtl",
		"INITIATE_CONTACT asks for virtual trust level 0", hyperv+"struct vmbus_channel_initiate_contact, msg_vtl")
	OffersOnce = add("offers-once",
		"REQUESTOFFERS is sent once in a connection", mgmt+"vmbus_request_offers")
	RelidLimit = add("relid-limit",
		"relids that were rescinded are given back, for there are 2047", hyperv+"MAX_CHANNEL_RELIDS")
	RelidOffered = add("relid-offered",
		"a message names a channel by the relid of an offer that it has not given back", hyperv+"struct vmbus_channel_offer_channel, child_relid")
	ChannelState = add("channel-state",
		"a channel is opened when it is closed, closed when it is open, and given back when it is closed", channel+"__vmbus_open and vmbus_disconnect_ring")

	GPADLID = add("gpadl-id",
		"an id stands for one GPADL at a time", hyperv+"struct vmbus_channel_gpadl_header, gpadl")
	GPADLLimit = add("gpadl-limit",
		"a guest has at most 4096 GPADLs of 1280 MiB in all, 64 of them incomplete", here)
	GPADLList = add("gpadl-list",
		"range_buflen is the length of all ranges, each of which is not empty, begins in its first page and lists the pages that it touches",
		hyperv+"struct vmbus_channel_gpadl_header and struct gpa_range")
	GPADLMemory = add("gpadl-memory",
		"the pages of a GPADL are page frame numbers of memory that the guest has", attach+"Guest memory")
	GPADLBody = add("gpadl-body",
		"GPADL_BODY goes on with a GPADL whose list is not complete", hyperv+"struct vmbus_channel_gpadl_body")
	GPADLTeardown = add("gpadl-teardown",
		"GPADL_TEARDOWN names, once, a complete GPADL of the channel", hyperv+"struct vmbus_channel_gpadl_teardown")
	GPADLInUse = add("gpadl-in-use",
		"the GPADL of the rings is torn down after CLOSECHANNEL", channel+"vmbus_disconnect_ring")

	OpenRings = add("open-rings",
		"OPENCHANNEL names a complete GPADL of the channel, one range of whole pages, that holds both rings",
		hyperv+"struct vmbus_channel_open_channel, ringbuffer_gpadlhandle")
	OpenOffset = add("open-offset",
		"the offset of the downstream ring counts pages, and each of the two rings has a header page and at least one page of data",
		hyperv+"struct vmbus_channel_open_channel, downstream_ringbuffer_pageoffset")
	TargetVP = add("target-vp",
		"the processor to interrupt is one that the guest has; OPENCHANNEL may say 0xffffffff for none", hyperv+"struct vmbus_channel_open_channel, target_vp")
	OpenPrimary = add("open-primary",
		"sub-channels are opened while the primary channel is open", "Linux drivers/net/hyperv/netvsc.c, netvsc_sc_open")
	Ring = add("ring",
		"indices are multiples of 8 inside the data area, move forward only, and never over what the other end has not released; packets lie between them",
		hyperv+"struct hv_ring_buffer and struct vmpacket_descriptor")
)
