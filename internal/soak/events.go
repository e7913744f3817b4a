package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"hvnet/host"
	"hvnet/link/impair"
	"hvnet/link/pcap"
	"hvnet/netvsp"
)

// An event is one thing that happens to a member of the soak under traffic. It
// returns what exactly it was, for the log.
type event struct {
	name   string
	weight int // how often, beside the others
	can    func(*member) bool
	do     func(*world, context.Context, *member) (string, error)
}

// events are all that can happen. Each is one function; a new one needs a line
// here and nothing else.
var events = []event{
	{"channels", 5, anyone, (*world).changeChannels},
	{"move", 2, anyone, (*world).moveChannel},
	{"MTU", 3, anyone, (*world).changeMTU},
	{"rings", 2, anyone, (*world).changeRings},
	{"rescind and offer", 3, anyone, (*world).rescindAndOffer},
	{"down and up", 3, anyone, (*world).downAndUp},
	{"suspend and resume", 3, anyone, (*world).suspendAndResume},
	{"cable", 2, anyone, (*world).pullCable},
	{"leave and return", 3, anyone, (*world).leaveAndReturn},
	{"die and return", 3, mortal, (*world).dieAndReturn},
	{"freeze", 1, ofProcess, (*world).freeze},
	{"another host", 1, anyone, (*world).anotherHost},
	{"bad line", 3, rough, (*world).badLine},
	{"capture", 2, anyone, (*world).capture},
}

// mortal: whoever is attached from this process dies with it alone.
func mortal(m *member) bool    { return m.kind != "attached" }
func anyone(*member) bool      { return true }
func ofProcess(m *member) bool { return m.kind == "process" }
func rough(m *member) bool     { return m.number >= firstRough }

// changeChannels gives the guest another number of channels.
func (w *world) changeChannels(ctx context.Context, m *member) (string, error) {
	n := 1 + w.rand.IntN(vps)
	return fmt.Sprint(n), w.ask(ctx, m, command{"channels", n})
}

// moveChannel has the host interrupt another processor for one of the guest's channels.
func (w *world) moveChannel(ctx context.Context, m *member) (string, error) {
	n := w.rand.IntN(vps * vps)
	return fmt.Sprintf("one to processor %d", n%vps), w.ask(ctx, m, command{"move", n})
}

// changeMTU gives the guest another MTU, half of the time the usual one.
func (w *world) changeMTU(ctx context.Context, m *member) (string, error) {
	n := defaultMTU
	if w.rand.IntN(2) == 0 {
		n = minFrame + w.rand.IntN(maxMTU-minFrame)
	}
	return fmt.Sprint(n), w.ask(ctx, m, command{"mtu", n})
}

// changeRings gives the guest buffers of other sizes.
func (w *world) changeRings(ctx context.Context, m *member) (string, error) {
	n := 500 + w.rand.IntN(2500) // fit the buffer with any MTU
	return fmt.Sprint(n), w.ask(ctx, m, command{"rings", n})
}

// rescindAndOffer has the host take the guest's NIC away, and give it back while the
// guest still lets go of it, or later.
func (w *world) rescindAndOffer(ctx context.Context, m *member) (string, error) {
	before, _ := w.device(m)
	if err := w.host.Rescind(m.name()); err != nil {
		return "", err
	}
	ms := w.rand.IntN(4) * w.rand.IntN(50)
	pause(ctx, time.Duration(ms)*time.Millisecond)
	what := fmt.Sprint("after ", ms, " ms")
	if err := w.host.Offer(m.name()); err != nil {
		return what, err
	}
	return what, w.awaitUp(ctx, m, before.Opened)
}

// awaitUp waits until the guest has opened its NIC once more than before, and has it up.
func (w *world) awaitUp(ctx context.Context, m *member, before uint64) error {
	ctx, cancel := context.WithTimeout(ctx, step)
	defer cancel()
	for ctx.Err() == nil {
		if d, ok := w.device(m); ok && d.Opened > before && d.Stage == netvsp.StageUp {
			return nil
		}
		pause(ctx, time.Millisecond)
	}
	return fmt.Errorf("%s does not come up again", m.name())
}

// device returns what the host has to say of the guest's NIC, and whether it is there.
func (w *world) device(m *member) (netvsp.Info, bool) {
	for _, p := range w.host.Ports() {
		if p.Switch.Name == m.name() && p.Guest != nil {
			return *p.Guest, true
		}
	}
	return netvsp.Info{}, false
}

// downAndUp sets the guest's NIC down and up again.
func (w *world) downAndUp(ctx context.Context, m *member) (string, error) {
	return "", w.ask(ctx, m, command{Do: "down and up"})
}

// suspendAndResume has the guest take its NIC apart, and bring it up again later.
func (w *world) suspendAndResume(ctx context.Context, m *member) (string, error) {
	ms := w.rand.IntN(50)
	return fmt.Sprint("for ", ms, " ms"), w.ask(ctx, m, command{"suspend", ms})
}

// pullCable takes the guest's link down and up again, or tells the guest that it is in
// another network.
func (w *world) pullCable(ctx context.Context, m *member) (string, error) {
	if w.rand.IntN(3) == 0 {
		return "to another network", w.host.NetworkChange(m.name())
	}
	if err := w.host.SetLink(m.name(), false); err != nil {
		return "", err
	}
	ms := w.rand.IntN(100)
	pause(ctx, time.Duration(ms)*time.Millisecond)
	mbps := uint32(1000 << w.rand.IntN(6))
	return fmt.Sprint("for ", ms, " ms, ", mbps, " Mbit/s"), errors.Join(w.host.SetLink(m.name(), true), w.host.SetSpeed(m.name(), mbps))
}

// leaveAndReturn has the guest close its NIC and leave in order.
func (w *world) leaveAndReturn(ctx context.Context, m *member) (string, error) {
	if err := w.leave(ctx, m, "leave"); err != nil {
		return "", err
	}
	return "", w.join(ctx, m)
}

// dieAndReturn has the guest die at any moment, a process by SIGKILL.
func (w *world) dieAndReturn(ctx context.Context, m *member) (string, error) {
	if err := w.leave(ctx, m, "die"); err != nil {
		return "", err
	}
	return "", w.join(ctx, m)
}

// freeze stops the guest's process for a while.
func (w *world) freeze(ctx context.Context, m *member) (string, error) {
	ms := 20 + w.rand.IntN(500)
	return fmt.Sprint(ms, " ms"), w.ask(ctx, m, command{"freeze", ms})
}

// anotherHost ends the host and starts another one, which may have guests signal by
// the monitor page. The guests that are attached find it by themselves.
func (w *world) anotherHost(ctx context.Context, _ *member) (string, error) {
	for _, m := range w.members {
		if m.kind != "pipe" {
			continue
		}
		if err := w.leave(ctx, m, "leave"); err != nil {
			return "", err
		}
	}
	if err := w.endHost(ctx); err != nil {
		return "", err
	}
	what, err := w.startHost(ctx)
	if err != nil {
		return what, err
	}
	for _, m := range w.members {
		if m.peer == nil {
			err = w.join(ctx, m)
		} else {
			err = w.awaitUp(ctx, m, 0)
		}
		if err != nil {
			return what, err
		}
	}
	return what, nil
}

// badLine has the guest return by a line that is disturbed in another way.
func (w *world) badLine(ctx context.Context, m *member) (string, error) {
	r := w.rand
	some := func(most float64) float64 { return most * r.Float64() * float64(r.IntN(2)) }
	line := impair.Config{
		Loss: some(.1), Duplicate: some(.1), Corrupt: some(.1), Reorder: some(.2), Fragment: some(1),
		Delay: time.Duration(some(float64(20 * time.Millisecond))), Seed: r.Uint64(),
	}
	line.Jitter = time.Duration(float64(line.Delay) * r.Float64())
	if r.IntN(4) == 0 {
		line.Rate = 1_000_000 + r.Int64N(100_000_000)
	}
	dir := r.IntN(4)
	w.host.Impair(m.name(), host.Impairment{ToGuest: dir&1 != 0, FromGuest: dir&2 != 0, Line: line})
	what := fmt.Sprintf("%s, directions %02b", line, dir)
	if _, err := w.leaveAndReturn(ctx, m); err != nil {
		return what, err
	}
	return what, nil
}

// capture captures at the guest's port while the guest leaves and returns, half of the time
// what the guest and the host say, too.
func (w *world) capture(ctx context.Context, m *member) (string, error) {
	cfg := pcap.Config{Snaplen: 1 + w.rand.IntN(4096), Messages: w.rand.IntN(2) == 0}
	c, done, err := w.host.Capture(m.name(), cfg)
	if err != nil {
		return "", err
	}
	defer done()
	capturing, stop := context.WithCancel(ctx)
	written := make(chan error, 1)
	go func() { written <- c.Write(capturing, io.Discard) }()
	_, err = w.leaveAndReturn(ctx, m)
	stop()
	err = errors.Join(err, <-written)
	n := c.Counts()
	return fmt.Sprintf("%d packets, %d dropped, messages %v", n.Captured, n.Dropped, cfg.Messages), err
}
