package tap

import (
	"testing"

	"golang.org/x/sys/unix"

	"hvnet/nic"
)

// BenchmarkWriteFrames hands the kernel frames that it has no use for.
func BenchmarkWriteFrames(b *testing.B) {
	for _, c := range []struct {
		name string
		n    int
	}{{"64", 64}, {"1514", 1514}} {
		b.Run(c.name, func(b *testing.B) {
			enter(b)
			tap := open(b, Config{Name: "eth0"})
			up(b, "eth0")
			f := frame(macB, macA, c.n)
			head := min(len(f), nic.HeadLen)
			batch := make([]nic.Frame, 32)
			for i := range batch {
				batch[i] = nic.Frame{Head: f[:head], Body: [][]byte{f[head:]}}
			}
			b.SetBytes(int64(c.n))
			b.ReportAllocs()
			for n := 0; n < b.N; n += len(batch) {
				tap.WriteFrames(batch[:min(len(batch), b.N-n)])
			}
		})
	}
}

// BenchmarkReadFrame measures what the kernel takes to send a frame through a
// packet socket, and reading it.
func BenchmarkReadFrame(b *testing.B) {
	enter(b)
	tap := open(b, Config{Name: "eth0"})
	fd := packetSocket(b, up(b, "eth0"))
	f := frame(macB, macA, 1514)
	first, rest := make([]byte, 256), make([]byte, 2000)
	b.SetBytes(int64(len(f)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := unix.Write(fd, f); err != nil {
			b.Fatal(err)
		}
		if _, _, err := tap.Queue(0).ReadFrame(first, rest); err != nil {
			b.Fatal(err)
		}
	}
}
