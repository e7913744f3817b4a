package netvsc

import (
	"context"
	"encoding/binary"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"hvnet/counter"
	"hvnet/internal/packets"
	"hvnet/netvsc/vf"
	"hvnet/nic"
)

// TestVFPump: what a pump reads goes over the VF as it is, in order, long and short, and
// what does not fit the MTU does not; counters say by which path and for which processor.
func TestVFPump(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newVFTest(t, Config{Queues: 2})
		src := newSource()
		pumping(t, x.n, src)
		var want [][]byte
		bytes := 0
		for i := range 300 {
			b := frame(i%7, 42+i*11%1473)
			want, bytes = append(want, b), bytes+len(b)
			src.add(b)
		}
		src.add(frame(1, 1600), frame(1, 13))
		synctest.Wait()
		sameFrames(t, x.dev.frames, want)
		x.port.Changed(VFState{})
		synctest.Wait()
		src.add(frame(1, 60))
		synctest.Wait()
		stats := map[string]uint64{}
		x.dev.dropped = 5
		for _, s := range x.n.Stats() {
			stats[s.Name] = s.Value
		}
		sent := [2]uint64{}
		sent[x.n.ChannelOf(frame(1, 60))] = 1
		for name, value := range map[string]uint64{
			"vf_tx_packets": 300, "vf_tx_bytes": uint64(bytes), "vf_tx_dropped": 5, "tx_too_big": 1, "tx_malformed": 1,
			"cpu0_vf_tx_packets": 300, "cpu0_vf_tx_bytes": uint64(bytes), "cpu1_vf_tx_packets": 0,
			"tx_queue_0_vf_packets": 300, "tx_queue_0_vf_bytes": uint64(bytes), "tx_queue_1_vf_packets": 0,
			"tx_queue_0_packets": sent[0], "tx_queue_1_packets": sent[1],
		} {
			if stats[name] != value {
				t.Errorf("%s is %d, want %d", name, stats[name], value)
			}
		}
	})
}

// TestVFSuperFrames: a VF that takes no frames to be cut gets them cut, one that does whole
// ones.
func TestVFSuperFrames(t *testing.T) {
	large := packets.Partial(packets.Shape{}.Frame(packets.Random(30000)), nic.SegmentTCPv4, 1448)
	for _, takes := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			h := newFakeHost()
			h.vf.serial = 7
			n := open(t, h, Config{VF: true})
			up(t, n)
			dev := newFakeVF(h)
			var v VF = dev // which takes them
			if !takes {
				v = plainVF{dev, dev}
			}
			port, err := n.AddVF(context.Background(), v)
			if err != nil {
				t.Fatal(err)
			}
			port.Changed(running)
			synctest.Wait()
			src := &loop{frame: packets.Bytes(&large), meta: large.Offload, left: 3}
			p := &pump{n: n, src: src}
			if err := p.round(); err != nic.ErrNoFrame {
				t.Fatal(err)
			}
			n.Send(0, []nic.Frame{large})
			want := 4
			if !takes {
				want = 4 * ((30000 + 1447) / 1448)
			}
			if got := len(dev.frames); got != want {
				t.Errorf("takes %v: %d frames, want %d", takes, got, want)
			}
		})
	}
}

// A plainVF is a VF that takes frames as on a wire only.
type plainVF struct {
	nic.Sink
	*fakeVF
}

func (p plainVF) WriteFrames(frames []nic.Frame) { p.fakeVF.WriteFrames(frames) }
func (plainVF) Takes() nic.Offloads              { return 0 }

// TestVFKept: a frame that a pump has read before the path moved, and could not send, goes
// first.
func TestVFKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newVFTest(t, Config{Queues: 1})
		p := &pump{n: x.n, src: newSource(frame(2, 60))}
		p.send = newSender(x.n.session.Load())
		p.send.keeps = true
		f := asFrame(frame(1, 700))
		p.send.keep(&f)
		if err := p.round(); err != nic.ErrNoFrame {
			t.Fatal(err)
		}
		sameFrames(t, x.dev.frames, [][]byte{frame(1, 700), frame(2, 60)})
		p.send.keep(&f)
		p.send.s = nil // of an attachment before
		p.send.s = &session{n: x.n}
		if err := p.round(); err != nic.ErrNoFrame || len(x.dev.frames) != 2 || x.n.count.Load(counter.TxLost) != 1 {
			t.Errorf("%v, %d frames", err, len(x.dev.frames))
		}
	})
}

// A countingVF counts.
type countingVF struct {
	*fakeVF
	frames int
}

func (c *countingVF) WriteFrames(frames []nic.Frame) { c.frames += len(frames) }

// TestNoAllocationsVF: nor a lock or more than a look at a pointer for a batch.
func TestNoAllocationsVF(t *testing.T) {
	h := newFakeHost()
	h.vf.serial = 7
	n := open(t, h, Config{VF: true})
	if err := n.Up(context.Background(), &counting{}); err != nil {
		t.Fatal(err)
	}
	dev := &countingVF{fakeVF: newFakeVF(h)}
	port, err := n.AddVF(context.Background(), dev)
	if err != nil {
		t.Fatal(err)
	}
	port.Changed(running)
	h.until(t, "the path moves", func() bool { h.tell(); return n.Path() == vf.VF })
	var frames []nic.Frame
	for i := range 32 {
		frames = append(frames, asFrame(frame(i, 64+i*40)))
	}
	src := &loop{frame: frame(1, 64)}
	p := &pump{n: n, src: src}
	for what, f := range map[string]func(){
		"Send":    func() { n.Send(0, frames) },
		"receive": func() { port.WriteFrames(frames) },
		"Pump":    func() { src.left = 32; p.round() },
	} {
		f()
		if a := testing.AllocsPerRun(100, f); a != 0 {
			t.Errorf("%s: %v allocations for 32 frames", what, a)
		}
	}
	if dev.frames != 2*32*102 {
		t.Errorf("%d frames", dev.frames)
	}
}

// A tally notes the numbers of the frames of a stream, whichever way they come.
type tally struct {
	mu   sync.Mutex
	seen []uint32
}

func (y *tally) note(b []byte) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.seen = append(y.seen, binary.BigEndian.Uint32(b[42:]))
}

// A tallyVF is a VF whose frames are noted.
type tallyVF struct {
	*fakeVF
	tally *tally
}

func (v *tallyVF) WriteFrames(frames []nic.Frame) {
	var b [nic.HeadLen]byte
	for i := range frames {
		frames[i].CopyTo(b[:])
		v.tally.note(b[:])
	}
}

// TestVFFlapUnderTraffic moves the path to and fro under a stream of numbered frames, by the
// host's word, the device's and the user's: none is lost, none comes twice, and none is
// overtaken.
func TestVFFlapUnderTraffic(t *testing.T) {
	moves := 40
	if testing.Short() {
		moves = 12
	}
	h := newFakeHost()
	h.vf.serial = 7
	n := open(t, h, Config{VF: true, Queues: 2})
	if err := n.Up(context.Background(), &counting{}); err != nil {
		t.Fatal(err)
	}
	dev := &tallyVF{newFakeVF(h), new(tally)}
	ctx := context.Background()
	port, err := n.AddVF(ctx, dev)
	if err != nil {
		t.Fatal(err)
	}
	port.Changed(running)
	stop, sent := make(chan struct{}), make(chan uint32)
	go func() {
		b := frame(1, 60)
		for i := uint32(0); ; i++ {
			select {
			case <-stop:
				sent <- i
				return
			default:
			}
			binary.BigEndian.PutUint32(b[42:], i)
			for runtime.Gosched(); n.Send(0, []nic.Frame{asFrame(b)}) == 0; runtime.Gosched() {
				if n.closed() {
					return
				}
			}
		}
	}()
	until := func(path vf.Path) {
		t.Helper()
		h.until(t, "path "+path.String(), func() bool { h.tell(); runtime.Gosched(); return n.Path() == path })
	}
	for i := range moves {
		until(vf.VF)
		switch i % 4 {
		case 0:
			port.Changed(VFState{Up: true})
			until(vf.Synthetic)
			port.Changed(running)
		case 1:
			h.queue(0).associate(false, 7)
			until(vf.Synthetic)
			h.queue(0).associate(true, 7)
		case 2:
			if err := n.RemoveVF(ctx, port); err != nil {
				t.Fatal(err)
			}
			if port, err = n.AddVF(ctx, dev); err != nil {
				t.Fatal(err)
			}
			port.Changed(running)
		case 3:
			if err := n.SetMTU(ctx, 1400+i); err != nil {
				t.Fatal(err)
			}
		}
	}
	close(stop)
	total := <-sent
	if err := n.Down(ctx); err != nil { // which waits for the host
		t.Fatal(err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	synthetic := make([]uint32, 0, len(h.frames))
	for _, f := range h.frames {
		synthetic = append(synthetic, binary.BigEndian.Uint32(f[42:]))
	}
	if !slices.IsSorted(synthetic) || !slices.IsSorted(dev.tally.seen) {
		t.Error("frames overtook others on one path")
	}
	all := slices.Concat(synthetic, dev.tally.seen)
	slices.Sort(all)
	for i, k := range all {
		if uint32(i) != k {
			t.Fatalf("frame %d is missing or there twice", i)
		}
	}
	if uint32(len(all)) != total {
		t.Errorf("%d frames, want %d", len(all), total)
	}
	if len(synthetic) == 0 || len(dev.tally.seen) == 0 {
		t.Error("all went by one path")
	}
	t.Logf("%d frames, %d over the VF; it took %v", total, len(dev.tally.seen), n.count.Load(counter.VFSwitches))
}
