// Package e2e holds tests of driver and device joined over a real bus, which
// neither of the two may import.
package e2e

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"testing"
	"time"

	"hvnet/hv"
	"hvnet/netvsc"
	"hvnet/netvsp"
	"hvnet/netvsp/profile"
	"hvnet/nic"
	"hvnet/vmbus"
	"hvnet/vmbus/channel"
	vmbusguest "hvnet/vmbus/guest"
	vmbushost "hvnet/vmbus/host"
)

// A driverRig is a driver and a device in one process, with everything between.
type driverRig struct {
	nic    *netvsc.NIC
	device *netvsp.Device
	port   *driverPort
	served chan error
	server *vmbushost.Server
	offer  *vmbushost.Offered
	bus    *vmbusguest.Bus
	guest  hv.Guest
	gone   bool // the test has closed it
}

// A driverPort is what the device is connected to: it keeps what the guest sends,
// or sends it back.
type driverPort struct {
	mu      sync.Mutex
	frames  [][]byte
	channel map[uint16]int
	echo    nic.Sink
	got     chan struct{}
}

func newDriverPort() *driverPort {
	return &driverPort{got: make(chan struct{}, 1), channel: map[uint16]int{}}
}

func (p *driverPort) Close() {}

// clear forgets the frames so far.
func (p *driverPort) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.frames = nil
}

func (p *driverPort) WriteFrames(frames []nic.Frame) {
	p.mu.Lock()
	echo := p.echo
	for i := range frames {
		b := make([]byte, frames[i].Len())
		frames[i].CopyTo(b)
		p.frames = append(p.frames, b)
		p.channel[frames[i].Channel]++
	}
	p.mu.Unlock()
	if echo != nil {
		echo.WriteFrames(frames)
	}
	select {
	case p.got <- struct{}{}:
	default:
	}
}

func (p *driverPort) wait(t testing.TB, what string, n int) [][]byte {
	t.Helper()
	deadline := time.NewTimer(devicePatience)
	defer deadline.Stop()
	for {
		p.mu.Lock()
		frames := p.frames
		p.mu.Unlock()
		if len(frames) >= n {
			return frames
		}
		select {
		case <-p.got:
		case <-deadline.C:
			t.Fatalf("%s: %d frames, want %d", what, len(frames), n)
		}
	}
}

var driverMAC = nic.MAC{0x00, 0x15, 0x5d, 1, 2, 3}

func newDriverRig(t testing.TB, release string, vps int, cfg netvsc.Config) *driverRig {
	t.Helper()
	p, err := profile.Lookup(release)
	if err != nil {
		t.Fatal(err)
	}
	return newDriverRigOn(t, p, vps, cfg)
}

// newDriverRigOn is newDriverRig on a host of one's own.
func newDriverRigOn(t testing.TB, p profile.Profile, vps int, cfg netvsc.Config) *driverRig {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), devicePatience)
	t.Cleanup(cancel)
	part, g, err := hv.Pipe(vps)
	if err != nil {
		t.Fatal(err)
	}
	r := &driverRig{port: newDriverPort(), served: make(chan error, 1), guest: g}
	r.device = netvsp.New(netvsp.Config{Name: "port", MAC: driverMAC, Profile: p, SRIOV: true}, func(nic.Sink) (netvsp.Port, error) { return r.port, nil })
	srv := vmbushost.New(g, vmbushost.Config{Versions: p.VMBus})
	r.server = srv
	r.offerDevice(t)
	go func() { r.served <- srv.Serve() }()
	bus, err := vmbusguest.Connect(ctx, part, vmbusguest.Config{Versions: vmbus.Versions()})
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	r.bus = bus
	dev, err := bus.Device(ctx, vmbus.ClassNIC)
	if err != nil {
		t.Fatal(err)
	}
	r.nic, err = netvsc.Open(ctx, dev, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), devicePatience)
		defer cancel()
		if err := r.nic.Close(ctx); err != nil {
			t.Errorf("close NIC: %v", err)
		}
		for _, a := range r.nic.Accounts() {
			if err := a.AtRest(); err != nil {
				t.Error(err)
			}
		}
		if err := bus.Unload(ctx); err != nil && !r.gone {
			t.Errorf("unload: %v", err)
		}
		bus.Close()
		part.Close()
		<-r.served
	})
	return r
}

// offerDevice offers the device on the guest's bus.
func (r *driverRig) offerDevice(t testing.TB) {
	t.Helper()
	var err error
	r.offer, err = r.server.Offer(vmbus.Offer{Class: vmbus.ClassNIC, Instance: vmbus.GUID{1}}, r.device.Backend)
	if err != nil {
		t.Fatal(err)
	}
}

// driverFrame returns a UDP frame from the NIC whose flow and content depend on id.
func driverFrame(id, n int) []byte {
	b := make([]byte, max(n, 42))
	copy(b, []byte{0x00, 0x15, 0x5d, 9, 9, 9})
	copy(b[6:], driverMAC[:])
	copy(b[12:], []byte{0x08, 0x00, 0x45})
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

func driverFrames(from, n int, size func(i int) int) (raw [][]byte, frames []nic.Frame) {
	for i := from; i < from+n; i++ {
		b := driverFrame(i, size(i))
		raw = append(raw, b)
		f := nic.Frame{Head: b}
		if len(b) > nic.HeadLen {
			f.Head, f.Body = b[:nic.HeadLen], [][]byte{b[nic.HeadLen:]}
		}
		frames = append(frames, f)
	}
	return
}

// sendAll sends frames, waiting for the host where it is behind.
func (r *driverRig) sendAll(frames []nic.Frame) {
	for len(frames) > 0 {
		frames = frames[r.nic.Send(0, frames):]
	}
}

func sameSet(t testing.TB, what string, got, want [][]byte) {
	t.Helper()
	left := map[string]int{}
	for _, b := range want {
		left[string(b)]++
	}
	for _, b := range got {
		left[string(b)]--
	}
	for b, n := range left {
		if n != 0 {
			t.Fatalf("%s: %+d of a frame of %d bytes", what, n, len(b))
		}
	}
}

// TestDriverOnEveryHost brings the driver up on every release of the host and sends
// frames of all sizes both ways.
func TestDriverOnEveryHost(t *testing.T) {
	for _, release := range profile.Names() {
		t.Run(release, func(t *testing.T) {
			p, _ := profile.Lookup(release)
			r := newDriverRig(t, release, 4, netvsc.Config{})
			sink := newDriverPort()
			ctx := context.Background()
			if err := r.nic.Up(ctx, sink); err != nil {
				t.Fatal(err)
			}
			i := r.nic.Info()
			if i.NVSP != p.NVSP[0].String() || i.MAC != driverMAC || i.MTU != 1500 || i.Link.Up != true {
				t.Errorf("Info: %+v", i)
			}
			if want := min(4, p.MaxChannels); i.Channels != want {
				t.Errorf("%d channels, want %d", i.Channels, want)
			}
			raw, frames := driverFrames(0, 1000, func(i int) int { return 14 + i%1501 })
			r.sendAll(frames)
			sameSet(t, "guest to host", r.port.wait(t, "guest to host", len(raw)), raw)
			raw, frames = driverFrames(0, 500, func(i int) int { return 14 + i*3 })
			for i := range raw {
				copy(raw[i], driverMAC[:])
			}
			for len(frames) > 0 {
				k := min(50, len(frames))
				r.device.WriteFrames(frames[:k])
				frames = frames[k:]
			}
			sameSet(t, "host to guest", sink.wait(t, "host to guest", len(raw)), raw)
			info := r.device.Info()
			if info.Faults != 0 || info.Failures != 0 || len(info.TxDropped) != 0 || len(info.RxDropped) != 0 {
				t.Errorf("device: %+v", info)
			}
		})
	}
}

// TestDriverSetChannels changes the number of channels with traffic both ways.
func TestDriverSetChannels(t *testing.T) {
	r := newDriverRig(t, profile.Default, 8, netvsc.Config{})
	r.port.echo = r.device
	sink := newDriverPort()
	ctx := context.Background()
	if err := r.nic.Up(ctx, sink); err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan int)
	go func() {
		sent := 0
		defer func() { stopped <- sent }()
		_, frames := driverFrames(0, 64, func(i int) int { return 60 + i })
		for {
			select {
			case <-stop:
				return
			default:
				sent += r.nic.Send(0, frames)
			}
		}
	}()
	for _, n := range []int{1, 4, 2, 8, 3, 8} {
		if err := r.nic.SetChannels(ctx, n); err != nil {
			t.Fatalf("set %d channels: %v", n, err)
		}
		if c := r.nic.Channels(); c.Combined != n {
			t.Errorf("%d channels, want %d", c.Combined, n)
		}
	}
	close(stop)
	sent := <-stopped
	frames := r.port.wait(t, "guest to host", sent)
	if len(frames) != sent {
		t.Errorf("%d frames arrived, %d were sent", len(frames), sent)
	}
	if err := r.nic.SetChannels(ctx, 9); !errors.Is(err, nic.ErrInvalid) {
		t.Errorf("set 9 channels: %v", err)
	}
}

// TestDriverJumbo sends frames that begin in a section and go on in pages.
func TestDriverJumbo(t *testing.T) {
	r := newDriverRig(t, profile.Default, 2, netvsc.Config{MTU: 9000})
	if err := r.nic.Up(context.Background(), newDriverPort()); err != nil {
		t.Fatal(err)
	}
	raw, frames := driverFrames(0, 300, func(i int) int { return 60 + i*29 })
	src := &driverSource{frames: raw, wake: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.nic.Pump(ctx, src) }()
	got := r.port.wait(t, "pumped", len(raw))
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	sameSet(t, "pumped", got, raw)
	r.sendAll(frames)
	sameSet(t, "sent", r.port.wait(t, "sent", 2*len(raw))[len(raw):], raw)
}

// A driverSource gives its frames once.
type driverSource struct {
	mu     sync.Mutex
	frames [][]byte
	wake   chan struct{}
}

func (s *driverSource) ReadFrame(first, rest []byte) (int, nic.Offload, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.frames) == 0 {
		return 0, nic.Offload{}, nic.ErrNoFrame
	}
	f := s.frames[0]
	s.frames = s.frames[1:]
	copy(rest, f[copy(first, f):])
	return len(f), nic.Offload{}, nil
}

func (s *driverSource) add(frames ...[]byte) {
	s.mu.Lock()
	s.frames = append(s.frames, frames...)
	s.mu.Unlock()
	s.Wake()
}

func (s *driverSource) Wait() error { <-s.wake; return nil }

func (s *driverSource) Wake() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// TestDriverRescind takes the NIC away under traffic and gives it back, several times.
func TestDriverRescind(t *testing.T) {
	r := newDriverRig(t, profile.Default, 2, netvsc.Config{})
	ctx, cancel := context.WithTimeout(context.Background(), devicePatience)
	t.Cleanup(cancel)
	if err := r.nic.Up(ctx, newDriverPort()); err != nil {
		t.Fatal(err)
	}
	src := &driverSource{wake: make(chan struct{}, 1)}
	pumping, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- r.nic.Pump(pumping, src) }()
	for round := range 5 {
		_, frames := driverFrames(0, 64, func(i int) int { return 60 + i })
		r.nic.Send(0, frames)
		r.offer.Rescind()
		for len(r.nic.Lost()) == 0 && ctx.Err() == nil {
			r.nic.Send(0, frames)
		}
		if err := <-r.nic.Lost(); !errors.Is(err, channel.ErrRescinded) {
			t.Fatalf("lost: %v", err)
		}
		if err := r.nic.SetChannels(ctx, 1); !errors.Is(err, nic.ErrNoDevice) {
			t.Errorf("SetChannels: %v", err)
		}
		if err := r.nic.Detach(ctx); err != nil {
			t.Fatal(err)
		}
		<-r.offer.Released()
		r.port.clear()
		raw := driverFrame(round, 100)
		src.add(raw)
		r.offerDevice(t)
		dev, err := r.bus.Device(ctx, vmbus.ClassNIC)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.nic.Reattach(ctx, dev); err != nil {
			t.Fatal(err)
		}
		sameSet(t, "after the return", r.port.wait(t, "after the return", 1), [][]byte{raw})
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("pump: %v", err)
	}
}

// TestDriverHostGone has the host leave without a word under traffic: whoever uses
// the NIC is told, and closing it still gives everything back.
func TestDriverHostGone(t *testing.T) {
	r := newDriverRig(t, profile.Default, 4, netvsc.Config{})
	ctx := context.Background()
	if err := r.nic.Up(ctx, newDriverPort()); err != nil {
		t.Fatal(err)
	}
	down := make(chan struct{})
	var once sync.Once
	r.nic.OnLink(func(s nic.LinkState) {
		if !s.Up {
			once.Do(func() { close(down) })
		}
	})
	_, frames := driverFrames(0, 64, func(i int) int { return 60 + i })
	r.nic.Send(0, frames)
	r.gone = true
	r.guest.Close()
	deadline := time.After(devicePatience)
	select {
	case err := <-r.nic.Lost():
		if !errors.Is(err, nic.ErrNoDevice) {
			t.Errorf("lost: %v", err)
		}
	case <-deadline:
		t.Fatal("the NIC is not lost")
	}
	select {
	case <-down:
	case <-deadline:
		t.Error("the link stays up")
	}
	if n := r.nic.Send(0, frames); n != 0 {
		t.Errorf("Send took %d frames", n)
	}
	if err := r.nic.SetChannels(ctx, 1); !errors.Is(err, nic.ErrNoDevice) {
		t.Errorf("SetChannels: %v", err)
	}
}

// TestDriverLink has the host take the link down and up.
func TestDriverLink(t *testing.T) {
	r := newDriverRig(t, profile.Default, 2, netvsc.Config{})
	if err := r.nic.Up(context.Background(), newDriverPort()); err != nil {
		t.Fatal(err)
	}
	states := make(chan nic.LinkState, 16)
	r.nic.OnLink(func(s nic.LinkState) { states <- s })
	for _, up := range []bool{true, false, true} {
		r.device.SetLink(nic.LinkState{Up: up, Mbps: 40000})
		deadline := time.After(devicePatience)
		for s := (nic.LinkState{Up: !up}); s.Up != up; {
			select {
			case s = <-states:
			case <-deadline:
				t.Fatalf("the link is not %v", up)
			}
		}
	}
}
