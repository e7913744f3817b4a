package offload

import "hvnet/nic"

// Tag returns the control information of the 802.1Q tag of a frame: priority in the top
// three bits, then drop eligible, then the VLAN id in 12 bits. damaged says that the frame ends in its
// tag. Tags of providers (802.1ad) are none here, and of two tags the first is meant.
func Tag(head []byte) (tci uint16, tagged, damaged bool) {
	if len(head) < nic.HeaderLen || be.Uint16(head[12:]) != etherVLAN {
		return 0, false, false
	}
	if len(head) < nic.HeaderLen+nic.TagLen {
		return 0, false, true
	}
	return be.Uint16(head[14:]), true, false
}

// PutTag writes an 802.1Q tag to b, where it belongs: behind the addresses.
func PutTag(b []byte, tci uint16) {
	be.PutUint16(b, etherVLAN)
	be.PutUint16(b[2:], tci)
}

// Retag makes out the frame f with another tag, or with one, or without. Of the bytes of f only
// the first are copied, to room, which has nic.HeadLen + nic.TagLen bytes; the rest stay where
// they are, in slices that are appended to body if f's own do not serve. It returns body; out refers to
// f's memory, room and body. f is not damaged (see [Tag]) and stays as it is.
func Retag(out, f *nic.Frame, tci uint16, tagged bool, room []byte, body [][]byte) [][]byte {
	const addresses = 12
	*out = *f
	rest, moved := f.Head[addresses:], 0
	if _, had, _ := Tag(f.Head); had {
		rest, moved = rest[nic.TagLen:], -nic.TagLen
	}
	n := copy(room, f.Head[:addresses])
	if tagged {
		PutTag(room[n:], tci)
		n, moved = n+nic.TagLen, moved+nic.TagLen
	}
	k := copy(room[n:], rest)
	n, rest = n+k, rest[k:]
	if f.Offload.Checksum == nic.ChecksumPartial {
		out.Offload.Start = uint16(int(f.Offload.Start) + moved)
	}
	if len(rest) > 0 || n < nic.HeadLen && len(f.Body) > 0 {
		at := len(body)
		if len(rest) > 0 {
			body = append(body, rest)
		}
		for _, b := range f.Body {
			if n < nic.HeadLen { // a head holds as much at least
				k := copy(room[n:nic.HeadLen], b)
				n, b = n+k, b[k:]
			}
			if len(b) > 0 {
				body = append(body, b)
			}
		}
		out.Body = body[at:len(body):len(body)]
	}
	out.Head = room[:n:n]
	return body
}
