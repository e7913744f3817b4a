package host_test

import (
	"context"
	"errors"
	"testing"

	"hvnet/host"
	"hvnet/netvsp"
	"hvnet/nic"
)

// A leavingVF is a function that goes by itself.
type leavingVF struct{ gone, closed chan struct{} }

func newLeaving() leavingVF { return leavingVF{make(chan struct{}), make(chan struct{})} }

func (leavingVF) WriteFrames([]nic.Frame)     {}
func (leavingVF) Start(nic.Sink)              {}
func (leavingVF) Drain(context.Context) error { return nil }
func (v leavingVF) Close() error              { close(v.closed); return nil }
func (v leavingVF) Gone() <-chan struct{}     { return v.gone }

// A function that is gone is taken away, and another one may come; that stays when the
// first one says again that it is gone.
func TestVFGone(t *testing.T) {
	h := newHost(t, host.Config{SRIOV: true})
	visit(t, h, host.PortConfig{Name: "a"})
	add := func(serial uint32) leavingVF {
		t.Helper()
		to, err := h.MayHaveVF("a")
		if err != nil || to.MAC != host.PortMAC("a") || to.Done == nil {
			t.Fatalf("%+v, %v", to, err)
		}
		v := newLeaving()
		if err := h.AddVF("a", serial, v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	first := add(1)
	if _, err := h.MayHaveVF("a"); !errors.Is(err, netvsp.ErrVF) {
		t.Errorf("beside a function: %v", err)
	}
	close(first.gone)
	await(t, first.closed, "the function to be closed")
	until(t, "the place free", func() bool {
		_, err := h.MayHaveVF("a")
		return err == nil
	})
	second := add(2)
	if err := h.RemoveVF(soon(t), "a"); err != nil {
		t.Fatal(err)
	}
	third := add(3)
	close(second.gone)
	if err := h.FlapVF(soon(t), "a"); err != nil { // the third one is still there
		t.Error(err)
	}
	close(third.gone)
	await(t, third.closed, "the function to be closed")
}

// Who may not have a function hears why before one is made.
func TestMayHaveVF(t *testing.T) {
	h := newHost(t, host.Config{})
	visit(t, h, host.PortConfig{Name: "a"})
	if _, err := h.MayHaveVF("a"); !errors.Is(err, netvsp.ErrNoSRIOV) {
		t.Errorf("without SR-IOV: %v", err)
	}
	if _, err := h.MayHaveVF("b"); !errors.Is(err, host.ErrNoGuest) {
		t.Errorf("without a guest: %v", err)
	}
}
