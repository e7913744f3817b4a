package control

import (
	"errors"
	"testing"

	"hvnet/nic"
)

// versioned is a fake that tells the versions of its host.
type versioned struct{ fake }

func (versioned) HostVersions() nic.HostVersions {
	return nic.HostVersions{VMBus: "5.3", NVSP: "6.1", NDIS: "6.30"}
}

func TestHostVersions(t *testing.T) {
	runtimeIn(t)
	d := new(versioned)
	s, err := ServeDevice(netns, "eth0", d)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, err := Device(t.Context(), netns, "eth0")
	if err != nil {
		t.Fatal(err)
	}
	if v, err := c.HostVersions(t.Context()); err != nil || v != d.HostVersions() {
		t.Errorf("%+v, %v", v, err)
	}
}

// A device that does not tell has no such method.
func TestHostVersionsUnknown(t *testing.T) {
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
	if _, err := c.HostVersions(t.Context()); !errors.Is(err, ErrUnknownMethod) {
		t.Errorf("%v, want %v", err, ErrUnknownMethod)
	}
}
