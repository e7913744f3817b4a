package guest_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hvnet/guest"
	"hvnet/host"
	"hvnet/internal/need"
	"hvnet/link/function"
	"hvnet/link/iface"
	"hvnet/netvsc/vf"
	"hvnet/nic"
	"hvnet/vswitch"
)

// A flow is numbered frames from one address to another, of which a few are under way at
// a time.
type flow struct {
	src, dst nic.MAC
	credit   chan struct{}

	mu  sync.Mutex
	got map[uint32]int
}

func newFlow(src, dst nic.MAC) *flow {
	f := &flow{src: src, dst: dst, credit: make(chan struct{}, 32), got: map[uint32]int{}}
	for range cap(f.credit) {
		f.credit <- struct{}{}
	}
	return f
}

// run sends until stop and returns how many frames.
func (f *flow) run(stop <-chan struct{}, send func([]nic.Frame)) (n uint32) {
	for ; ; n++ {
		select {
		case <-f.credit:
		case <-stop:
			return n
		}
		b := append(append(append([]byte{}, f.dst[:]...), f.src[:]...), 0x88, 0xb5)
		b = append(binary.BigEndian.AppendUint32(b, n), make([]byte, 100)...)
		send([]nic.Frame{{Head: b}})
	}
}

// WriteFrames takes what has arrived.
func (f *flow) WriteFrames(frames []nic.Frame) {
	for i := range frames {
		if frames[i].Src() != f.src || frames[i].Dst() != f.dst {
			continue
		}
		b := make([]byte, frames[i].Len())
		frames[i].CopyTo(b)
		f.mu.Lock()
		f.got[binary.BigEndian.Uint32(b[14:])]++
		f.mu.Unlock()
		select {
		case f.credit <- struct{}{}:
		default: // a duplicate
		}
	}
}

// check waits until n frames have arrived, each of which must have come once.
func (f *flow) check(t *testing.T, what string, n uint32) {
	t.Helper()
	until(t, fmt.Sprintf("all %d frames %s", n, what), func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.got) == int(n)
	})
	for i, k := range f.got {
		if k != 1 {
			t.Errorf("%s: frame %d came %d times", what, i, k)
		}
	}
}

// until waits for something.
func until(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Errorf("waiting for %s", what)
			return
		}
	}
}

// TestJoinVFs gives a guest a veth as a virtual function under load and takes it away,
// announced: nothing is lost and nothing comes twice, either way. What is pulled out without
// a word is done without.
func TestJoinVFs(t *testing.T) {
	for _, way := range []iface.Way{iface.Packet, iface.XDP} {
		t.Run(string(way), func(t *testing.T) { testJoinVFs(t, way) })
	}
}

func testJoinVFs(t *testing.T, way iface.Way) {
	need.Root(t)
	runtime.LockOSThread() // for good: the namespace goes with the thread
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	ns, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	files, err := function.OpenGuestFiles()
	if err != nil {
		t.Fatal(err)
	}
	functions, err := function.NewGuest(files, way)
	if err != nil {
		t.Fatal(err)
	}
	functions.Refused = func(err error) { t.Error(err) }

	h := host.New(host.Config{SRIOV: true})
	defer h.Close(soon(t))
	g := start(t, h, guest.Config{VF: true})
	outside := nic.MAC{2, 0, 0, 0, 0, 1}
	down, up := newFlow(outside, g.NIC.MAC()), newFlow(g.NIC.MAC(), outside)
	port, err := h.Switch().Connect("outside", up, vswitch.PortOptions{MAC: outside})
	if err != nil {
		t.Fatal(err)
	}
	defer port.Close()
	if err := g.NIC.Up(soon(t), down); err != nil {
		t.Fatal(err)
	}
	joined := make(chan error, 1)
	go func() { joined <- g.JoinVFs(t.Context(), functions) }()

	stop := make(chan struct{})
	var sending sync.WaitGroup
	var sent [2]uint32
	sections := func() bool { // what the guest has returned the host may not have seen yet
		for _, p := range h.Ports() {
			if p.Guest != nil && p.Guest.Receive.InFlight > 100 {
				return false
			}
		}
		return true
	}
	n := 0
	sending.Go(func() {
		sent[0] = down.run(stop, func(f []nic.Frame) {
			if n++; n%100 == 0 {
				until(t, "receive sections", sections)
			}
			port.WriteFrames(f)
		})
	})
	sending.Go(func() {
		sent[1] = up.run(stop, func(f []nic.Frame) {
			until(t, "room to send", func() bool { return g.NIC.Send(0, f) == 1 })
		})
	})
	name := h.Ports()[0].Switch.Name
	add := func(serial uint32) *function.Host {
		t.Helper()
		cfg := function.Config{MAC: g.NIC.MAC(), Serial: serial, Wire: way == iface.XDP}
		files, err := function.Make(ns, cfg)
		if err != nil {
			t.Fatal(err)
		}
		v, err := function.NewHost(files, cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.AddVF(name, serial, v); err != nil {
			t.Fatal(err)
		}
		until(t, "the path over the function", func() bool { return g.NIC.Path() == vf.VF })
		return v
	}
	for round := range uint32(4) {
		add(round)
		if err := h.FlapVF(soon(t), name); err != nil {
			t.Fatal(err)
		}
		if err := h.RemoveVF(soon(t), name); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	sending.Wait()
	down.check(t, "to the guest", sent[0])
	up.check(t, "from the guest", sent[1])

	add(8)
	if err := h.LoseVF(name); err != nil {
		t.Fatal(err)
	}
	until(t, "the synthetic path", func() bool { return g.NIC.Path() == vf.Synthetic })
	v := add(9)
	// A NIC that is taken away and given back finds it again.
	if err := h.Rescind(name); err != nil {
		t.Fatal(err)
	}
	until(t, "the synthetic path", func() bool { return g.NIC.Path() == vf.Synthetic })
	if err := h.Offer(name); err != nil {
		t.Fatal(err)
	}
	until(t, "the path over the function again", func() bool { return g.NIC.Path() == vf.VF })
	if err := g.NIC.Close(soon(t)); err != nil {
		t.Error(err)
	}
	if err := await(t, joined, "the end of JoinVFs"); err != nil {
		t.Error(err)
	}
	if err := h.RemoveVF(soon(t), name); err != nil {
		t.Error(err)
	}
	<-v.Gone()
}
