package packet

import (
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"hvnet/internal/packets"
	"hvnet/link/tap"
	"hvnet/nic"
)

// sinkhole counts what it gets.
type sinkhole struct{ n atomic.Int64 }

func (s *sinkhole) WriteFrames(frames []nic.Frame) { s.n.Add(int64(len(frames))) }

// sizes are the frames of the benchmarks: the shortest, a full one, and one to be cut.
var sizes = []struct {
	name  string
	frame nic.Frame
}{
	{"64", packets.Split(packets.Shape{}.Frame(packets.Random(10)))},
	{"1514", packets.Split(packets.Shape{}.Frame(packets.Random(1460)), 128)},
	{"64K", packets.Partial(packets.Shape{}.Frame(packets.Random(64000)), nic.SegmentTCPv4, 1460, 128)},
}

// BenchmarkSend has a veth and a TAP take frames, in turns. Nobody is behind either. The
// ratio is that of frames per second, over the wire and into the TAP.
func BenchmarkSend(b *testing.B) {
	for _, s := range sizes {
		b.Run(s.name, func(b *testing.B) {
			enter(b)
			veth(b, "v0", "v1", 1500)
			l := open(b, "v0")
			t, err := tap.Open(tap.Config{Name: "t0"})
			check(b, err)
			defer t.Close()
			up(b, "t0")
			list := make([]nic.Frame, 64)
			for i := range list {
				list[i] = s.frame
			}
			var spent [2]time.Duration
			b.ReportAllocs()
			for b.Loop() {
				for i, to := range []nic.Sink{l, t} {
					start := time.Now()
					to.WriteFrames(list)
					spent[i] += time.Since(start)
				}
			}
			for i, name := range []string{"packet", "tap"} {
				seconds := spent[i].Seconds() / float64(b.N*len(list))
				b.ReportMetric(1e-6/seconds, name+"_Mfps")
				b.ReportMetric(float64(s.frame.Len())*8e-9/seconds, name+"_Gbit/s")
			}
			b.ReportMetric(float64(spent[1])/float64(spent[0]), "packet/tap")
		})
	}
}

// BenchmarkWire sends frames from one link to another, over a veth, a batch at a time.
func BenchmarkWire(b *testing.B) {
	for _, s := range sizes {
		b.Run(s.name, func(b *testing.B) {
			enter(b)
			veth(b, "v0", "v1", 1500)
			from, to := open(b, "v0"), open(b, "v1")
			list := make([]nic.Frame, 32)
			for i := range list {
				list[i] = s.frame
			}
			var got sinkhole
			go to.Receive(&got)
			b.SetBytes(int64(s.frame.Len() * len(list)))
			b.ReportAllocs()
			var sent int64
			for b.Loop() {
				from.WriteFrames(list)
				sent += int64(len(list))
				for got.n.Load() < sent-64 { // no more than the receiver holds
					runtime.Gosched()
				}
			}
			b.ReportMetric(float64(got.n.Load())/1e6/b.Elapsed().Seconds(), "Mfps")
		})
	}
}
