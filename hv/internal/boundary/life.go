package boundary

import (
	"errors"
	"testing"

	"hvnet/hv"
)

func testRange(t *testing.T, open Opener) {
	p, g := open(t, 2)
	Serve(t, g, Funcs{OnSignal: func(conn uint32) { t.Errorf("signal of %d", conn) }})
	for _, vp := range []int{-1, 2, 1 << 40} {
		if err := g.PostMessage(vp, nil); !errors.Is(err, hv.ErrRange) {
			t.Errorf("post to VP %d: %v", vp, err)
		}
		if err := g.SetFlag(vp, 1); !errors.Is(err, hv.ErrRange) {
			t.Errorf("flag of VP %d: %v", vp, err)
		}
		if err := p.Wait(vp); !errors.Is(err, hv.ErrRange) {
			t.Errorf("wait on VP %d: %v", vp, err)
		}
		p.TakeFlags(vp, func(int) { t.Errorf("flag on VP %d", vp) })
		if p.TakeMessage(vp, new(hv.Message)) {
			t.Errorf("message on VP %d", vp)
		}
	}
	if err := g.PostMessage(0, make([]byte, hv.MaxPayload+1)); !errors.Is(err, hv.ErrRange) {
		t.Errorf("post of too much: %v", err)
	}
	for _, flag := range []int{-1, hv.Flags, 1 << 40} {
		if err := g.SetFlag(0, flag); !errors.Is(err, hv.ErrRange) {
			t.Errorf("flag %d: %v", flag, err)
		}
	}
	for _, conn := range []uint32{hv.MaxConnectionID, 1 << 24, 1<<32 - 1} {
		if err := p.SignalEvent(conn); !errors.Is(err, hv.ErrRange) {
			t.Errorf("signal of %d: %v", conn, err)
		}
	}
	for _, n := range []int{0, -1, 1 << 50} {
		if _, err := p.Alloc(n); !errors.Is(err, hv.ErrLimit) {
			t.Errorf("allocation of %d: %v", n, err)
		}
	}
	if err := p.Free(hv.Region{GPA: 4096, Bytes: make([]byte, 4096)}); !errors.Is(err, hv.ErrRegion) {
		t.Errorf("free of a region from nowhere: %v", err)
	}
}

func testGuestLeaves(t *testing.T, open Opener) {
	p, g := open(t, 1)
	served := make(chan error, 1)
	go func() { served <- g.Serve(Funcs{}) }()
	waited := make(chan error, 1)
	go func() {
		for {
			if err := p.Wait(0); err != nil {
				waited <- err
				return
			}
		}
	}()
	p.Close()
	if err := Await(t, waited, "Wait to return"); !errors.Is(err, hv.ErrGone) {
		t.Errorf("Wait: %v", err)
	}
	if err := Await(t, served, "Serve to return"); !errors.Is(err, hv.ErrGone) {
		t.Errorf("Serve: %v", err)
	}
	Await(t, p.Done(), "Done of the partition")
	Await(t, g.Done(), "Done of the guest")
	after(t, p, g)
}

func testHostLeaves(t *testing.T, open Opener) {
	p, g := open(t, 1)
	r, err := allocServed(p, g)
	if err != nil {
		t.Fatal(err)
	}
	waited := make(chan error, 1)
	go func() {
		for {
			if err := p.Wait(0); err != nil {
				waited <- err
				return
			}
		}
	}()
	g.Close()
	if err := Await(t, waited, "Wait to return"); !errors.Is(err, hv.ErrGone) {
		t.Errorf("Wait: %v", err)
	}
	Await(t, p.Done(), "Done of the partition")
	r.Bytes[0]++ // the guest keeps its memory
	if err := p.PostMessage(1, nil); !errors.Is(err, hv.ErrGone) {
		t.Errorf("post: %v", err)
	}
	p.SignalEvent(1) // vanishes
	p.Close()
	after(t, p, g)
}

// testGuestDeserts has the guest leave and go on using its memory.
func testGuestDeserts(t *testing.T, open Opener) {
	p, g := open(t, 1)
	served := make(chan error, 1)
	go func() { served <- g.Serve(Funcs{}) }()
	r, err := p.Alloc(1)
	if err != nil {
		t.Fatal(err)
	}
	p.Leave()
	Await(t, p.Done(), "Done of the partition")
	if err := Await(t, served, "Serve to return"); !errors.Is(err, hv.ErrGone) {
		t.Errorf("Serve: %v", err)
	}
	r.Bytes[0]++ // the guest keeps its memory
	if err := p.PostMessage(1, nil); !errors.Is(err, hv.ErrGone) {
		t.Errorf("post: %v", err)
	}
	if err := p.Wait(0); !errors.Is(err, hv.ErrGone) {
		t.Errorf("Wait: %v", err)
	}
	p.Leave()
	if err := p.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	after(t, p, g)
}

// allocServed allocates a region from a host that serves.
func allocServed(p hv.Partition, g hv.Guest) (hv.Region, error) {
	go g.Serve(Funcs{})
	return p.Alloc(1)
}

// after checks that nothing happens after both ends are gone.
func after(t *testing.T, p hv.Partition, g hv.Guest) {
	for range 2 {
		p.Close()
		g.Close()
	}
	if err := g.SetFlag(0, 1); !errors.Is(err, hv.ErrGone) {
		t.Errorf("SetFlag after all: %v", err)
	}
	if err := g.PostMessage(0, nil); !errors.Is(err, hv.ErrGone) {
		t.Errorf("the host's PostMessage after all: %v", err)
	}
	if err := p.SignalEvent(1); !errors.Is(err, hv.ErrGone) {
		t.Errorf("SignalEvent after all: %v", err)
	}
	if err := p.PostMessage(1, nil); !errors.Is(err, hv.ErrGone) {
		t.Errorf("the guest's PostMessage after all: %v", err)
	}
	if _, err := p.Alloc(1); !errors.Is(err, hv.ErrGone) {
		t.Errorf("Alloc after all: %v", err)
	}
	if err := p.Wait(0); !errors.Is(err, hv.ErrGone) {
		t.Errorf("Wait after all: %v", err)
	}
	p.TakeFlags(0, func(int) { t.Error("flag after all") })
	if p.TakeMessage(0, new(hv.Message)) {
		t.Error("message after all")
	}
}

func testAllocations(t *testing.T, open Opener) {
	p, g := open(t, 1)
	Serve(t, g, Funcs{})
	r, err := p.Alloc(8 * hv.PageSize)
	if err != nil {
		t.Fatal(err)
	}
	m := g.Memory()
	drop := func(int) {}
	var msg hv.Message
	if n := testing.AllocsPerRun(200, func() {
		m.RLock()
		m.Bytes(r.GPA+5000, 100)
		m.RUnlock()
		g.SetFlag(0, 7)
		p.TakeFlags(0, drop)
		p.TakeMessage(0, &msg)
		p.SignalEvent(0x2001)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
