package control

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hvnet/nic"
)

// placed is a fake with channels on processors.
type placed struct {
	fake
	at []nic.Place
}

func (p *placed) Placement() []nic.Place { return p.at }

func (p *placed) Move(_ context.Context, channel, vp int) error {
	if channel >= len(p.at) {
		return nic.ErrInvalid
	}
	p.at[channel].VP = vp
	return nil
}

func TestPlacement(t *testing.T) {
	runtimeIn(t)
	s, err := ServeDevice(netns, "eth0", &placed{at: []nic.Place{{Relid: 3}, {Channel: 1, Relid: 7, VP: 4, Node: 1}}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, err := Device(t.Context(), netns, "eth0")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Move(t.Context(), 1, 5); err != nil {
		t.Error(err)
	}
	if err := c.Move(t.Context(), 2, 5); !errors.Is(err, nic.ErrInvalid) {
		t.Error(err)
	}
	got, err := c.Placement(t.Context())
	if diff := cmp.Diff([]nic.Place{{Relid: 3}, {Channel: 1, Relid: 7, VP: 5, Node: 1}}, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}
