package pcap

import (
	"encoding/binary"
	"testing"
)

var le = binary.LittleEndian

// The numbers of draft-ietf-opsawg-pcapng.
const (
	typeSection    = 0x0a0d0d0a
	typeInterface  = 1
	typeStatistics = 5
	typeEnhanced   = 6

	optionComment = 1
	optionFlags   = 2 // of an Enhanced Packet Block
	optionHash    = 3
	optionQueue   = 6
	optionName    = 2 // of an Interface Description Block
	optionDropped = 5 // of an Interface Statistics Block
)

// A block of a pcapng file.
type block struct {
	typ     uint32
	body    []byte // what is in front of the options
	options map[uint16][]byte
}

// parse reads a file of little-endian blocks, by the text of the draft alone.
func parse(t *testing.T, b []byte) (list []block) {
	t.Helper()
	for len(b) > 0 {
		if len(b) < 12 {
			t.Fatalf("%d bytes at the end", len(b))
		}
		typ, n := le.Uint32(b), int(le.Uint32(b[4:]))
		if n%4 != 0 || n < 12 || n > len(b) || le.Uint32(b[n-4:]) != uint32(n) {
			t.Fatalf("block of type %#x: length %d of %d, and %d at its end", typ, n, len(b), le.Uint32(b[min(n, len(b))-4:]))
		}
		body, rest := b[8:n-4], b[n:]
		fixed := map[uint32]int{typeSection: 16, typeInterface: 8, typeStatistics: 12, typeEnhanced: 20}[typ]
		if fixed == 0 || len(body) < fixed {
			t.Fatalf("block of type %#x with %d bytes", typ, len(body))
		}
		if typ == typeEnhanced {
			fixed += (int(le.Uint32(body[12:])) + 3) &^ 3
		}
		one := block{typ, body[:fixed], map[uint16][]byte{}}
		for o := body[fixed:]; len(o) > 0; {
			code, k := le.Uint16(o), int(le.Uint16(o[2:]))
			if code == 0 {
				break
			}
			one.options[code] = o[4 : 4+k]
			o = o[4+(k+3)&^3:]
		}
		list, b = append(list, one), rest
	}
	return list
}

// packetsOf returns the packets of a file, after it has checked that there is all around
// them that belongs there, and how many were dropped.
func packetsOf(t *testing.T, file []byte) (packets []block, dropped uint64) {
	t.Helper()
	list := parse(t, file)
	n := len(list)
	if n < 3 || list[0].typ != typeSection || list[1].typ != typeInterface || list[n-1].typ != typeStatistics {
		t.Fatalf("%d blocks, not a section, an interface, and its statistics at the end", n)
	}
	if magic := le.Uint32(list[0].body); magic != 0x1a2b3c4d {
		t.Errorf("byte order %#x", magic)
	}
	for _, p := range list[2 : n-1] {
		if p.typ != typeEnhanced {
			t.Errorf("block of type %d among the packets", p.typ)
		}
	}
	return list[2 : n-1], le.Uint64(list[n-1].options[optionDropped])
}

// data returns the bytes of a packet, and how long it was.
func (b *block) data() ([]byte, int) {
	n := int(le.Uint32(b.body[12:]))
	return b.body[20 : 20+n], int(le.Uint32(b.body[16:]))
}
