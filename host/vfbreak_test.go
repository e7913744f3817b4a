package host_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"hvnet/host"
	"hvnet/netvsc"
	"hvnet/netvsp"
	"hvnet/nic"
)

// vfMoves are what a host does with a function that it has added.
var vfMoves = []struct {
	what string
	do   func(*vfRig) error
}{
	{"add", func(*vfRig) error { return nil }},
	{"remove", func(r *vfRig) error { return r.h.RemoveVF(soon(r.t), "a") }},
	{"flap", func(r *vfRig) error { return r.h.FlapVF(soon(r.t), "a") }},
	{"lose", func(r *vfRig) error { return r.h.LoseVF("a") }},
}

// vfSteps are where a move can be when something else happens, see pairVF.
var vfSteps = []string{"start", "mtu", "up", "first", "drain", "close"}

// vfBreaks are what happens in the middle; those marked end the guest.
var vfBreaks = []struct {
	what string
	do   func(*vfRig, *pairVF) error
	ends bool
}{
	{"the guest sets another MTU", func(r *vfRig, _ *pairVF) error { return r.g.NIC.SetMTU(soon(r.t), 1400) }, false},
	{"the guest changes its channels", func(r *vfRig, _ *pairVF) error { return r.g.NIC.SetChannels(soon(r.t), 1) }, false},
	{"the guest goes down and up", func(r *vfRig, _ *pairVF) error {
		return errors.Join(r.g.NIC.Down(soon(r.t)), r.g.NIC.Up(soon(r.t), r))
	}, false},
	{"the guest takes the device away", func(r *vfRig, v *pairVF) error {
		if p := v.guest.joined(); p != nil {
			return r.g.NIC.RemoveVF(soon(r.t), p)
		}
		return nil
	}, false},
	{"the guest's device loses its carrier", func(r *vfRig, v *pairVF) error {
		if p := v.guest.joined(); p != nil {
			p.Changed(netvsc.VFState{Up: true})
		}
		return nil
	}, false},
	{"the host takes the NIC away, and gives it back", func(r *vfRig, _ *pairVF) error {
		back := make(chan struct{})
		gone := false
		r.g.OnChange(func(lost error) {
			if gone && lost == nil {
				close(back)
			}
			gone = lost != nil
		})
		if err := errors.Join(r.h.Rescind("a"), r.h.Offer("a")); err != nil {
			return err
		}
		select {
		case <-back:
			return nil
		case <-soon(r.t).Done():
			return errors.New("the guest does not get its NIC back")
		}
	}, false},
	{"the function is lost", func(r *vfRig, _ *pairVF) error { return r.h.LoseVF("a") }, false},
	{"the host removes the function too", func(r *vfRig, _ *pairVF) error { return r.h.RemoveVF(soon(r.t), "a") }, false},
	{"the link goes down and up", func(r *vfRig, _ *pairVF) error {
		return errors.Join(r.h.SetLink("a", false), r.h.SetLink("a", true))
	}, false},
	{"the guest leaves", func(r *vfRig, _ *pairVF) error { r.leave(); return nil }, true},
	{"the guest is gone", func(r *vfRig, _ *pairVF) error { r.far.Close(); return nil }, true},
	{"the host closes", func(r *vfRig, _ *pairVF) error { return r.h.Close(soon(r.t)) }, true},
}

// Whatever happens in the middle of a move, it comes to an end, nothing is used that is
// closed, nothing is left behind, and a guest that is still there has another function in
// use afterwards.
func TestVFBroken(t *testing.T) {
	every, n := rounds(24, 11, 1), 0
	for _, move := range vfMoves {
		for _, step := range vfSteps {
			for _, b := range vfBreaks {
				if n++; n%every > 0 {
					continue
				}
				t.Run(fmt.Sprintf("%s/%s/%s", move.what, step, b.what), func(t *testing.T) {
					breakMove(t, move.do, step, b.do, b.ends, n%2*10)
				})
			}
		}
	}
}

// breakMove has do happen at a step of a move, which goes on when others had their turn
// some times.
func breakMove(t *testing.T, move func(*vfRig) error, step string, do func(*vfRig, *pairVF) error, ends bool, yield int) {
	r := newVFRig(t, host.Config{})
	r.run()
	v := r.newVF(1)
	var once sync.Once
	broken := make(chan struct{})
	wrong := func(what string, err error) {
		for _, e := range []error{host.ErrNoGuest, netvsp.ErrNoVF, netvsp.ErrVF, nic.ErrBusy, netvsc.ErrClosed, nic.ErrNoDevice} {
			if errors.Is(err, e) {
				return
			}
		}
		if err != nil && !ends {
			t.Errorf("%s: %v", what, err)
		}
	}
	v.step = func(what string) {
		if what != step {
			return
		}
		once.Do(func() {
			go func() {
				defer close(broken)
				wrong("meanwhile", do(r, v))
			}()
			for range yield {
				runtime.Gosched()
			}
		})
	}
	err := r.h.AddVF("a", 1, v)
	wrong("add", err)
	wrong("join", v.guest.joinTo(soon(t), r.g.NIC))
	if err == nil {
		select {
		case <-v.guest.used:
		case <-broken:
		}
		wrong("move", move(r))
	}
	once.Do(func() { close(broken) })
	await(t, broken, "the end of what happened meanwhile")
	if ends {
		return // and nothing is left
	}
	if err := r.h.RemoveVF(soon(t), "a"); err != nil {
		wrong("remove", err)
	}
	if p := v.guest.joined(); p != nil {
		p.Gone()
		await(t, p.Done(), "the guest to let go of the function")
	}
	r.refill() // for frames that were lost, as they are by some of these
	v = r.newVF(2)
	if err := r.h.AddVF("a", 2, v); err != nil {
		t.Fatal(err)
	}
	if err := v.guest.joinTo(soon(t), r.g.NIC); err != nil {
		t.Fatal(err)
	}
	for used := false; !used; {
		select {
		case <-v.guest.used:
			used = true
		case <-v.guest.done(): // with the NIC, which is back
			if err := v.guest.joinTo(soon(t), r.g.NIC); err != nil {
				t.Fatal(err)
			}
		case <-soon(t).Done():
			t.Fatal("the guest does not use another function")
		}
	}
	for what, f := range map[string]*flow{"from": r.up, "to": r.down} {
		goal := f.arrivals() + 40
		until(t, "frames "+what+" the guest", func() bool {
			r.refill() // what was under way when something broke may be lost only now
			return f.arrivals() >= goal
		})
	}
	r.stop()
	if err := r.h.RemoveVF(context.Background(), "a"); err != nil {
		t.Error(err)
	}
}
