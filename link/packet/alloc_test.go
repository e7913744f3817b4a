package packet

import (
	"encoding/binary"
	"testing"
	"unsafe"

	"hvnet/internal/packets"
)

// TestNoAllocation sends and receives without allocating.
func TestNoAllocation(t *testing.T) {
	enter(t)
	veth(t, "v0", "v1", 1500)
	a, b := open(t, "v0"), open(t, "v1")
	list := frames(1500)
	r := b.read
	exchange := func() {
		a.WriteFrames(list)
		for got := 0; got < len(list); {
			if err := r.rc.Read(r.once); err != nil || r.errno != 0 {
				t.Fatalf("%v, %v", err, r.errno)
			}
			got += r.collect()
		}
	}
	exchange() // makes room for the pieces
	if n := testing.AllocsPerRun(100, exchange); n != 0 {
		t.Errorf("%v allocations for %d frames", n, len(list))
	}
	lossless(t, a, b)
}

// FuzzTag takes any control message for one of the kernel.
func FuzzTag(f *testing.F) {
	f.Add(packets.Hex("2400000000000000 07010000 08000000 51000000 3c000000 3c000000 0000 0e00 6420 0081"), 36)
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		var c control
		copy(unsafe.Slice((*byte)(unsafe.Pointer(&c)), unsafe.Sizeof(c)), b)
		if tag, ok := c.tag(n); !ok && tag != 0 || ok && tag&0xffff != uint32(binary.NativeEndian.Uint16(c.aux[16:])) {
			t.Errorf("%x: %#x, %v", b, tag, ok)
		}
	})
}
