package packet

import (
	"math/rand/v2"
	"testing"

	"hvnet/internal/packets"
	"hvnet/nic"
)

// TestOddFrames hands the kernel frames that are not what their metadata say: it takes
// them or not, and what comes behind them passes.
func TestOddFrames(t *testing.T) {
	enter(t)
	veth(t, "v0", "v1", 1500)
	a, b := open(t, "v0"), open(t, "v1")
	r := b.read
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 1))
	good := packets.Split(packets.Shape{}.Frame(packets.Random(100)))
	want := string(packets.Bytes(&good))
	shapes := [][]byte{
		packets.Shape{}.Frame(packets.Random(60000)), packets.Shape{Tag: true, V6: true}.Frame(packets.Random(3000)), packets.Shape{UDP: true}.Frame(packets.Random(1000)),
	}
	for i := range 3000 {
		f := append([]byte{}, shapes[i%len(shapes)]...)
		f = f[:random.IntN(len(f)+1)>>random.IntN(12)]
		for range random.IntN(4) {
			if len(f) > 0 {
				f[random.IntN(min(60, len(f)))] = byte(random.Uint32())
			}
		}
		odd := nic.Frame{Head: f, Offload: nic.Offload{
			Checksum: nic.Checksum(random.IntN(4)), Segment: nic.Segment(random.IntN(4)),
			Start: uint16(random.Uint32() >> (16 + random.IntN(16))), Field: uint8(random.Uint32()), Size: uint16(random.Uint32() >> (16 + random.IntN(16))),
		}}
		a.WriteFrames([]nic.Frame{odd, good})
		for arrived := false; !arrived; {
			if err := r.rc.Read(r.once); err != nil {
				t.Fatalf("seed %d, frame %d: %v", seed, i, err)
			}
			for _, f := range r.frames[:r.collect()] {
				arrived = arrived || string(f.Head) == want
			}
		}
	}
	if got := stat(a, "packet_write_refused"); got == 0 {
		t.Errorf("seed %d: the kernel refuses none", seed)
	}
}
