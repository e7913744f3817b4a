package attach

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hvnet/hv"
	"hvnet/hv/internal/boundary"
)

// raw is a guest that says whatever it likes.
type raw struct {
	t    *testing.T
	conn *net.UnixConn
}

func newRaw(t *testing.T, path string) *raw {
	t.Helper()
	c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(boundary.Patience))
	return &raw{t, c}
}

func (r *raw) send(record []byte, fds ...int) {
	r.t.Helper()
	if err := send(r.conn, record, fds); err != nil {
		r.t.Fatal(err)
	}
}

// reply reads the next reply. Its descriptors are closed with the test.
func (r *raw) reply() (reply, []int) {
	r.t.Helper()
	x, err := newReceiver(r.conn, maxReply, 1+hv.MaxVPs).next()
	if err != nil {
		r.t.Fatal(err)
	}
	a, err := parseReply(x.data)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(x.close)
	return a, x.fds
}

// ended waits for the host to close the connection.
func (r *raw) ended() {
	r.t.Helper()
	_, err := r.conn.Read(make([]byte, 1))
	if !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) {
		r.t.Errorf("connection is not closed: %v", err)
	}
}

// file returns a descriptor of memory, and closes it with the test.
func file(t *testing.T, size int64, flags, seals int) int {
	t.Helper()
	fd, err := unix.MemfdCreate("test", flags|unix.MFD_CLOEXEC)
	if err != nil {
		t.Skipf("no such memfd here: %v", err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Ftruncate(fd, size); err != nil {
		t.Fatal(err)
	}
	if seals != 0 {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
			t.Fatal(err)
		}
	}
	return fd
}

const testGPA = 0x40_0000_0000

// goodMemory is eight pages, of which the first three are a VP's.
func goodMemory(t *testing.T) int {
	return file(t, 8*hv.PageSize, unix.MFD_ALLOW_SEALING, unix.F_SEAL_SHRINK)
}

// goodHello is of one VP and one region.
func goodHello() *hello {
	return &hello{
		Hello:   Hello{Name: "raw", VPs: 1, Options: map[string]string{"k": "v"}},
		pages:   hv.Pages{Signals: testGPA, Message: []hv.GPA{testGPA + hv.PageSize}, Event: []hv.GPA{testGPA + 2*hv.PageSize}},
		regions: []region{{gpa: testGPA, size: 8 * hv.PageSize}},
	}
}

func testListen(t *testing.T, cfg ListenConfig) (*Listener, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "host")
	l, err := Listen(path, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, path
}

// attachRaw attaches a raw guest and returns the host's side of it, served by h.
func attachRaw(t *testing.T, cfg ListenConfig, memory int, h hv.Handler) (r *raw, g hv.Guest, bells []int, served <-chan error) {
	t.Helper()
	l, path := testListen(t, cfg)
	r = newRaw(t, path)
	r.send(goodHello().append(nil, 1), memory)
	a, bells := r.reply()
	if a.status != hv.StatusSuccess || len(bells) != 2 {
		t.Fatalf("answer %+v with %d doorbells", a, len(bells))
	}
	ctx, cancel := context.WithTimeout(t.Context(), boundary.Patience)
	defer cancel()
	g, _, err := l.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	end := make(chan error, 1)
	go func() { end <- g.Serve(h) }()
	t.Cleanup(func() {
		g.Close()
		boundary.Await(t, g.Done(), "the end")
	})
	return r, g, bells, end
}

func TestBadHello(t *testing.T) {
	good := goodMemory(t)
	for _, x := range []struct {
		name string
		want string // in the refusal; empty: no answer
		with func(h *hello) (record []byte, fds []int)
	}{
		{"nothing of a header", "", func(h *hello) ([]byte, []int) { return []byte("hello"), nil }},
		{"truncated", "no hello", func(h *hello) ([]byte, []int) { return h.append(nil, 1)[:30], []int{good} }},
		{"truncated behind the fixed part", "wrong length", func(h *hello) ([]byte, []int) { return h.append(nil, 1)[:50], []int{good} }},
		{"too long", "wrong length", func(h *hello) ([]byte, []int) { return append(h.append(nil, 1), 0), []int{good} }},
		{"far too long", "wrong length", func(h *hello) ([]byte, []int) { return append(h.append(nil, 1), make([]byte, 50000)...), []int{good} }},
		{"wrong magic", "no hello", patched(good, 8, "hvattach")},
		{"wrong type", "no hello", patched(good, 0, "\x03")},
		{"other version", "version 7 of the attach protocol is not spoken here, version 1 is", patched(good, 16, "\x07")},
		{"no VP", "0 virtual processors", patched(good, 20, "\x00")},
		{"a wealth of VPs", "4294967295 virtual processors", patched(good, 20, "\xff\xff\xff\xff")},
		{"no region", "0 regions", patched(good, 32, "\x00")},
		{"a wealth of regions", "65535 regions", patched(good, 32, "\xff\xff")},
		{"huge name", "wrong length", patched(good, 34, "\xff\xff")},
		{"huge options", "wrong length", patched(good, 36, "\xff\xff\xff\xff")},
		{"option beyond the end", "wrong length", func(h *hello) ([]byte, []int) {
			b := h.append(nil, 1)
			b[len(b)-4] = 0xFF // bytes of the value
			return b, []int{good}
		}},
		{"unprintable name", "unprintable", func(h *hello) ([]byte, []int) { h.Name = "a\x1bb"; return h.append(nil, 1), []int{good} }},
		{"no descriptor", "0 descriptors for 1", func(h *hello) ([]byte, []int) { return h.append(nil, 1), nil }},
		{"two descriptors", "2 descriptors for 1", func(h *hello) ([]byte, []int) { return h.append(nil, 1), []int{good, good} }},
		{"many descriptors", "wrong length", func(h *hello) ([]byte, []int) {
			fds := make([]int, 250)
			for i := range fds {
				fds[i] = good
			}
			return h.append(nil, 1), fds
		}},
		{"signal page outside", "signal page: map guest pages: hv: address outside", func(h *hello) ([]byte, []int) {
			h.pages.Signals -= hv.PageSize
			return h.append(nil, 1), []int{good}
		}},
		{"message page outside", "message page of virtual processor 0", func(h *hello) ([]byte, []int) {
			h.pages.Message[0] = testGPA + 8*hv.PageSize
			return h.append(nil, 1), []int{good}
		}},
		{"event page at the end of the world", "event page of virtual processor 0", func(h *hello) ([]byte, []int) {
			h.pages.Event[0] = ^hv.GPA(0) &^ 4095
			return h.append(nil, 1), []int{good}
		}},
		{"event page unaligned", "is not the address of a page", func(h *hello) ([]byte, []int) {
			h.pages.Event[0]++
			return h.append(nil, 1), []int{good}
		}},
		{"two regions that overlap", "overlap", func(h *hello) ([]byte, []int) {
			h.regions = append(h.regions, region{gpa: testGPA + 7*hv.PageSize, size: hv.PageSize})
			return h.append(nil, 1), []int{good, good}
		}},
	} {
		t.Run(x.name, func(t *testing.T) {
			_, path := testListen(t, ListenConfig{})
			before := descriptors(t)
			r := newRaw(t, path)
			record, fds := x.with(goodHello())
			r.send(record, fds...)
			if x.want != "" {
				a, bells := r.reply()
				if a.status == hv.StatusSuccess || len(bells) != 0 || !strings.Contains(a.text, x.want) {
					t.Errorf("answer %+v with %d descriptors, want %q", a, len(bells), x.want)
				}
			}
			r.ended()
			r.conn.Close()
			awaitDescriptors(t, before)
		})
	}
}

// patched returns a hello with some bytes replaced.
func patched(fd, at int, with string) func(*hello) ([]byte, []int) {
	return func(h *hello) ([]byte, []int) {
		b := h.append(nil, 1)
		copy(b[at:], with)
		return b, []int{fd}
	}
}

// descriptors counts the open descriptors of this process.
func descriptors(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

// awaitDescriptors waits until no more descriptors are open than before.
func awaitDescriptors(t *testing.T, before int) {
	t.Helper()
	end := time.Now().Add(boundary.Patience)
	for descriptors(t) > before {
		if time.Now().After(end) {
			t.Fatalf("%d descriptors are open, there were %d", descriptors(t), before)
		}
	}
}

func TestBadMemory(t *testing.T) {
	regular, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer regular.Close()
	if err := regular.Truncate(8 * hv.PageSize); err != nil {
		t.Fatal(err)
	}
	pipe, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	readOnly, err := unix.Open("/proc/self/fd/"+strconv.Itoa(goodMemory(t)), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(readOnly)
	const size = 8 * hv.PageSize
	for _, x := range []struct {
		name   string
		fd     int
		r      region
		strict string // part of the error; empty: fine
		trust  string
	}{
		{"good", goodMemory(t), region{testGPA, size, 0}, "", ""},
		{"good with offset", goodMemory(t), region{testGPA, size - hv.PageSize, hv.PageSize}, "", ""},
		{"not sealed", file(t, size, unix.MFD_ALLOW_SEALING, 0), region{testGPA, size, 0}, "not sealed against shrinking", ""},
		{"sealed otherwise", file(t, size, unix.MFD_ALLOW_SEALING, unix.F_SEAL_GROW), region{testGPA, size, 0}, "not sealed against shrinking", ""},
		{"not sealable", file(t, size, 0, 0), region{testGPA, size, 0}, "not sealed against shrinking", ""},
		{"sealed against writing", file(t, size, unix.MFD_ALLOW_SEALING, unix.F_SEAL_SHRINK|unix.F_SEAL_WRITE), region{testGPA, size, 0}, "operation not permitted", "operation not permitted"},
		{"regular file", int(regular.Fd()), region{testGPA, size, 0}, "not a memfd", ""},
		{"device", int(pipe.Fd()), region{testGPA, size, 0}, "not a memfd", "not of a regular file"},
		{"read-only", readOnly, region{testGPA, size, 0}, "not open for reading and writing", "not open for reading and writing"},
		{"too small", goodMemory(t), region{testGPA, size + hv.PageSize, 0}, "too few", "too few"},
		{"too small at offset", goodMemory(t), region{testGPA, size, hv.PageSize}, "too few", "too few"},
		{"offset beyond", goodMemory(t), region{testGPA, hv.PageSize, 1 << 63}, "too few", "too few"},
		{"offset and size overflow", goodMemory(t), region{testGPA, 1<<64 - hv.PageSize, 2 * hv.PageSize}, "too few", "too few"},
		{"no size", goodMemory(t), region{testGPA, 0, 0}, "not whole pages", "not whole pages"},
		{"odd size", goodMemory(t), region{testGPA, 100, 0}, "not whole pages", "not whole pages"},
		{"odd offset", goodMemory(t), region{testGPA, hv.PageSize, 8}, "not whole pages", "not whole pages"},
		{"odd address", goodMemory(t), region{testGPA + 1, hv.PageSize, 0}, "not whole pages", "not whole pages"},
		{"address 0", goodMemory(t), region{0, hv.PageSize, 0}, "not whole pages", "not whole pages"},
		{"address too high", goodMemory(t), region{1 << 52, hv.PageSize, 0}, "beyond the address space", "beyond the address space"},
		{"address overflow", goodMemory(t), region{^hv.GPA(4095), size, 0}, "beyond the address space", "beyond the address space"},
		{"end too high", goodMemory(t), region{1<<52 - hv.PageSize, size, 0}, "beyond the address space", "beyond the address space"},
	} {
		for _, trust := range []bool{false, true} {
			g := &guest{memory: hv.NewMemory(hv.Limits{}), trust: trust}
			status, err := g.add(x.fd, x.r)
			want := x.strict
			if trust {
				want = x.trust
			}
			switch {
			case want == "" && err != nil:
				t.Errorf("%s (trust %v): %v", x.name, trust, err)
			case want != "" && (err == nil || status != hv.StatusInvalidParameter || !strings.Contains(err.Error(), want)):
				t.Errorf("%s (trust %v): %v, %v, want %q", x.name, trust, status, err, want)
			}
			g.memory.Close()
		}
	}
}
