package host_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hvnet/host"
	"hvnet/link/pcap"
	"hvnet/netvsp"
	"hvnet/nic"
	"hvnet/vswitch"
)

// A pairVF is a virtual function without hardware: a queue each way.
type pairVF struct {
	t        testing.TB
	up, down *line // from the guest and to it
	closed   atomic.Bool
}

// newPair returns a function whose guest gets frames by got.
func newPair(t testing.TB, got func([]byte)) *pairVF {
	return &pairVF{t: t, down: newLine(got)}
}

func (v *pairVF) WriteFrames(frames []nic.Frame) {
	if v.closed.Load() {
		v.t.Error("the host wrote to a function that it has closed")
	}
	for i := range frames {
		b := make([]byte, frames[i].Len())
		frames[i].CopyTo(b)
		v.down.put(b)
	}
}

func (v *pairVF) Start(to nic.Sink) {
	v.up = newLine(func(b []byte) { to.WriteFrames([]nic.Frame{{Head: b}}) })
}

// send is the guest's end.
func (v *pairVF) send(b []byte) { v.up.put(b) }

func (v *pairVF) Drain(ctx context.Context) error {
	return errors.Join(v.down.drain(ctx), v.up.drain(ctx))
}

func (v *pairVF) Close() error {
	v.closed.Store(true)
	v.down.close()
	if v.up != nil {
		v.up.close()
	}
	return nil
}

// A line is a queue with a goroutine behind it.
type line struct {
	mu     sync.Mutex
	queue  [][]byte
	change sync.Cond // of the queue
	closed bool
	done   chan struct{}
}

func newLine(pass func([]byte)) *line {
	l := &line{done: make(chan struct{})}
	l.change.L = &l.mu
	go func() {
		defer close(l.done)
		l.mu.Lock()
		defer l.mu.Unlock()
		for !l.closed {
			if len(l.queue) == 0 {
				l.change.Wait()
				continue
			}
			b := l.queue[0]
			l.mu.Unlock()
			pass(b)
			l.mu.Lock()
			l.queue = l.queue[1:]
			l.change.Broadcast()
		}
	}()
	return l
}

func (l *line) put(b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queue = append(l.queue, b)
	l.change.Broadcast()
}

func (l *line) drain(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { l.mu.Lock(); defer l.mu.Unlock(); l.change.Broadcast() })()
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.queue) > 0 && ctx.Err() == nil {
		l.change.Wait()
	}
	return ctx.Err()
}

// close loses what is in the queue.
func (l *line) close() {
	l.mu.Lock()
	l.closed = true
	l.change.Broadcast()
	l.mu.Unlock()
	<-l.done
}

// A flow is numbered frames of which a few are under way at a time.
type flow struct {
	dst, src nic.MAC
	credit   chan struct{}
	mu       sync.Mutex
	got      map[uint32]int
}

func newFlow(dst, src nic.MAC) *flow {
	f := &flow{dst: dst, src: src, credit: make(chan struct{}, 32), got: map[uint32]int{}}
	for range cap(f.credit) {
		f.credit <- struct{}{}
	}
	return f
}

// run sends until stop, then waits for all of it, and returns how much that was.
func (f *flow) run(stop <-chan struct{}, send func([]byte)) (n uint32) {
	for ; ; n++ {
		select {
		case <-f.credit:
		case <-stop:
			return n
		}
		b := make([]byte, 100)
		copy(b, f.dst[:])
		copy(b[6:], f.src[:])
		binary.BigEndian.PutUint32(b[20:], n)
		send(b)
	}
}

func (f *flow) arrived(b []byte) {
	if nic.MAC(b[6:12]) != f.src {
		return
	}
	f.mu.Lock()
	f.got[binary.BigEndian.Uint32(b[20:])]++
	f.mu.Unlock()
	select {
	case f.credit <- struct{}{}:
	default: // a duplicate, which check finds
	}
}

// check waits until n frames have arrived, each of which must have come once.
func (f *flow) check(t *testing.T, what string, n uint32) {
	t.Helper()
	until(t, fmt.Sprintf("%s: all of %d frames", what, n), func() bool {
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

// A function that is removed, added and flapped under load, announced: nothing is lost and
// nothing is doubled, either way.
func TestVFUnderLoad(t *testing.T) {
	rounds := 20
	switch {
	case os.Getenv("HVNET_LONG") == "1":
		rounds = 300
	case testing.Short():
		rounds = 10
	}
	h := newHost(t, host.Config{SRIOV: true})
	outside := nic.MAC{2, 0, 0, 0, 0, 1}
	down, up := newFlow(host.PortMAC("a"), outside), newFlow(outside, host.PortMAC("a"))
	port, err := h.Switch().Connect("outside", frameFunc(up.arrived), vswitch.PortOptions{MAC: outside})
	if err != nil {
		t.Fatal(err)
	}
	defer port.Close()
	var now atomic.Pointer[pairVF]
	g := rawJoin(t, h, "a", func(uint32) *pairVF { return now.Load() }, down.arrived)
	stop := make(chan struct{})
	var sending sync.WaitGroup
	var sent [2]uint32
	sections := func() bool { // of 580; what the guest has returned the host may not have seen yet
		for _, p := range h.Ports() {
			if p.Guest != nil && p.Guest.Receive.InFlight > 100 {
				return false
			}
		}
		return true
	}
	var n int
	sending.Go(func() {
		sent[0] = down.run(stop, func(b []byte) {
			if n++; n%200 == 0 {
				until(t, "receive sections", sections)
			}
			port.WriteFrames([]nic.Frame{{Head: b}})
		})
	})
	sending.Go(func() { sent[1] = up.run(stop, g.transmit) })
	for i := range rounds {
		v := newPair(t, down.arrived)
		now.Store(v)
		if err := h.AddVF("a", uint32(i), v); err != nil {
			t.Fatal(err)
		}
		if i%3 > 0 { // else it may go before the guest has come to it
			until(t, "the guest on its function", g.onVF)
		}
		for range i % 4 {
			if err := h.FlapVF(soon(t), "a"); err != nil {
				t.Fatal(err)
			}
		}
		if err := h.RemoveVF(soon(t), "a"); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	sending.Wait()
	down.check(t, "to the guest", sent[0])
	up.check(t, "from the guest", sent[1])
	for _, p := range h.Ports() {
		if p.Switch.Name != "a" {
			continue
		}
		if p.Guest.Faults > 0 || p.Guest.VF.Switches < uint64(rounds) || len(p.Drops()) > 0 {
			t.Errorf("%d faults, %+v, dropped %v", p.Guest.Faults, p.Guest.VF, p.Drops())
		}
	}
	if n := g.notices.Load(); n > 0 {
		t.Errorf("the path was taken back %d times", n)
	}
	t.Logf("%d frames to the guest, %d from it", sent[0], sent[1])
	g.quit()
}

type frameFunc func([]byte)

func (f frameFunc) WriteFrames(frames []nic.Frame) {
	for i := range frames {
		b := make([]byte, frames[i].Len())
		frames[i].CopyTo(b)
		f(b)
	}
}

// What a port's function does is to be seen: at the port, and in captures with the path.
// When it is lost, traffic goes on; when its guest goes, it goes.
func TestVF(t *testing.T) {
	h := newHost(t, host.Config{SRIOV: true})
	outside := nic.MAC{2, 0, 0, 0, 0, 1}
	mac := host.PortMAC("a")
	frames := make(chan []byte, 100)
	take := func(b []byte) { frames <- b }
	port, err := h.Switch().Connect("outside", frameFunc(take), vswitch.PortOptions{MAC: outside})
	if err != nil {
		t.Fatal(err)
	}
	defer port.Close()
	var vf *pairVF
	g := rawJoin(t, h, "a", func(serial uint32) *pairVF { return vf }, take)
	frame := func(dst, src nic.MAC, tag byte) []byte {
		return bytes.Join([][]byte{dst[:], src[:], {8, 0, tag}, make([]byte, 45)}, nil)
	}
	c, done, err := h.Capture("a", pcap.Config{Count: 10})
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	exchange := func(path string) {
		t.Helper()
		port.WriteFrames([]nic.Frame{{Head: frame(mac, outside, 1)}})
		if b := await(t, frames, "a frame to the guest by "+path); b[14] != 1 {
			t.Errorf("%s: % x", path, b[:15])
		}
		g.transmit(frame(nic.Broadcast, mac, 2))
		if b := await(t, frames, "a frame from the guest by "+path); b[14] != 2 {
			t.Errorf("%s: % x", path, b[:15])
		}
	}
	exchange("synthetic")
	vf = newPair(t, take)
	if err := h.AddVF("a", 5, vf); err != nil {
		t.Fatal(err)
	}
	until(t, "the guest on its function", g.onVF)
	exchange("vf")
	vf.send(frame(outside, nic.MAC{2, 0, 0, 0, 0, 9}, 3)) // not its address
	vf.send(frame(outside, mac, 4))
	if b := await(t, frames, "a frame"); b[14] != 4 {
		t.Errorf("% x", b[:15])
	}
	info := h.Ports()[0]
	if s, p := info.Guest.VF.String(), info.Switch.Path; s != "VF 5 in use" || p == nil || !p.Used || p.OutFrames != 1 || p.InFrames != 2 {
		t.Errorf("%s, %+v", s, p)
	}
	if n := info.Switch.Dropped[vswitch.DropForged]; n != 1 {
		t.Errorf("%d forged frames", n)
	}
	if err := h.AddVF("a", 6, newPair(t, take)); !errors.Is(err, netvsp.ErrVF) {
		t.Errorf("a second one: %v", err)
	}
	if err := h.LoseVF("a"); err != nil {
		t.Error(err)
	}
	until(t, "the guest off its function", func() bool { return !g.onVF() && g.notices.Load() == 1 })
	exchange("synthetic")
	for _, f := range []func() error{
		func() error { return h.LoseVF("a") },
		func() error { return h.RemoveVF(t.Context(), "a") },
		func() error { return h.FlapVF(t.Context(), "a") },
	} {
		if err := f(); !errors.Is(err, netvsp.ErrNoVF) || !strings.Contains(err.Error(), "the VF of port a: ") {
			t.Error(err)
		}
	}
	vf = newPair(t, take)
	if err := h.AddVF("a", 7, vf); err != nil {
		t.Fatal(err)
	}
	until(t, "the guest on its function", g.onVF)
	exchange("vf")
	var file bytes.Buffer
	if err := c.Write(t.Context(), &file); err != nil {
		t.Fatal(err)
	}
	if v, s := bytes.Count(file.Bytes(), []byte("path vf")), bytes.Count(file.Bytes(), []byte("path synthetic")); v < 5 || s < 4 {
		t.Errorf("%d frames captured on the function, %d beside it", v, s)
	}
	g.quit()
	g.leave(t)
	if !vf.closed.Load() {
		t.Error("the function outlives its guest")
	}
	if err := h.AddVF("a", 8, newPair(t, take)); !errors.Is(err, host.ErrNoGuest) {
		t.Errorf("without a guest: %v", err)
	}
}

// Without SR-IOV at the host there is none, and one that is refused is closed.
func TestNoVF(t *testing.T) {
	h := newHost(t, host.Config{})
	visit(t, h, host.PortConfig{Name: "a"})
	vf := newPair(t, nil)
	if err := h.AddVF("a", 1, vf); !errors.Is(err, netvsp.ErrNoSRIOV) || !vf.closed.Load() {
		t.Errorf("%v, closed %v", err, vf.closed.Load())
	}
}
