package netvsc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
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
	offload     rndis.HardwareOffload
	onNVSP      func(q *fakeQueue, t nvsp.MessageType, m []byte, tid uint64) (handled bool)
	onControl   func(q *fakeQueue, t rndis.MessageType, m []byte, tid uint64) (handled bool)
	onOpen      func(index int) error
	onShare     func(n int) error
	onPacket    func(index int, b []byte)                     // sees every packet
	onRNDIS     func(m []byte)                                // sees every control message
	onData      func(q *fakeQueue, tid uint64) (handled bool) // not completed if true
	oid         map[rndis.OID][]byte                          // answers
	expectBad   bool
	anyAnswer   bool // the test may have forged a refusal of what Close asks
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
	frames    [][]byte        // received
	heads     [][]byte        // the RNDIS header of each
	from      []int           // the channel of each
	asked     []rndis.InfoSet // what was asked to be done for each
	perChan   map[int]int
	filter    uint32
	vf        fakeVFSide
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
	up      []byte // the memory of the rings
	down    []byte
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

func (h *fakeHost) Open(ctx context.Context, index, ringBytes int) (*channel.Channel, error) {
	vp := index % h.vps
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
	up, down := make([]byte, ringBytes), make([]byte, ringBytes)
	ring.Init(up)
	ring.Init(down)
	var guest, host *channel.Channel
	guest, err := channel.New(channel.Params{Relid: 1, Index: index, VP: vp, Out: up, In: down, Signal: func() { host.Wake() }})
	if err != nil {
		return nil, err
	}
	host, err = channel.New(channel.Params{Relid: 1, Index: index, Out: down, In: up, Signal: func() { guest.Wake() }})
	if err != nil {
		return nil, err
	}
	q := &fakeQueue{h: h, index: index, ch: host, guest: guest, up: up, down: down, stop: make(chan struct{}), stopped: make(chan struct{}), buf: make([]byte, 8192)}
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
	for {
		err := q.send(vmbus.AppendCompletion(nil, tid), nvsp.Pad(m, 0, 28))
		if err == nil {
			return
		}
		select {
		case <-q.stop:
			return
		default:
			runtime.Gosched()
		}
		if err != ring.ErrFull {
			q.h.wrong("complete %#x: %v", tid, err)
			return
		}
	}
}

func (q *fakeQueue) packet(b []byte) {
	if q.h.onPacket != nil {
		q.h.onPacket(q.index, b)
	}
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
	case nvsp.TypeNDISConfig, nvsp.TypeSwitchDataPath:
		q.vfMessage(t, m, tid)
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
	if len(h.bad) > 0 && !h.expectBad {
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
		if err := n.Close(context.Background()); err != nil && !h.anyAnswer {
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
	for _, a := range n.Accounts() {
		if err := a.AtRest(); err != nil {
			t.Error(err)
		}
	}
	for _, q := range n.session.Load().queues {
		if q.txns.live != 0 {
			t.Errorf("channel %d: %d transactions are lost", q.index, q.txns.live)
		}
	}
}
