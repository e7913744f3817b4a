package guest_test

import (
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hvnet/guest"
	"hvnet/host"
	"hvnet/hv"
	"hvnet/netvsc"
	"hvnet/nic"
)

// stoppable is a host that can stop: it is there, and does nothing any more.
type stoppable struct {
	hv.Partition
	stopped atomic.Bool
}

func (s *stoppable) PostMessage(conn uint32, payloads ...[]byte) error {
	if !s.stopped.Load() {
		return s.Partition.PostMessage(conn, payloads...)
	}
	select {
	case <-s.Done():
		return hv.ErrGone
	case <-time.After(hv.PostTimeout):
		return hv.StatusTimeout
	}
}

func (s *stoppable) SignalEvent(conn uint32) error {
	if s.stopped.Load() {
		return nil
	}
	return s.Partition.SignalEvent(conn)
}

// startStoppable starts a guest whose NIC is up, and whose host can be stopped. The
// test closes the guest.
func startStoppable(t *testing.T) (*guest.Guest, *stoppable) {
	t.Helper()
	h := host.New(host.Config{})
	part, far, err := hv.Pipe(2)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- h.Serve(far, host.PortConfig{}) }()
	s := &stoppable{Partition: part}
	g, err := guest.Start(t.Context(), s, guest.Config{})
	if err == nil {
		err = g.NIC.Up(t.Context(), drain{})
	}
	if err != nil {
		t.Fatal(err)
	}
	synctest.Wait() // until the host sleeps
	t.Cleanup(func() {
		if err := errors.Join(h.Close(t.Context()), <-served); err != nil && !errors.Is(err, hv.ErrGone) {
			t.Error(err)
		}
	})
	return g, s
}

// A guest that leaves a host that has stopped waits for it no longer than a second,
// and says that it did not answer.
func TestCloseOfStoppedHost(t *testing.T) {
	for name, x := range map[string]struct {
		before, after func(*testing.T, *guest.Guest)
	}{
		"up":   {},
		"down": {before: func(t *testing.T, g *guest.Guest) { must(t, g.NIC.Down(t.Context())) }},
		"suspended": {before: func(t *testing.T, g *guest.Guest) {
			must(t, g.NIC.Suspend(t.Context()))
		}},
		"with a frame under way": {after: func(t *testing.T, g *guest.Guest) {
			g.NIC.Send(0, []nic.Frame{{Head: make([]byte, 60)}})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, s := startStoppable(t)
				if x.before != nil {
					x.before(t, g)
					synctest.Wait() // until the host sleeps again
				}
				s.stopped.Store(true)
				if x.after != nil {
					x.after(t, g)
				}
				begin := time.Now()
				err := g.Close(t.Context())
				if !errors.Is(err, netvsc.ErrSilent) {
					t.Errorf("Close: %v", err)
				}
				// A drain looks every millisecond whether the host has read its ring.
				if took := time.Since(begin); took > time.Second+10*time.Millisecond {
					t.Errorf("it took %v: %v", took, err)
				}
			})
		})
	}
}

// A change of settings against a host that has stopped ends within its deadline and
// says so, and the guest looks for the host again.
func TestChangeOfStoppedHost(t *testing.T) {
	for name, change := range map[string]func(*testing.T, *guest.Guest) error{
		"channels": func(t *testing.T, g *guest.Guest) error { return g.NIC.SetChannels(t.Context(), 1) },
		"rings":    func(t *testing.T, g *guest.Guest) error { return g.NIC.SetRings(t.Context(), 100, 100) },
		"MTU":      func(t *testing.T, g *guest.Guest) error { return g.NIC.SetMTU(t.Context(), 1400) },
		"suspend":  func(t *testing.T, g *guest.Guest) error { return g.NIC.Suspend(t.Context()) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, s := startStoppable(t)
				s.stopped.Store(true)
				begin := time.Now()
				if err := change(t, g); !errors.Is(err, nic.ErrTimeout) {
					t.Errorf("got %v", err)
				} else {
					t.Log(err)
				}
				if took := time.Since(begin); took > 10*time.Second {
					t.Errorf("it took %v", took)
				}
				<-g.Done() // there is no way to another host
				if err := g.Close(t.Context()); err != nil {
					t.Errorf("Close: %v", err)
				}
			})
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
