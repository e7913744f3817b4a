package ivshmem

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hvnet/hv"
	"hvnet/hv/internal/boundary"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// join returns a machine and the guest that the host sees. Nothing is served yet.
func join(t *testing.T, vps int) (*machine, hv.Guest) {
	t.Helper()
	l, socket, ram := listen(t, vps)
	m := plug(t, socket, ram, vps)
	return m, accept(t, l)
}

func accept(t *testing.T, l *Listener) hv.Guest {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), boundary.Patience)
	defer cancel()
	g, err := l.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	return g
}

// A booted guest is an hv.Guest like any other. It boots while the test serves it.
func TestBoundary(t *testing.T) {
	boundary.TestFixed(t, func(t *testing.T, vps int) (hv.Partition, hv.Guest) {
		m, g := join(t, vps)
		late := &lateGuest{Guest: g}
		late.boot(t, m)
		return m, late
	})
}

// lateGuest is a guest that was booted before Serve: the first doorbells are answered
// by a goroutine of its own, until somebody serves it for good.
type lateGuest struct{ hv.Guest }

func (l *lateGuest) boot(t *testing.T, m *machine) {
	g := l.Guest.(*guest)
	stop := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				g.serveExits(boundary.Funcs{})
			}
		}
	}()
	m.boot(t)
	close(stop)
	<-stopped
}

// The registers of a SynIC keep what is written to them, and their pages are used only
// while they are enabled.
func TestRegisters(t *testing.T) {
	m, g := join(t, 2)
	boundary.Serve(t, g, boundary.Funcs{})
	for vp := range 2 {
		for i := range uint64(sints) {
			if got := m.readMSR(vp, msrSINT0+i); got != sintMasked {
				t.Errorf("SINT%d of VP %d at reset: %#x", i, vp, got)
			}
		}
		for _, number := range []uint64{msrSControl, msrSIMP, msrSIEFP, msrSINT0 + 15} {
			if got := m.readMSR(vp, number); got != 0 && number < msrSINT0 {
				t.Errorf("register %#x at reset: %#x", number, got)
			}
			m.writeMSR(vp, number, number+uint64(vp))
			if got := m.readMSR(vp, number); got != number+uint64(vp) {
				t.Errorf("register %#x of VP %d: %#x", number, vp, got)
			}
			m.writeMSR(vp, number, 0)
		}
		if got := m.readMSR(vp, msrSVersion); got != synicVersion {
			t.Errorf("SVERSION %d", got)
		}
		for _, number := range []uint64{0, 0x10, msrSINT0 + sints, 1 << 63, ^uint64(0)} { // of nobody
			m.writeMSR(vp, number, 7)
			if got := m.readMSR(vp, number); got != 0 {
				t.Errorf("register %#x: %#x", number, got)
			}
		}
	}
	page, err := m.Alloc(hv.PageSize)
	if err != nil {
		t.Fatal(err)
	}
	slot := page.Bytes[256*hv.SINT:]
	if err := g.PostMessage(0, []byte("hello")); err != nil { // waits
		t.Fatal(err)
	}
	m.writeMSR(0, msrSIMP, uint64(page.GPA)|msrEnable)
	if slot[0] != 0 {
		t.Error("a message while SCONTROL is off")
	}
	m.writeMSR(0, msrSControl, msrEnable)
	if slot[0] != 1 || string(slot[16:21]) != "hello" {
		t.Errorf("message slot % x", slot[:24])
	}
	m.writeMSR(0, msrSIMP, uint64(page.GPA)) // disabled
	clear(slot[:256])
	if err := g.PostMessage(0, []byte("again")); err != nil {
		t.Fatal(err)
	}
	m.readMSR(0, msrSVersion) // what was written before has been done
	if slot[0] != 0 {
		t.Error("a message into a page that is disabled")
	}
	for _, gpa := range []uint64{ramBytes, 1 << 40, ^uint64(0)} { // outside the memory: as if there was none
		m.writeMSR(0, msrSIMP, gpa|msrEnable)
		m.writeMSR(0, msrSIEFP, gpa|msrEnable)
		if err := g.SetFlag(0, 1); err != nil {
			t.Error(err)
		}
	}
}

// What a guest may get wrong about a hypercall.
func TestHypercalls(t *testing.T) {
	m, g := join(t, 1)
	signals := make(chan uint32, 10)
	boundary.Serve(t, g, boundary.Funcs{
		OnMessage: func(conn uint32, msg *hv.Message) hv.Status {
			if conn != 1 || msg.Type != 1 {
				return hv.StatusInvalidConnectionID
			}
			return hv.StatusSuccess
		},
		OnSignal: func(conn uint32) { signals <- conn },
	})
	post := func(at uint64, conn, typ, size uint32) error {
		binary.LittleEndian.PutUint32(m.ram[at:], conn)
		binary.LittleEndian.PutUint32(m.ram[at+8:], typ)
		binary.LittleEndian.PutUint32(m.ram[at+12:], size)
		return m.hypercall(callPostMessage, at)
	}
	const page = 0x5000
	for _, x := range []struct {
		name string
		err  error
		want error
	}{
		{"a message", post(page, 1, 1, 240), nil},
		{"an empty one at the end of a page", post(page+hv.PageSize-16, 1, 1, 0), nil},
		{"of type 0", post(page, 1, 0, 8), hv.StatusInvalidParameter},
		{"of a type of the hypervisor", post(page, 1, 1<<31, 8), hv.StatusInvalidParameter},
		{"to nowhere", post(page, 77, 1, 8), hv.StatusInvalidConnectionID},
		{"too long", post(page, 1, 1, 241), hv.StatusInvalidParameter},
		{"much too long", post(page, 1, 1, 1<<32-1), hv.StatusInvalidParameter},
		{"across a page", post(page+hv.PageSize-24, 1, 1, 16), hv.StatusInvalidAlignment},
		{"misaligned", m.hypercall(callPostMessage, page+4), hv.StatusInvalidAlignment},
		{"at address 0", m.hypercall(callPostMessage, 0), hv.StatusInvalidParameter},
		{"behind the memory", m.hypercall(callPostMessage, ramBytes), hv.StatusInvalidParameter},
		{"beyond all memory", m.hypercall(callPostMessage, 1<<64-8), hv.StatusInvalidAlignment},
		{"a fast message", m.hypercall(callPostMessage|callFast, page), hv.StatusInvalidInput},
		{"another call", m.hypercall(2, 0), hv.StatusInvalidCode},
		{"with repetitions", m.hypercall(callSignalEvent|callFast|1<<32, 1), hv.StatusInvalidInput},
		{"a fast signal", m.hypercall(callSignalEvent|callFast, 0x2001), nil},
		{"of another flag", m.hypercall(callSignalEvent|callFast, 1<<32|0x2001), hv.StatusInvalidParameter},
		{"of a connection that can't be", m.hypercall(callSignalEvent|callFast, hv.MaxConnectionID), hv.StatusInvalidConnectionID},
	} {
		if !errors.Is(x.err, x.want) {
			t.Errorf("%s: %v, want %v", x.name, x.err, x.want)
		}
	}
	binary.LittleEndian.PutUint64(m.ram[page:], 0x2002)
	if err := m.hypercall(callSignalEvent, page); err != nil {
		t.Errorf("a signal from memory: %v", err)
	}
	for _, want := range []uint32{0x2001, 0x2002} {
		if conn := boundary.Await(t, signals, "a signal"); conn != want {
			t.Errorf("signal of %#x, want %#x", conn, want)
		}
	}
	if _, ok := m.exit(0, 99, 1, 2, 3); !ok {
		t.Error("an exit of no kind is not answered")
	}
}

// One QEMU at a time; the next one comes when it is gone, with a fresh window.
func TestNextMachine(t *testing.T) {
	l, socket, ram := listen(t, 1)
	first := plug(t, socket, ram, 1)
	g := accept(t, l)
	served := make(chan error, 1)
	go func() { served <- g.Serve(boundary.Funcs{}) }()
	first.boot(t)

	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if n, err := c.Read(make([]byte, 8)); err != io.EOF {
		t.Errorf("a second QEMU hears %d bytes, %v", n, err)
	}
	first.Close()
	if err := boundary.Await(t, served, "Serve to return"); !errors.Is(err, hv.ErrGone) {
		t.Errorf("Serve: %v", err)
	}
	second := plug(t, socket, ram, 1)
	boundary.Serve(t, accept(t, l), boundary.Funcs{})
	second.boot(t)
	if got := second.readMSR(0, msrSControl); got != msrEnable {
		t.Errorf("SCONTROL %#x", got)
	}
}

// Files that can't be a guest's memory.
func TestBadMemory(t *testing.T) {
	for _, x := range []struct {
		name string
		path string
		want string
	}{
		{"too long", ramFile(t, maxRAM+hv.PageSize), "not whole pages up to 2 GiB"},
		{"not whole pages", ramFile(t, 3*hv.PageSize+1), "not whole pages"},
		{"a folder", t.TempDir(), "is a directory"},
		{"a device", "/dev/null", "not a regular file"},
	} {
		l := &Listener{config: Config{RAM: x.path, VPs: 1}}
		if _, _, err := l.openRAM(); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %v", x.name, err)
		}
	}
	for _, cfg := range []Config{{}, {RAM: "x"}, {RAM: "x", VPs: 65}, {VPs: 1}} {
		if l, err := Listen(filepath.Join(t.TempDir(), "s"), cfg); err == nil {
			l.Close()
			t.Errorf("%+v was taken", cfg)
		}
	}
}

// QEMU may make the file only after it has connected.
func TestMemoryComesLate(t *testing.T) {
	l, socket, ram := listen(t, 1)
	if err := os.Truncate(ram, 0); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := os.Truncate(ram, ramBytes); err != nil {
		t.Fatal(err)
	}
	accept(t, l)
}
