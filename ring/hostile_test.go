package ring

import (
	"bytes"
	"encoding/binary"
	"testing"
)

func TestProducerChecksTheReadIndex(t *testing.T) {
	for _, test := range []struct {
		name string
		read uint32
		ok   bool
	}{
		{"where it was", 1008, true},
		{"further", 2016, true},
		{"at the write index", 3024, true},
		{"behind what is published", 3032, false},
		{"backwards", 1000, false},
		{"backwards to the start", 0, false},
		{"not a multiple of 8", 2020, false},
		{"at the size", 4096, false},
		{"far out", 0xfffffff8, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			mem := newMemory(1)
			p, c := ends(t, mem)
			for i := range 3 {
				put(t, p, 1000, uint64(i))
			}
			p.Publish()
			next(t, c, 1000, 0)
			c.Release()
			p.Free() // has seen 1008
			put(t, p, 100, 9)
			words(mem).read.Store(test.read)
			free := p.Free()
			if ok := p.Err() == nil; ok != test.ok {
				t.Fatalf("error %v", p.Err())
			}
			if test.ok {
				return
			}
			if free != 0 {
				t.Errorf("free %d on a corrupt ring", free)
			}
			words(mem).read.Store(1008) // too late
			if err := p.Put(packet(16, 1)); err != ErrCorrupt {
				t.Errorf("Put: %v, want ErrCorrupt", err)
			}
			if p.Publish() {
				t.Error("signal on a corrupt ring")
			}
			if !p.AwaitRoom(8) {
				t.Error("AwaitRoom waits on a corrupt ring")
			}
		})
	}
}

func TestConsumerChecksTheWriteIndex(t *testing.T) {
	for _, test := range []struct {
		name  string
		write uint32
		ok    bool
	}{
		{"where it was", 2016, true},
		{"further", 3024, true},
		{"round the end", 992, true},
		{"onto what is not released", 1008, false},
		{"over what is not released", 1016, false},
		{"backwards", 2008, false},
		{"not a multiple of 8", 3020, false},
		{"at the size", 4096, false},
		{"far out", 0xfffffff8, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			mem := newMemory(1)
			startAt(mem, 1000)
			p, c := ends(t, mem)
			_ = p
			words(mem).write.Store(2016)
			if c.Used() != 1016 {
				t.Fatal(c.Used())
			}
			words(mem).write.Store(test.write)
			empty := c.Empty()
			if ok := c.Err() == nil; ok != test.ok {
				t.Fatalf("error %v", c.Err())
			}
			if empty {
				t.Error("empty")
			}
			if test.ok {
				return
			}
			words(mem).write.Store(2016) // too late
			if _, err := c.Next(make([]byte, 64)); err != ErrCorrupt {
				t.Errorf("Next: %v, want ErrCorrupt", err)
			}
			if !c.Unmask() {
				t.Error("Unmask lets a corrupt ring sleep")
			}
			if c.Used() != 0 || c.Release() {
				t.Error("a corrupt ring goes on")
			}
		})
	}
}

func TestConsumerChecksTheWriteIndexWhenItReleases(t *testing.T) {
	mem := newMemory(1)
	p, c := ends(t, mem)
	put(t, p, 1000, 1)
	put(t, p, 1000, 2)
	p.Publish()
	next(t, c, 1000, 1)
	words(mem).pending.Store(4088)
	words(mem).write.Store(4097)
	if c.Release() {
		t.Error("signal on a corrupt ring")
	}
	if _, err := c.Next(make([]byte, 2000)); err != ErrCorrupt {
		t.Errorf("Next: %v, want ErrCorrupt", err)
	}
}

func TestConsumerChecksTheDescriptor(t *testing.T) {
	for _, test := range []struct {
		name                 string
		offset8, len8, flags uint16
		ok                   bool
	}{
		{"descriptor only", 2, 2, 0, true},
		{"completion requested", 2, 8, 1, true},
		{"all that is available", 2, 8, 0, true},
		{"no payload", 8, 8, 0, true},
		{"payload inside the descriptor", 1, 8, 0, false},
		{"payload at 0", 0, 8, 0, false},
		{"length 0", 2, 0, 0, false},
		{"shorter than the descriptor", 2, 1, 0, false},
		{"payload behind the end", 9, 8, 0, false},
		{"one word more than available", 2, 9, 0, false},
		{"as long as can be", 2, 0xffff, 0, false},
		{"unknown flag", 2, 8, 2, false},
		{"highest flag", 2, 8, 0x8001, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, start := range []int{0, 4096 - 8, 4096 - 40} {
				mem := newMemory(1)
				startAt(mem, start)
				p, c := ends(t, mem)
				put(t, p, 64, 1)
				p.Publish()
				d := mem[HeaderSize+start:]
				binary.LittleEndian.PutUint16(d[2:], test.offset8)
				binary.LittleEndian.PutUint16(d[4:], test.len8)
				binary.LittleEndian.PutUint16(d[6:], test.flags)
				b, err := c.Next(make([]byte, 4096))
				if test.ok {
					if err != nil || len(b) != int(test.len8)*8 {
						t.Fatalf("%d bytes, %v", len(b), err)
					}
					continue
				}
				if err != ErrCorrupt || c.Err() == nil {
					t.Fatalf("%v (%v), want ErrCorrupt", err, c.Err())
				}
				binary.LittleEndian.PutUint64(d, 6|2<<16|8<<32)
				if _, err := c.Next(make([]byte, 4096)); err != ErrCorrupt {
					t.Errorf("and then %v: it has to stay corrupt", err)
				}
			}
		})
	}
}

func TestPacketLongerThanTheRing(t *testing.T) {
	// A packet of 8*65535 bytes in a ring that holds 4096.
	mem := newMemory(1)
	p, c := ends(t, mem)
	put(t, p, 4080, 1)
	p.Publish()
	binary.LittleEndian.PutUint16(mem[HeaderSize+4:], 512)
	if _, err := c.Next(make([]byte, MaxPacket)); err != ErrCorrupt {
		t.Errorf("%v, want ErrCorrupt", err)
	}
}

func TestPacketIsACopy(t *testing.T) {
	mem := newMemory(1)
	p, c := ends(t, mem)
	put(t, p, 100, 1)
	p.Publish()
	b := next(t, c, 100, 1)
	before := bytes.Clone(b)
	clear(mem[HeaderSize:])
	if !bytes.Equal(b, before) {
		t.Error("the packet changed with the ring")
	}
}

// The words that this side owns are only ever stored, so a peer that scribbles on
// them achieves nothing.
func TestOwnWordsAreNotReadBack(t *testing.T) {
	mem := newMemory(1)
	p, c := ends(t, mem)
	for i := range 500 {
		put(t, p, 100, uint64(i))
		words(mem).write.Store(123)
		p.Publish()
		words(mem).read.Store(uint32(i*Need(100)) % 4096)
		next(t, c, 100, uint64(i))
		words(mem).read.Store(456)
		c.Release()
	}
	if p.Err() != nil || c.Err() != nil {
		t.Error(p.Err(), c.Err())
	}
}
