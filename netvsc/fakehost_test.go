package netvsc

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"hvnet/hv"
	"hvnet/nic"
	"hvnet/nvsp"
	"hvnet/ring"
	"hvnet/rndis"
	"hvnet/vmbus"
	"hvnet/vmbus/channel"
)

// A fakeHost is a host that follows a script: a channel.Device whose other end
// answers like Hyper-V, except where a test says otherwise. It keeps account of
// everything that it was given, so that a test sees what was not given back.
type fakeHost struct {
	// What the host is. Set before the NIC is opened.
	vmbus       vmbus.Version
	vps         int
	versions    []nvsp.Version
	rxSection   int
	txSection   int
	queues      int // receive queues of RSS
	grant       int // sub-channels at most
	maxPackets  uint32
	align       uint32
	mac         nic.MAC
	mtu         uint32
	noTable     bool // sends no indirection table
	onNVSP      func(q *fakeQueue, t nvsp.MessageType, m []byte, tid uint64) (handled bool)
	onControl   func(q *fakeQueue, t rndis.MessageType, m []byte, tid uint64) (handled bool)
	onOpen      func(index int) error
	onShare     func(n int) error
	onData      func(q *fakeQueue, tid uint64) (handled bool) // not completed if true
	oid         map[rndis.OID][]byte                          // answers
	deaf        bool                                          // reads no ring
	rescinded   chan struct{}
	rescindOnce sync.Once

	mu        sync.Mutex
	regions   map[hv.GPA]hv.Region
	next      hv.GPA
	gpadls    map[uint32]hv.Region
	lastGPADL uint32
	rx, tx    hv.Region
	rxFree    []uint32
	rxBusy    map[uint64]uint32 // section of each packet not completed
	lastTID   uint64
	bad       []string
	events    []string
	frames    [][]byte // received
	perChan   map[int]int
	filter    uint32
	sends     []send
	channels  []*fakeQueue
	got       chan struct{} // capacity 1: something happened
	completed map[uint32]int
}

// A send is one packet of frames from the driver.
type send struct {
	channel  int
	section  uint32
	used     uint32
	total    int
	messages int
	direct   bool
}

type fakeQueue struct {
	h       *fakeHost
	index   int
	ch      *channel.Channel
	guest   *channel.Channel
	stop    chan struct{}
	stopped chan struct{}
	buf     []byte
}

func newFakeHost() *fakeHost {
	return &fakeHost{
		vmbus: vmbus.Version5_3, vps: 8, versions: nvsp.Versions(), rxSection: 1806, txSection: 6144,
		queues: 8, grant: 63, maxPackets: 8, align: 3, mac: nic.MAC{0x00, 0x15, 0x5d, 1, 2, 3}, mtu: 9000,
		oid: map[rndis.OID][]byte{}, rescinded: make(chan struct{}),
		regions: map[hv.GPA]hv.Region{}, next: 0x10_0000, gpadls: map[uint32]hv.Region{}, lastGPADL: 0xe1e0f,
		rxBusy: map[uint64]uint32{}, got: make(chan struct{}, 1), perChan: map[int]int{}, completed: map[uint32]int{},
	}
}

func (h *fakeHost) Offer() vmbus.Offer         { return vmbus.Offer{Class: vmbus.ClassNIC} }
func (h *fakeHost) Version() vmbus.Version     { return h.vmbus }
func (h *fakeHost) VPs() int                   { return h.vps }
func (h *fakeHost) Rescinded() <-chan struct{} { return h.rescinded }
func (h *fakeHost) event(format string, a ...any) {
	h.events = append(h.events, fmt.Sprintf(format, a...))
	h.tell()
}

// seen returns what came over the bus, and what came through the rings: the order
// between the two is not the driver's to decide.
func (h *fakeHost) seen() (bus, ring []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.events {
		if e[0] >= 'a' && e[0] <= 'z' {
			bus = append(bus, e)
		} else {
			ring = append(ring, e)
		}
	}
	return
}

func (h *fakeHost) tell() {
	select {
	case h.got <- struct{}{}:
	default:
	}
}

func (h *fakeHost) rescind() {
	h.rescindOnce.Do(func() { close(h.rescinded) })
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, q := range h.channels {
		q.guest.Close()
	}
}

func (h *fakeHost) Alloc(n int) (hv.Region, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n = (n + hv.PageSize - 1) &^ (hv.PageSize - 1)
	words := make([]byte, n)
	r := hv.Region{GPA: h.next, Bytes: words}
	h.next += hv.GPA(n) + 2*hv.PageSize
	h.regions[r.GPA] = r
	return r, nil
}

func (h *fakeHost) Free(r hv.Region) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.regions[r.GPA]; !ok {
		return errors.New("free of what is not allocated")
	}
	for id, g := range h.gpadls {
		if g.GPA == r.GPA {
			h.bad = append(h.bad, fmt.Sprintf("free of memory that GPADL %#x shares", id))
		}
	}
	delete(h.regions, r.GPA)
	return nil
}

func (h *fakeHost) Share(ctx context.Context, r hv.Region) (uint32, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.onShare != nil {
		if err := h.onShare(len(h.gpadls)); err != nil {
			return 0, err
		}
	}
	h.lastGPADL++
	h.gpadls[h.lastGPADL] = r
	h.event("share %d KiB", len(r.Bytes)>>10)
	return h.lastGPADL, nil
}

func (h *fakeHost) Unshare(ctx context.Context, id uint32) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.gpadls[id]; !ok {
		return errors.New("no such GPADL")
	}
	h.event("unshare %d KiB", len(h.gpadls[id].Bytes)>>10)
	delete(h.gpadls, id)
	return nil
}

func (h *fakeHost) Open(ctx context.Context, index, vp, ringBytes int) (*channel.Channel, error) {
	if h.onOpen != nil {
		if err := h.onOpen(index); err != nil {
			return nil, err
		}
	}
	select {
	case <-h.rescinded:
		return nil, channel.ErrRescinded
	default:
	}
	guest, host, err := channel.Pair(ringBytes)
	if err != nil {
		return nil, err
	}
	guest.Index, guest.VP, host.Index = index, vp, index
	q := &fakeQueue{h: h, index: index, ch: host, guest: guest, stop: make(chan struct{}), stopped: make(chan struct{}), buf: make([]byte, 8192)}
	h.mu.Lock()
	h.event("open %d vp %d", index, vp)
	h.channels = append(h.channels, q)
	h.mu.Unlock()
	go q.run()
	return guest, nil
}

func (h *fakeHost) Close(ctx context.Context, c *channel.Channel) error {
	h.mu.Lock()
	h.event("close %d", c.Index)
	list := h.channels
	h.channels = nil
	h.rxFree, h.rxBusy = nil, map[uint64]uint32{}
	h.mu.Unlock()
	for _, q := range list {
		close(q.stop)
		<-q.stopped
		q.guest.Close()
		q.ch.Close()
	}
	return nil
}

// run is the host's side of one channel.
func (q *fakeQueue) run() {
	defer close(q.stopped)
	for last := false; !last; {
		select {
		case <-q.ch.Event():
		case <-q.stop:
			last = true // but read what is there
		}
		if q.h.deaf {
			if last {
				return
			}
			continue
		}
		q.ch.In.Mask()
		for {
			b, err := q.ch.In.Next(q.buf)
			if err == nil {
				q.packet(b)
				q.ch.Release()
				continue
			}
			if err != ring.ErrEmpty {
				q.h.wrong("ring of channel %d: %v", q.index, err)
				return
			}
			if !q.ch.In.Unmask() {
				break
			}
		}
	}
}

func (h *fakeHost) wrong(format string, a ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.bad = append(h.bad, fmt.Sprintf(format, a...))
	h.tell()
}

// send puts one packet to the driver.
func (q *fakeQueue) send(parts ...[]byte) error {
	q.ch.Lock()
	defer q.ch.Unlock()
	err := q.ch.Out.Put(bytes.Join(parts, nil), nil)
	q.ch.Flush()
	return err
}

func (q *fakeQueue) complete(tid uint64, m []byte) {
	// 28 bytes at least: older drivers insist.
	if err := q.send(vmbus.AppendCompletion(nil, tid), nvsp.Pad(m, 0, 28)); err != nil {
		q.h.wrong("complete %#x: %v", tid, err)
	}
}

func (q *fakeQueue) packet(b []byte) {
	p, err := vmbus.ParsePacket(b)
	if err != nil {
		q.h.wrong("packet: %v", err)
		return
	}
	t, _ := nvsp.PeekType(p.Payload)
	if p.Type == vmbus.PacketCompletion {
		q.returned(&p)
		return
	}
	if t == nvsp.TypeRNDISPacket {
		q.rndis(&p)
		return
	}
	q.nvsp(t, p.Payload, p.TID)
}

// returned takes the completion of what the host sent.
func (q *fakeQueue) returned(p *vmbus.Packet) {
	h := q.h
	h.mu.Lock()
	defer h.mu.Unlock()
	m, err := nvsp.ParseRNDISPacketComplete(p.Payload)
	if err != nil {
		h.bad = append(h.bad, err.Error())
		return
	}
	if i, ok := h.rxBusy[p.TID]; ok {
		h.rxFree = append(h.rxFree, i)
		delete(h.rxBusy, p.TID)
	}
	h.completed[uint32(m.Status)]++
	h.tell()
}

func (q *fakeQueue) nvsp(t nvsp.MessageType, m []byte, tid uint64) {
	h := q.h
	h.mu.Lock()
	h.event("%v", t)
	hook := h.onNVSP
	h.mu.Unlock()
	if len(m) != nvsp.MaxSize {
		h.wrong("%v: %d bytes, want %d", t, len(m), nvsp.MaxSize)
	}
	if hook != nil && hook(q, t, m, tid) {
		return
	}
	switch t {
	case nvsp.TypeInit:
		i, _ := nvsp.ParseInit(m)
		status := nvsp.StatusNone
		if slices.Contains(h.versions, i.Max) {
			status = nvsp.StatusSuccess
		}
		q.complete(tid, nvsp.InitComplete{Version: 0xffffffff, MaxMDL: 34, Status: status}.Append(nil))
	case nvsp.TypeSendReceiveBuffer:
		r, _ := nvsp.ParseSendReceiveBuffer(m)
		h.mu.Lock()
		h.rx = h.gpadls[r.GPADL]
		count := len(h.rx.Bytes) / h.rxSection
		h.rxFree = nil
		for i := count - 1; i >= 0; i-- {
			h.rxFree = append(h.rxFree, uint32(i))
		}
		h.mu.Unlock()
		q.complete(tid, nvsp.SendReceiveBufferComplete{Status: nvsp.StatusSuccess, Sections: []nvsp.ReceiveSection{
			{Size: uint32(h.rxSection), Count: uint32(count), End: uint32(count * h.rxSection)}}}.Append(nil))
	case nvsp.TypeSendSendBuffer:
		r, _ := nvsp.ParseSendSendBuffer(m)
		h.mu.Lock()
		h.tx = h.gpadls[r.GPADL]
		h.mu.Unlock()
		q.complete(tid, nvsp.SendSendBufferComplete{Status: nvsp.StatusSuccess, SectionSize: uint32(h.txSection)}.Append(nil))
	case nvsp.TypeSubChannel:
		r, _ := nvsp.ParseSubChannelRequest(m)
		q.complete(tid, nvsp.SubChannelComplete{Status: nvsp.StatusSuccess, Count: uint32(min(int(r.Count), h.grant))}.Append(nil))
		if !h.noTable {
			var table nvsp.IndirectionTable
			n := uint32(min(int(r.Count), h.grant) + 1)
			for i := range table.Table {
				table.Table[i] = uint32(i) % n
			}
			q.send(vmbus.AppendInBand(nil, 0, 0), table.Append(nil))
		}
	}
}

// memory returns guest memory as a host reaches it.
func (h *fakeHost) memory(gpa uint64, n int) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range h.regions {
		if at := int64(gpa) - int64(r.GPA); at >= 0 && at+int64(n) <= int64(len(r.Bytes)) {
			return r.Bytes[at : at+int64(n)]
		}
	}
	return nil
}

// rndis takes a packet of RNDIS messages.
func (q *fakeQueue) rndis(p *vmbus.Packet) {
	h := q.h
	m, err := nvsp.ParseRNDISPacket(p.Payload)
	if err != nil {
		h.wrong("%v", err)
		return
	}
	var data []byte
	if m.Section != nvsp.NoSection {
		at := int(m.Section) * h.txSection
		if int(m.SectionBytes) >= h.txSection || at+int(m.SectionBytes) > len(h.tx.Bytes) {
			h.wrong("section %d with %d bytes", m.Section, m.SectionBytes)
			return
		}
		data = append(data, h.tx.Bytes[at:at+int(m.SectionBytes)]...)
	}
	if p.Type == vmbus.PacketGPADirect {
		spans, _, err := p.GPASpans(make([]vmbus.Span, 0, 64), 1<<17)
		if err != nil {
			h.wrong("%v", err)
			return
		}
		for _, s := range spans {
			b := h.memory(s.GPA, s.Len)
			if b == nil {
				h.wrong("pages %#x+%d are not the guest's", s.GPA, s.Len)
				return
			}
			data = append(data, b...)
		}
	}
	if m.Channel == nvsp.ChannelControl {
		q.control(data, p.TID)
		return
	}
	if h.onData != nil && h.onData(q, p.TID) {
		return
	}
	q.data(data, m, p)
	q.complete(p.TID, nvsp.RNDISPacketComplete{Status: nvsp.StatusSuccess}.Append(nil))
}

// data takes a chain of PACKET messages and checks what a host checks.
func (q *fakeQueue) data(b []byte, m nvsp.RNDISPacket, p *vmbus.Packet) {
	h := q.h
	n := send{channel: q.index, section: m.Section, used: m.SectionBytes, total: len(b), direct: p.Type == vmbus.PacketGPADirect}
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(b) > 0 {
		k, err := rndis.ParsePacket(b[:min(len(b), rndis.PacketHeadSize)], len(b))
		if err != nil {
			h.bad = append(h.bad, fmt.Sprintf("message %d: %v", n.messages, err))
			break
		}
		n.messages++
		if next := b[k.Length:]; len(next) > 0 && k.Length%(1<<h.align) != 0 {
			h.bad = append(h.bad, fmt.Sprintf("message of %d bytes is not aligned", k.Length))
		}
		h.frames = append(h.frames, bytes.Clone(b[k.DataOffset:k.DataOffset+k.DataLen]))
		h.perChan[q.index]++
		b = b[k.Length:]
	}
	if n.messages > int(h.maxPackets) {
		h.bad = append(h.bad, fmt.Sprintf("%d messages in a send", n.messages))
	}
	h.sends = append(h.sends, n)
	h.tell()
}

// control answers a control message.
func (q *fakeQueue) control(m []byte, tid uint64) {
	h := q.h
	hd, err := rndis.ParseHeader(m, len(m))
	if err != nil {
		h.wrong("%v", err)
		return
	}
	what := fmt.Sprint(hd.Type)
	if c, err := rndis.ParseQuery(m); err == nil {
		what += fmt.Sprint(" ", c.OID)
	}
	if c, err := rndis.ParseSet(m); err == nil {
		what += fmt.Sprint(" ", c.OID)
	}
	h.mu.Lock()
	h.event("%s", what)
	hook := h.onControl
	h.mu.Unlock()
	if hook != nil && hook(q, hd.Type, m, tid) {
		return
	}
	if a := q.answer(hd.Type, m); a != nil {
		q.indicate(a)
	}
	q.complete(tid, nvsp.RNDISPacketComplete{Status: nvsp.StatusSuccess}.Append(nil))
}

// answer returns what Hyper-V answers to a control message.
func (q *fakeQueue) answer(t rndis.MessageType, m []byte) []byte {
	h := q.h
	switch t {
	case rndis.TypeInitialize:
		r, _ := rndis.ParseInitialize(m)
		return rndis.InitializeComplete{RequestID: r.RequestID, Major: 1, Flags: rndis.FlagConnectionless,
			MaxPackets: h.maxPackets, MaxTransfer: 0xefffffff, AlignmentFactor: h.align}.Append(nil)
	case rndis.TypeQuery:
		r, _ := rndis.ParseQuery(m)
		h.mu.Lock()
		a, ok := h.oid[r.OID]
		h.mu.Unlock()
		if !ok {
			a, ok = h.value(r.OID)
		}
		if !ok {
			return rndis.QueryComplete{RequestID: r.RequestID, Status: rndis.StatusNotSupported}.Append(nil)
		}
		return rndis.QueryComplete{RequestID: r.RequestID, Info: a}.Append(nil)
	case rndis.TypeSet:
		r, _ := rndis.ParseSet(m)
		if r.OID == rndis.OIDCurrentPacketFilter {
			h.mu.Lock()
			h.filter, _ = rndis.ParseUint32(r.Info)
			h.mu.Unlock()
		}
		return rndis.SetComplete{RequestID: r.RequestID}.Append(nil)
	}
	return nil
}

func (h *fakeHost) value(o rndis.OID) ([]byte, bool) {
	switch o {
	case rndis.OIDMaximumFrameSize:
		return rndis.AppendUint32(nil, h.mtu), true
	case rndis.OIDPermanentAddress:
		return h.mac[:], true
	case rndis.OIDFriendlyName:
		return rndis.AppendUTF16(nil, "Fake Adapter"), true
	case rndis.OIDOffloadHardwareCaps:
		return rndis.HardwareOffload{}.Append(nil, 3), true
	case rndis.OIDMediaConnectStatus:
		return rndis.AppendUint32(nil, rndis.MediaConnected), true
	case rndis.OIDLinkSpeed:
		return rndis.AppendUint32(nil, rndis.LinkSpeed(40000)), true
	case rndis.OIDReceiveScaleCaps:
		return rndis.RSSCapabilities{Flags: rndis.RSSFlagsStandard, Queues: uint32(h.queues), Entries: 128}.Append(nil), true
	}
	return nil, false
}

// indicate sends messages to the driver, each in a section, as one packet.
func (q *fakeQueue) indicate(messages ...[]byte) error {
	h := q.h
	h.mu.Lock()
	var ranges []vmbus.ByteRange
	for _, m := range messages {
		if len(h.rxFree) < len(messages) {
			h.mu.Unlock()
			return errors.New("no receive section")
		}
		i := h.rxFree[len(h.rxFree)-1-len(ranges)]
		at := i * uint32(h.rxSection)
		copy(h.rx.Bytes[at:], m)
		ranges = append(ranges, vmbus.ByteRange{Count: uint32(len(m)), Offset: at})
	}
	// One id stands for all sections of a packet; they are counted as one.
	h.lastTID++
	tid := h.lastTID
	h.rxBusy[tid] = h.rxFree[len(h.rxFree)-1]
	h.rxFree = h.rxFree[:len(h.rxFree)-1]
	h.mu.Unlock()
	return q.send(vmbus.AppendTransferPages(nil, tid, nvsp.ReceiveBufferID, ranges),
		nvsp.RNDISPacket{Section: nvsp.NoSection}.Append(nil))
}

// packetMessage returns a frame as hosts send it: at byte 256 of the section.
func packetMessage(frame []byte, info *rndis.Info) []byte {
	m := make([]byte, 256+len(frame))
	rndis.PutPacketAt(m, 256, len(frame), info)
	copy(m[256:], frame)
	return m
}

func (h *fakeHost) queue(i int) *fakeQueue {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, q := range h.channels {
		if q.index == i {
			return q
		}
	}
	return nil
}

// until waits for a condition, which is looked at under the lock whenever
// something happens.
func (h *fakeHost) until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	for {
		h.mu.Lock()
		ok := cond()
		h.mu.Unlock()
		if ok {
			h.tell()
			return
		}
		select {
		case <-h.got:
		case <-deadline.C:
			h.mu.Lock()
			defer h.mu.Unlock()
			t.Fatalf("%s: not within 10 s; events %v", what, h.events)
		}
	}
}

// clean checks that the host has everything back and saw nothing wrong.
func (h *fakeHost) clean(t testing.TB) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.bad) > 0 {
		t.Errorf("host saw: %s", strings.Join(h.bad, "; "))
	}
	if len(h.regions) > 0 || len(h.gpadls) > 0 || len(h.channels) > 0 {
		t.Errorf("left behind: %d regions, %d GPADLs, %d channels", len(h.regions), len(h.gpadls), len(h.channels))
	}
}

// open opens a NIC on the host and closes it at the end of the test, with all
// checks for what is left.
func open(t testing.TB, h *fakeHost, cfg Config) *NIC {
	t.Helper()
	n, err := Open(context.Background(), h, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(context.Background()); err != nil {
			t.Errorf("close: %v", err)
		}
		checkPools(t, n)
		h.clean(t)
	})
	return n
}

// checkPools checks that a closed NIC has all of its memory back.
func checkPools(t testing.TB, n *NIC) {
	t.Helper()
	s := n.session.Load()
	for what, p := range map[string]*pool{"sections": s.sections, "page runs": s.runs, "control pages": s.pages} {
		if p.idle() != p.max {
			t.Errorf("%d of %d %s are lost", p.max-p.idle(), p.max, what)
		}
	}
	for _, q := range s.queues {
		if q.txns.live != 0 {
			t.Errorf("channel %d: %d transactions are lost", q.index, q.txns.live)
		}
	}
}

// A recorder is a sink that keeps copies.
type recorder struct {
	mu     sync.Mutex
	frames [][]byte
	meta   []nic.Frame
	calls  int
	got    chan struct{}
}

func newRecorder() *recorder { return &recorder{got: make(chan struct{}, 1)} }

func (r *recorder) WriteFrames(frames []nic.Frame) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls++
	for i := range frames {
		b := make([]byte, frames[i].Len())
		frames[i].CopyTo(b)
		r.frames = append(r.frames, b)
		f := frames[i]
		f.Head, f.Body = nil, nil
		r.meta = append(r.meta, f)
	}
	select {
	case r.got <- struct{}{}:
	default:
	}
}

func (r *recorder) wait(t testing.TB, n int) [][]byte {
	t.Helper()
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	for {
		r.mu.Lock()
		if len(r.frames) >= n {
			defer r.mu.Unlock()
			return r.frames
		}
		r.mu.Unlock()
		select {
		case <-r.got:
		case <-deadline.C:
			t.Fatalf("%d frames, want %d", len(r.frames), n)
		}
	}
}

// frame returns a UDP frame of n bytes whose flow and content depend on id.
func frame(id, n int) []byte {
	b := make([]byte, max(n, 42))
	copy(b, []byte{0x00, 0x15, 0x5d, 9, 9, 9, 0x00, 0x15, 0x5d, 1, 2, 3, 0x08, 0x00, 0x45})
	binary.BigEndian.PutUint16(b[16:], uint16(len(b)-14))
	b[22], b[23] = 64, 17
	copy(b[26:], []byte{10, 0, 0, 1, 10, 0, 0, 2})
	binary.BigEndian.PutUint16(b[34:], uint16(1024+id))
	binary.BigEndian.PutUint16(b[36:], 9)
	for i := 42; i < len(b); i++ {
		b[i] = byte(i*7 + id)
	}
	return b[:n]
}

func asFrame(b []byte) nic.Frame {
	f := nic.Frame{Head: b}
	if len(b) > nic.HeadLen {
		f.Head, f.Body = b[:nic.HeadLen], [][]byte{b[nic.HeadLen:]}
	}
	return f
}
