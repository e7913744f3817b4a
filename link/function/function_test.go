package function

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"hvnet/internal/need"
	"hvnet/internal/packets"
	"hvnet/link/iface"
	"hvnet/nic"
)

var address = nic.MAC{0, 0x15, 0x5d, 1, 2, 3}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// enter moves the test to a network namespace of its own, the guest's, which ends with the
// thread, and returns it.
func enter(t testing.TB) *os.File {
	t.Helper()
	need.Root(t)
	runtime.LockOSThread()
	check(t, unix.Unshare(unix.CLONE_NEWNET))
	ns, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
	check(t, err)
	t.Cleanup(func() { ns.Close() })
	return ns
}

// made makes a function for the guest and returns the host's end.
func made(t testing.TB, ns *os.File, serial uint32) *Host {
	t.Helper()
	return madeFor(t, ns, Config{MAC: address, Serial: serial})
}

func madeFor(t testing.TB, ns *os.File, cfg Config) *Host {
	t.Helper()
	files, err := Make(ns, cfg)
	check(t, err)
	files, err = ListedHostFiles(files.List())
	check(t, err)
	h, err := NewHost(files, cfg)
	check(t, err)
	t.Cleanup(func() { h.Close() })
	return h
}

// A tally keeps what is written to it, or counts it.
type tally struct {
	counts atomic.Pointer[counting]
	mu     sync.Mutex
	frames []nic.Frame // copies
	news   chan struct{}
}

func newTally() *tally { return &tally{news: make(chan struct{}, 1)} }

func (a *tally) WriteFrames(frames []nic.Frame) {
	if c := a.counts.Load(); c != nil {
		c.WriteFrames(frames)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range frames {
		a.frames = append(a.frames, nic.Frame{Head: packets.Bytes(&frames[i]), Offload: frames[i].Offload})
	}
	select {
	case a.news <- struct{}{}:
	default:
	}
}

func (a *tally) len() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.frames)
}

// await waits for n frames, and returns them.
func (a *tally) await(t testing.TB, n int) []nic.Frame {
	t.Helper()
	late := time.After(10 * time.Second)
	for a.len() < n {
		select {
		case <-a.news:
		case <-late:
			t.Fatalf("%d frames have come, want %d", a.len(), n)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.frames
}

// A port is a NIC's as far as the tests need one.
type port struct {
	*tally
	dev     *Device
	changes chan [2]bool // up, carrier
	left    chan bool    // whether the device was there
	done    chan struct{}
}

func (p *port) Changed(up, carrier bool) { p.changes <- [2]bool{up, carrier} }
func (p *port) Leave(there bool)         { p.left <- there }
func (p *port) Done() <-chan struct{}    { return p.done }

// state waits until the device is in a state.
func (p *port) state(t testing.TB, up, carrier bool) {
	t.Helper()
	late := time.After(10 * time.Second)
	var last [2]bool
	for {
		select {
		case last = <-p.changes:
			if last == [2]bool{up, carrier} {
				return
			}
		case <-late:
			t.Fatalf("the device is %v, want up %v, carrier %v", last, up, carrier)
		}
	}
}

// A watched guest has its functions joined to ports.
type watched struct {
	*Guest
	ports chan *port
	ended chan error
	stop  context.CancelFunc
}

func watch(t testing.TB) *watched {
	t.Helper()
	return watchBy(t, iface.Auto)
}

func watchBy(t testing.TB, way iface.Way, set ...func(*Guest)) *watched {
	t.Helper()
	files, err := OpenGuestFiles()
	check(t, err)
	files, err = ListedGuestFiles(files.List())
	check(t, err)
	g, err := NewGuest(files, way)
	check(t, err)
	w := &watched{Guest: g, ports: make(chan *port, 10), ended: make(chan error, 1)}
	g.Refused = func(err error) { t.Error(err) }
	for _, f := range set {
		f(g)
	}
	var ctx context.Context
	ctx, w.stop = context.WithCancel(context.Background())
	go func() {
		w.ended <- g.Run(ctx, address, func(d *Device) (Port, error) {
			p := &port{newTally(), d, make(chan [2]bool, 1000), make(chan bool, 1), make(chan struct{})}
			w.ports <- p
			return p, nil
		})
	}()
	t.Cleanup(func() {
		w.stop()
		if err := <-w.ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		g.Close()
	})
	return w
}

// join waits for a function.
func (w *watched) join(t testing.TB) *port {
	t.Helper()
	select {
	case p := <-w.ports:
		return p
	case err := <-w.ended:
		w.ended <- nil
		t.Fatalf("Run has ended: %v", err)
	case <-time.After(10 * time.Second):
		t.Fatal("no function is found")
	}
	panic("unreachable")
}

// up waits for a function and sets it up.
func (w *watched) up(t testing.TB) *port {
	t.Helper()
	p := w.join(t)
	check(t, p.dev.SetUp(true))
	p.state(t, true, true)
	return p
}

func TestAlias(t *testing.T) {
	for alias, want := range map[string]uint32{"hvnet vf serial 7": 7, "hvnet vf serial 0": 0, "hvnet vf serial 4294967295": 1<<32 - 1} {
		for _, wire := range []bool{false, true} {
			if wire {
				alias += ", as on a wire"
			}
			if n, w, ok := ParseAlias(alias); n != want || w != wire || !ok || Alias(n, wire) != alias {
				t.Errorf("%q: %d, %v, %v", alias, n, w, ok)
			}
		}
	}
	for _, alias := range []string{"", "hvnet vf serial ", "hvnet vf serial 07", "hvnet vf serial +7", "hvnet vf serial 4294967296", "serial 7", "hvnet vf serial 7 ", "hvnet vf serial , as on a wire"} {
		if n, wire, ok := ParseAlias(alias); n != 0 || wire || ok {
			t.Errorf("%q: %d, %v, %v", alias, n, wire, ok)
		}
	}
}

// frames returns one of each kind, in several pieces.
func frames() []nic.Frame {
	tcp := func(s packets.Shape, n int) []byte { return s.Frame(packets.Random(n)) }
	return []nic.Frame{
		packets.Split(tcp(packets.Shape{}, 100), 60),
		packets.Split(tcp(packets.Shape{UDP: true}, 1472), 60, 500),
		packets.Partial(tcp(packets.Shape{V6: true}, 700), nic.SegmentNone, 0, 100),
		packets.Partial(tcp(packets.Shape{TCPOptions: 12, Flags: 0x08}, 60000), nic.SegmentTCPv4, 1448, 128, 30000),
		packets.Split(tcp(packets.Shape{Tag: true}, 1460), 60),
		packets.Partial(tcp(packets.Shape{Tag: true, TCPOptions: 12}, 40000), nic.SegmentTCPv4, 1448, 128),
	}
}

// same fails unless the frames have come as they were sent.
func same(t *testing.T, what string, got, sent []nic.Frame) {
	t.Helper()
	if len(got) != len(sent) {
		t.Fatalf("%s: %d frames have come, want %d", what, len(got), len(sent))
	}
	for i := range sent {
		if string(got[i].Head) != string(packets.Bytes(&sent[i])) || got[i].Offload != sent[i].Offload {
			t.Errorf("%s: frame %d is %d bytes, %+v; want %d, %+v", what, i, len(got[i].Head), got[i].Offload, sent[i].Len(), sent[i].Offload)
		}
	}
}

// TestFrames passes frames of all kinds both ways, as they are.
func TestFrames(t *testing.T) {
	ns := enter(t)
	h, w := made(t, ns, 7), watch(t)
	fromGuest := newTally()
	h.Start(fromGuest)
	p := w.up(t)
	if p.dev.MAC() != address || p.dev.Serial() != 7 || p.dev.Name() != "vf7" {
		t.Errorf("the function is %s, %v, serial %d", p.dev.Name(), p.dev.MAC(), p.dev.Serial())
	}
	sent := frames()
	h.WriteFrames(sent)
	same(t, "to the guest", p.await(t, len(sent)), sent)
	p.dev.WriteFrames(sent)
	same(t, "from the guest", fromGuest.await(t, len(sent)), sent)
	check(t, h.Drain(t.Context()))
	if n := p.dev.Dropped(); n != 0 {
		t.Errorf("%d frames dropped", n)
	}
}

// TestComeAndGo has functions come and go, by the hands of the host and of a user, who also
// sets one down and renames it.
func TestComeAndGo(t *testing.T) {
	ns := enter(t)
	w := watch(t)
	h := made(t, ns, 7)
	p := w.up(t)
	link, err := netlink.LinkByName("vf7")
	check(t, err)
	check(t, netlink.LinkSetDown(link))
	p.state(t, false, false)
	check(t, netlink.LinkSetName(link, "fast"))
	check(t, netlink.LinkSetUp(link))
	p.state(t, true, true)
	if p.dev.Name() != "fast" || w.Device() != p.dev {
		t.Errorf("the function is %v, named %s", w.Device(), p.dev.Name())
	}
	check(t, p.dev.SetMTU(1400))
	check(t, p.dev.SetMAC(nic.MAC{2, 0, 0, 0, 0, 1}))
	check(t, p.dev.SetPromiscuous(true))
	link, err = netlink.LinkByName("fast")
	check(t, err)
	if a := link.Attrs(); a.MTU != 1400 || a.HardwareAddr.String() != "02:00:00:00:00:01" || a.Promisc != 1 {
		t.Errorf("the interface is %+v", a)
	}
	check(t, h.Close())
	p.state(t, false, false)
	if <-p.left {
		t.Error("the host has removed it, and it is there")
	}
	check(t, p.dev.SetUp(true)) // it is gone, which is no error

	h = made(t, ns, 8)
	p = w.up(t)
	if p.dev.Serial() != 8 {
		t.Errorf("serial %d", p.dev.Serial())
	}
	link, err = netlink.LinkByName("vf8")
	check(t, err)
	check(t, netlink.LinkDel(link))
	<-h.Gone()
	if <-p.left {
		t.Error("a user has removed it, and it is there")
	}
	check(t, h.Drain(t.Context()))
	check(t, h.Close())

	made(t, ns, 9)
	p = w.up(t)
	close(p.done) // as a NIC does that has lost its own device,
	if !<-p.left {
		t.Error("it is there")
	}
	p = w.join(t) // and wants it again
	w.stop()
	if !<-p.left {
		t.Error("it is there")
	}
}

// TestNotFunctions: others have the NIC's address too.
func TestNotFunctions(t *testing.T) {
	enter(t)
	w := watch(t)
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0", HardwareAddr: address[:]}}
	check(t, netlink.LinkAdd(bridge))
	check(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "v0"}, PeerName: "v1"}))
	v0, err := netlink.LinkByName("v0")
	check(t, err)
	check(t, netlink.LinkSetHardwareAddr(v0, address[:])) // a function that is known by its address alone
	if p := w.join(t); p.dev.Name() != "v0" || p.dev.Serial() != 0 {
		t.Errorf("%s, serial %d, is a function", p.dev.Name(), p.dev.Serial())
	}
}

func TestMakeFails(t *testing.T) {
	ns := enter(t)
	made(t, ns, 7)
	if _, err := Make(ns, Config{MAC: address, Serial: 7}); !errors.Is(err, ErrExists) {
		t.Errorf("a second one of the name: %v", err)
	}
	if _, err := ListedHostFiles(nil); err == nil {
		t.Error("no files are files of a host")
	}
	if _, err := ListedGuestFiles(nil); err == nil {
		t.Error("no files are files of a guest")
	}
}

// TestFoundAgain: a function that its NIC has let go of, and that had another address
// meanwhile, is found by its own one again.
func TestFoundAgain(t *testing.T) {
	ns := enter(t)
	made(t, ns, 7)
	w := watch(t)
	p := w.up(t)
	check(t, p.dev.SetMAC(nic.MAC{2, 0, 0, 0, 0, 1}))
	close(p.done)
	<-p.left
	if again := w.up(t); again.dev.Serial() != 7 {
		t.Errorf("another one is found, with serial number %d", again.dev.Serial())
	}
}
