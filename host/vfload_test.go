package host_test

import (
	"errors"
	"os"
	"testing"
	"time"

	"hvnet/host"
	"hvnet/link/impair"
	"hvnet/netvsc/vf"
)

// rounds is how often a test repeats itself.
func rounds(short, usual, long int) int {
	switch {
	case os.Getenv("HVNET_LONG") == "1":
		return long
	case testing.Short():
		return short
	}
	return usual
}

// newVF returns a function of which a flow knows what it loses.
func (r *vfRig) newVF(serial uint32) *pairVF {
	v := newPair(r.t, host.PortMAC("a"), serial)
	v.guest.lost = func(b []byte) {
		r.refused.Add(1)
		r.up.lose(b)
	}
	return v
}

// A function that is removed, added and flapped under load, announced: nothing is lost,
// nothing is doubled, no byte is wrong and no connection breaks, either way.
func TestVFUnderLoad(t *testing.T) {
	r := newVFRig(t, host.Config{})
	r.run()
	tcp := r.connect()
	deep, moves := 0, 0
	for i := range rounds(50, 400, 4000) {
		v := r.newVF(uint32(i))
		early := i%2 == 0 // the device is there before the guest is told of it
		v.step = func(what string) {
			if what == "start" && early {
				if err := v.guest.joinTo(soon(t), r.g.NIC); err != nil {
					t.Error(err)
				}
			}
		}
		if err := r.h.AddVF("a", uint32(i), v); err != nil {
			t.Fatal(err)
		}
		if !early {
			if err := v.guest.joinTo(soon(t), r.g.NIC); err != nil {
				t.Fatal(err)
			}
		}
		if i%3 > 0 { // else it may go before the guest has come to it
			await(t, v.guest.used, "the guest to use its function")
		}
		if i%5 == 0 { // which is of no concern to it
			if err := errors.Join(r.h.SetLink("a", false), r.h.SetLink("a", true)); err != nil {
				t.Fatal(err)
			}
		}
		for range i % 4 {
			if err := r.h.FlapVF(soon(t), "a"); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.h.RemoveVF(soon(t), "a"); err != nil {
			t.Fatal(err)
		}
		await(t, v.guest.done(), "the guest to let go of its function")
		deep, moves = max(deep, v.up.most, v.down.most), moves+1+i%4
		if n := v.guest.Dropped(); n > 0 || len(v.up.queue)+len(v.down.queue) > 0 {
			t.Errorf("the function has lost frames: %d, %d from the guest, %d to it", n, len(v.up.queue), len(v.down.queue))
		}
	}
	r.stop()
	r.down.check(t, "to the guest")
	r.up.check(t, "from the guest")
	tcp.end(t)
	if r.down.lost+r.up.lost > 0 {
		t.Errorf("%d frames were lost", r.down.lost+r.up.lost)
	}
	for _, m := range r.g.NIC.VFTimeline() {
		if m.Failed != "" || m.Why == vf.TakenBack.String() {
			t.Errorf("%+v", m)
		}
	}
	r.calm()
	t.Logf("to the guest: %v", r.down)
	t.Logf("from the guest: %v", r.up)
	t.Logf("%d removals, up to %d frames in the function", moves, deep)
}

// lose notes all that is in a function that was lost.
func (r *vfRig) lose(v *pairVF) {
	for _, b := range v.up.queue {
		r.up.lose(b)
	}
	for _, b := range v.down.queue {
		r.down.lose(b)
	}
}

// A function that vanishes under load takes with it what is in its queues and what the guest
// sends by it until it knows, and nothing else; the traffic goes on.
func TestVFLostUnderLoad(t *testing.T) {
	r := newVFRig(t, host.Config{})
	r.run()
	tcp := r.connect()
	n := rounds(6, 20, 200)
	for i := range n {
		v := r.newVF(uint32(i))
		if err := r.h.AddVF("a", uint32(i), v); err != nil {
			t.Fatal(err)
		}
		if err := v.guest.joinTo(soon(t), r.g.NIC); err != nil {
			t.Fatal(err)
		}
		await(t, v.guest.used, "the guest to use its function")
		if i%2 == 0 { // it has stopped before, and is full
			v.up.hold(true)
			v.down.hold(true)
			if err := errors.Join(v.up.await(soon(t), 20), v.down.await(soon(t), 20)); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.h.LoseVF("a"); err != nil {
			t.Fatal(err)
		}
		await(t, v.guest.done(), "the guest to let go of its function")
		r.lose(v)
	}
	r.stop()
	r.down.check(t, "to the guest")
	r.up.check(t, "from the guest")
	tcp.end(t)
	if least := uint32(20 * n / 2); r.down.lost < least/2 || r.up.lost < least/2 {
		t.Errorf("%d and %d frames were lost, too few for functions that were full", r.down.lost, r.up.lost)
	}
	stats := map[string]uint64{}
	for _, s := range r.g.NIC.Stats() {
		stats[s.Name] = s.Value
	}
	dropped := stats["vf_tx_dropped"]
	// What was sent before has come, or is lost, when the guest uses the other path.
	if r.up.late > 0 && stats["vf_undrained"] == 0 {
		t.Errorf("%d frames of the guest were overtaken", r.up.late)
	}
	if uint64(r.refused.Load()) != dropped {
		t.Errorf("vf_tx_dropped is %d, the functions have refused %d frames", dropped, r.refused.Load())
	}
	t.Logf("to the guest: %v", r.down)
	t.Logf("from the guest: %v; %d of all frames were refused", r.up, dropped)
}

// A bad line is bad to both paths of a port. What it delays arrives before the function goes
// that it was sent by, if that is announced; what it loses on either is told of.
func TestVFBadLine(t *testing.T) {
	for _, c := range []struct {
		line impair.Config
		lost bool
	}{{impair.Config{Delay: 2 * time.Millisecond}, false}, {impair.Config{Loss: 0.2, Delay: time.Millisecond}, true}} {
		r := newVFRig(t, host.Config{}, host.Impairment{ToGuest: true, FromGuest: true, Line: c.line})
		for i := range rounds(2, 4, 40) {
			v := r.newVF(uint32(i))
			if err := errors.Join(r.h.AddVF("a", uint32(i), v), v.guest.joinTo(soon(t), r.g.NIC)); err != nil {
				t.Fatal(err)
			}
			until(t, "the guest on its function", func() bool { return r.g.NIC.Path() == vf.VF })
			for range 20 {
				r.send(r.down.frame())
				r.src.add(r.up.frame())
			}
			await(t, v.guest.used, "the guest to use its function")
			if err := r.h.RemoveVF(soon(t), "a"); err != nil {
				t.Fatal(err)
			}
			await(t, v.guest.done(), "the guest to let go of its function")
		}
		if !c.lost {
			r.down.check(t, "to the guest, late")
			r.up.check(t, "from the guest, late")
		}
		v := r.newVF(100)
		if err := errors.Join(r.h.AddVF("a", 100, v), v.guest.joinTo(soon(t), r.g.NIC)); err != nil {
			t.Fatal(err)
		}
		until(t, "the guest on its function", func() bool { return r.g.NIC.Path() == vf.VF })
		r.refill()
		r.run()
		for _, dir := range []string{"to guest by VF", "from guest by VF"} {
			until(t, "frames "+dir, func() bool {
				r.refill() // for those that are lost
				for _, p := range r.h.Ports() {
					for _, l := range p.Line {
						if l.Direction == dir {
							return l.Frames > 20 && (l.Lost > 0) == c.lost
						}
					}
				}
				return false
			})
		}
		r.stop()
		r.leave()
	}
}

// calm checks that neither side has dropped anything or has seen the other be wrong.
func (r *vfRig) calm() {
	r.t.Helper()
	for _, p := range r.h.Ports() {
		if p.Guest != nil && p.Guest.Faults > 0 || len(p.Drops()) > 0 {
			r.t.Errorf("port %s: %+v, dropped %v", p.Switch.Name, p.Guest, p.Drops())
		}
	}
	for _, s := range r.g.NIC.Stats() {
		switch s.Name {
		case "host_bad_message", "host_bad_completion", "tx_lost", "vf_tx_dropped":
			if s.Value > 0 {
				r.t.Errorf("%s is %d", s.Name, s.Value)
			}
		}
	}
}
