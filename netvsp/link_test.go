package netvsp

import (
	"bytes"
	"testing"

	"hvnet/nic"
	"hvnet/nvsp"
	"hvnet/rndis"
)

// Literal bytes of what a guest is told, by host and by guest.
func TestLinkIndications(t *testing.T) {
	down := []byte{7, 0, 0, 0, 20, 0, 0, 0, 0x0c, 0, 1, 0x40, 0, 0, 0, 0, 0, 0, 0, 0}
	up := bytes.Clone(down)
	up[8] = 0x0b
	// 25 Gbit/s in units of 100 bit/s, behind the status, its length and its place.
	speed := append([]byte{7, 0, 0, 0, 24, 0, 0, 0, 0x13, 0, 1, 0x40, 4, 0, 0, 0, 12, 0, 0, 0}, 0x80, 0xb2, 0xe6, 0x0e)
	short := bytes.Clone(speed)
	short[4] = 20
	for name, c := range map[string]struct {
		version   nvsp.Version
		caps      nvsp.Capabilities
		uncounted bool
		link      nic.LinkState
		want      [][]byte
	}{
		"down":                    {nvsp.V61, nvsp.CapTeaming, false, nic.LinkState{Mbps: 10000}, [][]byte{down}},
		"no news":                 {nvsp.V61, nvsp.CapTeaming, false, nic.LinkState{Up: true, Mbps: 10000}, nil},
		"speed":                   {nvsp.V61, nvsp.CapTeaming, false, nic.LinkState{Up: true, Mbps: 25000}, [][]byte{speed}},
		"speed of an old switch":  {nvsp.V5, nvsp.CapTeaming, true, nic.LinkState{Up: true, Mbps: 25000}, [][]byte{short}},
		"speed without teaming":   {nvsp.V61, nvsp.CapVLAN, false, nic.LinkState{Up: true, Mbps: 25000}, nil},
		"speed before version 5":  {nvsp.V4, nvsp.CapTeaming, false, nic.LinkState{Up: true, Mbps: 25000}, nil},
		"down at another speed":   {nvsp.V61, nvsp.CapTeaming, false, nic.LinkState{Mbps: 25000}, [][]byte{down, speed}},
		"down, and an old switch": {nvsp.V5, nvsp.CapTeaming, true, nic.LinkState{Mbps: 10000}, [][]byte{down}},
	} {
		a := newAdapter(t, c.version)
		a.ctl.config.Capabilities = c.caps
		a.ctl.profile.UncountedPayload = c.uncounted
		got := a.setLink(c.link)
		if len(got) != len(c.want) {
			t.Errorf("%s: %d messages, want %d", name, len(got), len(c.want))
			continue
		}
		for i, m := range got {
			if !bytes.Equal(m, c.want[i]) {
				t.Errorf("%s:\n% x, want\n% x", name, m, c.want[i])
			}
		}
		if a.link != c.link {
			t.Errorf("%s: the link is %+v", name, a.link)
		}
	}
	a := newAdapter(t, nvsp.V61)
	a.setLink(nic.LinkState{})
	if got := a.setLink(nic.LinkState{Up: true}); len(got) != 1 || !bytes.Equal(got[0], up) {
		t.Errorf("up again: % x", got)
	}
	a.initialized = false
	if got := a.setLink(nic.LinkState{}); got != nil {
		t.Errorf("before INITIALIZE: % x", got)
	}
}

func TestNetworkChange(t *testing.T) {
	g := newGuest(t, "ws2022")
	g.up(nvsp.V61)
	g.dev.NetworkChange()
	if m, err := rndis.ParseIndicateStatus(g.answer()); err != nil || m.Status != rndis.StatusNetworkChange || len(m.Info) != 0 {
		t.Errorf("%+v, %v", m, err)
	}
}
