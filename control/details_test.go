package control

import (
	"errors"
	"testing"

	"hvnet/nic"
)

// detailed is a fake that tells more than ethtool shows.
type detailed struct{ fake }

func (detailed) Details() nic.Details {
	return nic.Details{VMBus: "5.3", NVSP: "6.1", NDIS: "6.30", FragmentCure: true}
}

func TestDetails(t *testing.T) {
	runtimeIn(t)
	d := new(detailed)
	s, err := ServeDevice(netns, "eth0", d)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, err := Device(t.Context(), netns, "eth0")
	if err != nil {
		t.Fatal(err)
	}
	if v, err := c.Details(t.Context()); err != nil || v != d.Details() {
		t.Errorf("%+v, %v", v, err)
	}
}

// A device that does not tell has no such method.
func TestDetailsUnknown(t *testing.T) {
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
	if _, err := c.Details(t.Context()); !errors.Is(err, ErrUnknownMethod) {
		t.Errorf("%v, want %v", err, ErrUnknownMethod)
	}
}
