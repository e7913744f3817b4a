package host_test

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"hvnet/host"
	"hvnet/hv"
	"hvnet/nvsp"
	"hvnet/ring"
	"hvnet/rndis"
	"hvnet/vmbus"
	"hvnet/vmbus/channel"
)

// A rawGuest is a guest that speaks NVSP itself, and has SR-IOV: it moves its data path to
// the virtual function that it is told of, and off it when it is told that it goes.
type rawGuest struct {
	*visitor
	t          testing.TB
	ch         *channel.Channel
	recv, page hv.Region
	got        func(frame []byte) // called for each frame over the channel
	stop       chan struct{}
	gone       sync.WaitGroup

	sending sync.Mutex // one message at a time, by the page
	vf      *pairVF    // the guest's end; nil while the path is synthetic

	function func(serial uint32) *pairVF // finds the device of a serial number
	news     chan association            // in their order
	last     atomic.Int64                // of them
	notices  atomic.Int64                // that the path was taken back

	mu      sync.Mutex
	tid     uint64
	waiting map[uint64]chan []byte
}

// An association is the nth that the guest was told of.
type association struct {
	nvsp.VFAssociation
	n int64
}

// rawJoin attaches a raw guest and brings its NIC up.
func rawJoin(t testing.TB, h *host.Host, name string, function func(uint32) *pairVF, got func([]byte)) *rawGuest {
	t.Helper()
	g := &rawGuest{visitor: visit(t, h, host.PortConfig{Name: name}), t: t, got: got, function: function,
		news: make(chan association, 1000), stop: make(chan struct{}), waiting: map[uint64]chan []byte{}}
	var err error
	if g.ch, err = g.dev.Open(soon(t), 0, 64<<10); err != nil {
		t.Fatal(err)
	}
	share := func(n int) (hv.Region, uint32) {
		r, err := g.dev.Alloc(n)
		if err != nil {
			t.Fatal(err)
		}
		id, err := g.dev.Share(soon(t), r)
		if err != nil {
			t.Fatal(err)
		}
		return r, id
	}
	var recv uint32
	g.recv, recv = share(1 << 20)
	g.page, _ = share(4096)
	g.gone.Go(g.listen)
	g.gone.Go(g.follow)
	t.Cleanup(g.quit)
	g.ask(nvsp.Init{Min: nvsp.V61, Max: nvsp.V61}.Append(nil))
	g.put(0, nvsp.NDISConfig{MTU: 1514, Capabilities: nvsp.CapVLAN | nvsp.CapSRIOV}.Append(nil))
	b := g.ask(nvsp.SendReceiveBuffer{GPADL: recv, ID: nvsp.ReceiveBufferID}.Append(nil))
	if m, err := nvsp.ParseSendReceiveBufferComplete(b); err != nil || m.Status != nvsp.StatusSuccess {
		t.Fatalf("receive buffer: %+v, %v", m, err)
	}
	g.rndis(nvsp.ChannelControl, rndis.Initialize{RequestID: 1, Major: 1, MaxTransfer: 0x4000}.Append(nil))
	g.rndis(nvsp.ChannelControl, rndis.Set{RequestID: 2, OID: rndis.OIDCurrentPacketFilter, Info: rndis.AppendUint32(nil, 0x0d)}.Append(nil))
	return g
}

// quit ends listening.
func (g *rawGuest) quit() {
	select {
	case <-g.stop:
	default:
		close(g.stop)
	}
	g.gone.Wait()
}

// listen takes what the host sends.
func (g *rawGuest) listen() {
	buf := make([]byte, 16<<10)
	for {
		b, err := g.ch.In.Next(buf)
		switch {
		case err == ring.ErrEmpty:
			g.ch.Release()
			if g.ch.In.Unmask() {
				continue // something came before the host saw that all was read
			}
			select {
			case <-g.ch.Event():
			case <-g.ch.Closed():
				return
			case <-g.stop:
				return
			}
			continue
		case err != nil:
			g.t.Error(err)
			return
		}
		p, err := vmbus.ParsePacket(b)
		if err != nil {
			g.t.Error(err)
			return
		}
		switch p.Type {
		case vmbus.PacketCompletion:
			g.mu.Lock()
			c := g.waiting[p.TID]
			delete(g.waiting, p.TID)
			g.mu.Unlock()
			c <- slices.Clone(p.Payload)
		case vmbus.PacketInBand:
			g.hear(p.Payload)
		case vmbus.PacketTransferPages:
			g.frames(p)
		}
	}
}

// hear follows what the host says of the function. It waits for nothing here.
func (g *rawGuest) hear(b []byte) {
	if m, err := nvsp.ParseVFAssociation(b); err == nil {
		g.news <- association{m, g.last.Add(1)}
	}
	if m, err := nvsp.ParseSwitchDataPath(b); err == nil && m.Path == nvsp.PathSynthetic {
		g.notices.Add(1)
	}
}

// follow moves the data path to each function that the guest is told of, and off it before
// the host is told so. The completion is empty also if the host refuses because the
// function is going; then the guest has been told that before.
func (g *rawGuest) follow() {
	use := func(m association) {
		g.sending.Lock()
		defer g.sending.Unlock()
		if g.vf = nil; m.Allocated && m.n == g.last.Load() {
			g.vf = g.function(m.Serial)
		}
	}
	for {
		select {
		case m := <-g.news:
			if m.Allocated {
				g.ask(nvsp.SwitchDataPath{Path: nvsp.PathVF}.Append(nil))
				use(m)
				continue
			}
			use(m)
			g.ask(nvsp.SwitchDataPath{Path: nvsp.PathSynthetic}.Append(nil))
		case <-g.ch.Closed():
			return
		case <-g.stop:
			return
		}
	}
}

// frames hands up the frames of a packet and completes it.
func (g *rawGuest) frames(p vmbus.Packet) {
	var storage [400]vmbus.ByteRange
	_, ranges, err := p.TransferPages(storage[:])
	if err != nil {
		g.t.Error(err)
	}
	for _, r := range ranges {
		b := g.recv.Bytes[r.Offset:][:r.Count]
		if h, err := rndis.ParsePacket(b, len(b)); err == nil {
			g.got(slices.Clone(b[h.DataOffset:][:h.DataLen]))
		}
	}
	g.put(0, nil, p.TID)
}

// put sends an in-band message, or, with a transaction id, its completion.
func (g *rawGuest) put(flags uint16, msg []byte, complete ...uint64) {
	b := vmbus.AppendInBand(nil, flags, 0)
	if len(complete) > 0 {
		b, msg = vmbus.AppendCompletion(nil, complete[0]), nvsp.RNDISPacketComplete{Status: nvsp.StatusSuccess}.Append(nil)
	}
	g.send(b, nvsp.Pad(msg, 0, nvsp.MaxSize))
}

func (g *rawGuest) send(head, msg []byte) {
	g.ch.Lock()
	defer g.ch.Unlock()
	if err := g.ch.Out.Put(head, msg); err != nil {
		g.t.Error(err)
	}
	g.ch.Flush()
}

// wait returns a new transaction and where its completion comes.
func (g *rawGuest) wait() (tid uint64, c chan []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.tid++
	c = make(chan []byte, 1)
	g.waiting[g.tid] = c
	return g.tid, c
}

// done waits for a completion.
func (g *rawGuest) done(c chan []byte) []byte {
	select {
	case b := <-c:
		return b
	case <-g.ch.Closed():
	case <-g.stop:
	}
	return nil
}

// ask sends an NVSP message and returns the payload of its completion.
func (g *rawGuest) ask(msg []byte) []byte {
	tid, c := g.wait()
	g.send(vmbus.AppendInBand(nil, vmbus.FlagCompletionRequested, tid), nvsp.Pad(msg, 0, nvsp.MaxSize))
	return g.done(c)
}

// rndis sends an RNDIS message by the page. The caller is alone, or holds sending.
func (g *rawGuest) rndis(kind uint32, msg []byte) {
	copy(g.page.Bytes, msg)
	tid, c := g.wait()
	m := nvsp.RNDISPacket{Channel: kind, Section: nvsp.NoSection}
	r := vmbus.PageRange{Count: uint32(len(msg)), PFNs: []uint64{g.page.PFN(0)}}
	g.send(vmbus.AppendGPADirect(nil, tid, []vmbus.PageRange{r}), nvsp.Pad(m.Append(nil), 0, nvsp.MaxSize))
	g.done(c)
}

// transmit sends a frame by the path that is in use.
func (g *rawGuest) transmit(frame []byte) {
	g.sending.Lock()
	defer g.sending.Unlock()
	if g.vf != nil {
		g.vf.send(frame)
		return
	}
	b := make([]byte, rndis.MaxPacketHeader)
	n := rndis.PutPacket(b, len(frame), nil)
	g.rndis(nvsp.ChannelData, append(b[:n], frame...))
}

// onVF reports whether the path is the function.
func (g *rawGuest) onVF() bool {
	g.sending.Lock()
	defer g.sending.Unlock()
	return g.vf != nil
}
