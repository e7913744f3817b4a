package guest_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"hvnet/guest"
	"hvnet/host"
	"hvnet/hv"
	"hvnet/link/netstack"
	"hvnet/nic"
)

// newGuest returns a guest called g1, with an IP stack, of a host with a gateway.
func newGuest(t *testing.T) (*host.Host, *guest.Guest, *netstack.Host) {
	t.Helper()
	h := host.New(host.Config{})
	if err := h.AddGateway(netstack.GatewayConfig{MAC: nic.MAC{0, 0x15, 0x5d, 0, 0, 1}, IPv4: netip.MustParsePrefix("198.18.0.1/24")}); err != nil {
		t.Fatal(err)
	}
	part, far, err := hv.Pipe(2)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- h.Serve(far, host.PortConfig{Name: "g1"}) }()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	g, err := guest.Start(ctx, part, guest.Config{Name: "g1", VPs: 2})
	if err != nil {
		t.Fatal(err)
	}
	stack, err := netstack.NewHost(netstack.HostConfig{MAC: g.NIC.MAC(), MTU: g.NIC.MTU()})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(g.NIC.Up(ctx, stack), stack.AddAddr(netip.MustParsePrefix("198.18.0.2/24"))); err != nil {
		t.Fatal(err)
	}
	pumping, stop := context.WithCancel(context.Background())
	var pump sync.WaitGroup
	pump.Go(func() {
		if err := g.NIC.Pump(pumping, stack.Source()); err != nil {
			t.Errorf("pump: %v", err)
		}
	})
	t.Cleanup(func() {
		stop()
		pump.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := errors.Join(stack.Close(), g.Close(ctx), h.Close(ctx)); err != nil {
			t.Error(err)
		}
		<-served
	})
	return h, g, stack
}

// ping sends echo requests to the gateway until one is answered.
func ping(t *testing.T, stack *netstack.Host) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for wait := 50 * time.Millisecond; ; wait *= 2 {
		try, cancel := context.WithTimeout(ctx, wait)
		_, err := stack.Ping(try, netip.MustParseAddr("198.18.0.1"))
		if err != nil {
			<-try.Done()
		}
		cancel()
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("no traffic: %v", err)
		}
	}
}

// changes returns what OnChange is told.
func changes(g *guest.Guest) <-chan error {
	told := make(chan error, 1000)
	g.OnChange(func(lost error) { told <- lost })
	return told
}

func awaitChange(t *testing.T, told <-chan error, want error) {
	t.Helper()
	if err := await(t, told, "a change"); !errors.Is(err, want) {
		t.Fatalf("told %v, want %v", err, want)
	}
}

// TestTakenAway has the host take the NIC away and give it back.
func TestTakenAway(t *testing.T) {
	h, g, stack := newGuest(t)
	told := changes(g)
	awaitChange(t, told, nil)
	ping(t, stack)
	for range 3 {
		if err := h.Rescind("g1"); err != nil {
			t.Fatal(err)
		}
		awaitChange(t, told, guest.ErrTakenAway)
		if g.NIC.Link().Up {
			t.Error("the link is up")
		}
		if err := h.Rescind("g1"); err == nil {
			t.Error("taken away twice")
		}
		if err := h.Offer("g1"); err != nil {
			t.Fatal(err)
		}
		awaitChange(t, told, nil)
		ping(t, stack)
		if err := h.Offer("g1"); err == nil {
			t.Error("given back twice")
		}
	}
	if err := h.Rescind("nobody"); !errors.Is(err, host.ErrNoGuest) {
		t.Errorf("rescind of no port: %v", err)
	}
}

// TestStorm takes the NIC away and gives it back at any moment, in the middle of
// traffic and of bring-up.
func TestStorm(t *testing.T) {
	h, g, stack := newGuest(t)
	g.OnChange(func(lost error) { t.Logf("lost: %v", lost) })
	talking, stop := context.WithCancel(t.Context())
	var talk sync.WaitGroup
	for range 4 {
		talk.Go(func() {
			for talking.Err() == nil {
				try, cancel := context.WithTimeout(talking, 10*time.Millisecond)
				if g.NIC.Link().Up {
					stack.Ping(try, netip.MustParseAddr("198.18.0.1"))
				} else { // a kernel does not send then either
					<-try.Done()
				}
				cancel()
			}
		})
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range 20 {
		for _, do := range []func(string) error{h.Rescind, h.Offer} {
			if err := do("g1"); err != nil {
				t.Fatal(err)
			}
			wait := time.NewTimer(time.Duration(rnd.IntN(5000)) * time.Microsecond)
			<-wait.C
		}
	}
	stop()
	talk.Wait()
	ping(t, stack)
}

// TestCloseWithoutNIC closes a guest whose NIC is away.
func TestCloseWithoutNIC(t *testing.T) {
	h, g, _ := newGuest(t)
	told := changes(g)
	awaitChange(t, told, nil)
	if err := h.Rescind("g1"); err != nil {
		t.Fatal(err)
	}
	awaitChange(t, told, guest.ErrTakenAway)
}

// TestHostGoneForGood ends the only host that a guest can have.
func TestHostGoneForGood(t *testing.T) {
	h, g, _ := newGuest(t)
	told := changes(g)
	awaitChange(t, told, nil)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := h.Close(ctx); err != nil {
		t.Fatal(err)
	}
	for err := error(nil); !errors.Is(err, guest.ErrHostGone); {
		err = await(t, told, "the end of the host")
	}
}
