package offload

import (
	"bytes"
	"slices"

	"hvnet/nic"
)

// A Coalescer puts the segments of a flow that follow each other in a batch together
// to one frame, which a Segmenter cuts into the same segments again: generic receive
// offload (GRO). It belongs to one goroutine and refers to memory of the last batch.
//
// What goes together is what Linux puts together (tcp_gro_receive, udp_gro_receive):
// whole TCP segments with payload and whole UDP datagrams, right checksums, that have
// all in common but lengths, checksum, sequence number, and an IPv4 identification
// that counts up, or stays if fragments are forbidden. All are of the first one's
// size but for the last one, which may be shorter. FIN and PSH are the end of it, CWR
// is only in the first one, SYN, RST and URG in none.
//
// Unlike Linux, it leaves alone what is shorter than nic.HeadLen.
type Coalescer struct {
	runs  []run
	links []link // by frame of the batch
	open  [runSets]runSet
	body  [][]byte // of the frames that were made
}

// A run is frames that go together.
type run struct {
	l           Layout // of the first one
	hosts       uint64 // hash of the addresses
	first, last int    // frames of the batch
	count       int    // of segments
	size        int    // payload of each, but for the last
	payload     int    // of all
	pieces      int    // of the body
	flags       byte   // FIN and PSH of the last
	id          uint16 // identification of the first one,
	fixed       bool   // which stays
}

// A link is how a frame of the batch goes on.
type link struct {
	next   int  // frame of the same run; 0: none, for the first frame follows no other
	behind bool // it follows another one
}

// Linux keeps eight lists of up to eight frames that wait for their next one.
const (
	runSets = 8
	runWays = 8
)

// A runSet is the runs that may go on, of some of the flows: index in runs and one.
type runSet struct {
	flow [runWays]uint64
	run  [runWays]int
	turn int // whose place the next one takes
}

const (
	// maxPacket is the length of the longest IP packet that is made, header included.
	maxPacket = 65535
	// maxRun is how many pieces the body of a frame has at most: fewer than one system
	// call takes.
	maxRun = 1000
	// maxDatagrams is how many datagrams go together (UDP_GRO_CNT_MAX of Linux).
	maxDatagrams = 64
)

// Coalesce puts together what it can of a batch, for somebody who takes frames to be
// cut of the kinds in takes. It returns the batch, now shorter, in the same memory.
// Each frame that it makes is in the place of its first segment, whose head it has and
// changes; all that is between two packets of a flow stays between them, whatever it
// is. The state of a checksum that was not known may be afterwards.
//
// places may have for each frame the memory that ends with its payload, in one piece.
// Bodies are made of that if it is not nil, else of the pieces that the frame has, which
// are more.
func (c *Coalescer) Coalesce(frames []nic.Frame, places [][]byte, takes nic.Offloads) []nic.Frame {
	takes &= nic.TakesTCPv4 | nic.TakesTCPv6 | nic.TakesUDP
	if len(frames) < 2 || takes == 0 {
		return frames
	}
	c.begin(len(frames))
	joined := false
	for i := range frames {
		if c.add(frames, i, takes) {
			joined = true
		}
	}
	if !joined {
		return frames
	}
	for i := range c.runs {
		if r := &c.runs[i]; r.count > 1 {
			c.join(frames, places, r)
		}
	}
	out := frames[:0]
	for i := range frames {
		if !c.links[i].behind {
			out = append(out, frames[i])
		}
	}
	return out
}

// begin starts a batch of n frames.
func (c *Coalescer) begin(n int) {
	c.runs, c.body = c.runs[:0], c.body[:0]
	if cap(c.links) < n {
		c.links = make([]link, n)
	}
	c.links = c.links[:n]
	clear(c.links)
	for i := range c.open {
		c.open[i].run = [runWays]int{}
	}
}

// add looks at a frame, and reports whether it goes behind another one.
func (c *Coalescer) add(frames []nic.Frame, i int, takes nic.Offloads) bool {
	f := &frames[i]
	n := f.Len()
	l, ok := Parse(f.Head, n)
	if !ok {
		c.stop(f.Head)
		return false
	}
	hosts, flow := l.flow(f.Head)
	set, way := c.find(flow)
	if way >= 0 {
		r := &c.runs[set.run[way]-1]
		if l.whole(f, n) && r.goesOn(&frames[r.first], f, &l) && l.right(f) {
			c.links[r.last].next, c.links[i].behind = i, true
			r.add(f, &l, i)
			if r.ends(&l, f) {
				set.run[way] = 0
			}
			return true
		}
		set.run[way] = 0
	}
	if needs := (nic.Offload{Checksum: nic.ChecksumPartial, Segment: l.Segment()}).Needs(); takes&needs == 0 ||
		!l.whole(f, n) || !l.begins(f) || !l.right(f) {
		return false
	}
	r := run{l: l, hosts: hosts, first: i, size: l.End - l.Payload}
	r.add(f, &l, i)
	c.runs = append(c.runs, r)
	set.put(flow, len(c.runs))
	return false
}

// find returns where the run of a flow is that may go on; way is -1 if there is none.
func (c *Coalescer) find(flow uint64) (set *runSet, way int) {
	set = &c.open[flow%runSets]
	for i, r := range &set.run {
		if r != 0 && set.flow[i] == flow {
			return set, i
		}
	}
	return set, -1
}

// put keeps a run, in the place of the oldest one if there is no other.
func (s *runSet) put(flow uint64, run int) {
	at := slices.Index(s.run[:], 0)
	if at < 0 {
		at = s.turn
		s.turn = (s.turn + 1) % runWays
	}
	s.flow[at], s.run[at] = flow, run
}

// stop lets no run between two hosts go on, because of a packet between them, which
// head begins, of which nobody knows to which flow it belongs: a fragment, or another
// protocol.
func (c *Coalescer) stop(head []byte) {
	at, ipv6 := NetworkHeader(head)
	if at == 0 {
		return
	}
	l := Layout{IP: at, IPv6: ipv6}
	hosts := l.hosts(head)
	for i := range c.open {
		s := &c.open[i]
		for j, r := range &s.run {
			if r != 0 && c.runs[r-1].hosts == hosts {
				s.run[j] = 0
			}
		}
	}
}

// hosts returns a hash of a packet's addresses.
func (l *Layout) hosts(head []byte) uint64 {
	const k0, k1 = 0x243f6a8885a308d3, 0x13198a2e03707345 // digits of pi
	if !l.IPv6 {
		return mix(le.Uint64(head[l.IP+12:])^k0, k1)
	}
	a := head[l.IP+8 : l.IP+40]
	return mix(le.Uint64(a)^k0, le.Uint64(a[8:])^k1) ^ mix(le.Uint64(a[16:])^k1, le.Uint64(a[24:])^k0)
}

// flow returns hosts, and a hash of the flow. Flows that share one have but fewer
// frames put together.
func (l *Layout) flow(head []byte) (hosts, flow uint64) {
	const k = 0xa4093822299f31d1
	hosts = l.hosts(head)
	ports := uint64(le.Uint32(head[l.Transport:]))
	return hosts, mix(hosts^k, ports<<8|uint64(l.Protocol)|1<<63)
}

// dontFragment is all that may be set in the field of the fragment's offset.
const dontFragment = 0x4000

// whole reports whether a frame of n bytes may be part of a longer one at all: it has
// payload and a checksum, and nothing that would get lost.
func (l *Layout) whole(f *nic.Frame, n int) bool {
	if f.Offload.Segment != nic.SegmentNone || l.End != n || l.Payload == l.End || l.Payload > nic.HeadLen {
		return false
	}
	if l.UDP() && be.Uint16(f.Head[l.Transport+udpField:]) == 0 {
		return false // cut again it would have one
	}
	if l.IPv6 {
		return true
	}
	ip := f.Head[l.IP:]
	return ip[0] == 0x45 && be.Uint16(ip[6:])&^dontFragment == 0 && VerifyIPv4(ip)
}

// right reports whether the checksum is, and looks if nobody knows.
func (l *Layout) right(f *nic.Frame) bool {
	if f.Offload.Checksum == nic.ChecksumUnknown {
		f.Offload.Checksum = l.Verify(f)
	}
	return f.Offload.Checksum == nic.ChecksumOK
}

const (
	tcpSYN = 0x02
	tcpRST = 0x04
	tcpURG = 0x20
	// tcpEnds are the flags behind which nothing goes.
	tcpEnds = tcpFIN | tcpSYN | tcpRST | tcpPSH | tcpURG
)

// begins reports whether others may go behind a frame. Its first bytes are all that the
// frame needs that they make together.
func (l *Layout) begins(f *nic.Frame) bool {
	return len(f.Head) >= nic.HeadLen && l.End-l.Payload >= MinSegment &&
		(l.UDP() || f.Head[l.Transport+13]&tcpEnds == 0)
}

// goesOn reports whether a frame goes on where a run ends, of which first is the first
// frame.
func (r *run) goesOn(first, f *nic.Frame, l *Layout) bool {
	n := l.End - l.Payload
	same := *l
	same.End = r.l.End
	if same != r.l || n > r.size || l.Payload-l.IP+r.payload+n > maxPacket || r.pieces+1+len(f.Body) > maxRun {
		return false
	}
	a, b := first.Head, f.Head
	if !bytes.Equal(a[:l.IP], b[:l.IP]) { // addresses and tag
		return false
	}
	if l.IPv6 {
		const length = 4
		ia, ib := a[l.IP:l.Transport], b[l.IP:l.Transport]
		if le.Uint32(ia) != le.Uint32(ib) || !bytes.Equal(ia[length+2:], ib[length+2:]) {
			return false
		}
	} else if !r.goesOnIPv4(a[l.IP:], b[l.IP:]) {
		return false
	}
	ta, tb := a[l.Transport:l.Payload], b[l.Transport:l.Payload]
	if le.Uint32(ta) != le.Uint32(tb) { // ports
		return false
	}
	return l.UDP() || be.Uint32(tb[4:]) == be.Uint32(ta[4:])+uint32(r.payload) && sameTCP(ta, tb)
}

// goesOnIPv4 is the part of goesOn about two IPv4 headers without options. The second
// frame of a run decides whether the identification counts up.
func (r *run) goesOnIPv4(a, b []byte) bool {
	if le.Uint16(a) != le.Uint16(b) || le.Uint32(a[6:]) != le.Uint32(b[6:]) || // TOS; DF, TTL, protocol
		le.Uint64(a[12:]) != le.Uint64(b[12:]) {
		return false
	}
	moved := int(be.Uint16(b[4:]) - r.id)
	if moved == 0 && be.Uint16(a[6:]) == dontFragment {
		return r.fixed || r.count == 1
	}
	return !r.fixed && moved == r.count
}

// sameTCP reports whether two TCP headers differ in nothing but sequence number,
// checksum, and flags that may: window, options and the rest are the same.
func sameTCP(a, b []byte) bool {
	const flags = 13
	return le.Uint32(a[8:]) == le.Uint32(b[8:]) && a[12] == b[12] && // acknowledgement; length
		(a[flags]^b[flags])&^(tcpFIN|tcpPSH|tcpCWR) == 0 && b[flags]&tcpCWR == 0 &&
		le.Uint16(a[14:]) == le.Uint16(b[14:]) && // window
		bytes.Equal(a[18:], b[18:]) // urgent pointer, options
}

// add puts a frame of the batch behind the others.
func (r *run) add(f *nic.Frame, l *Layout, i int) {
	switch {
	case l.IPv6:
	case r.count == 0:
		r.id = be.Uint16(f.Head[l.IP+4:])
	case r.count == 1:
		r.fixed = r.id == be.Uint16(f.Head[l.IP+4:])
	}
	r.last, r.count = i, r.count+1
	r.payload += l.End - l.Payload
	r.pieces += 1 + len(f.Body)
	if l.TCP() {
		r.flags = f.Head[l.Transport+13] & (tcpFIN | tcpPSH)
	}
}

// ends reports whether nothing may go behind a frame that was added.
func (r *run) ends(l *Layout, f *nic.Frame) bool {
	return l.End-l.Payload < r.size || r.flags != 0 || l.UDP() && r.count == maxDatagrams
}

// join makes one frame of a run, out of its first frame.
func (c *Coalescer) join(frames []nic.Frame, places [][]byte, r *run) {
	f, at := &frames[r.first], len(c.body)
	c.body = append(c.body, f.Body...)
	for i := c.links[r.first].next; i != 0; i = c.links[i].next {
		piece := &frames[i]
		if i < len(places) && places[i] != nil {
			place := places[i]
			c.body = append(c.body, place[len(place)-(piece.Len()-r.l.Payload):])
			continue
		}
		if rest := piece.Head[r.l.Payload:]; len(rest) > 0 {
			c.body = append(c.body, rest)
		}
		c.body = append(c.body, piece.Body...)
	}
	f.Body = c.body[at:len(c.body):len(c.body)]

	l := r.l
	l.End = l.Payload + r.payload
	ip, transport := f.Head[l.IP:], f.Head[l.Transport:]
	if l.IPv6 {
		be.PutUint16(ip[4:], uint16(l.End-l.IP-40))
	} else {
		be.PutUint16(ip[2:], uint16(l.End-l.IP))
		SumIPv4(ip)
	}
	if l.UDP() {
		be.PutUint16(transport[4:], uint16(l.End-l.Transport))
	} else {
		transport[13] |= r.flags
	}
	f.Offload.Segment, f.Offload.Size, f.Offload.FixedID = l.Segment(), uint16(r.size), r.fixed
	l.Partial(f)
}
