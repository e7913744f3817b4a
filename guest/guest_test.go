package guest_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hvnet/guest"
	"hvnet/host"
	"hvnet/hv"
	"hvnet/hv/attach"
	"hvnet/nic"
	"hvnet/vmbus"
	"hvnet/vmbus/channel"
	vmbushost "hvnet/vmbus/host"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what has to happen.
const patience = 20 * time.Second

func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func await[T any](t testing.TB, c <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatalf("waiting for %s", what)
	}
	return v
}

// socketPath returns a path for a socket, which must be short.
func socketPath(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "hv")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

// serve runs a host at path until the test ends.
func serve(t testing.TB, path string) *host.Host {
	t.Helper()
	h := host.New(host.Config{})
	l, err := h.Listen(path, attach.ListenConfig{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	accepted := make(chan error, 1)
	go func() { accepted <- h.Accept(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(await(t, accepted, "the end of Accept"), l.Close(), h.Close(soon(t))); err != nil {
			t.Error(err)
		}
	})
	return h
}

// start starts a guest of a host in this process.
func start(t testing.TB, h *host.Host, cfg guest.Config) *guest.Guest {
	t.Helper()
	part, far, err := hv.Pipe(2)
	if err != nil {
		t.Fatal(err)
	}
	go h.Serve(far, host.PortConfig{})
	g, err := guest.Start(soon(t), part, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close(soon(t)) })
	return g
}

// stale leaves a socket at path on which nobody listens.
func stale(t testing.TB, path string) {
	t.Helper()
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
}

// A guest waits for a host that is not there yet, or not there any more.
func TestDialWaits(t *testing.T) {
	for name, before := range map[string]func(testing.TB, string){
		"no socket":    func(testing.TB, string) {},
		"stale socket": stale,
	} {
		t.Run(name, func(t *testing.T) {
			path := socketPath(t)
			before(t, path)
			waiting := make(chan struct{}) // closed a second time it would panic
			dialed := make(chan error, 1)
			go func() {
				g, err := guest.Dial(soon(t), path, guest.Config{Name: "late"}, func() { close(waiting) })
				if err == nil {
					if g.NIC.MAC() != host.PortMAC("late") || g.NIC.Channels().Max < 2 {
						t.Errorf("a NIC with %v and %+v", g.NIC.MAC(), g.NIC.Channels())
					}
					err = g.Close(soon(t))
				}
				dialed <- err
			}()
			await(t, waiting, "the guest to wait")
			serve(t, path)
			if err := await(t, dialed, "the guest"); err != nil {
				t.Error(err)
			}
		})
	}
}

// A guest that waits in vain says for whom.
func TestDialGivesUp(t *testing.T) {
	path := socketPath(t)
	for _, x := range []struct {
		name string
		want error
		text string
	}{
		{"no socket", os.ErrNotExist, "no host at " + path + ": file does not exist"},
		{"stale socket", attach.ErrNoHost, "no host at " + path + ": nobody listens there any more"},
	} {
		if x.want == attach.ErrNoHost {
			stale(t, path)
		}
		ctx, cancel := context.WithCancel(t.Context())
		g, err := guest.Dial(ctx, path, guest.Config{}, cancel)
		if g != nil || !errors.Is(err, x.want) || err.Error() != x.text {
			t.Errorf("%s: %v", x.name, err)
		}
	}
}

// A guest that is refused does not try again.
func TestDialRefused(t *testing.T) {
	path := socketPath(t)
	var asked atomic.Int32
	l, err := attach.Listen(path, attach.ListenConfig{Admit: func(attach.Hello) error {
		asked.Add(1)
		return errors.New("not today")
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = guest.Dial(soon(t), path, guest.Config{}, func() { t.Error("it waits") })
	if !errors.Is(err, attach.ErrRefused) || !strings.HasSuffix(err.Error(), "not today") || !strings.Contains(err.Error(), path) {
		t.Errorf("refused: %v", err)
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

// A guest whose own try the host has yet to see the end of is not refused for good.
func TestDialRefusedByItself(t *testing.T) {
	path := socketPath(t)
	var asked atomic.Int32
	l, err := attach.Listen(path, attach.ListenConfig{Admit: func(attach.Hello) error {
		if asked.Add(1) == 2 {
			return errors.New("the port is in use")
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	h := host.New(host.Config{})
	defer h.Close(soon(t))
	served := make(chan error, 1)
	go func() {
		g, _, err := l.Accept(soon(t))
		if err == nil {
			g.Close() // the host is gone, as far as this guest can see
			g, _, err = l.Accept(soon(t))
		}
		if err == nil {
			err = h.Serve(g, host.PortConfig{})
		}
		served <- err
	}()
	g, err := guest.Dial(soon(t), path, guest.Config{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if n := asked.Load(); n != 3 {
		t.Errorf("asked %d times", n)
	}
	if err := g.Close(soon(t)); err != nil {
		t.Error(err)
	}
	await(t, served, "the host to see the guest leave")
}

// picky is a device that refuses its channel.
type picky struct{}

func (picky) Open(*channel.Channel) error { return errors.New("no") }
func (picky) Close(*channel.Channel)      {}
func (picky) Revoke(uint32)               {}
func (picky) Removed()                    {}

// A guest that can't start leaves nothing behind: at each stage.
func TestStartFails(t *testing.T) {
	for _, x := range []struct {
		name string
		cfg  guest.Config
		time time.Duration
		want string
		host func(hv.Guest)
	}{
		{"the host is gone", guest.Config{}, patience, "connect to the host's VMBus", func(g hv.Guest) { g.Close() }},
		{"the host is silent", guest.Config{}, time.Second, "wait for VERSION_RESPONSE", func(g hv.Guest) {
			g.Serve(silent{})
		}},
		{"no NIC", guest.Config{}, time.Second, "wait for the offer of a device of class " + vmbus.ClassNIC.String(), func(g hv.Guest) {
			vmbushost.New(g, vmbushost.Config{}).Serve()
		}},
		{"a NIC that refuses", guest.Config{}, patience, "netvsc: open:", func(g hv.Guest) {
			s := vmbushost.New(g, vmbushost.Config{})
			s.Offer(vmbus.Offer{Class: vmbus.ClassNIC}, func(channel.Bus) channel.Backend { return picky{} })
			s.Serve()
		}},
		{"bad configuration", guest.Config{MTU: 1}, patience, "MTU", func(g hv.Guest) {
			h := host.New(host.Config{})
			h.Serve(g, host.PortConfig{})
			h.Close(context.Background())
		}},
	} {
		t.Run(x.name, func(t *testing.T) {
			part, far, err := hv.Pipe(1)
			if err != nil {
				t.Fatal(err)
			}
			served := make(chan struct{})
			go func() {
				defer close(served)
				x.host(far)
			}()
			ctx, cancel := context.WithTimeout(t.Context(), x.time)
			defer cancel()
			g, err := guest.Start(ctx, part, x.cfg)
			if g != nil || err == nil || !strings.Contains(err.Error(), x.want) {
				t.Errorf("Start: %v, want %q", err, x.want)
			}
			await(t, served, "the host to see the guest leave")
			if _, err := part.Alloc(1); !errors.Is(err, hv.ErrGone) {
				t.Errorf("the partition is open: %v", err)
			}
		})
	}
}

// silent is a host that takes everything and answers nothing.
type silent struct{}

func (silent) Messages(uint32, []hv.Message) hv.Status { return hv.StatusSuccess }
func (silent) Signal(uint32)                           {}

// When the host takes the NIC away the guest is told, and closing is no error.
func TestHostLeaves(t *testing.T) {
	h := host.New(host.Config{})
	g := start(t, h, guest.Config{})
	if err := g.NIC.Up(soon(t), drain{}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-g.Done():
		t.Fatal("done at the beginning")
	default:
	}
	closed := make(chan error, 1)
	go func() { closed <- h.Close(soon(t)) }()
	await(t, g.Done(), "the guest to be told")
	if err := g.Close(soon(t)); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := await(t, closed, "the host to close"); err != nil {
		t.Error(err)
	}
}

// A host that vanishes without a word is noticed too.
func TestHostDies(t *testing.T) {
	h := host.New(host.Config{})
	defer h.Close(soon(t))
	part, far, err := hv.Pipe(2)
	if err != nil {
		t.Fatal(err)
	}
	go h.Serve(far, host.PortConfig{})
	g, err := guest.Start(soon(t), part, guest.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.NIC.Up(soon(t), drain{}); err != nil {
		t.Fatal(err)
	}
	far.Close()
	await(t, g.Done(), "the guest to notice")
	if err := g.Close(soon(t)); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// A guest closes without any time for it too, and leaves the host.
func TestCloseWithoutTime(t *testing.T) {
	h := host.New(host.Config{})
	defer h.Close(soon(t))
	for range 20 {
		g := start(t, h, guest.Config{})
		if err := g.NIC.Up(soon(t), drain{}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := g.Close(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Close: %v", err)
		}
		await(t, g.Done(), "the end")
	}
}

// drain is where received frames end.
type drain struct{}

func (drain) WriteFrames([]nic.Frame) {}
