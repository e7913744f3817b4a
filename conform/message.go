package conform

import (
	"encoding/binary"

	"hvnet/vmbus"
)

// gpadlHeader is GPADL_HEADER as people want to see it: how much memory, not where.
type gpadlHeader struct {
	Relid, ID        uint32
	RangeLen, Ranges uint16
	Bytes            uint32 // of the first range
}

// gpadlBody is GPADL_BODY.
type gpadlBody struct{ ID uint32 }

// parseMessage parses a control message of a connection of version v. The message of a
// type that has only a name is nil.
func parseMessage(t vmbus.MessageType, b []byte, v vmbus.Version) (m any, err error) {
	switch t {
	case vmbus.TypeInitiateContact:
		return vmbus.ParseInitiateContact(b)
	case vmbus.TypeVersionResponse:
		return vmbus.ParseVersionResponse(b, v)
	case vmbus.TypeOffer:
		return vmbus.ParseOffer(b, v)
	case vmbus.TypeRescindOffer:
		return vmbus.ParseRescindOffer(b)
	case vmbus.TypeOpenChannel:
		return vmbus.ParseOpenChannel(b, 0)
	case vmbus.TypeOpenResult:
		return vmbus.ParseOpenResult(b)
	case vmbus.TypeCloseChannel:
		return vmbus.ParseCloseChannel(b)
	case vmbus.TypeGPADLHeader:
		h, err := vmbus.ParseGPADLHeader(b)
		g := gpadlHeader{Relid: h.Relid, ID: h.ID, RangeLen: h.RangeLen, Ranges: h.Ranges}
		if len(h.Data) >= 4 {
			g.Bytes = binary.LittleEndian.Uint32(h.Data)
		}
		return g, err
	case vmbus.TypeGPADLBody:
		g, err := vmbus.ParseGPADLBody(b)
		return gpadlBody{g.ID}, err
	case vmbus.TypeGPADLCreated:
		return vmbus.ParseGPADLCreated(b)
	case vmbus.TypeGPADLTeardown:
		return vmbus.ParseGPADLTeardown(b)
	case vmbus.TypeGPADLTorndown:
		return vmbus.ParseGPADLTorndown(b)
	case vmbus.TypeRelidReleased:
		return vmbus.ParseRelidReleased(b)
	case vmbus.TypeModifyChannel:
		return vmbus.ParseModifyChannel(b)
	case vmbus.TypeModifyChannelResponse:
		return vmbus.ParseModifyChannelResponse(b)
	case vmbus.TypeTLConnectRequest:
		return vmbus.ParseTLConnectRequest(b, v)
	case vmbus.TypeTLConnectResult:
		return vmbus.ParseTLConnectResult(b)
	case vmbus.TypeOpenReserved:
		return vmbus.ParseOpenReserved(b)
	case vmbus.TypeCloseReserved:
		return vmbus.ParseCloseReserved(b)
	case vmbus.TypeCloseReservedResponse:
		return vmbus.ParseCloseReservedResponse(b)
	case vmbus.TypeAllOffersDelivered:
		return vmbus.ParseAllOffersDelivered(b)
	}
	return nil, nil
}
