package packets

import (
	"bytes"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// Cut returns what a TCP or UDP packet is on a wire when it is cut into segments of
// size bytes of payload: the same headers each time with length, identification and
// sequence number of their own, FIN and PSH in the last one only, CWR in the first.
// A packet that is one segment is returned as it is, with right checksums.
func Cut(b []byte, size int) (list [][]byte) {
	ip, l4, proto, _ := Parts(b)
	udp, payload := proto == header.UDPProtocolNumber, Payload(b)
	for at := payload; at == payload || at < len(b); at += size {
		end := min(at+size, len(b))
		p := append(bytes.Clone(b[:payload]), b[at:end]...)
		if p[ip]>>4 == 4 {
			be.PutUint16(p[ip+2:], uint16(len(p)-ip))
			be.PutUint16(p[ip+4:], be.Uint16(p[ip+4:])+uint16(len(list)))
		} else {
			be.PutUint16(p[ip+4:], uint16(len(p)-ip-40))
		}
		if udp {
			be.PutUint16(p[l4+4:], uint16(len(p)-l4))
		} else {
			be.PutUint32(p[l4+4:], be.Uint32(p[l4+4:])+uint32(at-payload))
			if at > payload {
				p[l4+13] &^= 0x80
			}
			if end < len(b) {
				p[l4+13] &^= 0x09
			}
		}
		Correct(p)
		list = append(list, p)
	}
	return list
}

// Payload returns where the payload of a TCP or UDP packet begins.
func Payload(b []byte) int {
	_, l4, proto, _ := Parts(b)
	if proto == header.UDPProtocolNumber {
		return l4 + 8
	}
	return l4 + int(b[l4+12]>>4)*4
}

// Right reports whether all checksums of a packet are right, by gVisor's code.
func Right(b []byte) bool {
	c := bytes.Clone(b)
	Correct(c)
	return bytes.Equal(b, c)
}
