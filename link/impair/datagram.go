package impair

import (
	"encoding/binary"
	"time"
)

// A datagram is what the fragments of an IP datagram have in common (RFC 791 section
// 3.2, RFC 8200 section 4.5).
type datagram struct {
	addrs [32]byte // source and target; an IPv4 one leaves some 0
	id    uint32
	proto uint8 // of IPv4
	v6    bool
}

// progress is how far a datagram has come: the byte that the next fragment begins with,
// and when the one before it is released.
type progress struct {
	next int
	at   time.Duration
}

// datagrams keeps in mind those of which the fragments came in order so far. It forgets
// them from half to half, so that those that are never complete take no room for ever.
type datagrams struct {
	young, old map[datagram]progress
}

// maxDatagrams is how many are kept in mind, of the younger half.
const maxDatagrams = 1024

// follows reports whether a frame that is released at a time comes right behind the
// fragment before it. The first fragment of a datagram, and what is none, always does.
func (d *datagrams) follows(head []byte, at time.Duration) bool {
	key, from, length, more, ok := dissect(head)
	if !ok {
		return true
	}
	p, known := d.young[key]
	if !known {
		p, known = d.old[key]
	}
	if from > 0 && (!known || from != p.next || at < p.at) {
		return false
	}
	if !more {
		delete(d.young, key)
		delete(d.old, key)
		return true
	}
	if d.young == nil || len(d.young) == maxDatagrams {
		d.old, d.young = d.young, make(map[datagram]progress, maxDatagrams)
	}
	d.young[key] = progress{from + length, at}
	return true
}

// dissect returns which datagram a fragment is of, from which byte on, how long, and
// whether more come. ok is false for what is no fragment.
func dissect(head []byte) (key datagram, from, length int, more, ok bool) {
	if !isFragment(head) {
		return
	}
	ip := head[ethernet:]
	if binary.BigEndian.Uint16(head[12:]) == 0x8100 {
		ip = ip[4:]
	}
	if ip[0]>>4 == 4 {
		bits := binary.BigEndian.Uint16(ip[6:])
		key.id, key.proto = uint32(binary.BigEndian.Uint16(ip[4:])), ip[9]
		copy(key.addrs[:], ip[12:20])
		length = int(binary.BigEndian.Uint16(ip[2:])) - int(ip[0]&15)*4
		return key, int(bits&0x1fff) * 8, length, bits&0x2000 != 0, true
	}
	const header, fragment = 40, 8
	if len(ip) < header+fragment {
		return
	}
	bits := binary.BigEndian.Uint16(ip[header+2:])
	key.id, key.v6 = binary.BigEndian.Uint32(ip[header+4:]), true
	copy(key.addrs[:], ip[8:header])
	length = int(binary.BigEndian.Uint16(ip[4:])) - fragment
	return key, int(bits &^ 7), length, bits&1 != 0, true
}
