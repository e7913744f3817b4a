package ring

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"
)

func TestNeverFull(t *testing.T) {
	// The largest packet of an empty ring leaves 8 bytes.
	mem := newMemory(1)
	p, _ := ends(t, mem)
	if err := p.Put(packet(4096-Trailer, 1)); err != ErrTooBig {
		t.Errorf("a packet that takes the whole ring: %v, want ErrTooBig", err)
	}
	put(t, p, 4096-Trailer-8, 1)
	p.Publish()
	if w, r := words(mem).write.Load(), words(mem).read.Load(); w != 4088 || r != 0 {
		t.Errorf("indices %d and %d", w, r)
	}
	if p.Free() != 0 {
		t.Errorf("free %d", p.Free())
	}

	// From every start and behind every first packet, exactly what Free says fits.
	for start := 0; start < 4096; start += 8 {
		mem := newMemory(1)
		startAt(mem, start)
		p, c := ends(t, mem)
		put(t, p, 1000, 1)
		free := p.Free()
		if err := p.Put(packet(free-Trailer+1, 2)); err != ErrFull {
			t.Fatalf("start %d: packet of one byte more than free: %v, want ErrFull", start, err)
		}
		put(t, p, free-Trailer, 2)
		if err := p.Put(packet(16, 3)); err != ErrFull {
			t.Fatalf("start %d: Put on a full ring: %v, want ErrFull", start, err)
		}
		p.Publish()
		if words(mem).write.Load() == words(mem).read.Load() {
			t.Fatalf("start %d: the write index caught up with the read index", start)
		}
		next(t, c, 1000, 1)
		next(t, c, free-Trailer, 2)
	}
}

func TestWrap(t *testing.T) {
	// Packets of several lengths, in head and body of several lengths, at each
	// place around the end.
	for _, size := range []int{16, 17, 24, 40, 71, 200} {
		for start := 4096 - 256; start < 4096; start += 8 {
			for headLen := Descriptor; headLen <= size; headLen += 9 {
				mem := newMemory(1)
				startAt(mem, start)
				p, c := ends(t, mem)
				head, body := packet(size, 7)
				whole := append(head, body...)
				if err := p.Put(whole[:headLen], whole[headLen:]); err != nil {
					t.Fatal(err)
				}
				p.Publish()
				next(t, c, size, 7)
				if !c.Empty() {
					t.Fatalf("size %d at %d: not empty", size, start)
				}
			}
		}
	}
}

func TestTrailer(t *testing.T) {
	for start := 0; start < 4096; start += 8 {
		mem := newMemory(1)
		startAt(mem, start)
		for i := range mem[HeaderSize:] {
			mem[HeaderSize+i] = 0xee
		}
		p, _ := ends(t, mem)
		put(t, p, 28, 1) // 32 on the ring
		at := (start + 32) % 4096
		if got := binary.LittleEndian.Uint64(mem[HeaderSize+at:]); got != uint64(start)<<32 {
			t.Fatalf("trailer at %d is %#x, want the start %#x in its high half", at, got, start)
		}
	}
}

func TestPaddingIsZeroAndLengthWritten(t *testing.T) {
	for _, start := range []int{0, 4096 - 32, 4096 - 40} {
		for size := 16; size <= 40; size++ {
			mem := newMemory(1)
			startAt(mem, start)
			for i := range mem[HeaderSize:] {
				mem[HeaderSize+i] = 0xee
			}
			p, c := ends(t, mem)
			head, body := packet(size, 1)
			binary.LittleEndian.PutUint16(head[4:], 0xffff) // not the caller's to say
			if err := p.Put(head, body); err != nil {
				t.Fatal(err)
			}
			p.Publish()
			next(t, c, size, 1)
		}
	}
}

func TestPutNeedsADescriptor(t *testing.T) {
	p, _ := ends(t, newMemory(1))
	if err := p.Put(make([]byte, 15), make([]byte, 100)); err != ErrShort {
		t.Errorf("%v, want ErrShort", err)
	}
	if err := p.Put(nil, nil); err != ErrShort {
		t.Errorf("%v, want ErrShort", err)
	}
}

func TestNothingIsVisibleBeforePublish(t *testing.T) {
	p, c := ends(t, newMemory(1))
	put(t, p, 64, 1)
	if _, err := c.Next(make([]byte, 64)); err != ErrEmpty {
		t.Fatalf("%v, want ErrEmpty", err)
	}
	put(t, p, 64, 2)
	p.Publish()
	next(t, c, 64, 1)
	next(t, c, 64, 2)
}

func TestSignalOnlyWhenItWasEmpty(t *testing.T) {
	p, c := ends(t, newMemory(1))
	if p.Publish() {
		t.Error("signal for nothing")
	}
	put(t, p, 64, 1)
	put(t, p, 64, 2)
	if !p.Publish() {
		t.Error("no signal for a batch on an empty ring")
	}
	put(t, p, 64, 3)
	if p.Publish() {
		t.Error("signal although the consumer still has two packets")
	}
	next(t, c, 64, 1)
	c.Release()
	put(t, p, 64, 4)
	if p.Publish() {
		t.Error("signal although the consumer still has packets")
	}
	next(t, c, 64, 2)
	next(t, c, 64, 3)
	next(t, c, 64, 4)
	put(t, p, 64, 5)
	if p.Publish() {
		t.Error("signal although nothing was released")
	}
	next(t, c, 64, 5)
	c.Release()
	put(t, p, 64, 6)
	if !p.Publish() {
		t.Error("no signal after everything was released")
	}
}

// The index that counts is the one before the batch: a consumer that stands at the
// first packet of the batch has not seen it, one that stands elsewhere has.
func TestSignalComparesWithTheIndexBeforeTheBatch(t *testing.T) {
	mem := newMemory(1)
	p, c := ends(t, mem)
	put(t, p, 64, 1)
	p.Publish()
	next(t, c, 64, 1)
	put(t, p, 64, 2)
	put(t, p, 64, 3) // two packets behind the consumer
	c.Release()
	if !p.Publish() {
		t.Error("no signal: the index before the batch is where the consumer stands")
	}
}

func TestInterruptMask(t *testing.T) {
	p, c := ends(t, newMemory(1))
	c.Mask()
	put(t, p, 64, 1)
	if p.Publish() {
		t.Error("signal although masked")
	}
	next(t, c, 64, 1)
	c.Release()
	if c.Unmask() {
		t.Error("more although empty")
	}
	put(t, p, 64, 2)
	if !p.Publish() {
		t.Error("no signal although unmasked and empty")
	}
}

// Data that arrives while masked is never signalled, nor is what follows it, for
// the ring is not empty then. Only the second look of Unmask finds it.
func TestUnmaskLooksAgain(t *testing.T) {
	mem := newMemory(1)
	p, c := ends(t, mem)
	c.Mask()
	if _, err := c.Next(make([]byte, 64)); err != ErrEmpty {
		t.Fatal(err)
	}
	put(t, p, 64, 1) // between the last look and Unmask
	if p.Publish() {
		t.Fatal("signal although masked")
	}
	if !c.Unmask() {
		t.Fatal("Unmask missed the packet that came while masked: a lost wake-up")
	}
	if words(mem).mask.Load() == 0 {
		t.Error("Unmask found more and left the mask clear")
	}
	next(t, c, 64, 1)
	c.Release()
	if c.Unmask() {
		t.Error("more although empty")
	}
	if words(mem).mask.Load() != 0 {
		t.Error("still masked")
	}
}

func TestPendingSendSize(t *testing.T) {
	for _, test := range []struct {
		name    string
		pending uint32
		want    []bool // for each of four packets of 1000 bytes consumed
	}{
		{"none", 0, []bool{false, false, false, false}},
		{"already free", 56, []bool{false, false, false, false}},
		{"just reached", uint32(4088 - 3*Need(1000)), []bool{true, false, false, false}},
		{"between", 1500, []bool{false, true, false, false}},
		{"all", 4088, []bool{false, false, false, true}},
		{"low bits do not count", 4095, []bool{false, false, false, true}},
		{"more than the ring", 8192, []bool{false, false, false, false}},
	} {
		t.Run(test.name, func(t *testing.T) {
			mem := newMemory(1)
			p, c := ends(t, mem)
			for i := range 4 {
				put(t, p, 1000, uint64(i))
			}
			p.Publish()
			words(mem).pending.Store(test.pending)
			c.Mask() // is about new data, not about room
			for i, want := range test.want {
				next(t, c, 1000, uint64(i))
				if got := c.Release(); got != want {
					t.Errorf("after packet %d: signal %v, want %v", i, got, want)
				}
			}
			if c.Release() {
				t.Error("signal for releasing nothing")
			}
		})
	}
}

func TestPendingSendSizeCountsFromTheFreshWriteIndex(t *testing.T) {
	mem := newMemory(1)
	p, c := ends(t, mem)
	put(t, p, 1000, 1)
	p.Publish()
	next(t, c, 1000, 1)
	put(t, p, 2000, 2) // the consumer does not know yet
	put(t, p, 1000, 3)
	p.Publish()
	n := p.Free() + Need(1000)
	if p.AwaitRoom(n) {
		t.Fatal("room although nothing is released")
	}
	if !c.Release() {
		t.Error("no signal: with the stale write index there seems to have been room before")
	}
}

func TestFeatureBit(t *testing.T) {
	mem := newMemory(1)
	p, c := ends(t, mem)
	if !c.PeerSignalsRoom() {
		t.Error("Init and NewProducer set the bit")
	}
	for i := range 4 {
		put(t, p, 1000, uint64(i))
	}
	p.Publish()
	words(mem).features.Store(0)
	if c.PeerSignalsRoom() {
		t.Error("the bit is clear")
	}
	words(mem).pending.Store(1008)
	for i := range 4 {
		next(t, c, 1000, uint64(i))
	}
	if c.Release() {
		t.Error("signalled room to a producer without the feature")
	}
}

func TestAwaitRoom(t *testing.T) {
	mem := newMemory(1)
	p, c := ends(t, mem)
	for i := range 4 {
		put(t, p, 1000, uint64(i))
	}
	p.Publish()
	need := Need(1500)
	if err := p.Put(packet(1500, 4)); err != ErrFull {
		t.Fatal(err)
	}
	if p.AwaitRoom(need) {
		t.Fatal("room on a full ring")
	}
	if got := words(mem).pending.Load(); got != uint32(need) {
		t.Errorf("pending send size %d, want %d", got, need)
	}
	next(t, c, 1000, 0)
	if c.Release() {
		t.Error("signal too early")
	}
	next(t, c, 1000, 1)
	if !c.Release() {
		t.Error("no signal although there is room")
	}
	put(t, p, 1500, 4)
	p.StopAwaiting()
	if words(mem).pending.Load() != 0 {
		t.Error("StopAwaiting left the pending send size")
	}
}

// The peer may make room after Put said ErrFull and before it can see the pending
// send size. Then no signal comes, and only the second look helps.
func TestAwaitRoomLooksAgain(t *testing.T) {
	mem := newMemory(1)
	p, c := ends(t, mem)
	put(t, p, 4000, 1)
	p.Publish()
	if err := p.Put(packet(100, 2)); err != ErrFull {
		t.Fatal(err)
	}
	next(t, c, 4000, 1)
	if c.Release() {
		t.Fatal("signal although nobody waits")
	}
	if !p.AwaitRoom(Need(100)) {
		t.Fatal("AwaitRoom missed the room that was made before it: a lost wake-up")
	}
	if words(mem).pending.Load() != 0 {
		t.Error("AwaitRoom found room and left the pending send size")
	}
}

func TestAwaitRoomOfMoreThanTheRing(t *testing.T) {
	mem := newMemory(1)
	p, c := ends(t, mem)
	put(t, p, 1000, 1)
	p.Publish()
	if p.AwaitRoom(100000) {
		t.Fatal("room for 100000 bytes")
	}
	next(t, c, 1000, 1)
	if !c.Release() {
		t.Error("no signal when the ring was empty")
	}
	if !p.AwaitRoom(100000) {
		t.Error("an empty ring is all the room there can be")
	}
}

func TestTooBigForTheBufferIsSkipped(t *testing.T) {
	p, c := ends(t, newMemory(1))
	put(t, p, 100, 1)
	put(t, p, 48, 2)
	p.Publish()
	buf := make([]byte, 48)
	head, body := packet(100, 1)
	b, err := c.Next(buf)
	if err != ErrTooBig || len(b) != 48 || b[4] != 104/8 || !bytes.Equal(b[8:16], head[8:]) || !bytes.Equal(b[16:], body[:32]) {
		t.Fatalf("%x %v, want ErrTooBig and the beginning", b, err)
	}
	b, err = c.Next(buf)
	if err != nil || len(b) != 48 || &b[0] != &buf[0] {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
}

func TestCountsOfBytes(t *testing.T) {
	p, c := ends(t, newMemory(2))
	if !c.Empty() || c.Used() != 0 || p.Free() != 8192-8 {
		t.Errorf("empty ring: used %d, free %d", c.Used(), p.Free())
	}
	put(t, p, 65, 1)
	if p.Free() != 8192-8-Need(65) {
		t.Errorf("free %d before Publish", p.Free())
	}
	p.Publish()
	if c.Empty() || c.Used() != Need(65) {
		t.Errorf("used %d, want %d", c.Used(), Need(65))
	}
	next(t, c, 65, 1)
	if !c.Empty() || p.Free() != 8192-8-Need(65) {
		t.Errorf("read but not released: used %d, free %d", c.Used(), p.Free())
	}
	c.Release()
	if p.Free() != 8192-8 {
		t.Errorf("free %d after Release", p.Free())
	}
}

func ExampleProducer() {
	mem := make([]byte, 2*HeaderSize) // shared with the peer
	Init(mem)
	p, _ := NewProducer(mem)
	c, _ := NewConsumer(mem)

	head := make([]byte, 16) // a packet descriptor:
	head[0] = 6              // in-band
	head[2] = 2              // payload behind 2*8 bytes
	p.Put(head, []byte("hello"))
	p.Put(head, []byte("world"))
	fmt.Println("signal the consumer:", p.Publish())

	buf := make([]byte, 4096)
	for c.Mask(); ; {
		packet, err := c.Next(buf)
		if err == ErrEmpty {
			fmt.Println("signal the producer:", c.Release())
			if !c.Unmask() {
				break // wait for a signal
			}
			continue
		}
		fmt.Printf("%d bytes: %s\n", len(packet), packet[16:21])
	}
	// Output:
	// signal the consumer: true
	// 24 bytes: hello
	// 24 bytes: world
	// signal the producer: false
}
