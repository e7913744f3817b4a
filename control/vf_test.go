package control

import (
	"errors"
	"slices"
	"testing"
	"time"

	"hvnet/nic"
)

// moving is a fake with two data paths.
type moving struct{ fake }

func (moving) VFTimeline() []nic.VFMove {
	return []nic.VFMove{
		{At: time.Unix(1700000000, 5).UTC(), To: "vf", First: "host", Why: "a word", Took: time.Millisecond, Held: time.Second, InFlight: 3, Undrained: 1},
		{To: "vf", Failed: "refused"},
	}
}

func TestVFTimeline(t *testing.T) {
	runtimeIn(t)
	d := new(moving)
	s, err := ServeDevice(netns, "eth0", d)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, err := Device(t.Context(), netns, "eth0")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.VFTimeline(t.Context()); err != nil || !slices.Equal(got, d.VFTimeline()) {
		t.Errorf("%+v, %v", got, err)
	}
	plain, err := ServeDevice(netns, "eth1", new(fake))
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	if c, err = Device(t.Context(), netns, "eth1"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.VFTimeline(t.Context()); !errors.Is(err, ErrUnknownMethod) {
		t.Errorf("of a device with one path: %v", err)
	}
}

// TestServeIn: what is served beside drivers is none of them, and goes with its directory.
func TestServeIn(t *testing.T) {
	runtimeIn(t)
	s, err := ServeIn(netns, ".host", nil)
	if err != nil {
		t.Fatal(err)
	}
	d, err := ServeDevice(netns, "eth0", new(fake))
	if err != nil {
		t.Fatal(err)
	}
	if names, err := Interfaces(netns); err != nil || !slices.Equal(names, []string{"eth0"}) {
		t.Errorf("drivers: %q, %v", names, err)
	}
	if err := Call(t.Context(), s.Path(), "x", nil, nil); !errors.Is(err, ErrUnknownMethod) {
		t.Errorf("a method that there is not: %v", err)
	}
	if err := errors.Join(d.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	if _, err := inode(namespaceDir(netns)); err == nil {
		t.Error("the directory is left")
	}
}
