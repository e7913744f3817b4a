package xdp

import (
	"cmp"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hvnet/internal/packets"
	"hvnet/link/packet"
	"hvnet/link/rtnl"
	"hvnet/nic"
)

// A meter counts the payload bytes that come, behind n bytes of headers in each frame, and
// tells who waits for some.
type meter struct {
	headers, got, want atomic.Int64
	reached            chan struct{}
}

func (m *meter) WriteFrames(frames []nic.Frame) {
	n, headers := int64(0), int(m.headers.Load())
	for i := range frames {
		n += int64(frames[i].Len() - headers)
	}
	if m.got.Add(n) >= m.want.Load() {
		select {
		case m.reached <- struct{}{}:
		default:
		}
	}
}

// await returns when so many bytes have come.
func (m *meter) await(b *testing.B, n int64) {
	m.want.Store(n)
	late := time.NewTimer(10 * time.Second)
	defer late.Stop()
	for m.got.Load() < n {
		select {
		case <-m.reached:
		case <-late.C:
			b.Fatalf("%d bytes have come, not %d", m.got.Load(), n)
		}
	}
}

// median returns the median of what turns took.
func median[T cmp.Ordered](turns []T) T {
	return slices.Sorted(slices.Values(turns))[len(turns)/2]
}

// ratio returns the median of the quotients of what turns took.
func ratio(a, b []time.Duration) float64 {
	q := make([]float64, len(a))
	for i := range q {
		q[i] = float64(a[i]) / float64(b[i])
	}
	return median(q)
}

// spent returns the CPU time of this process, with what the kernel did for it.
func spent(b *testing.B) time.Duration {
	var u unix.Rusage
	check(b, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkReceive has three veths, at whose one ends are the same senders, a packet.Link
// each, and at whose others the receivers that are compared: a packet.Link, a ring of
// packet(7) with virtio-net headers, and a Link. They take turns. The figures are of both
// ends together: frames per second or payload in Gbit/s, CPU time per frame, and the
// quotients of the rates to that of packet.Link: medians of the turns.
func BenchmarkReceive(b *testing.B) {
	for _, s := range []struct {
		name        string
		frame       nic.Frame
		turn, ahead int // frames sent by turn, and at most before they have come
	}{
		{"64", packets.Split(packets.Shape{}.Frame(packets.Random(10))), 1 << 14, 1920},
		{"1514", packets.Split(packets.Shape{}.Frame(packets.Random(1460)), 128), 1 << 12, 1 << 10},
		{"64K", packets.Partial(packets.Shape{}.Frame(packets.Random(44*1460)), nic.SegmentTCPv4, 1460, 128), 1 << 9, 32},
		{"one-by-one", packets.Split(packets.Shape{}.Frame(packets.Random(10))), 50, 1},
	} {
		b.Run(s.name, func(b *testing.B) {
			enter(b)
			const headers = 14 + 20 + 20
			payload := int64(s.frame.Len() - headers)
			names := [...]string{"packet", "tpacket", "xdp"}
			var ends [len(names)]struct {
				from *packet.Link
				to   meter
				sent int64
				took []time.Duration // of each turn
				cpu  []time.Duration
			}
			for i, name := range names {
				e := &ends[i]
				veth(b, name+"0", name+"1", 1500, 1)
				if i != 2 {
					offloads(b, name+"0")
				}
				var err error
				e.from, err = packet.Open(name + "0")
				check(b, err)
				defer e.from.Close()
				e.to.headers.Store(headers)
				e.to.reached = make(chan struct{}, 1)
				var to receiver
				switch i {
				case 0:
					to, err = packet.Open(name + "1")
					check(b, err)
				case 1:
					to = openTPacket(b, name+"1")
				case 2:
					to = open(b, name+"1")
				}
				ended := make(chan struct{})
				go func() { to.Receive(&e.to); close(ended) }()
				defer func() { to.Close(); <-ended }()
			}
			list := make([]nic.Frame, max(1, min(32, s.ahead/2)))
			for i := range list {
				list[i] = s.frame
			}
			b.ReportAllocs()
			for b.Loop() {
				for i := range ends {
					e := &ends[i]
					start, before := time.Now(), spent(b)
					for n := 0; n < s.turn; n += len(list) {
						e.from.WriteFrames(list)
						e.sent += int64(len(list))
						if ahead := int64(s.ahead - len(list)); e.to.got.Load() < (e.sent-ahead)*payload {
							e.to.await(b, (e.sent-ahead/2)*payload)
						}
					}
					e.to.await(b, e.sent*payload)
					e.took = append(e.took, time.Since(start))
					e.cpu = append(e.cpu, spent(b)-before)
				}
			}
			for i, name := range names {
				e := &ends[i]
				rate := float64(s.turn) / median(e.took).Seconds()
				b.ReportMetric(rate*1e-6, name+"_Mfps")
				b.ReportMetric(rate*float64(payload)*8e-9, name+"_Gbit/s")
				b.ReportMetric(float64(median(e.cpu).Nanoseconds())/float64(s.turn), name+"_cpu-ns/frame")
				if i > 0 {
					b.ReportMetric(ratio(ends[0].took, e.took), name+"/packet")
				}
			}
		})
	}
}

// BenchmarkSend has a packet.Link and a Link send by a veth each, in turns. Nobody is at
// the other ends.
func BenchmarkSend(b *testing.B) {
	for _, s := range []struct {
		name  string
		frame nic.Frame
	}{
		{"64", packets.Split(packets.Shape{}.Frame(packets.Random(10)))},
		{"1514", packets.Split(packets.Shape{}.Frame(packets.Random(1460)), 128)},
	} {
		b.Run(s.name, func(b *testing.B) {
			enter(b)
			veth(b, "v0", "v1", 1500, 1)
			veth(b, "v2", "v3", 1500, 1)
			p, err := packet.Open("v0")
			check(b, err)
			defer p.Close()
			x := open(b, "v2")
			list := make([]nic.Frame, 64)
			for i := range list {
				list[i] = s.frame
			}
			var took [2][]time.Duration
			b.ReportAllocs()
			for b.Loop() {
				for i, to := range []nic.Sink{p, x} {
					start := time.Now()
					to.WriteFrames(list)
					took[i] = append(took[i], time.Since(start))
				}
			}
			for i, name := range []string{"packet", "xdp"} {
				b.ReportMetric(float64(len(list))/median(took[i]).Seconds()*1e-6, name+"_Mfps")
			}
			b.ReportMetric(ratio(took[0], took[1]), "xdp/packet")
		})
	}
}

// offloads has an interface leave checksums and segmentation to whoever receives, as before
// Plain was called for it.
func offloads(b *testing.B, name string) {
	b.Helper()
	ctl, err := rtnl.Open()
	check(b, err)
	defer ctl.Close()
	check(b, ethtool(ctl, name, []uint32{unix.ETHTOOL_STXCSUM, 1}))
	check(b, ethtool(ctl, name, []uint32{unix.ETHTOOL_STSO, 1}))
}
