package ring

import (
	"fmt"
	"testing"
)

// BenchmarkRing is one packet through the ring, in and out again, by one goroutine.
func BenchmarkRing(b *testing.B) {
	for _, size := range []int{64, 1500, 8192, 65536} {
		for _, batch := range []int{1, 32} {
			b.Run(fmt.Sprintf("size=%d/batch=%d", size, batch), func(b *testing.B) {
				benchmarkRing(b, size, batch)
			})
		}
	}
}

func benchmarkRing(b *testing.B, size, batch int) {
	mem := newMemory(max(64, 33*Need(size)/HeaderSize))
	p, c := ends(b, mem)
	head := descriptor(6, 2, 0, 1)
	body := make([]byte, size-len(head))
	buf := make([]byte, 128<<10)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for done := 0; done < b.N; {
		n := min(batch, b.N-done)
		for range n {
			if err := p.Put(head, body); err != nil {
				b.Fatal(err)
			}
		}
		p.Publish()
		for range n {
			if _, err := c.Next(buf); err != nil {
				b.Fatal(err)
			}
		}
		c.Release()
		done += n
	}
}
