package control

import (
	"errors"
	"slices"
	"testing"
	"time"

	"hvnet/nic"
)

// counting is a fake that counts flows.
type counting struct{ fake }

func (counting) Flows(mark uint32, keep time.Duration) nic.FlowReport {
	return nic.FlowReport{Mark: mark + 1, Channels: []nic.Flows{{Received: int(keep / time.Second), Sent: 2}}}
}

func TestFlows(t *testing.T) {
	runtimeIn(t)
	for name, counts := range map[string]bool{"eth0": true, "eth1": false} {
		var s *Server
		var err error
		if counts {
			s, err = ServeDevice(netns, name, new(counting))
		} else {
			s, err = ServeDevice(netns, name, new(fake))
		}
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		c, err := Device(t.Context(), netns, name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.Flows(t.Context(), 6, 3*time.Second)
		if counts && (err != nil || got.Mark != 7 || !slices.Equal(got.Channels, []nic.Flows{{Received: 3, Sent: 2}})) {
			t.Errorf("%+v, %v", got, err)
		}
		if !counts && !errors.Is(err, ErrUnknownMethod) {
			t.Errorf("of a device that does not count: %v", err)
		}
		if err := Call(t.Context(), s.Path(), methodFlows, "x", nil); counts && !errors.Is(err, ErrMalformed) {
			t.Errorf("malformed: %v", err)
		}
	}
}
