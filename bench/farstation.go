package bench

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"hvnet/nic"
)

// A farStation puts datagrams together, in whatever order their fragments come, and looks
// in which order the datagrams of a flow do.
type farStation struct {
	mac    nic.MAC
	frames atomic.Uint64 // that came, in all

	mu    sync.Mutex
	parts map[datagramID]*partly
	next  [fragmentFlows]uint32 // the number after the largest so far
	came  int
	late  int
}

type datagramID struct {
	pair [32]byte
	id   uint32
}

// partly is a datagram of which fragments are missing.
type partly struct {
	flow, number uint32
	bytes, total int // so far, and in all; 0 if that is not known
}

// begin forgets what has come.
func (f *farStation) begin() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.parts, f.next, f.came, f.late = map[datagramID]*partly{}, [fragmentFlows]uint32{}, 0, 0
}

// end returns how many datagrams have come, and how many of them late.
func (f *farStation) end() (came, late int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.came, f.late
}

// WriteFrames takes frames from the switch.
func (f *farStation) WriteFrames(frames []nic.Frame) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range frames {
		f.take(frames[i].Head)
	}
	f.frames.Add(uint64(len(frames)))
}

// take takes a frame by its first bytes, which hold all headers. The frames are ours.
func (f *farStation) take(b []byte) {
	be := binary.BigEndian
	var key datagramID
	var from, n int
	var more, whole bool
	ip, data := b[nic.HeaderLen:], b[nic.HeaderLen+20:]
	if ip[0]>>4 == 4 {
		bits := be.Uint16(ip[6:])
		key.id = uint32(be.Uint16(ip[4:]))
		copy(key.pair[:], ip[12:20])
		from, n, more = int(bits&0x1fff)*8, int(be.Uint16(ip[2:]))-20, bits&0x2000 != 0
		whole = bits&0x3fff == 0
	} else {
		copy(key.pair[:], ip[8:40])
		n, data, whole = int(be.Uint16(ip[4:])), ip[40:], true
		if ip[6] == 44 {
			bits := be.Uint16(ip[42:])
			key.id, from, more = be.Uint32(ip[44:]), int(bits&^7), bits&1 != 0
			n, data, whole = n-8, ip[48:], false
		}
	}
	p := f.parts[key]
	if p == nil {
		p = &partly{}
	}
	if from == 0 {
		p.flow, p.number = be.Uint32(data[8:]), be.Uint32(data[12:])
	}
	if p.bytes += n; !more {
		p.total = from + n
	}
	if p.bytes != p.total {
		f.parts[key] = p
		return
	}
	if !whole {
		delete(f.parts, key)
	}
	f.came++
	if p.number < f.next[p.flow] {
		f.late++
		return
	}
	f.next[p.flow] = p.number + 1
}
