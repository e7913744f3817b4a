package ring

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// newMemory returns zeroed memory for a ring of some pages of data.
func newMemory(pages int) []byte {
	mem := make([]byte, HeaderSize*(1+pages))
	Init(mem)
	return mem
}

// ends returns both ends of the ring in mem.
func ends(t testing.TB, mem []byte) (*Producer, *Consumer) {
	t.Helper()
	p, err := NewProducer(mem)
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewConsumer(mem)
	if err != nil {
		t.Fatal(err)
	}
	return p, c
}

// descriptor returns a packet descriptor without length.
func descriptor(typ, offset8, flags uint16, tid uint64) []byte {
	b := make([]byte, Descriptor)
	binary.LittleEndian.PutUint16(b, typ)
	binary.LittleEndian.PutUint16(b[2:], offset8)
	binary.LittleEndian.PutUint16(b[6:], flags)
	binary.LittleEndian.PutUint64(b[8:], tid)
	return b
}

// packet returns a descriptor followed by size-16 bytes of payload that tell tid
// and position.
func packet(size int, tid uint64) (head, body []byte) {
	body = make([]byte, size-Descriptor)
	for i := range body {
		body[i] = byte(tid)*31 + byte(i)
	}
	return descriptor(6, 2, 0, tid), body
}

// put puts one packet or fails the test.
func put(t testing.TB, p *Producer, size int, tid uint64) {
	t.Helper()
	if err := p.Put(packet(size, tid)); err != nil {
		t.Fatalf("Put of %d bytes: %v", size, err)
	}
}

// next takes one packet that put has put, checks it and returns it.
func next(t testing.TB, c *Consumer, size int, tid uint64) []byte {
	t.Helper()
	got, err := c.Next(make([]byte, MaxPacket))
	if err != nil {
		t.Fatalf("Next: %v (%v)", err, c.Err())
	}
	head, body := packet(size, tid)
	want := append(head, body...)
	want = append(want, make([]byte, Need(size)-Trailer-size)...)
	binary.LittleEndian.PutUint16(want[4:], uint16(len(want)/8))
	if !bytes.Equal(got, want) {
		t.Fatalf("packet %d is\n%x, want\n%x", tid, got, want)
	}
	return got
}

// startAt makes both indices of an unused ring i.
func startAt(mem []byte, i int) {
	h, _, _ := layout(mem)
	h.write.Store(uint32(i))
	h.read.Store(uint32(i))
}

// words returns the header of the ring in mem, as its peer sees it.
func words(mem []byte) *header {
	h, _, _ := layout(mem)
	return h
}
