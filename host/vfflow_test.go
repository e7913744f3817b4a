package host_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"hvnet/guest"
	"hvnet/host"
	"hvnet/hv"
	"hvnet/internal/packets"
	"hvnet/link/netstack"
	"hvnet/nic"
	"hvnet/vswitch"
)

// outside is the address of who talks to the guest of a vfRig.
var outside = nic.MAC{2, 0, 0, 0, 0, 1}

// A vfRig is a host with a guest at port "a" that has SR-IOV: our driver on our device, with
// numbered frames both ways between the guest and a station outside.
type vfRig struct {
	t     testing.TB
	h     *host.Host
	g     *guest.Guest
	stack atomic.Pointer[netstack.Host] // the guest's, if it has one

	down, up *flow // to the guest, and from it
	port     nic.Sink
	sent     int         // frames to the guest
	src      *flowSource // what the guest sends

	refused atomic.Uint64 // frames of the guest, by functions that were gone

	ctx    context.Context // of the guest's pumps
	pumps  sync.WaitGroup
	far    hv.Guest // as the host has it
	served chan error
	stop   func() // of the flows
	leave  func() // of the guest
}

// newVFRig makes one, with bad lines if there are any. Its flows begin with run.
func newVFRig(t testing.TB, cfg host.Config, bad ...host.Impairment) *vfRig {
	t.Helper()
	cfg.SRIOV = true
	r := &vfRig{t: t, h: newHost(t, cfg), src: newFlowSource(), served: make(chan error, 1), stop: func() {}}
	mac := host.PortMAC("a")
	r.down, r.up = newFlow(mac, outside), newFlow(outside, mac)
	port, err := r.h.Switch().Connect("outside", r.up, vswitch.PortOptions{MAC: outside})
	if err != nil {
		t.Fatal(err)
	}
	r.port = port
	for _, im := range bad {
		r.h.Impair("a", im)
	}
	part, far, err := hv.Pipe(2)
	if err != nil {
		t.Fatal(err)
	}
	r.far = far
	go func() { r.served <- r.h.Serve(far, host.PortConfig{Name: "a"}) }()
	if r.g, err = guest.Start(soon(t), part, guest.Config{VF: true, Queues: 2}); err != nil {
		t.Fatal(err)
	}
	if err := r.g.NIC.Up(soon(t), r); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.ctx = ctx
	r.pump(r.src)
	r.leave = sync.OnceFunc(func() {
		cancel()
		r.pumps.Wait()
		if err := r.g.Close(soon(t)); err != nil {
			t.Error(err)
		}
		for _, a := range r.g.NIC.Accounts() {
			if err := a.AtRest(); err != nil {
				t.Error(err)
			}
		}
	})
	t.Cleanup(func() {
		r.stop()
		r.leave()
		port.Close()
	})
	return r
}

// WriteFrames takes what the guest's NIC receives.
func (r *vfRig) WriteFrames(frames []nic.Frame) {
	r.down.WriteFrames(frames)
	if s := r.stack.Load(); s != nil {
		s.WriteFrames(frames)
	}
}

// pump has the guest send what comes from a source.
func (r *vfRig) pump(src nic.Source) { r.pumps.Go(func() { r.g.NIC.Pump(r.ctx, src) }) }

// send sends a frame to the guest.
func (r *vfRig) send(b []byte) {
	if r.sent++; r.sent%512 == 0 {
		until(r.t, "the host to see what the guest has returned", func() bool { return r.inFlight() < 4000 })
	}
	r.port.WriteFrames([]nic.Frame{{Head: b}})
}

// inFlight returns how many of the guest's 9289 receive sections the host believes to be
// with the guest. It may not have come to see what was returned, for who sends and who
// receives can keep the processors for themselves for a while.
func (r *vfRig) inFlight() int {
	for _, p := range r.h.Ports() {
		if p.Guest != nil {
			return p.Guest.Receive.InFlight
		}
	}
	return 0
}

// refill is that of both flows.
func (r *vfRig) refill() {
	r.down.refill()
	r.up.refill()
}

// run has the flows begin, until stop.
func (r *vfRig) run() {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { r.down.run(ctx, r.send) })
	running.Go(func() { r.up.run(ctx, r.src.add) })
	r.stop = func() { cancel(); running.Wait() }
}

// A flow is numbered frames of which a few are under way at a time. It is the sink that
// they come to in the end.
type flow struct {
	dst, src nic.MAC
	credit   chan struct{}

	mu    sync.Mutex
	sent  uint32
	got   []uint8 // how often each came
	count uint32  // that came, or are known to be lost
	lost  uint32
	next  uint32 // behind the last that came
	late  int    // that came behind a later one
	goal  uint32 // see reach
	there chan struct{}
}

// flowType is the Ethernet type of the frames of flows: for experiments.
const flowType = 0x88b5

func newFlow(dst, src nic.MAC) *flow {
	f := &flow{dst: dst, src: src, credit: make(chan struct{}, 32)}
	f.refill()
	return f
}

// refill has as many frames follow as may be under way.
func (f *flow) refill() {
	for {
		select {
		case f.credit <- struct{}{}:
		default:
			return
		}
	}
}

// run sends until ctx ends.
func (f *flow) run(ctx context.Context, send func([]byte)) {
	for n := 0; ; n++ {
		select {
		case <-f.credit:
			send(f.frame())
			if n%8 == 0 {
				runtime.Gosched() // or sender and receiver wake only each other
			}
		case <-ctx.Done():
			return
		}
	}
}

// frame returns the next frame to be sent.
func (f *flow) frame() []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	b := make([]byte, 100)
	copy(b, f.dst[:])
	copy(b[6:], f.src[:])
	binary.BigEndian.PutUint16(b[12:], flowType)
	binary.BigEndian.PutUint32(b[14:], f.sent)
	for i := 18; i < len(b); i++ {
		b[i] = byte(int(f.sent) + i)
	}
	f.sent++
	f.got = append(f.got, 0)
	return b
}

// number returns the number of a frame, false for one of something else or with a wrong
// byte.
func (f *flow) number(b []byte) (uint32, bool) {
	if len(b) < 18 || nic.MAC(b[6:12]) != f.src || binary.BigEndian.Uint16(b[12:]) != flowType {
		return 0, false
	}
	k := binary.BigEndian.Uint32(b[14:])
	for i := 18; i < len(b); i++ {
		if b[i] != byte(int(k)+i) {
			return 0, false
		}
	}
	return k, len(b) == 100
}

func (f *flow) WriteFrames(frames []nic.Frame) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range frames {
		k, ok := f.number(packets.Bytes(&frames[i]))
		if !ok || k >= f.sent {
			continue
		}
		f.got[k]++
		if k < f.next {
			f.late++
		}
		f.next = max(f.next, k+1)
		f.done()
	}
}

// done counts a frame, and lets the next one follow. The caller holds mu.
func (f *flow) done() {
	f.count++
	select {
	case f.credit <- struct{}{}:
	default: // a duplicate, which check finds
	}
	if f.there != nil && f.count >= f.goal {
		close(f.there)
		f.there = nil
	}
}

// reach returns what is closed when so many frames have come or are known to be lost. One
// waits at a time.
func (f *flow) reach(n uint32) <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := make(chan struct{})
	if f.goal, f.there = n, c; f.count >= n {
		close(c)
		f.there = nil
	}
	return c
}

// arrivals returns how many frames have come or are known to be lost.
func (f *flow) arrivals() uint32 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count
}

// lose is told of a frame that is lost.
func (f *flow) lose(b []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.number(b); ok {
		f.lost++
		f.done()
	}
}

// check waits until each frame that was sent has come, but for those that are known to be
// lost. Nothing is sent any more.
func (f *flow) check(t *testing.T, what string) {
	t.Helper()
	select {
	case <-f.reach(f.sent):
	case <-soon(t).Done():
		t.Errorf("%s: %d frames came or were lost, of %d", what, f.arrivals(), f.sent)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	missing := uint32(0)
	for i, k := range f.got {
		switch k {
		case 0:
			missing++
		case 1:
		default:
			t.Errorf("%s: frame %d came %d times", what, i, k)
		}
	}
	if missing != f.lost {
		t.Errorf("%s: %d frames are missing, %d were lost on purpose", what, missing, f.lost)
	}
}

func (f *flow) String() string {
	return fmt.Sprintf("%d frames, %d lost, %d behind later ones", f.sent, f.lost, f.late)
}

// A flowSource gives frames to a pump.
type flowSource struct {
	mu     sync.Mutex
	frames [][]byte
	wake   chan struct{} // capacity 1
}

func newFlowSource() *flowSource { return &flowSource{wake: make(chan struct{}, 1)} }

func (s *flowSource) add(b []byte) {
	s.mu.Lock()
	s.frames = append(s.frames, b)
	s.mu.Unlock()
	s.Wake()
}

func (s *flowSource) ReadFrame(first, rest []byte) (int, nic.Offload, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.frames) == 0 {
		return 0, nic.Offload{}, nic.ErrNoFrame
	}
	b := s.frames[0]
	s.frames = s.frames[1:]
	copy(rest, b[copy(first, b):])
	return len(b), nic.Offload{}, nil
}

func (s *flowSource) Wait() error { <-s.wake; return nil }

func (s *flowSource) Wake() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// pattern is what goes over TCP, again and again; its length is no power of two, so that a
// piece that is missing shows.
var pattern = packets.Random(65521)

// A stream is one TCP connection, with both sides sending.
type stream struct {
	ends  [2]net.Conn
	tasks sync.WaitGroup
	quit  chan struct{}

	mu   sync.Mutex
	sent [2]int
	got  [2]int
	errs []error
}

// connect gives the guest an IP stack and connects it to another one outside.
func (r *vfRig) connect() *stream {
	r.t.Helper()
	at := netip.AddrPortFrom(prefix(1).Addr(), 7)
	mac := nic.MAC{2, 0, 0, 0, 0, 2}
	peer, err := netstack.NewHost(netstack.HostConfig{MAC: mac, Addrs: []netip.Prefix{prefix(1)}})
	if err != nil {
		r.t.Fatal(err)
	}
	port, err := r.h.Switch().Connect("peer", peer, vswitch.PortOptions{MAC: mac})
	if err != nil {
		r.t.Fatal(err)
	}
	peer.Start(port)
	stack, err := netstack.NewHost(netstack.HostConfig{MAC: host.PortMAC("a"), Addrs: []netip.Prefix{prefix(2)}})
	if err != nil {
		r.t.Fatal(err)
	}
	r.stack.Store(stack)
	r.pump(stack.Source())
	r.t.Cleanup(func() {
		r.leave()
		port.Close()
		if err := errors.Join(stack.Close(), peer.Close()); err != nil {
			r.t.Error(err)
		}
	})
	l, err := peer.ListenTCP(at)
	if err != nil {
		r.t.Fatal(err)
	}
	defer l.Close()
	x := &stream{quit: make(chan struct{})}
	x.tasks.Go(func() { x.ends[1], _ = l.Accept() })
	conn, err := stack.DialTCP(soon(r.t), at)
	if err != nil {
		r.t.Fatal(err)
	}
	x.ends[0] = conn
	x.tasks.Wait()
	for side, c := range x.ends {
		// No more is under way than the host has memory for to the guest.
		credit := make(chan struct{}, 16)
		x.tasks.Go(func() { x.write(side, c, credit) })
		x.tasks.Go(func() { x.read(1-side, x.ends[1-side], credit) })
	}
	return x
}

func (x *stream) fail(err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.errs = append(x.errs, err)
}

func (x *stream) write(side int, c net.Conn, credit chan struct{}) {
	defer c.(interface{ CloseWrite() error }).CloseWrite()
	for n := 0; ; {
		select {
		case credit <- struct{}{}:
		case <-x.quit:
			return
		}
		at := n % len(pattern)
		k, err := c.Write(pattern[at:min(at+streamPiece, len(pattern))])
		n += k
		x.mu.Lock()
		x.sent[side] = n
		x.mu.Unlock()
		if err != nil {
			x.fail(err)
			return
		}
	}
}

// streamPiece is how much is written at a time.
const streamPiece = 4000

func (x *stream) read(side int, c net.Conn, credit chan struct{}) {
	b := make([]byte, streamPiece)
	for n := 0; ; {
		at := n % len(pattern)
		want := pattern[at:min(at+streamPiece, len(pattern))]
		k, err := io.ReadFull(c, b[:len(want)])
		n += k
		x.mu.Lock()
		x.got[side] = n
		x.mu.Unlock()
		if !bytes.Equal(b[:k], want[:k]) {
			x.fail(errors.New("wrong bytes"))
		}
		if err != nil {
			if err != io.EOF {
				x.fail(err)
			}
			return
		}
		<-credit
	}
}

// end waits until both sides have got all that was sent.
func (x *stream) end(t *testing.T) {
	t.Helper()
	close(x.quit)
	done := make(chan struct{})
	go func() { x.tasks.Wait(); close(done) }()
	select {
	case <-done:
	case <-soon(t).Done():
		t.Error("the TCP connection does not come to its end")
	}
	for _, c := range x.ends {
		c.Close()
	}
	<-done
	if len(x.errs) > 0 || x.got[0] != x.sent[1] || x.got[1] != x.sent[0] {
		t.Errorf("TCP: the guest has sent %d bytes and got %d, the other %d and %d: %v", x.sent[0], x.got[0], x.sent[1], x.got[1], x.errs)
	}
	t.Logf("TCP: %d bytes from the guest, %d to it", x.sent[0], x.sent[1])
}
