package conform

import "hvnet/nvsp"

// parseNVSP parses an NVSP message of a side in version v. The message of a type that
// has only a name is nil.
func parseNVSP(t nvsp.MessageType, b []byte, from Side, v nvsp.Version) (m any, err error) {
	switch t {
	case nvsp.TypeInit:
		return nvsp.ParseInit(b)
	case nvsp.TypeInitComplete:
		return nvsp.ParseInitComplete(b)
	case nvsp.TypeNDISVersion:
		return nvsp.ParseNDISVersion(b)
	case nvsp.TypeNDISConfig:
		return nvsp.ParseNDISConfig(b)
	case nvsp.TypeSendReceiveBuffer:
		return nvsp.ParseSendReceiveBuffer(b)
	case nvsp.TypeSendReceiveBufferComplete:
		return nvsp.ParseSendReceiveBufferComplete(b)
	case nvsp.TypeRevokeReceiveBuffer:
		return nvsp.ParseRevokeReceiveBuffer(b)
	case nvsp.TypeSendSendBuffer:
		return nvsp.ParseSendSendBuffer(b)
	case nvsp.TypeSendSendBufferComplete:
		return nvsp.ParseSendSendBufferComplete(b)
	case nvsp.TypeRevokeSendBuffer:
		return nvsp.ParseRevokeSendBuffer(b)
	case nvsp.TypeRNDISPacket:
		return nvsp.ParseRNDISPacket(b)
	case nvsp.TypeRNDISPacketComplete:
		return nvsp.ParseRNDISPacketComplete(b)
	case nvsp.TypeVFAssociation:
		return nvsp.ParseVFAssociation(b)
	case nvsp.TypeSwitchDataPath:
		return nvsp.ParseSwitchDataPath(b)
	case nvsp.TypeOIDQueryEx:
		return nvsp.ParseOIDQueryEx(b)
	case nvsp.TypeOIDQueryExComplete:
		return nvsp.ParseOIDQueryExComplete(b)
	case nvsp.TypeSubChannel:
		if from == Host {
			return nvsp.ParseSubChannelComplete(b)
		}
		return nvsp.ParseSubChannelRequest(b)
	case nvsp.TypeIndirectionTable:
		return nvsp.ParseIndirectionTable(b, v)
	}
	return nil, nil
}
