package ring

import (
	"testing"
	"unsafe"
)

func TestHeaderOffsets(t *testing.T) {
	var h header
	for _, w := range []struct {
		name      string
		got, want uintptr
	}{
		{"write index", unsafe.Offsetof(h.write), 0},
		{"read index", unsafe.Offsetof(h.read), 4},
		{"interrupt mask", unsafe.Offsetof(h.mask), 8},
		{"pending send size", unsafe.Offsetof(h.pending), 12},
		{"feature bits", unsafe.Offsetof(h.features), 64},
	} {
		if w.got != w.want {
			t.Errorf("%s at %d, want %d", w.name, w.got, w.want)
		}
	}
}

func TestMemoryThatIsNoRing(t *testing.T) {
	aligned := make([]byte, 4*HeaderSize)
	for name, mem := range map[string][]byte{
		"nothing":      nil,
		"no data":      aligned[:HeaderSize],
		"part of page": aligned[:2*HeaderSize+8],
		"misaligned":   aligned[4 : 2*HeaderSize+4],
	} {
		Init(mem) // must not panic
		if _, err := NewProducer(mem); err == nil {
			t.Errorf("%s: NewProducer accepts it", name)
		}
		if _, err := NewConsumer(mem); err == nil {
			t.Errorf("%s: NewConsumer accepts it", name)
		}
	}
}

func TestIndicesAreTakenFromTheHeader(t *testing.T) {
	mem := newMemory(1)
	startAt(mem, 4088)
	p, c := ends(t, mem)
	put(t, p, 100, 1)
	p.Publish()
	next(t, c, 100, 1)
	c.Release()
	if w := words(mem).write.Load(); w != uint32(Need(100)-8) {
		t.Errorf("write index %d", w)
	}

	// A producer that takes over sees what its predecessor left.
	put(t, p, 100, 2)
	p.Publish()
	p, c = ends(t, mem)
	if got := p.Free(); got != 4096-8-Need(100) {
		t.Errorf("free %d", got)
	}
	next(t, c, 100, 2)

	for _, bad := range []uint32{4096, 4, 0xfffffff8, 1} {
		mem := newMemory(1)
		words(mem).write.Store(bad)
		if _, err := NewProducer(mem); err == nil {
			t.Errorf("NewProducer accepts write index %d", bad)
		}
		if _, err := NewConsumer(mem); err == nil {
			t.Errorf("NewConsumer accepts write index %d", bad)
		}
		words(mem).write.Store(0)
		words(mem).read.Store(bad)
		if _, err := NewProducer(mem); err == nil {
			t.Errorf("NewProducer accepts read index %d", bad)
		}
		if _, err := NewConsumer(mem); err == nil {
			t.Errorf("NewConsumer accepts read index %d", bad)
		}
	}
}

func TestProducerStartsWithItsOwnWordsInOrder(t *testing.T) {
	mem := newMemory(1)
	words(mem).pending.Store(4095)
	words(mem).features.Store(0)
	words(mem).mask.Store(1)
	if _, err := NewProducer(mem); err != nil {
		t.Fatal(err)
	}
	h := words(mem)
	if h.pending.Load() != 0 || h.features.Load() != 1 {
		t.Errorf("pending %d, features %d", h.pending.Load(), h.features.Load())
	}
	if h.mask.Load() != 1 {
		t.Error("the producer touched the consumer's mask")
	}
}

// A ring of 2 MiB with its header has 2093056 bytes of data, and the largest record
// takes all but 8 of them. The largest packet is shorter, though: its length field
// counts to 65535.
func TestLargestPacket(t *testing.T) {
	p, c := ends(t, newMemory(511))
	if p.Size() != 2093056 || c.Size() != 2093056 || p.Free() != 2093048 {
		t.Fatalf("size %d, free %d", p.Size(), p.Free())
	}
	put(t, p, MaxPacket, 1)
	if err := p.Put(packet(MaxPacket+1, 2)); err != ErrTooBig {
		t.Errorf("Put of %d bytes: %v, want ErrTooBig", MaxPacket+1, err)
	}
	p.Publish()
	next(t, c, MaxPacket, 1)
}

func TestNoAllocation(t *testing.T) {
	mem := newMemory(4)
	p, c := ends(t, mem)
	head, body := packet(200, 1)
	buf := make([]byte, 4096)
	small := make([]byte, 16)
	allocs := testing.AllocsPerRun(1000, func() {
		c.Mask()
		for p.Put(head, body) == nil {
		}
		p.Publish()
		p.AwaitRoom(Need(200))
		for c.Used() > 0 {
			c.Next(small)
			c.Next(buf)
		}
		c.Release()
		p.StopAwaiting()
		p.Free()
		c.Unmask()
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
	if p.Err() != nil || c.Err() != nil {
		t.Error(p.Err(), c.Err())
	}
}
