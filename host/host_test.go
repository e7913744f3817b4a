package host_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"hvnet/host"
	"hvnet/hv"
	"hvnet/link/netstack"
	"hvnet/nic"
	"hvnet/vmbus"
	"hvnet/vmbus/channel"
	vmbusguest "hvnet/vmbus/guest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what has to happen.
const patience = 20 * time.Second

func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// newHost returns a host that is closed with the test.
func newHost(t testing.TB, cfg host.Config) *host.Host {
	h := host.New(cfg)
	t.Cleanup(func() {
		if err := h.Close(soon(t)); err != nil {
			t.Error(err)
		}
	})
	return h
}

// A visitor is a guest that takes its NIC and does nothing with it.
type visitor struct {
	bus    *vmbusguest.Bus
	dev    channel.Device
	served chan error
}

// visit attaches a visitor, in this process.
func visit(t testing.TB, h *host.Host, want host.PortConfig) *visitor {
	t.Helper()
	part, far, err := hv.Pipe(2)
	if err != nil {
		t.Fatal(err)
	}
	v := &visitor{served: make(chan error, 1)}
	go func() { v.served <- h.Serve(far, want) }()
	if v.bus, err = vmbusguest.Connect(soon(t), part, vmbusguest.Config{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.bus.Close() })
	if v.dev, err = v.bus.Device(soon(t), vmbus.ClassNIC); err != nil {
		t.Fatal(err)
	}
	return v
}

// leave ends the visit.
func (v *visitor) leave(t testing.TB) {
	t.Helper()
	v.bus.Close()
	if err := await(t, v.served, "the end of Serve"); !errors.Is(err, hv.ErrGone) {
		t.Errorf("Serve: %v", err)
	}
}

// refused tries to attach a guest and returns why the host does not want it.
func refused(t testing.TB, h *host.Host, want host.PortConfig) error {
	t.Helper()
	part, far, err := hv.Pipe(1)
	if err != nil {
		t.Fatal(err)
	}
	defer part.Close()
	admit := h.Admit(want)
	if err = h.Serve(far, want); err == nil || errors.Is(err, hv.ErrGone) {
		t.Errorf("Serve of %+v: %v", want, err)
	}
	select {
	case <-part.Done():
	default:
		t.Error("a guest that was refused is still attached")
	}
	if admit == nil || !strings.HasSuffix(err.Error(), admit.Error()) {
		t.Errorf("Admit of %+v: %v", want, admit)
	}
	return err
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

// place returns what the host made of a guest: the identity of its NIC.
func (v *visitor) place() vmbus.GUID { return v.dev.Offer().Instance }

// A name is an identity: who comes back with it has the same place, and who has none
// gets the first that is free.
func TestNames(t *testing.T) {
	h := newHost(t, host.Config{})
	first := visit(t, h, host.PortConfig{})
	second := visit(t, h, host.PortConfig{})
	named := visit(t, h, host.PortConfig{Name: "web"})
	places := []vmbus.GUID{first.place(), second.place(), named.place()}
	if places[0] == places[1] || places[1] == places[2] || places[0] == places[2] {
		t.Errorf("places %v", places)
	}
	for _, name := range []string{"guest1", "guest2", "web"} {
		err := refused(t, h, host.PortConfig{Name: name})
		if !errors.Is(err, host.ErrPortInUse) || err.Error() != "attach guest: port "+name+": the port is in use" {
			t.Errorf("port %s: %v", name, err)
		}
	}
	first.leave(t)
	named.leave(t)
	if got := visit(t, h, host.PortConfig{Name: "web"}).place(); got != places[2] {
		t.Errorf("web came back to %v, not %v", got, places[2])
	}
	if got := visit(t, h, host.PortConfig{}).place(); got != places[0] {
		t.Errorf("the free name is not that of the first guest")
	}
	if third := visit(t, h, host.PortConfig{}).place(); slices.Contains(places, third) {
		t.Error("two guests at one place")
	}
}

// An address belongs to one port, whoever has it.
func TestAddresses(t *testing.T) {
	h := newHost(t, host.Config{})
	gateway := nic.MAC{0x00, 0x15, 0x5d, 0, 0, 1}
	if err := h.AddGateway(netstack.GatewayConfig{MAC: gateway, IPv4: prefix(1)}); err != nil {
		t.Fatal(err)
	}
	own := nic.MAC{2, 0, 0, 0, 0, 7}
	visit(t, h, host.PortConfig{Name: "a", MAC: own})
	b := visit(t, h, host.PortConfig{Name: "b"})
	for _, x := range []struct {
		want host.PortConfig
		err  string
	}{
		{host.PortConfig{Name: "c", MAC: own}, "port c: MAC address 02:00:00:00:00:07 belongs to port a"},
		{host.PortConfig{MAC: own}, "port guest1: MAC address 02:00:00:00:00:07 belongs to port a"},
		{host.PortConfig{Name: "c", MAC: host.PortMAC("b")}, "belongs to port b"},
		{host.PortConfig{Name: "c", MAC: gateway}, "belongs to port gateway"},
		{host.PortConfig{Name: "gateway"}, "port gateway: the port is in use"},
	} {
		if err := refused(t, h, x.want); !strings.Contains(err.Error(), x.err) {
			t.Errorf("%+v: %v, want %q", x.want, err, x.err)
		}
	}
	b.leave(t)
	visit(t, h, host.PortConfig{Name: "c", MAC: host.PortMAC("b")})
	if again := host.PortMAC("a"); again != host.PortMAC("a") || again == host.PortMAC("b") {
		t.Error("PortMAC is no function of the name")
	}
}

// A guest that does not leave is closed after a while, and no guest comes any more.
func TestCloseWithoutHelp(t *testing.T) {
	for _, x := range []struct {
		name string
		own  time.Duration // of the caller's context
		took time.Duration
	}{
		{"in its own time", time.Minute, 20*time.Millisecond + 5*time.Second}, // to come to rest, and to leave
		{"in the caller's", 100 * time.Millisecond, 100 * time.Millisecond},
	} {
		t.Run(x.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := host.New(host.Config{})
				closed := 0
				h.OnClose(func() { closed++ })
				v := visit(t, h, host.PortConfig{})
				if _, err := v.dev.Open(t.Context(), 0, 2*hv.PageSize); err != nil { // and keeps it
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), x.own)
				defer cancel()
				begin := time.Now()
				if err := h.Close(ctx); err != nil {
					t.Error(err)
				}
				if took := time.Since(begin); took != x.took {
					t.Errorf("Close took %v", took)
				}
				if err := await(t, v.served, "the end of Serve"); !errors.Is(err, hv.ErrGone) {
					t.Errorf("Serve: %v", err)
				}
				select {
				case <-v.dev.Rescinded():
				default:
					t.Error("the guest still has its NIC")
				}
				if err := refused(t, h, host.PortConfig{}); !errors.Is(err, host.ErrClosing) {
					t.Errorf("a guest after Close: %v", err)
				}
				if h.OnClose(func() { closed++ }); closed != 2 {
					t.Errorf("%d of 2 things were closed", closed)
				}
				if err := h.Close(ctx); err != nil || closed != 2 {
					t.Errorf("Close again: %v", err)
				}
				v.bus.Close()
			})
		})
	}
}
