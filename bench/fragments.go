package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"hvnet/guest"
	"hvnet/host"
	"hvnet/hv"
	"hvnet/netvsp/profile"
	"hvnet/nic"
	"hvnet/vswitch"
)

// A FragmentWay is a way to choose the channels of UDP datagrams.
type FragmentWay struct {
	Name  string
	Level nic.HashKind
	Cure  bool
}

// FragmentWays are those that [UDPFragments] compares.
var FragmentWays = []FragmentWay{
	{"by ports", nic.HashL4, false},
	{"by addresses", nic.HashL3, false},
	{"by ports, cured", nic.HashL4, true},
}

// A FragmentRow is what became of datagrams of one size.
type FragmentRow struct {
	Bytes     int    `json:"bytes"`     // of payload of a datagram, 0 if every other one is short
	Fragments int    `json:"fragments"` // of one, over IPv4
	Datagrams int    `json:"datagrams"` // that were sent each way
	Lost      [3]int `json:"lost"`      // by way
	Late      [3]int `json:"late"`      // and those that a later one of their flow has overtaken
}

// A FragmentReport is what UDPFragments has found.
type FragmentReport struct {
	Host     string        `json:"host"` // release
	Line     string        `json:"line"` // how it disturbs what guests send
	Channels int           `json:"channels"`
	Flows    int           `json:"flows"`
	Pairs    int           `json:"pairs"` // of addresses, IPv4 and IPv6 by turns
	Ways     []string      `json:"ways"`
	Rows     []FragmentRow `json:"rows"`
}

// The traffic of UDPFragments.
const (
	fragmentFlows    = 64
	fragmentPairs    = 16
	fragmentChannels = 8
	fragmentMTU      = 1500

	// short is the payload of datagrams that stay whole, of a row of mixed sizes, and
	// long that of the others.
	short, long = 200, 4000
)

// fragmentSizes are the sizes of datagrams, 0 for mixed ones.
var fragmentSizes = []int{200, 1400, 2000, 4000, 8000, 16000, 60000, 0}

// payloadOf returns the payload of a flow's datagrams by number.
func payloadOf(size, number int) int {
	switch {
	case size > 0:
		return size
	case number%2 == 0:
		return long
	}
	return short
}

// UDPFragments sends datagrams of several sizes from a guest to a far station, over a host
// that loses fragments that come out of order, and counts what comes how: each flow sends
// as many datagrams of a size as are asked for. It runs in the process and needs no rights;
// the chances are those of the seed.
func UDPFragments(ctx context.Context, each int, seed uint64) (_ *FragmentReport, err error) {
	prof, err := profile.Lookup("azure")
	if err != nil {
		return nil, err
	}
	h := host.New(host.Config{Profile: prof})
	defer func() { err = errors.Join(err, h.Close(context.WithoutCancel(ctx))) }()
	line, err := h.FragmentFault(seed)
	if err != nil {
		return nil, err
	}
	far := &farStation{mac: nic.MAC{0x00, 0x15, 0x5d, 0, 0, 2}}
	port, err := h.Switch().Connect("far", far, vswitch.PortOptions{MAC: far.mac})
	if err != nil {
		return nil, err
	}
	defer port.Close()
	part, end, err := hv.Pipe(fragmentChannels)
	if err != nil {
		return nil, err
	}
	go h.Serve(end, host.PortConfig{Name: "guest1"})
	g, err := guest.Start(ctx, part, guest.Config{Queues: fragmentChannels})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, g.Close(context.WithoutCancel(ctx))) }()
	if err := g.NIC.Up(ctx, nowhere{}); err != nil {
		return nil, err
	}
	r := &FragmentReport{Host: prof.Release, Line: line.String(), Channels: g.NIC.Channels().Combined, Flows: fragmentFlows, Pairs: fragmentPairs}
	s := &datagramSender{h: h, g: g, far: far}
	for _, size := range fragmentSizes {
		cuts := cutUDP(payloadOf(size, 0), false)
		r.Rows = append(r.Rows, FragmentRow{Bytes: size, Fragments: len(cuts), Datagrams: each * fragmentFlows})
	}
	for w, way := range FragmentWays {
		r.Ways = append(r.Ways, way.Name)
		for _, f := range []nic.Flow{nic.FlowUDPv4, nic.FlowUDPv6} {
			if err := g.NIC.SetHashLevel(ctx, f, way.Level); err != nil {
				return nil, err
			}
		}
		if err := g.NIC.SetFragmentCure(ctx, way.Cure); err != nil {
			return nil, err
		}
		for i := range r.Rows {
			row := &r.Rows[i]
			came, late, err := s.run(ctx, byte(i), row.Bytes, each)
			if err != nil {
				return nil, fmt.Errorf("datagrams of %d bytes %s: %w", row.Bytes, way.Name, err)
			}
			row.Lost[w], row.Late[w] = row.Datagrams-came, late
		}
	}
	return r, nil
}

// nowhere drops what the guest receives.
type nowhere struct{}

func (nowhere) WriteFrames([]nic.Frame) {}

// A datagramSender sends datagrams from a guest, and waits for what becomes of them.
type datagramSender struct {
	h    *host.Host
	g    *guest.Guest
	far  *farStation
	sent uint64 // frames, in all
	id   uint32 // of the last datagram
	buf  [1 << 16]byte
}

// fragmentPatience bounds each wait, for what takes milliseconds.
const fragmentPatience = 30 * time.Second

// maxWaiting is how many frames may be on the line, far from what it can hold.
const maxWaiting = 2048

// run has each flow send datagrams, of pairs of addresses in network n, and returns how
// many came, and how many of them late.
func (s *datagramSender) run(ctx context.Context, n byte, size, each int) (came, late int, err error) {
	s.far.begin()
	for first := 0; first < each; first += 2 {
		for flow := range fragmentFlows {
			// Two at once: of mixed sizes the short one has the chance to be faster.
			for i := first; i < min(first+2, each); i++ {
				s.id++
				if err := s.send(ctx, n, flow, i, payloadOf(size, i)); err != nil {
					return 0, 0, err
				}
			}
		}
		if err := s.settle(ctx, maxWaiting); err != nil {
			return 0, 0, err
		}
	}
	if err := s.settle(ctx, 0); err != nil {
		return 0, 0, err
	}
	came, late = s.far.end()
	return came, late, nil
}

// settle waits until no more frames are on their way to the far station.
func (s *datagramSender) settle(ctx context.Context, most uint64) error {
	ctx, cancel := context.WithTimeout(ctx, fragmentPatience)
	defer cancel()
	t := time.NewTicker(100 * time.Microsecond)
	defer t.Stop()
	for {
		for _, p := range s.h.Ports() {
			for _, l := range p.Line {
				if l.Overflowed > 0 {
					return fmt.Errorf("%d frames were too many for the line", l.Overflowed)
				}
				if l.Lost+s.far.frames.Load()+most >= s.sent {
					return nil
				}
			}
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for frames to arrive: %w", ctx.Err())
		}
	}
}

// pairOf returns source and target of a flow: pairs of IPv4 and IPv6 by turns.
func pairOf(n byte, flow int) (src, dst netip.Addr) {
	pair := byte(flow % fragmentPairs)
	if pair%2 == 0 {
		return netip.AddrFrom4([4]byte{198, 18, n, 1}), netip.AddrFrom4([4]byte{198, 19, n, pair})
	}
	a := [16]byte{0: 0xfd, 1: 0xc6, 2: 0x12, 13: n}
	b := a
	a[15], b[14], b[15] = 1, 1, pair
	return netip.AddrFrom16(a), netip.AddrFrom16(b)
}

// send sends one datagram, in fragments if it has to be.
func (s *datagramSender) send(ctx context.Context, n byte, flow, number, payload int) error {
	src, dst := pairOf(n, flow)
	udp := s.buf[:8+payload]
	be := binary.BigEndian
	be.PutUint16(udp, uint16(1024+flow))
	be.PutUint16(udp[2:], 9)
	be.PutUint16(udp[4:], uint16(len(udp)))
	be.PutUint32(udp[8:], uint32(flow))
	be.PutUint32(udp[12:], uint32(number))
	var frames []nic.Frame
	for _, c := range cutUDP(payload, src.Is6()) {
		b := append(append(s.far.mac[:len(s.far.mac):len(s.far.mac)], s.mac()...), packetHead(src, dst, s.id, c)...)
		frames = append(frames, nic.Frame{Head: append(b, udp[c.from:c.from+c.n]...)})
	}
	ctx, cancel := context.WithTimeout(ctx, fragmentPatience)
	defer cancel()
	for left := frames; len(left) > 0; {
		k := s.g.NIC.Send(0, left)
		if left = left[k:]; k > 0 {
			continue
		}
		select { // the host is behind
		case <-time.After(50 * time.Microsecond):
		case <-ctx.Done():
			return fmt.Errorf("wait for the host to take frames: %w", ctx.Err())
		}
	}
	s.sent += uint64(len(frames))
	return nil
}

func (s *datagramSender) mac() []byte {
	m := s.g.NIC.MAC()
	return m[:]
}

// A cut is what a fragment has of a datagram; whole is one that has all.
type cut struct {
	from, n     int
	more, whole bool
}

// cutUDP cuts a datagram for the MTU.
func cutUDP(payload int, v6 bool) (cuts []cut) {
	n, head := 8+payload, 20
	if v6 {
		head = 40
	}
	if head+n <= fragmentMTU {
		return []cut{{0, n, false, true}}
	}
	if v6 {
		head += 8
	}
	most := (fragmentMTU - head) &^ 7
	for at := 0; at < n; at += most {
		k := min(most, n-at)
		cuts = append(cuts, cut{at, k, at+k < n, false})
	}
	return cuts
}

// packetHead returns type of frame and IP header of a packet.
func packetHead(src, dst netip.Addr, id uint32, c cut) []byte {
	be := binary.BigEndian
	if src.Is4() {
		b := make([]byte, 22, 22+c.n)
		b[0], b[2], b[10], b[11] = 0x08, 0x45, 64, 17
		be.PutUint16(b[4:], uint16(20+c.n))
		be.PutUint16(b[6:], uint16(id))
		bits := uint16(c.from / 8)
		if c.more {
			bits |= 0x2000
		}
		be.PutUint16(b[8:], bits)
		copy(b[14:], src.AsSlice())
		copy(b[18:], dst.AsSlice())
		return b
	}
	b := make([]byte, 42, 50+c.n)
	b[0], b[1], b[2], b[8], b[9] = 0x86, 0xdd, 0x60, 17, 64
	copy(b[10:], src.AsSlice())
	copy(b[26:], dst.AsSlice())
	n := c.n
	if !c.whole {
		bits := uint16(c.from)
		if c.more {
			bits |= 1
		}
		b[8], n = 44, n+8
		b = be.AppendUint16(append(b, 17, 0), bits)
		b = be.AppendUint32(b, id)
	}
	be.PutUint16(b[6:], uint16(n))
	return b
}
