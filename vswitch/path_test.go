package vswitch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"hvnet/nic"
)

// twoPaths returns a switch with a station mac(1) that has two paths, and two others; the
// catchers are those of the station's own path, of its second, and of the others.
func twoPaths(t testing.TB, opt PortOptions) (*Switch, []*Port, *Path, []*catcher) {
	t.Helper()
	s := New(Config{})
	cs := []*catcher{{}, {}, {}, {}}
	var ps []*Port
	for i, o := range []PortOptions{opt, {MAC: mac(2)}, {MAC: mac(3)}} {
		p, err := s.Connect(fmt.Sprint("p", i), cs[[]int{0, 2, 3}[i]], o)
		if err != nil {
			t.Fatal(err)
		}
		ps = append(ps, p)
	}
	x, err := ps[0].AddPath("vf", cs[1])
	if err != nil {
		t.Fatal(err)
	}
	return s, ps, x, cs
}

func TestPath(t *testing.T) {
	s, p, x, c := twoPaths(t, PortOptions{MAC: mac(1)})
	all := func(tag byte) {
		p[1].WriteFrames([]nic.Frame{frame(mac(1), mac(2), tag), frame(nic.Broadcast, mac(2), tag+1)})
	}
	all('a')
	expect(t, "before Use", c, "ab", "", "", "b")
	x.Use()
	x.Use()
	all('c')
	expect(t, "in use", c, "", "cd", "", "d")

	// Either path is taken, nothing returns, and no other address is believed.
	x.WriteFrames([]nic.Frame{frame(nic.Broadcast, mac(1), 'e'), frame(mac(2), mac(1), 'f'), frame(mac(1), mac(1), 'g')})
	p[0].WriteFrames([]nic.Frame{frame(nic.Broadcast, mac(1), 'h'), frame(mac(3), mac(1), 'i')})
	x.WriteFrames([]nic.Frame{frame(mac(2), mac(9), 'j'), frame(mac(2), mac(1), 'k'), frame(mac(2), mac(3), 'l')})
	expect(t, "from the station", c, "", "", "efhk", "ehi")

	if _, err := p[0].AddPath("third", c[0]); !errors.Is(err, ErrPathInUse) {
		t.Errorf("a third path: %v", err)
	}
	info := s.Ports()[0]
	want := PathInfo{Name: "vf", Used: true, Turns: 1, InFrames: 4, InBytes: 240, OutFrames: 2, OutBytes: 120}
	if info.Path == nil || *info.Path != want || info.Dropped[DropForged] != 2 || info.InFrames != 6 {
		t.Errorf("%+v of %+v, want %+v", info.Path, info, want)
	}
	x.Leave()
	all('m')
	expect(t, "left", c, "mn", "", "", "n")
	x.Use()
	x.Close()
	x.Use()
	all('o')
	x.WriteFrames([]nic.Frame{frame(mac(2), mac(1), 'q')})
	expect(t, "closed", c, "op", "", "", "p")
	if info := s.Ports()[0]; info.Path != nil || info.Dropped[DropClosed] != 1 {
		t.Errorf("closed: %+v", info)
	}
	if _, err := p[0].AddPath("vf", c[1]); err != nil {
		t.Error(err)
	}
}

// The VLANs are the port's, on both paths; so are the stations that it learns.
func TestPathVLAN(t *testing.T) {
	s, p, x, c := twoPaths(t, PortOptions{VLAN: Access(7)})
	out := new(catcher)
	trunk, err := s.Connect("trunk", out, PortOptions{VLAN: Trunk()})
	if err != nil {
		t.Fatal(err)
	}
	x.WriteFrames([]nic.Frame{frame(nic.Broadcast, mac(1), 'a'), tag(frame(nic.Broadcast, mac(1), 'b'), 8)})
	expect(t, "from the station", append(c, out), "", "", "", "", "a")
	x.Use()
	trunk.WriteFrames([]nic.Frame{tag(frame(mac(1), mac(5), 'c'), 7), tag(frame(mac(1), mac(5), 'd'), 8), tag(frame(nic.Broadcast, mac(5), 'e'), 7)})
	if len(c[1].frames) != 2 || len(c[1].frames[0]) != 60 {
		t.Errorf("%d frames with or without tags", len(c[1].frames))
	}
	expect(t, "to the station", c[:2], "", "ce")
	if info := s.Ports()[0]; len(info.Stations) != 1 || info.Stations[0].MAC != mac(1) || info.Dropped[DropVLAN] != 1 {
		t.Errorf("%+v", info)
	}
	p[0].SetVLAN(Access(8))
	trunk.WriteFrames([]nic.Frame{tag(frame(nic.Broadcast, mac(5), 'f'), 7), tag(frame(nic.Broadcast, mac(5), 'g'), 8)})
	expect(t, "after a change", c[:2], "", "g")
}

// tag returns a frame with a VLAN tag.
func tag(f nic.Frame, id uint16) nic.Frame {
	h := append(append([]byte(nil), f.Head[:12]...), 0x81, 0, byte(id>>8), byte(id))
	f.Head = append(h, f.Head[12:]...)
	return f
}

// TestPathModel is a model of 10,000 events in any order: a frame to the station leaves
// by the path that is in use, once; a frame of the station goes to the others, once.
func TestPathModel(t *testing.T) {
	events := 10_000
	if testing.Short() {
		events = 2000
	}
	_, p, x, c := twoPaths(t, PortOptions{MAC: mac(1)})
	r := rand.New(rand.NewPCG(8, 129))
	used, there := false, true
	for i := range events {
		want := make([]string, 4)
		at := 0 // of the catcher that gets what is for the station
		if used {
			at = 1
		}
		tag := byte('a' + i%26)
		dst := []nic.MAC{mac(1), mac(2), mac(3), nic.Broadcast, mac(8)}[r.IntN(5)]
		switch r.IntN(7) {
		case 0:
			x.Use()
			used = there
		case 1:
			x.Leave()
			used = false
		case 2:
			x.Close()
			used, there = false, false
		case 3:
			y, err := p[0].AddPath("vf", c[1])
			if (err != nil) != there {
				t.Fatalf("event %d: add a path where there is one (%v): %v", i, there, err)
			}
			if err == nil {
				x, there = y, true
			}
		case 4: // from the station, by either path
			if r.IntN(2) == 0 {
				p[0].WriteFrames([]nic.Frame{frame(dst, mac(1), tag)})
			} else if x.WriteFrames([]nic.Frame{frame(dst, mac(1), tag)}); !there {
				break
			}
			for k, m := range []nic.MAC{mac(2), mac(3)} {
				if dst == m || dst == nic.Broadcast {
					want[2+k] = string(tag)
				}
			}
		default: // from another
			p[1].WriteFrames([]nic.Frame{frame(dst, mac(2), tag)})
			if dst == mac(1) || dst == nic.Broadcast {
				want[at] = string(tag)
			}
			if dst == mac(3) || dst == nic.Broadcast {
				want[3] = string(tag)
			}
		}
		expect(t, fmt.Sprint("event ", i), c, want...)
		if t.Failed() {
			return
		}
	}
}

// A numbered is a sink that counts how often each number came, and what comes after it was
// closed.
type numbered struct {
	got    []atomic.Int32
	closed atomic.Bool
	late   atomic.Int32
}

func (n *numbered) WriteFrames(frames []nic.Frame) {
	for i := range frames {
		if n.closed.Load() {
			n.late.Add(1)
		}
		n.got[binary.BigEndian.Uint32(frames[i].Head[14:])].Add(1)
	}
}

// TestPathTraffic turns a port under traffic of several senders. Each frame arrives once,
// by one of the paths, and none by a path that was taken away.
func TestPathTraffic(t *testing.T) {
	turns, senders, each := 10_000, 3, 20_000
	if testing.Short() {
		turns, each = 1000, 4000
	}
	s := New(Config{})
	got := make([]atomic.Int32, senders*each)
	own := &numbered{got: got}
	p, err := s.Connect("station", own, PortOptions{MAC: mac(1)})
	if err != nil {
		t.Fatal(err)
	}
	var sending sync.WaitGroup
	for k := range senders {
		from, err := s.Connect("sender", new(sum), PortOptions{MAC: mac(byte(10 + k))})
		if err != nil {
			t.Fatal(err)
		}
		sending.Go(func() {
			for i := 0; i < each; i += 2 {
				batch := []nic.Frame{frame(mac(1), mac(byte(10+k)), 0), frame(nic.Broadcast, mac(byte(10+k)), 0)}
				for j := range batch {
					binary.BigEndian.PutUint32(batch[j].Head[14:], uint32(k*each+i+j))
				}
				from.WriteFrames(batch[:1])
				from.WriteFrames(batch[1:])
			}
		})
	}
	r := rand.New(rand.NewPCG(1, 1))
	for range turns / 10 {
		vf := &numbered{got: got}
		x, err := p.AddPath("vf", vf)
		if err != nil {
			t.Fatal(err)
		}
		for range 5 {
			x.Use()
			if r.IntN(2) == 0 {
				x.Leave()
			}
		}
		x.Close()
		vf.closed.Store(true)
		defer func() {
			if n := vf.late.Load(); n > 0 {
				t.Errorf("%d frames came by a path that was taken away", n)
			}
		}()
	}
	sending.Wait()
	for i := range got {
		if n := got[i].Load(); n != 1 {
			t.Fatalf("frame %d arrived %d times", i, n)
		}
	}
}

// A sink that writes to its own port does not stop a port that turns.
func TestPathEcho(t *testing.T) {
	s := New(Config{})
	var p *Port
	reply := func(frames []nic.Frame) {
		p.WriteFrames([]nic.Frame{frame(mac(2), mac(1), 0)})
	}
	p, err := s.Connect("station", sinkFunc(reply), PortOptions{MAC: mac(1)})
	if err != nil {
		t.Fatal(err)
	}
	var left sum
	var from *Port
	if from, err = s.Connect("other", sinkFunc(func(f []nic.Frame) {
		left.WriteFrames(f)
		if left.n.Load()%2 == 1 { // and back to the station, in the same call
			from.WriteFrames([]nic.Frame{frame(mac(1), mac(2), 0)})
		}
	}), PortOptions{MAC: mac(2)}); err != nil {
		t.Fatal(err)
	}
	x, err := p.AddPath("vf", sinkFunc(reply))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 2000 {
			from.WriteFrames([]nic.Frame{frame(mac(1), mac(2), 0)})
		}
	}()
	for {
		select {
		case <-done:
			if left.n.Load() != 4000 {
				t.Errorf("%d answers", left.n.Load())
			}
			return
		default:
			x.Use()
			x.Leave()
		}
	}
}

type sinkFunc func([]nic.Frame)

func (f sinkFunc) WriteFrames(frames []nic.Frame) { f(frames) }

// A hold is a sink that keeps the frames of a batch as they are.
type hold struct{ frames []nic.Frame }

func (h *hold) WriteFrames(frames []nic.Frame) { h.frames = append(h.frames, frames...) }

// TestPathBodiesInPlace: from a path of a port to one of another's the bytes stay where they
// are.
func TestPathBodiesInPlace(t *testing.T) {
	s := New(Config{})
	var ends [2]hold
	var paths [2]*Path
	for i := range ends {
		p, err := s.Connect(fmt.Sprint("p", i), &catcher{}, PortOptions{MAC: mac(byte(i + 1))})
		if err != nil {
			t.Fatal(err)
		}
		if paths[i], err = p.AddPath("vf", &ends[i]); err != nil {
			t.Fatal(err)
		}
		paths[i].Use()
	}
	sent := frame(mac(2), mac(1), 'a')
	paths[0].WriteFrames([]nic.Frame{sent})
	if len(ends[1].frames) != 1 {
		t.Fatalf("%d frames have come", len(ends[1].frames))
	}
	got := ends[1].frames[0]
	if &got.Head[0] != &sent.Head[0] || len(got.Body) != 2 || &got.Body[0][0] != &sent.Body[0][0] || &got.Body[1][0] != &sent.Body[1][0] {
		t.Error("the frame was copied")
	}
}

// TestPathBrokenSink: a sink that panics, as one does where a guest takes its memory away,
// leaves the port's way free for the other path.
func TestPathBrokenSink(t *testing.T) {
	s := New(Config{})
	broken, err := s.Connect("broken", sinkFunc(func([]nic.Frame) { panic("memory is gone") }), PortOptions{MAC: mac(1)})
	if err != nil {
		t.Fatal(err)
	}
	from, err := s.Connect("from", &catcher{}, PortOptions{MAC: mac(2)})
	if err != nil {
		t.Fatal(err)
	}
	func() {
		defer func() { recover() }()
		from.WriteFrames([]nic.Frame{frame(mac(1), mac(2), 'a')})
		t.Error("the sink did not panic")
	}()
	w := broken.way.Load()
	if !w.users.TryLock() {
		t.Fatal("the way is in use for ever: who turns to the other path never returns")
	}
	w.users.Unlock()
}
