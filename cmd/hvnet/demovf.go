package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"hvnet/guest"
	"hvnet/host"
	linkiface "hvnet/link/iface"
	"hvnet/netvsc/vf"
	"hvnet/nic"
	"hvnet/nvsp"
)

// function gives guest1 a virtual function and takes it away again. Only a guest with a
// namespace of its own can have one.
func (t *tour) function(ctx context.Context, _ *demoCmd) error {
	st, ok := t.stations[0].(*kernelStation)
	if !ok {
		return nil
	}
	t.heading("A virtual function of guest1 comes and goes",
		"While it is there frames go past the host's software. A removal is announced, and loses nothing.")
	g := t.guests[0]
	if t.host.Profile().NVSP[0] < nvsp.V5 { // drivers do not ask for one then
		t.row("a host of this release has none")
		return nil
	}
	leave, err := st.functions(ctx, t.host, g, t.names[0])
	if err != nil {
		t.row("there is none here", err.Error())
		return nil
	}
	defer leave()
	if err := t.pingBy(ctx, "with it"); err != nil {
		return err
	}
	if err := t.host.RemoveVF(ctx, t.names[0]); err != nil {
		return err
	}
	if err := g.NIC.AwaitPath(ctx, vf.Synthetic); err != nil {
		return err
	}
	if err := t.pingBy(ctx, "without it"); err != nil {
		return err
	}
	for _, m := range g.NIC.VFTimeline() {
		t.row("path → "+m.To, fmt.Sprintf("first: %s, answered in %s, senders held %s", m.First, short(m.Took), short(m.Held)))
	}
	return nil
}

// pingBy pings the gateway and shows which way that went.
func (t *tour) pingBy(ctx context.Context, when string) error {
	const count = 3
	before := vfFrames(t.guests[0].NIC.Stats())
	rtts, err := t.stations[0].Ping(ctx, demoGateway[0].Addr(), count)
	if err != nil {
		return err
	}
	t.row(when, fmt.Sprintf("%d of %d pings back, %d frames by the function", len(rtts), count, vfFrames(t.guests[0].NIC.Stats())-before))
	return nil
}

// vfFrames returns how many frames have gone by a virtual function, both ways.
func vfFrames(stats []nic.Stat) (n uint64) {
	for _, s := range stats {
		if s.Name == "vf_rx_packets" || s.Name == "vf_tx_packets" {
			n += s.Value
		}
	}
	return n
}

// functions gives the station a virtual function, and returns when frames go by it. leave
// ends what finds it.
func (s *kernelStation) functions(ctx context.Context, h *host.Host, g *guest.Guest, port string) (leave func(), err error) {
	found, err := s.box.OpenFunctions(ctx, linkiface.Auto)
	if err != nil {
		return nil, err
	}
	joining, stop := context.WithCancelCause(ctx)
	found.Refused = func(err error) { stop(err) }
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		stop(g.JoinVFs(joining, found))
	}()
	leave = func() {
		stop(nil)
		<-ended
	}
	err = (&vfs{host: h, make: vfIn(s.box, false)}).add(ctx, port)
	if err == nil {
		soon, cancel := context.WithTimeout(joining, 5*time.Second)
		defer cancel()
		if err = g.NIC.AwaitPath(soon, vf.VF); err != nil {
			err = errors.Join(context.Cause(joining), err)
		}
	}
	if err != nil {
		leave()
		return nil, err
	}
	return leave, nil
}
