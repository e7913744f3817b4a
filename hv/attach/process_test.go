package attach_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"hvnet/hv"
	"hvnet/hv/attach"
	"hvnet/hv/internal/boundary"
)

// secondProcess is the environment variable that makes this test binary a guest
// which attaches to the path in it.
const secondProcess = "HVNET_TEST_ATTACH"

const (
	echoConn = 0x2001 // the guest answers flag 1 with it
	readyMsg = "ready"
)

// runSecondProcess answers every event with an event until the host is gone.
func runSecondProcess(path string) int {
	p, err := attach.Dial(context.Background(), path, attach.Hello{Name: "second process", VPs: 2})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	r, err := p.Alloc(3 * hv.PageSize)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	copy(r.Bytes[hv.PageSize:], "written by another process")
	if err := p.PostMessage(uint32(r.PFN(1)), []byte(readyMsg)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	echo := func(int) { p.SignalEvent(echoConn) }
	for p.Wait(1) == nil {
		p.TakeFlags(1, echo)
	}
	<-p.Done()
	if err := p.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// startSecondProcess returns the guest that a second process is, what it posted
// as connection id, and a channel of its signals.
func startSecondProcess(t testing.TB) (hv.Guest, *exec.Cmd, uint64, <-chan uint32) {
	t.Helper()
	l, path := listen(t, attach.ListenConfig{})
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(exe)
	c.Env = append(os.Environ(), secondProcess+"="+path)
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
	})
	g, h := accept(t, l)
	if h.Name != "second process" {
		t.Errorf("guest %q", h.Name)
	}
	page := make(chan uint64, 1)
	signals := make(chan uint32, 1)
	served := make(chan struct{})
	go func() {
		defer close(served)
		g.Serve(boundary.Funcs{
			OnMessage: func(conn uint32, m *hv.Message) hv.Status {
				if string(m.Payload()) != readyMsg {
					t.Errorf("message %q", m.Payload())
				}
				page <- uint64(conn)
				return hv.StatusSuccess
			},
			OnSignal: func(conn uint32) { signals <- conn },
		})
	}()
	t.Cleanup(func() {
		g.Close()
		<-served
	})
	select {
	case pfn := <-page:
		return g, c, pfn, signals
	case <-g.Done():
		t.Fatal("the second process ended early")
		return nil, nil, 0, nil
	}
}

func TestSecondProcess(t *testing.T) {
	g, c, pfn, signals := startSecondProcess(t)
	m, err := g.Memory().Map([]uint64{pfn})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if want := "written by another process"; string(m.Bytes[:len(want)]) != want {
		t.Errorf("its memory has %q", m.Bytes[:len(want)])
	}
	for range 100 {
		if err := g.SetFlag(1, 1); err != nil {
			t.Fatal(err)
		}
		if conn := boundary.Await(t, signals, "its signal"); conn != echoConn {
			t.Errorf("signal of %#x", conn)
		}
	}
	g.Close()
	if err := c.Wait(); err != nil {
		t.Errorf("second process: %v", err)
	}
}

func TestSecondProcessKilled(t *testing.T) {
	g, c, pfn, _ := startSecondProcess(t)
	m, err := g.Memory().Map([]uint64{pfn})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	boundary.Await(t, g.Done(), "the host to notice")
	if m.Bytes[0] != 'w' {
		t.Error("the mapping went with the guest")
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}

func BenchmarkRoundTripOneProcess(b *testing.B) {
	l, path := listen(b, attach.ListenConfig{})
	p := dial(b, path, attach.Hello{VPs: 1})
	g, _ := accept(b, l)
	boundary.BenchmarkRoundTrip(b, p, g)
}

func BenchmarkRoundTripTwoProcesses(b *testing.B) {
	g, _, _, signals := startSecondProcess(b)
	b.ReportAllocs()
	for b.Loop() {
		g.SetFlag(1, 1)
		<-signals
	}
}
