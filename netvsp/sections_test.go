package netvsp

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// TestSectionsModel compares the account of sections with a plain map, over random
// packets that come back in any order, and ids that were never given.
func TestSectionsModel(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const n = 200
	next := make([]int32, n)
	mine, other := newSections(next), newSections(next)
	mine.add(0, 120)
	other.add(120, n)
	given := map[int32][]int32{} // packets of mine by first section
	free := 120
	for range 20000 {
		if r.IntN(2) == 0 {
			var packet []int32
			for range 1 + r.IntN(20) {
				i, ok := mine.take()
				if !ok {
					break
				}
				packet = append(packet, i)
			}
			if len(packet) == 0 {
				continue
			}
			if r.IntN(5) == 0 {
				mine.putBack(packet)
				continue
			}
			mine.give(packet)
			given[packet[0]] = packet
			free -= len(packet)
		} else {
			id := uint64(r.IntN(n + 50))
			want := len(given[int32(id)])
			if got := mine.giveBack(id); got != want {
				t.Fatalf("packet %d gave %d sections back, want %d", id, got, want)
			}
			if other.giveBack(id) != 0 {
				t.Fatalf("packet %d was another queue's", id)
			}
			delete(given, int32(id))
			free += want
		}
		if len(mine.free) != free || mine.given != 120-free {
			t.Fatalf("%d free and %d given, want %d and %d", len(mine.free), mine.given, free, 120-free)
		}
	}
	for _, id := range []uint64{n, 1 << 31, 1 << 32, 1<<64 - 1} {
		if mine.giveBack(id) != 0 {
			t.Errorf("packet %#x gave something back", id)
		}
	}
}

// TestScatter compares the views of scattered bytes with the bytes in one piece.
func TestScatter(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 500 {
		var s scatter
		var whole []byte
		for range 1 + r.IntN(6) {
			b := make([]byte, 1+r.IntN(50))
			for i := range b {
				b[i] = byte(r.Uint32())
			}
			s.add(b)
			whole = append(whole, b...)
		}
		pos := r.IntN(len(whole))
		n := r.IntN(len(whole) - pos + 1)
		if s.total != len(whole) || !bytes.HasPrefix(whole[pos:], s.run(pos)) || len(s.run(pos)) == 0 {
			t.Fatalf("run at %d of %d", pos, len(whole))
		}
		if n == 0 {
			continue
		}
		dst := make([]byte, n)
		s.copy(dst, pos)
		if !bytes.Equal(dst, whole[pos:pos+n]) {
			t.Fatalf("copy of %d at %d", n, pos)
		}
		if got := bytes.Join(s.slice(nil, pos, n), nil); !bytes.Equal(got, whole[pos:pos+n]) {
			t.Fatalf("slice of %d at %d", n, pos)
		}
	}
	var empty scatter
	if len(empty.run(0)) != 0 {
		t.Error("bytes of nothing")
	}
}
