package ring

import (
	"encoding/binary"
	"testing"
)

// peerWrites applies one thing that a hostile peer may do at any time: the first two
// bytes of b pick a word of the header or of the data, the next four are stored there.
func peerWrites(mem []byte, b []byte) (rest []byte) {
	if len(b) < 6 {
		return nil
	}
	where, value := binary.LittleEndian.Uint16(b), binary.LittleEndian.Uint32(b[2:])
	h := words(mem)
	switch where % 8 {
	case 0:
		h.write.Store(value % uint32(len(mem)))
	case 1:
		h.read.Store(value % uint32(len(mem)))
	case 2:
		h.write.Store(value &^ 7 % uint32(len(mem)-HeaderSize))
	case 3:
		h.read.Store(value &^ 7 % uint32(len(mem)-HeaderSize))
	case 4:
		h.mask.Store(value)
	case 5:
		h.pending.Store(value)
	case 6:
		h.features.Store(value)
	case 7:
		binary.LittleEndian.PutUint32(mem[HeaderSize+int(where)%(len(mem)-HeaderSize)&^3:], value)
	}
	return b[6:]
}

// FuzzConsumer reads a ring whose whole memory is the peer's, which goes on
// changing it between any two calls.
func FuzzConsumer(f *testing.F) {
	good := newMemory(1)
	p, _ := NewProducer(good)
	for i := range uint64(5) {
		p.Put(packet(16+int(i)*100, i))
	}
	p.Publish()
	f.Add(uint16(0), good[HeaderSize:], []byte{0, 0, 160, 5, 0, 0})
	f.Add(uint16(4088), good[HeaderSize:], []byte{2, 0, 80, 4, 0, 0, 2, 0, 160, 5, 0, 0, 5, 0, 255, 15, 0, 0, 7, 1, 1, 2, 3, 4})
	f.Fuzz(func(t *testing.T, start uint16, data, writes []byte) {
		mem := newMemory(1)
		startAt(mem, int(start)&^7%HeaderSize)
		copy(mem[HeaderSize:], data)
		c, err := NewConsumer(mem)
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 1024)
		for len(writes) > 0 {
			writes = peerWrites(mem, writes)
			c.Mask()
			for taken := 0; ; {
				b, err := c.Next(buf)
				if err == ErrEmpty || err == ErrCorrupt {
					break
				}
				if err == ErrTooBig && len(b) != len(buf) {
					t.Fatalf("%d bytes of a packet that is too big", len(b))
				}
				if err == ErrTooBig {
					continue
				}
				offset, length := 8*int(binary.LittleEndian.Uint16(b[2:])), 8*int(binary.LittleEndian.Uint16(b[4:]))
				if length != len(b) || offset < Descriptor || offset > length || b[6] > 1 || b[7] != 0 {
					t.Fatalf("packet of %d bytes with descriptor %x", len(b), b[:16])
				}
				if taken += length + Trailer; taken > HeaderSize {
					t.Fatal("more bytes than the ring has, without a new write index")
				}
			}
			c.Release()
			c.Unmask()
			if c.Used() < 0 || c.Used() >= c.Size() {
				t.Fatalf("used %d", c.Used())
			}
			if (c.Err() != nil) != (c.sample() == false) {
				t.Fatal("corrupt and yet not")
			}
		}
	})
}

// FuzzProducer writes a ring whose header the peer changes between any two calls.
// Whatever it does, the producer stays inside the data area and writes its trailers.
func FuzzProducer(f *testing.F) {
	f.Add(uint16(0), []byte{3, 0, 0, 1, 0, 0, 1, 0, 255, 255, 0, 0})
	f.Add(uint16(4088), []byte{4, 0, 1, 0, 0, 0, 5, 0, 255, 15, 0, 0, 3, 0, 200, 1, 0, 0})
	f.Fuzz(func(t *testing.T, start uint16, writes []byte) {
		mem := make([]byte, 3*HeaderSize) // the last page is not the ring's
		page := mem[2*HeaderSize:]
		mem = mem[:2*HeaderSize]
		Init(mem)
		startAt(mem, int(start)&^7%HeaderSize)
		p, err := NewProducer(mem)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; len(writes) > 0; i++ {
			size := 16 + int(writes[0])*9
			writes = peerWrites(mem, writes)
			at := p.write
			switch err := p.Put(packet(size, uint64(i))); err {
			case nil:
				trailer := (at + Need(size) - Trailer) % HeaderSize
				if got := binary.LittleEndian.Uint64(mem[HeaderSize+trailer:]); got != uint64(at)<<32 {
					t.Fatalf("trailer %#x of the packet at %d", got, at)
				}
			case ErrFull:
				p.AwaitRoom(Need(size))
			case ErrCorrupt:
				if p.Err() == nil {
					t.Fatal("corrupt without a reason")
				}
			default:
				t.Fatal(err)
			}
			p.Publish()
			if free := p.Free(); free < 0 || free > HeaderSize-8 || free%8 != 0 {
				t.Fatalf("free %d", free)
			}
		}
		for _, b := range page {
			if b != 0 {
				t.Fatal("wrote behind the ring")
			}
		}
	})
}
