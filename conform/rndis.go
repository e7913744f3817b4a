package conform

import (
	"hvnet/rndis"
)

// A frame is a PACKET message: how the frame lies in it, and what was said about it.
type frame struct {
	Length, DataOffset, DataLen int
	Info                        []string
}

// A setting is QUERY or SET with its value decoded.
type setting struct {
	RequestID uint32
	OID       rndis.OID
	Value     any
}

// parseRNDIS parses an RNDIS message. The message of a type that has only a
// name is nil.
func parseRNDIS(t rndis.MessageType, b []byte) (m any, err error) {
	switch t {
	case rndis.TypePacket:
		return parseFrame(b)
	case rndis.TypeInitialize:
		return rndis.ParseInitialize(b)
	case rndis.TypeInitializeComplete:
		return rndis.ParseInitializeComplete(b)
	case rndis.TypeHalt:
		return rndis.ParseHalt(b)
	case rndis.TypeQuery:
		q, err := rndis.ParseQuery(b)
		return setting{q.RequestID, q.OID, oidValue(q.OID, q.Info, false)}, err
	case rndis.TypeQueryComplete:
		return rndis.ParseQueryComplete(b)
	case rndis.TypeSet:
		s, err := rndis.ParseSet(b)
		return setting{s.RequestID, s.OID, oidValue(s.OID, s.Info, true)}, err
	case rndis.TypeSetComplete:
		return rndis.ParseSetComplete(b)
	case rndis.TypeReset:
		return rndis.ParseReset(b)
	case rndis.TypeResetComplete:
		return rndis.ParseResetComplete(b)
	case rndis.TypeIndicateStatus:
		return rndis.ParseIndicateStatus(b)
	case rndis.TypeKeepalive:
		return rndis.ParseKeepalive(b)
	case rndis.TypeKeepaliveComplete:
		return rndis.ParseKeepaliveComplete(b)
	}
	return nil, nil
}

// parseFrame parses the head of a PACKET message. Of the frame nothing need be there.
func parseFrame(b []byte) (frame, error) {
	p, err := rndis.ParsePacket(b, 1<<31)
	if err != nil {
		return frame{}, err
	}
	f := frame{Length: p.Length, DataOffset: p.DataOffset, DataLen: p.DataLen}
	for rest := p.PPI; len(rest) > 0; {
		var ppi rndis.PPI
		if ppi, rest, err = rndis.NextPPI(rest); err != nil {
			return f, err
		}
		f.Info = append(f.Info, ppi.Type.String())
	}
	return f, nil
}

// oidValue decodes what is asked or set, as far as it has more to it than a number.
func oidValue(o rndis.OID, b []byte, set bool) any {
	switch {
	case o == rndis.OIDReceiveScaleParameters && set:
		if p, err := rndis.ParseRSSParameters(b); err == nil {
			return p
		}
	case o == rndis.OIDOffloadParameters && set:
		if p, err := rndis.ParseOffloadParameters(b); err == nil {
			return p
		}
	case o == rndis.OIDConfigParameter && set:
		if p, err := rndis.ParseConfigParameter(b); err == nil {
			return p
		}
	case len(b) >= 4:
		if h, err := rndis.ParseObjectHeader(b); err == nil && int(h.Size) == len(b) {
			return h
		}
	}
	if v, err := rndis.ParseUint32(b); err == nil && len(b) == 4 {
		return v
	}
	return b
}
