package netvsp

import (
	"bytes"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"hvnet/hv"
	"hvnet/netvsp/profile"
	"hvnet/nic"
	"hvnet/nvsp"
	"hvnet/ring"
	"hvnet/rndis"
	"hvnet/rule"
	"hvnet/vmbus"
	"hvnet/vmbus/channel"
)

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

var (
	guestMAC = nic.MAC{0x00, 0x15, 0x5d, 0x01, 0x02, 0x03}
	otherMAC = nic.MAC{0x00, 0x15, 0x5d, 0xff, 0xff, 0x01}
)

// The GPADLs and memory of a fake guest.
const (
	recvGPADL = 0xe1e11
	sendGPADL = 0xe1e12
	recvBytes = 512 << 10
	sendBytes = 64 << 10
)

// A fakeBus is a host's bus with one guest whose GPADLs are given by the test.
type fakeBus struct {
	mem     *hv.Memory
	version vmbus.Version
	vps     int
	gpadls  map[uint32][]uint64
	offered chan int
	onMap   func(gpadl uint32) // called in Map if set
}

func (b *fakeBus) Version() vmbus.Version { return b.version }
func (b *fakeBus) VPs() int               { return b.vps }
func (b *fakeBus) Memory() *hv.Memory     { return b.mem }

func (b *fakeBus) Map(gpadl uint32) (*hv.Mapping, error) {
	if b.onMap != nil {
		b.onMap(gpadl)
	}
	pfns, ok := b.gpadls[gpadl]
	if !ok {
		return nil, errors.New("no such GPADL")
	}
	return b.mem.Map(pfns)
}

func (b *fakeBus) OfferSubChannels(n int) error {
	b.offered <- n
	return nil
}

// A fakePort is a port that keeps copies of the frames it gets.
type fakePort struct {
	mu      sync.Mutex
	frames  [][]byte
	batches int
	closed  bool
	arrived chan struct{} // capacity 1
	hook    func([]nic.Frame)
}

func (p *fakePort) WriteFrames(frames []nic.Frame) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.batches++
	for i := range frames {
		b := make([]byte, frames[i].Len())
		frames[i].CopyTo(b)
		p.frames = append(p.frames, b)
	}
	if p.hook != nil {
		p.hook(frames)
	}
	select {
	case p.arrived <- struct{}{}:
	default:
	}
}

func (p *fakePort) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
}

// take waits until n frames have arrived in all and returns them.
func (p *fakePort) take(t testing.TB, n int) [][]byte {
	t.Helper()
	deadline := time.After(patience)
	for {
		p.mu.Lock()
		if len(p.frames) >= n {
			frames := p.frames
			p.frames = nil
			p.mu.Unlock()
			return frames
		}
		got := len(p.frames)
		p.mu.Unlock()
		select {
		case <-p.arrived:
		case <-deadline:
			t.Fatalf("waiting for %d frames at the port: got %d", n, got)
		}
	}
}

// A fakeGuest is a scripted guest: it says what the test tells it to say.
type fakeGuest struct {
	t       testing.TB
	dev     *Device
	bus     *fakeBus
	backend channel.Backend
	port    *fakePort
	part    hv.Partition

	recv, send, page hv.Region // receive buffer, send buffer, pages for anything
	ch               *channel.Channel
	host             *channel.Channel
	version          nvsp.Version
	caps             nvsp.Capabilities // to announce, besides VLAN
	size             int               // of a receive section
	sections         int
	tid              uint64
	request          uint32
	buf              [8192]byte
	backlog          [][]byte       // packets that came before the one that was waited for
	heard            []vmbus.Packet // messages of the host's own that came so
}

// newGuest returns a guest that has opened the primary channel of a new device.
func newGuest(t testing.TB, name string, change ...func(*Config)) *fakeGuest {
	t.Helper()
	prof, err := profile.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	part, guest, err := hv.Pipe(1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { part.Close(); guest.Close() })
	g := &fakeGuest{t: t, part: part, port: &fakePort{arrived: make(chan struct{}, 1)}}
	g.recv, g.send, g.page = g.alloc(recvBytes), g.alloc(sendBytes), g.alloc(128<<10)
	g.bus = &fakeBus{mem: guest.Memory(), version: vmbus.Version5_3, vps: 8, offered: make(chan int, 1),
		gpadls: map[uint32][]uint64{recvGPADL: pfns(g.recv), sendGPADL: pfns(g.send)}}
	cfg := Config{Name: "g1", MAC: guestMAC, Profile: prof, Broken: func(err error) {
		if rule.Of(err) == nil {
			t.Errorf("a fault without a rule: %v", err)
		}
	}}
	for _, f := range change {
		f(&cfg)
	}
	g.dev = New(cfg, func(nic.Sink) (Port, error) { return g.port, nil })
	g.backend = g.dev.Backend(g.bus)
	g.open()
	t.Cleanup(g.backend.Removed)
	return g
}

func (g *fakeGuest) alloc(n int) hv.Region {
	g.t.Helper()
	r, err := g.part.Alloc(n)
	if err != nil {
		g.t.Fatal(err)
	}
	return r
}

func pfns(r hv.Region) (list []uint64) {
	for i := range r.Pages() {
		list = append(list, r.PFN(i))
	}
	return list
}

// open opens the primary channel.
func (g *fakeGuest) open() {
	g.t.Helper()
	g.ch, g.host = g.pair(0)
	if err := g.backend.Open(g.host); err != nil {
		g.t.Fatal(err)
	}
}

func (g *fakeGuest) pair(index int) (guest, host *channel.Channel) {
	g.t.Helper()
	guest, host, err := channel.Pair(64 << 10)
	if err != nil {
		g.t.Fatal(err)
	}
	guest.Index, host.Index = index, index
	return guest, host
}

// put puts one packet into the ring.
func (g *fakeGuest) put(ch *channel.Channel, head, payload []byte) {
	g.t.Helper()
	ch.Lock()
	defer ch.Unlock()
	if err := ch.Out.Put(head, payload); err != nil {
		g.t.Fatal(err)
	}
	ch.Flush()
}

// next returns the next packet of the ring.
func (g *fakeGuest) next(ch *channel.Channel) vmbus.Packet {
	g.t.Helper()
	deadline := time.After(patience)
	for {
		b, err := ch.In.Next(g.buf[:])
		if err == nil {
			ch.Release()
			p, err := vmbus.ParsePacket(slices.Clone(b))
			if err != nil {
				g.t.Fatal(err)
			}
			return p
		}
		if err != ring.ErrEmpty {
			g.t.Fatal(err)
		}
		select {
		case <-ch.Event():
		case <-deadline:
			g.t.Fatal("waiting for a packet of the device")
		}
	}
}

// completion waits for the completion of tid; what comes before is kept.
func (g *fakeGuest) completion(ch *channel.Channel, tid uint64) []byte {
	g.t.Helper()
	for {
		p := g.next(ch)
		if p.Type == vmbus.PacketCompletion && p.TID == tid {
			return p.Payload
		}
		switch p.Type {
		case vmbus.PacketTransferPages:
			g.keep(p)
		case vmbus.PacketInBand:
			g.heard = append(g.heard, p)
		}
	}
}

// keep copies the contents of a transfer packet to the backlog and completes it.
func (g *fakeGuest) keep(p vmbus.Packet) {
	g.t.Helper()
	g.backlog = append(g.backlog, g.messages(p)...)
	g.complete(g.ch, p.TID)
}

// messages returns copies of the RNDIS messages of a transfer packet, checked as a
// guest does.
func (g *fakeGuest) messages(p vmbus.Packet) (list [][]byte) {
	g.t.Helper()
	var storage [400]vmbus.ByteRange
	set, ranges, err := p.TransferPages(storage[:])
	if err != nil || set != nvsp.ReceiveBufferID {
		g.t.Fatalf("transfer packet: set %#x, %v", set, err)
	}
	m, err := nvsp.ParseRNDISPacket(p.Payload)
	if err != nil || m.Section != nvsp.NoSection {
		g.t.Fatalf("transfer packet: %+v, %v", m, err)
	}
	for _, r := range ranges {
		if !r.Within(len(g.recv.Bytes)) || int(r.Count) > g.size || int(r.Offset)%g.size != 0 {
			g.t.Fatalf("range %+v is not a section of %d bytes", r, g.size)
		}
		list = append(list, slices.Clone(g.recv.Bytes[r.Offset:][:r.Count]))
	}
	return list
}

// complete returns the sections of a transfer packet.
func (g *fakeGuest) complete(ch *channel.Channel, tid uint64) {
	g.t.Helper()
	g.put(ch, vmbus.AppendCompletion(nil, tid), nvsp.RNDISPacketComplete{Status: nvsp.StatusSuccess}.Append(nil))
}

// ask sends an NVSP message and returns the payload of its completion.
func (g *fakeGuest) ask(msg []byte) []byte {
	g.t.Helper()
	g.tid++
	g.put(g.ch, vmbus.AppendInBand(nil, vmbus.FlagCompletionRequested, g.tid), nvsp.Pad(msg, 0, nvsp.MaxSize))
	return g.completion(g.ch, g.tid)
}

// tell sends an NVSP message that is not answered.
func (g *fakeGuest) tell(msg []byte) {
	g.t.Helper()
	g.put(g.ch, vmbus.AppendInBand(nil, 0, 0xfffffffffffffffd), nvsp.Pad(msg, 0, nvsp.MaxSize))
}

// control sends an RNDIS message by pages and returns the status of its completion.
func (g *fakeGuest) control(msg []byte) nvsp.Status {
	g.t.Helper()
	copy(g.page.Bytes, msg)
	g.tid++
	m := nvsp.RNDISPacket{Channel: nvsp.ChannelControl, Section: nvsp.NoSection}
	r := vmbus.PageRange{Count: uint32(len(msg)), PFNs: pfns(g.page)[:(len(msg)+4095)/4096]}
	g.put(g.ch, vmbus.AppendGPADirect(nil, g.tid, []vmbus.PageRange{r}), nvsp.Pad(m.Append(nil), 0, nvsp.MaxSize))
	return g.status(g.completion(g.ch, g.tid))
}

func (g *fakeGuest) status(payload []byte) nvsp.Status {
	g.t.Helper()
	c, err := nvsp.ParseRNDISPacketComplete(payload)
	if err != nil {
		g.t.Fatal(err)
	}
	return c.Status
}

// answer returns the RNDIS message that has come or comes next.
func (g *fakeGuest) answer() []byte {
	g.t.Helper()
	for len(g.backlog) == 0 {
		if p := g.next(g.ch); p.Type == vmbus.PacketTransferPages {
			g.keep(p)
		}
	}
	m := g.backlog[0]
	g.backlog = g.backlog[1:]
	return m
}

// settle makes sure that the device has seen all that was sent to it so far.
func (g *fakeGuest) settle() {
	g.t.Helper()
	g.ask(nvsp.OIDQueryEx{}.Append(nil))
}

// query asks for an OID.
func (g *fakeGuest) query(oid rndis.OID, in []byte) rndis.QueryComplete {
	g.t.Helper()
	g.request++
	if s := g.control(rndis.Query{RequestID: g.request, OID: oid, Info: in}.Append(nil)); s != nvsp.StatusSuccess {
		g.t.Fatalf("query %v: %v", oid, s)
	}
	c, err := rndis.ParseQueryComplete(g.answer())
	if err != nil || c.RequestID != g.request {
		g.t.Fatalf("query %v: %+v, %v", oid, c, err)
	}
	return c
}

// set sets an OID.
func (g *fakeGuest) set(oid rndis.OID, in []byte) rndis.Status {
	g.t.Helper()
	g.request++
	if s := g.control(rndis.Set{RequestID: g.request, OID: oid, Info: in}.Append(nil)); s != nvsp.StatusSuccess {
		g.t.Fatalf("set %v: %v", oid, s)
	}
	c, err := rndis.ParseSetComplete(g.answer())
	if err != nil || c.RequestID != g.request {
		g.t.Fatalf("set %v: %+v, %v", oid, c, err)
	}
	return c.Status
}

// connect goes as far as the buffers.
func (g *fakeGuest) connect(v nvsp.Version) {
	g.t.Helper()
	c, err := nvsp.ParseInitComplete(g.ask(nvsp.Init{Min: v, Max: v}.Append(nil)))
	if err != nil || c.Status != nvsp.StatusSuccess {
		g.t.Fatalf("INIT %v: %+v, %v", v, c, err)
	}
	g.version = v
	if v >= nvsp.V2 {
		g.tell(nvsp.NDISConfig{MTU: 1514, Capabilities: nvsp.CapVLAN | g.caps}.Append(nil))
	}
	g.tell(v.NDIS().Append(nil))
	r, err := nvsp.ParseSendReceiveBufferComplete(g.ask(nvsp.SendReceiveBuffer{GPADL: recvGPADL, ID: nvsp.ReceiveBufferID}.Append(nil)))
	if err != nil || r.Status != nvsp.StatusSuccess {
		g.t.Fatalf("receive buffer: %+v, %v", r, err)
	}
	only, err := r.Only(recvBytes)
	if err != nil {
		g.t.Fatal(err)
	}
	g.size, g.sections = int(only.Size), int(only.Count)
	s, err := nvsp.ParseSendSendBufferComplete(g.ask(nvsp.SendSendBuffer{GPADL: sendGPADL}.Append(nil)))
	if err != nil || s.Status != nvsp.StatusSuccess || s.SectionSize != 6144 {
		g.t.Fatalf("send buffer: %+v, %v", s, err)
	}
}

// up brings the NIC up.
func (g *fakeGuest) up(v nvsp.Version) {
	g.t.Helper()
	g.connect(v)
	g.request++
	g.control(rndis.Initialize{RequestID: g.request, Major: 1, MaxTransfer: 0x4000}.Append(nil))
	c, err := rndis.ParseInitializeComplete(g.answer())
	if err != nil || c.Status != rndis.StatusSuccess || c.RequestID != g.request {
		g.t.Fatalf("INITIALIZE: %+v, %v", c, err)
	}
	g.filter(0x0d)
}

func (g *fakeGuest) filter(f uint32) {
	g.t.Helper()
	if s := g.set(rndis.OIDCurrentPacketFilter, rndis.AppendUint32(nil, f)); s != rndis.StatusSuccess {
		g.t.Fatalf("packet filter: %v", s)
	}
}

// packet returns a PACKET message with a frame, as Linux writes it.
func packet(frame []byte, info *rndis.Info) []byte {
	b := make([]byte, rndis.MaxPacketHeader)
	n := rndis.PutPacket(b, len(frame), info)
	return append(b[:n], frame...)
}

// bySection sends RNDIS messages in one send section and returns the status.
func (g *fakeGuest) bySection(section int, msgs ...[]byte) nvsp.Status {
	g.t.Helper()
	b := bytes.Join(msgs, nil)
	copy(g.send.Bytes[section*6144:], b)
	g.tid++
	m := nvsp.RNDISPacket{Section: uint32(section), SectionBytes: uint32(len(b))}
	g.put(g.ch, vmbus.AppendInBand(nil, vmbus.FlagCompletionRequested, g.tid), nvsp.Pad(m.Append(nil), 0, nvsp.MaxSize))
	return g.status(g.completion(g.ch, g.tid))
}

// byPages sends what m says and the ranges hold, and returns the status.
func (g *fakeGuest) byPages(m nvsp.RNDISPacket, ranges ...vmbus.PageRange) nvsp.Status {
	g.t.Helper()
	g.tid++
	g.put(g.ch, vmbus.AppendGPADirect(nil, g.tid, ranges), nvsp.Pad(m.Append(nil), 0, nvsp.MaxSize))
	return g.status(g.completion(g.ch, g.tid))
}

// span is a range of g.page.
func (g *fakeGuest) span(off, n int) vmbus.PageRange {
	first, last := off/4096, (off+n-1)/4096
	return vmbus.PageRange{Count: uint32(n), Offset: uint32(off % 4096), PFNs: pfns(g.page)[first : last+1]}
}

// ether returns a frame of n bytes with a pattern that depends on tag.
func ether(dst, src nic.MAC, n int, tag byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i) + tag
	}
	copy(b, dst[:])
	copy(b[6:], src[:])
	copy(b[min(n, 12):], []byte{0x08, 0x00})
	return b
}

// frames is what others send to the guest: heads private, the rest in two pieces.
func frames(list ...[]byte) (out []nic.Frame) {
	for _, b := range list {
		h := min(len(b), nic.HeadLen)
		f := nic.Frame{Head: b[:h]}
		if rest := b[h:]; len(rest) > 0 {
			f.Body = [][]byte{rest[:len(rest)/2], rest[len(rest)/2:]}
		}
		out = append(out, f)
	}
	return out
}

// received returns the frames of a transfer packet.
func (g *fakeGuest) received(p vmbus.Packet) (list [][]byte) {
	g.t.Helper()
	for _, m := range g.messages(p) {
		h, err := rndis.ParsePacket(m, len(m))
		if err != nil {
			g.t.Fatal(err)
		}
		list = append(list, m[h.DataOffset:][:h.DataLen])
	}
	return list
}
