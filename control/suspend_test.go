package control

import (
	"context"
	"errors"
	"testing"

	"hvnet/nic"
)

// sleeper is a fake that can be suspended.
type sleeper struct {
	fake
	asleep bool
}

func (s *sleeper) Suspend(context.Context) error { return s.turn(true) }
func (s *sleeper) Resume(context.Context) error  { return s.turn(false) }

func (s *sleeper) turn(asleep bool) error {
	if s.asleep == asleep {
		return nic.ErrNoDevice
	}
	s.asleep = asleep
	return nil
}

func TestSuspend(t *testing.T) {
	runtimeIn(t)
	d := new(sleeper)
	s, err := ServeDevice(netns, "eth0", d)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, err := Device(t.Context(), netns, "eth0")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []bool{true, false} {
		turn := c.Resume
		if want {
			turn = c.Suspend
		}
		if err := turn(t.Context()); err != nil || d.asleep != want {
			t.Errorf("asleep %v, want %v: %v", d.asleep, want, err)
		}
		if err := turn(t.Context()); !errors.Is(err, nic.ErrNoDevice) {
			t.Errorf("twice: %v", err)
		}
	}
}

// A device that can't be suspended has no such methods.
func TestSuspendUnknown(t *testing.T) {
	runtimeIn(t)
	s, err := ServeDevice(netns, "eth0", new(fake))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, err := Device(t.Context(), netns, "eth0")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Suspend(t.Context()); !errors.Is(err, ErrUnknownMethod) {
		t.Error(err)
	}
}
