package boundary

import (
	"bytes"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"hvnet/hv"
)

func testMemory(t *testing.T, open Opener) {
	p, g := open(t, 2)
	Serve(t, g, Funcs{})
	a, err := p.Alloc(3*hv.PageSize - 5)
	if err != nil {
		t.Fatal(err)
	}
	b, err := p.Alloc(1)
	if err != nil {
		t.Fatal(err)
	}
	if a.Pages() != 3 || b.Pages() != 1 || a.GPA == 0 || a.GPA%hv.PageSize != 0 || a.PFN(1) != uint64(a.GPA)/hv.PageSize+1 {
		t.Fatalf("regions %#x of %d pages, %#x of %d", a.GPA, a.Pages(), b.GPA, b.Pages())
	}
	if slices.ContainsFunc(a.Bytes, func(x byte) bool { return x != 0 }) {
		t.Error("memory is not zeroed")
	}
	copy(a.Bytes[5000:], "from the guest")
	m := g.Memory()
	m.RLock()
	s, err := m.Bytes(a.GPA+5000, 14)
	if err != nil || string(s) != "from the guest" {
		t.Errorf("host reads %q, %v", s, err)
	}
	copy(s, "FROM")
	for _, x := range []struct {
		gpa hv.GPA
		n   int
	}{
		{0, 1}, {a.GPA - 1, 1}, {a.GPA - 1, 2}, {a.GPA, 3*hv.PageSize + 1}, {a.GPA + 3*hv.PageSize, 1},
		{a.GPA, -1}, {a.GPA, 1 << 62}, {^hv.GPA(0), 1}, {^hv.GPA(0) - 4095, 8192},
	} {
		if s, err := m.Bytes(x.gpa, x.n); !errors.Is(err, hv.ErrBounds) {
			t.Errorf("Bytes(%#x, %d) = %d bytes, %v", x.gpa, x.n, len(s), err)
		}
	}
	m.RUnlock()
	if !bytes.HasPrefix(a.Bytes[5000:], []byte("FROM the guest")) {
		t.Errorf("guest reads %q", a.Bytes[5000:5014])
	}

	// A list in any order, across regions, with a page twice.
	list := []uint64{a.PFN(2), b.PFN(0), a.PFN(0), a.PFN(1), b.PFN(0)}
	a.Bytes[0], a.Bytes[hv.PageSize], a.Bytes[2*hv.PageSize], b.Bytes[0] = 10, 11, 12, 20
	scattered, err := m.Map(list)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := m.Map([]uint64{a.PFN(0), a.PFN(1), a.PFN(2)})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []byte{12, 20, 10, 11, 20} {
		if got := scattered.Bytes[i*hv.PageSize]; got != want {
			t.Errorf("page %d of the mapping has %d, want %d", i, got, want)
		}
	}
	if len(scattered.Bytes) != 5*hv.PageSize || len(whole.Bytes) != 3*hv.PageSize {
		t.Errorf("mappings of %d and %d bytes", len(scattered.Bytes), len(whole.Bytes))
	}
	for _, list := range [][]uint64{nil, {0}, {a.PFN(3)}, {a.PFN(0), b.PFN(1)}, {1 << 63}, {1<<52 + a.PFN(0)}} {
		if _, err := m.Map(list); !errors.Is(err, hv.ErrBounds) {
			t.Errorf("Map(%#x): %v", list, err)
		}
	}

	// Mappings outlive their regions, and the guest.
	if err := p.Free(a); err != nil {
		t.Fatal(err)
	}
	if err := p.Free(a); !errors.Is(err, hv.ErrRegion) {
		t.Errorf("second Free: %v", err)
	}
	m.RLock()
	if _, err := m.Bytes(a.GPA, 1); !errors.Is(err, hv.ErrBounds) {
		t.Errorf("Bytes of a freed region: %v", err)
	}
	m.RUnlock()
	if whole.Bytes[hv.PageSize] != 11 || scattered.Bytes[0] != 12 {
		t.Error("mapping lost its pages with the region")
	}
	p.Close()
	Await(t, g.Done(), "the host to notice")
	g.Close()
	if whole.Bytes[hv.PageSize] != 11 || scattered.Bytes[0] != 12 {
		t.Error("mapping lost its pages with the guest")
	}
	for range 2 {
		if err := errors.Join(whole.Close(), scattered.Close()); err != nil {
			t.Error(err)
		}
	}
}

func testMemoryInUse(t *testing.T, open Opener) {
	p, g := open(t, 1)
	Serve(t, g, Funcs{})
	var gpa atomic.Uint64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var hits atomic.Int64
	wg.Go(func() { // one, lest the readers take all of a small machine
		for {
			select {
			case <-stop:
				return
			default:
			}
			m := g.Memory()
			m.RLock()
			if s, err := m.Bytes(hv.GPA(gpa.Load()), hv.PageSize); err == nil {
				s[0]++ // must not fault
				hits.Add(1)
			}
			m.RUnlock()
		}
	})
	for i := 0; i < 50 || hits.Load() == 0; i++ {
		r, err := p.Alloc(hv.PageSize)
		if err != nil {
			t.Error(err)
			break
		}
		gpa.Store(uint64(r.GPA))
		if err := p.Free(r); err != nil {
			t.Error(err)
			break
		}
	}
	close(stop)
	wg.Wait()
}
