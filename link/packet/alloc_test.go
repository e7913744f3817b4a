package packet

import (
	"encoding/binary"
	"testing"
	"unsafe"

	"hvnet/internal/packets"
	"hvnet/nic"
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

// FuzzWriteFrames has the kernel sent whatever a peer makes of a frame: it takes it or
// not, each is counted, and the next one passes.
func FuzzWriteFrames(f *testing.F) {
	f.Add(packets.Shape{Tag: true}.Frame(packets.Random(3000)), uint8(1), uint8(1), uint16(38), uint8(16), uint16(1000))
	f.Add(packets.Shape{UDP: true}.Frame(nil), uint8(1), uint8(3), uint16(34), uint8(6), uint16(0))
	f.Add([]byte{1}, uint8(1), uint8(2), uint16(65535), uint8(255), uint16(65535))
	f.Fuzz(func(t *testing.T, b []byte, checksum, segment uint8, start uint16, field uint8, size uint16) {
		enter(t)
		veth(t, "v0", "v1", 1500)
		a, in := open(t, "v0"), open(t, "v1")
		odd := nic.Frame{Head: b[:min(len(b), nic.MaxFrame)]}
		odd.Offload = nic.Offload{Checksum: nic.Checksum(checksum & 3), Segment: nic.Segment(segment & 3), Start: start, Field: field, Size: size}
		good := packets.Split(packets.Shape{}.Frame(packets.Random(100)))
		a.WriteFrames([]nic.Frame{odd, good})
		want := packets.Bytes(&good)
		for {
			r := in.read
			if err := r.rc.Read(r.once); err != nil || r.errno != 0 && stat(in, "packet_read_refused") > 1 {
				t.Fatalf("%v, %v", err, r.errno)
			}
			if n := r.collect(); n > 0 && string(r.frames[n-1].Head) == string(want) {
				break
			}
		}
	})
}
