package hv

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// addFile adds a region of pages, each of which begins with a number of its own:
// its frame number.
func addFile(t testing.TB, m *Memory, gpa GPA, pages int) error {
	t.Helper()
	fd, err := memoryFile(pages * PageSize)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	v, err := mapFile(fd, 0, pages*PageSize)
	if err != nil {
		t.Fatal(err)
	}
	defer v.drop()
	for i := range pages {
		binary.LittleEndian.PutUint64(v.bytes[i*PageSize:], uint64(gpa)/PageSize+uint64(i))
	}
	return m.Add(gpa, fd, 0, int64(pages)*PageSize)
}

// TestMemoryModel compares Memory with a set of page numbers, over any sequence
// of regions that come and go.
func TestMemoryModel(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		m := NewMemory(Limits{})
		defer m.Close()
		regions := map[GPA]int{} // address to pages
		owner := map[uint64]GPA{}
		page := rapid.Uint64Range(0, 40)
		r.Repeat(map[string]func(*rapid.T){
			"add": func(r *rapid.T) {
				gpa, pages := GPA(page.Draw(r, "page")*PageSize), rapid.IntRange(1, 5).Draw(r, "pages")
				free := gpa != 0
				for i := range pages {
					if _, taken := owner[uint64(gpa)/PageSize+uint64(i)]; taken {
						free = false
					}
				}
				err := addFile(t, m, gpa, pages)
				if free != (err == nil) || (err != nil && !errors.Is(err, ErrRegion)) {
					r.Fatalf("add of %d pages at %#x: %v, free %v", pages, gpa, err, free)
				}
				if free {
					regions[gpa] = pages
					for i := range pages {
						owner[uint64(gpa)/PageSize+uint64(i)] = gpa
					}
				}
			},
			"remove": func(r *rapid.T) {
				gpa := GPA(page.Draw(r, "page") * PageSize)
				pages, there := regions[gpa]
				if err := m.Remove(gpa); there != (err == nil) {
					r.Fatalf("remove at %#x: %v, there %v", gpa, err, there)
				}
				for i := range pages {
					delete(owner, uint64(gpa)/PageSize+uint64(i))
				}
				delete(regions, gpa)
			},
			"bytes": func(r *rapid.T) {
				gpa := GPA(rapid.Uint64Range(0, 42*PageSize).Draw(r, "gpa"))
				n := rapid.IntRange(-1, 3*PageSize).Draw(r, "n")
				first, ok := owner[uint64(gpa)/PageSize]
				if ok {
					end := first + GPA(regions[first])*PageSize
					ok = n >= 0 && gpa+GPA(n) <= end
				}
				m.RLock()
				defer m.RUnlock()
				b, err := m.Bytes(gpa, n)
				if ok != (err == nil) || (ok && (len(b) != n || cap(b) != n)) {
					r.Fatalf("Bytes(%#x, %d) = %d bytes, %v, want ok %v", gpa, n, len(b), err, ok)
				}
				if ok && gpa%PageSize == 0 && n >= 8 && binary.LittleEndian.Uint64(b) != uint64(gpa)/PageSize {
					r.Fatalf("Bytes(%#x) is another page", gpa)
				}
			},
			"map": func(r *rapid.T) {
				list := rapid.SliceOfN(page, 1, 12).Draw(r, "list")
				ok := true
				for _, pfn := range list {
					if _, there := owner[pfn]; !there {
						ok = false
					}
				}
				p, err := m.Map(list)
				if ok != (err == nil) {
					r.Fatalf("Map(%v): %v, want ok %v", list, err, ok)
				}
				if !ok {
					return
				}
				for i, pfn := range list {
					if got := binary.LittleEndian.Uint64(p.Bytes[i*PageSize:]); got != pfn {
						r.Fatalf("page %d of Map(%v) is %d", i, list, got)
					}
				}
				if err := p.Close(); err != nil {
					r.Fatal(err)
				}
			},
		})
		if n := m.runs.Load(); n != 0 {
			r.Fatalf("%d runs are counted after all mappings are closed", n)
		}
	})
}

func TestLimits(t *testing.T) {
	m := NewMemory(Limits{Regions: 2, Bytes: 10 * PageSize, Runs: 3})
	defer m.Close()
	if err := addFile(t, m, 10*PageSize, 11); !errors.Is(err, ErrLimit) {
		t.Errorf("11 of 10 pages: %v", err)
	}
	if err := addFile(t, m, 10*PageSize, 5); err != nil {
		t.Fatal(err)
	}
	if err := addFile(t, m, 20*PageSize, 6); !errors.Is(err, ErrLimit) {
		t.Errorf("6 pages where 5 are left: %v", err)
	}
	if err := addFile(t, m, 20*PageSize, 4); err != nil {
		t.Fatal(err)
	}
	if err := addFile(t, m, 30*PageSize, 1); !errors.Is(err, ErrLimit) {
		t.Errorf("third region of two: %v", err)
	}
	if _, err := m.Map([]uint64{10, 12, 14, 20}); !errors.Is(err, ErrLimit) {
		t.Errorf("4 runs of 3: %v", err)
	}
	p, err := m.Map([]uint64{10, 11, 20, 21})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Map([]uint64{10, 12}); !errors.Is(err, ErrLimit) {
		t.Errorf("2 runs where one is left: %v", err)
	}
	q, err := m.Map([]uint64{10, 11, 12, 13, 14})
	if err != nil {
		t.Errorf("the last run: %v", err)
	}
	if err := errors.Join(p.Close(), q.Close()); err != nil {
		t.Error(err)
	}
	if p, err = m.Map([]uint64{10, 12, 14}); err != nil {
		t.Errorf("3 runs after all were given back: %v", err)
	}
	p.Close()
}

// TestLimitOfKeptRegions: a region that was taken away while a Mapping keeps it counts until
// the Mapping is closed, or a guest could have its host hold any number of them.
func TestLimitOfKeptRegions(t *testing.T) {
	m := NewMemory(Limits{Bytes: 10 * PageSize})
	defer m.Close()
	if err := addFile(t, m, 10*PageSize, 10); err != nil {
		t.Fatal(err)
	}
	p, err := m.Map([]uint64{12})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Remove(10 * PageSize); err != nil {
		t.Fatal(err)
	}
	if err := addFile(t, m, 30*PageSize, 1); !errors.Is(err, ErrLimit) {
		t.Errorf("a page more than what the mapping keeps: %v", err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if err := addFile(t, m, 50*PageSize, 10); err != nil {
		t.Errorf("once it is closed: %v", err)
	}
}

// TestQuota: what guests have together is bounded, and all of it comes back.
func TestQuota(t *testing.T) {
	q := NewQuota(5)
	a, b := NewMemory(Limits{Quota: q}), NewMemory(Limits{Quota: q})
	if err := errors.Join(addFile(t, a, 10*PageSize, 5), addFile(t, b, 10*PageSize, 5)); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Map([]uint64{10, 12, 14, 11}); !errors.Is(err, ErrLimit) || !strings.Contains(err.Error(), "have 5 entries") {
		t.Errorf("4 runs where 3 entries are left: %v", err)
	}
	p, err := a.Map([]uint64{10, 12})
	if err != nil {
		t.Fatal(err)
	}
	if err := addFile(t, b, 20*PageSize, 1); err != nil {
		t.Errorf("the last entry: %v", err)
	}
	if err := addFile(t, b, 30*PageSize, 1); !errors.Is(err, ErrLimit) {
		t.Errorf("a region where nothing is left: %v", err)
	}
	if _, err := b.Map([]uint64{10}); !errors.Is(err, ErrLimit) {
		t.Errorf("a run where nothing is left: %v", err)
	}
	if err := errors.Join(b.Remove(20*PageSize), a.Close(), b.Close(), p.Close()); err != nil {
		t.Error(err)
	}
	if n := q.used.Load(); n != 0 {
		t.Errorf("%d entries are taken by nobody", n)
	}
}

// TestAddChecks adds regions with addresses and sizes that can't be.
func TestAddChecks(t *testing.T) {
	fd, err := memoryFile(PageSize)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	m := NewMemory(Limits{})
	for _, x := range []struct {
		gpa          GPA
		offset, size int64
	}{
		{0, 0, PageSize}, {1, 0, PageSize}, {PageSize, 1, PageSize}, {PageSize, -PageSize, PageSize},
		{PageSize, 0, 0}, {PageSize, 0, -PageSize}, {PageSize, 0, 5}, {maxGPA, 0, PageSize},
		{maxGPA - PageSize, 0, 2 * PageSize}, {^GPA(PageSize - 1), 0, PageSize},
	} {
		if err := m.Add(x.gpa, fd, x.offset, x.size); !errors.Is(err, ErrRegion) {
			t.Errorf("%+v: %v", x, err)
		}
	}
	if err := m.Add(maxGPA-PageSize, fd, 0, PageSize); err != nil {
		t.Errorf("the last page: %v", err)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if err := m.Add(PageSize, fd, 0, PageSize); !errors.Is(err, ErrGone) {
		t.Errorf("after Close: %v", err)
	}
}

func TestGuard(t *testing.T) {
	fd, err := memoryFile(PageSize)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	v, err := mapFile(fd, 0, 2*PageSize) // the second page is not in the file
	if err != nil {
		t.Fatal(err)
	}
	defer v.drop()
	if err := Guard(func() { v.bytes[0]++ }); err != nil {
		t.Errorf("memory that is there: %v", err)
	}
	for name, f := range map[string]func(){
		"store":  func() { v.bytes[PageSize]++ },
		"copy":   func() { copy(v.bytes[PageSize:], make([]byte, 1000)) },
		"clear":  func() { clear(v.bytes[PageSize:]) },
		"atomic": func() { bitmapAt(v.bytes[PageSize:], 64).set(1) },
	} {
		if err := Guard(f); !errors.Is(err, ErrFault) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, f := range map[string]func(){
		"nil":   func() { var p *slot; _ = (*p)[0] },
		"index": func() { _ = v.bytes[len(v.bytes):][0] },
		"panic": func() { panic("mine") },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("Guard hid a bug")
				}
			}()
			t.Error(Guard(f))
		})
	}
}

func BenchmarkBytes(b *testing.B) {
	m := NewMemory(Limits{})
	defer m.Close()
	for i := range 128 {
		if err := addFile(b, m, GPA(i+1)*16*PageSize, 8); err != nil {
			b.Fatal(err)
		}
	}
	m.RLock()
	defer m.RUnlock()
	i := 0
	for b.Loop() {
		i = (i + 77) % 128
		if _, err := m.Bytes(GPA(i+1)*16*PageSize+100, 1500); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkMapScattered maps as many scattered pages as a kernel's receive buffer
// of 16 MiB may have.
func BenchmarkMapScattered(b *testing.B) {
	const pages = 4096
	m := NewMemory(Limits{})
	defer m.Close()
	if err := addFile(b, m, PageSize, 2*pages); err != nil {
		b.Fatal(err)
	}
	list := make([]uint64, pages)
	for i := range list {
		list[i] = uint64(1 + 2*i)
	}
	for b.Loop() {
		p, err := m.Map(list)
		if err != nil {
			b.Fatal(err)
		}
		p.Close()
	}
}

func ExampleMemory() {
	p, g, err := Pipe(1)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()
	defer p.Close()
	r, err := p.Alloc(100) // the guest's view
	if err != nil {
		fmt.Println(err)
		return
	}
	copy(r.Bytes, "a packet")
	m := g.Memory() // the host's
	m.RLock()
	defer m.RUnlock()
	b, err := m.Bytes(r.GPA+2, 6)
	fmt.Printf("%s %v\n", b, err)
	_, err = m.Bytes(r.GPA+2, PageSize)
	fmt.Println(err)
	// Output:
	// packet <nil>
	// hv: address outside guest memory
}
