package matrix

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"hvnet/guest"
	"hvnet/host"
	"hvnet/hv"
	"hvnet/internal/packets"
	"hvnet/link/netstack"
	"hvnet/link/tap"
	"hvnet/netvsp/profile"
	"hvnet/nic"
	"hvnet/vswitch"
)

const patience = 30 * time.Second

// The stations of the switch.
var (
	macA       = nic.MAC{0x00, 0x15, 0x5d, 0, 0, 0xa}
	macB       = nic.MAC{0x00, 0x15, 0x5d, 0, 0, 0xb}
	macGateway = nic.MAC{0x00, 0x15, 0x5d, 0, 0, 1}
	macTAP     = nic.MAC{0x02, 0x15, 0x5d, 0, 0, 0xc}
)

// What the packets of package packets say of themselves: from the guest to the gateway.
const (
	addr4, addr6 = "192.168.0.1", "2001:db8::1"
	gateway4     = "192.168.0.2/24"
	gateway6     = "2001:db8::2/64"
)

// A world is a host in this process with the gateway, and guests of it.
type world struct {
	host   *host.Host
	guests []*guest.Guest
	rated  bool // a kernel's TCP sends, which finds its rate by what is lost
}

// newWorld makes a host with a gateway. The port of guest a is a trunk. All of it ends with the test.
func newWorld(t testing.TB, prof profile.Profile, mtu int) *world {
	t.Helper()
	w := &world{host: host.New(host.Config{Profile: prof, VLANs: map[string]vswitch.VLAN{macA.String(): vswitch.Trunk()}})}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := w.host.Close(ctx); err != nil {
			t.Errorf("close host: %v", err)
		}
	})
	err := w.host.AddGateway(netstack.GatewayConfig{MAC: macGateway, MTU: mtu,
		IPv4: netip.MustParsePrefix(gateway4), IPv6: netip.MustParsePrefix(gateway6)})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// join attaches a guest.
func (w *world) join(ctx context.Context, t testing.TB, mac nic.MAC, mtu int) *guest.Guest {
	t.Helper()
	const vps = 2
	part, far, err := hv.Pipe(vps)
	if err != nil {
		t.Fatal(err)
	}
	go w.host.Serve(far, host.PortConfig{Name: mac.String(), MAC: mac})
	g, err := guest.Start(ctx, part, guest.Config{VPs: vps, MTU: mtu})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := g.Close(ctx); err != nil {
			t.Errorf("close guest: %v", err)
		}
	})
	w.guests = append(w.guests, g)
	return g
}

// set switches features of all drivers.
func (w *world) set(ctx context.Context, change nic.FeatureChange) error {
	for _, g := range w.guests {
		if err := g.NIC.SetFeatures(ctx, change); err != nil {
			return err
		}
		want := change.On & g.NIC.Features().Available
		if got := g.NIC.Features().Wanted & change.Change; got != want {
			return fmt.Errorf("guest %v has the features %b switched on, want %b", g.NIC.MAC(), got, want)
		}
	}
	return nil
}

// A frameWorld is one of raw frames: guest a sends, and there are guest b and what
// stands for a TAP of the host.
type frameWorld struct {
	*world
	atA, atB, atTAP *catcher

	source *source // of a's pump
}

// newFrameWorld makes a world in which nothing has been sent yet. atTAP gets what is
// for the TAP.
func newFrameWorld(t testing.TB, prof profile.Profile, mtu int, atTAP *catcher) *frameWorld {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	w := &frameWorld{world: newWorld(t, prof, mtu), atA: newCatcher(), atB: newCatcher(), atTAP: atTAP, source: newSource()}
	w.atA.all = true // its address is asked for
	if _, err := w.host.Switch().Connect("tap", w.atTAP, vswitch.PortOptions{MAC: macTAP, VLAN: vswitch.Trunk()}); err != nil {
		t.Fatal(err)
	}
	a, b := w.join(ctx, t, macA, mtu), w.join(ctx, t, macB, mtu)
	if err := errors.Join(a.NIC.Up(ctx, w.atA), b.NIC.Up(ctx, w.atB)); err != nil {
		t.Fatal(err)
	}
	pumping, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.NIC.Pump(pumping, w.source) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("pump: %v", err)
		}
	})
	return w
}

// A catcher is a sink like a TAP's: it takes what that takes, and keeps the frames.
type catcher struct {
	all   bool // those too that ask for neighbours
	takes nic.Offloads

	mu     sync.Mutex
	frames []caught
	more   chan struct{} // capacity 1

	large int // frames that are to be cut, as whoever took them has counted
}

// caught is a frame with its metadata.
type caught struct {
	bytes []byte
	meta  nic.Offload
}

func newCatcher() *catcher {
	return &catcher{takes: (*tap.TAP)(nil).Takes(), more: make(chan struct{}, 1)}
}

func (c *catcher) Takes() nic.Offloads { return c.takes }

func (c *catcher) WriteFrames(frames []nic.Frame) {
	c.mu.Lock()
	for i := range frames {
		if c.all || !asks(frames[i].Head) {
			c.frames = append(c.frames, caught{packets.Bytes(&frames[i]), frames[i].Offload})
		}
	}
	c.mu.Unlock()
	select {
	case c.more <- struct{}{}:
	default:
	}
}

// take waits for frames and forgets them.
func (c *catcher) take(ctx context.Context) ([]caught, error) {
	for {
		c.mu.Lock()
		list := c.frames
		c.frames = nil
		c.mu.Unlock()
		if len(list) > 0 {
			return list, nil
		}
		select {
		case <-c.more:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for frames: %w", ctx.Err())
		}
	}
}

// wire returns what a frame is on a wire: the frame itself, with its checksum, or what
// it is cut into. An error says which checksum is not what its metadata say.
func (c caught) wire() ([][]byte, error) {
	switch {
	case c.meta.Checksum == nic.ChecksumBad:
		return nil, fmt.Errorf("told to have a bad checksum: %x", c.bytes)
	case c.meta.Segment != nic.SegmentNone:
		return packets.Cut(c.bytes, int(c.meta.Size)), nil
	case c.meta.Checksum == nic.ChecksumPartial:
		packets.Correct(c.bytes)
	case !packets.Right(c.bytes):
		return nil, fmt.Errorf("a wrong checksum, told to be %v: %x", c.meta.Checksum, c.bytes)
	}
	return [][]byte{c.bytes}, nil
}

// A source gives frames to a pump.
type source struct {
	mu     sync.Mutex
	frames []nic.Frame
	wake   chan struct{} // capacity 1
}

func newSource() *source { return &source{wake: make(chan struct{}, 1)} }

func (s *source) add(frames []nic.Frame) {
	s.mu.Lock()
	s.frames = append(s.frames, frames...)
	s.mu.Unlock()
	s.Wake()
}

func (s *source) ReadFrame(first, rest []byte) (int, nic.Offload, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.frames) == 0 {
		return 0, nic.Offload{}, nic.ErrNoFrame
	}
	f := s.frames[0]
	s.frames = s.frames[1:]
	b := packets.Bytes(&f)
	copy(rest, b[copy(first, b):])
	return len(b), f.Offload, nil
}

func (s *source) Wait() error { <-s.wake; return nil }

func (s *source) Wake() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
