package offload

// Fragment reports whether a frame is a fragment of an IP packet, the first or another
// one, by its first bytes. An 802.1Q tag in front is skipped; of an IPv6 packet only
// the first extension header is looked at.
func Fragment(head []byte) bool {
	const header, tag, v6Fragment = 14, 4, 44
	if len(head) < header {
		return false
	}
	etherType, ip := be.Uint16(head[12:]), head[header:]
	if etherType == etherVLAN && len(ip) >= tag {
		etherType, ip = be.Uint16(ip[2:]), ip[tag:]
	}
	switch etherType {
	case etherIPv4:
		return len(ip) >= 20 && be.Uint16(ip[6:])&0x3fff != 0 // more fragments, or an offset
	case etherIPv6:
		return len(ip) >= 40 && ip[6] == v6Fragment
	}
	return false
}
