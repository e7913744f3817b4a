package offload_test

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"hvnet/internal/packets"
	"hvnet/nic"
	"hvnet/offload"
)

// TestCoalesceOrder has packets of others between the segments of a flow, and what
// belongs to none between two hosts.
func TestCoalesceOrder(t *testing.T) {
	flow := func(shape packets.Shape, port byte) [][]byte {
		list := segments(t, shape, 400, 100)
		for _, b := range list {
			_, l4, _, _ := packets.Parts(b)
			b[l4] = port
			packets.Correct(b)
		}
		return list
	}
	a, b := flow(packets.Shape{}, 1), flow(packets.Shape{V6: true}, 2)
	icmp := bytes.Clone(a[0])
	icmp[23] = 1
	elsewhere := bytes.Clone(icmp)
	elsewhere[33]++
	arp := bytes.Clone(a[0])
	arp[13] = 6
	for _, tt := range []struct {
		name string
		in   [][]byte
		want []int
	}{
		{"two flows", [][]byte{a[0], b[0], a[1], b[1], b[2], a[2]}, []int{3, 3}},
		{"no IP", [][]byte{a[0], arp, a[1]}, []int{2, 1}},
		{"between others", [][]byte{a[0], elsewhere, a[1]}, []int{2, 1}},
		{"between the same", [][]byte{a[0], b[0], icmp, a[1], b[1]}, []int{1, 2, 1, 1}},
		{"another way around", [][]byte{a[0], a[2], a[1], a[3]}, []int{1, 1, 1, 1}},
	} {
		frames := new(offload.Coalescer).Coalesce(asFrames(tt.in), nil, takesSegments)
		if got := counts(frames); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
	// More flows than it follows at once.
	var flows [][][]byte
	for port := range 200 {
		flows = append(flows, flow(packets.Shape{}, byte(port)))
	}
	var in [][]byte
	for k := range 4 {
		for _, list := range flows {
			in = append(in, list[k])
		}
	}
	frames := new(offload.Coalescer).Coalesce(asFrames(in), nil, takesSegments)
	sameFlows(t, in, onWire(frames))
}

// sameFlows checks that the packets of each flow are the same in the same order, with
// what is of no flow between them.
func sameFlows(t rapid.TB, in, out [][]byte) {
	t.Helper()
	if len(in) != len(out) {
		t.Fatalf("%d frames, want %d", len(out), len(in))
	}
	a, b := byFlow(in), byFlow(out)
	for flow, want := range a {
		got := b[flow]
		for i := range want {
			if i >= len(got) || !bytes.Equal(got[i], want[i]) {
				t.Fatalf("flow %x: packet %d of %d differs:\n%x", flow, i, len(want), want[i])
			}
		}
	}
}

// byFlow sorts packets. What is of no flow belongs to all between its hosts.
func byFlow(list [][]byte) map[string][][]byte {
	flows, hosts := map[string][][]byte{}, map[string][]string{}
	key := func(b []byte) (host, flow string) {
		head := b[:min(len(b), nic.HeadLen)]
		at, ipv6 := offload.NetworkHeader(head)
		switch {
		case at == 0:
			return "", ""
		case ipv6:
			host = string(head[at+8 : at+40])
		default:
			host = string(head[at+12 : at+20])
		}
		if l, ok := offload.Parse(head, len(b)); ok {
			flow = fmt.Sprint(host, head[l.Transport:l.Transport+4], l.Protocol)
		}
		return host, flow
	}
	for _, b := range list {
		if host, flow := key(b); flow != "" && !slices.Contains(hosts[host], flow) {
			hosts[host] = append(hosts[host], flow)
		}
	}
	for _, b := range list {
		host, flow := key(b)
		to := hosts[host]
		if flow != "" {
			to = []string{flow}
		}
		for _, f := range to {
			flows[f] = append(flows[f], b)
		}
	}
	return flows
}

// TestCoalesceAndCut puts streams of some flows together, with all that may happen to
// them, and cuts them again: each flow is the same on the wire, byte by byte.
func TestCoalesceAndCut(t *testing.T) {
	var c offload.Coalescer // one for all: nothing is left of a batch
	joined := 0
	rapid.Check(t, func(r *rapid.T) {
		var flows [][][]byte
		for i := range rapid.IntRange(1, 4).Draw(r, "flows") {
			s := rapid.SampledFrom(packets.Shapes).Draw(r, "shape")
			size := rapid.SampledFrom([]int{offload.MinSegment, 100, 536, 1400}).Draw(r, "size")
			n := rapid.IntRange(1, 12*size).Draw(r, "payload")
			list := segments(t, s, n, size)
			for _, b := range list {
				_, l4, _, _ := packets.Parts(b)
				b[l4] = byte(i)
				packets.Correct(b)
			}
			ip, l4, _, _ := packets.Parts(list[0]) // where they are in all, as long as nothing is changed
			for range rapid.IntRange(0, 2).Draw(r, "changes") {
				b := list[rapid.IntRange(0, len(list)-1).Draw(r, "packet")]
				at := rapid.IntRange(ip, min(l4+30, len(b)-1)).Draw(r, "byte")
				b[at] ^= 1 << rapid.IntRange(0, 7).Draw(r, "bit")
				mend(b)
			}
			flows = append(flows, list)
		}
		var in [][]byte
		for {
			flows = slices.DeleteFunc(flows, func(l [][]byte) bool { return len(l) == 0 })
			if len(flows) == 0 {
				break
			}
			l := &flows[rapid.IntRange(0, len(flows)-1).Draw(r, "next")]
			n := rapid.IntRange(1, len(*l)).Draw(r, "burst")
			in, *l = append(in, (*l)[:n]...), (*l)[n:]
		}
		places := make([][]byte, len(in))
		for i := range in {
			if rapid.Bool().Draw(r, "in a place") {
				places[i] = bytes.Clone(in[i][min(4, len(in[i])):])
			}
		}
		frames := c.Coalesce(asFrames(in), places, takesSegments)
		joined += len(in) - len(frames)
		sameFlows(r, in, onWire(frames))
	})
	if joined == 0 {
		t.Error("nothing was put together")
	}
}

// mend computes the checksums of a packet that may be anything by now.
func mend(b []byte) {
	f := packets.Split(b)
	if at, ipv6 := offload.NetworkHeader(f.Head); at > 0 && !ipv6 {
		offload.SumIPv4(f.Head[at:])
	}
	if l, ok := offload.Parse(f.Head, len(b)); ok && l.End == len(b) {
		l.Partial(&f)
		offload.Complete(&f)
	}
}

// FuzzCoalesce puts together whatever comes and cuts it again. The data is packets with
// their lengths in front.
func FuzzCoalesce(f *testing.F) {
	for _, s := range packets.Shapes {
		var data []byte
		for _, b := range segments(f, s, 700, 200) {
			data = append(be.AppendUint16(data, uint16(len(b))), b...)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var in [][]byte
		for len(data) >= 2 {
			n := min(int(be.Uint16(data)), len(data)-2)
			b := bytes.Clone(data[2 : 2+n])
			data = data[2+n:]
			mend(b)
			in = append(in, b)
		}
		sameFlows(t, in, onWire(new(offload.Coalescer).Coalesce(asFrames(in), nil, takesSegments)))
	})
}

// batch makes a batch of the same frames anew, without a word of memory.
type batch struct {
	frames, fresh []nic.Frame
	heads         [][]byte
}

func newBatch(list []nic.Frame) *batch {
	b := &batch{frames: make([]nic.Frame, len(list)), fresh: list}
	for i := range list {
		b.heads = append(b.heads, bytes.Clone(list[i].Head))
	}
	return b
}

func (b *batch) again() []nic.Frame {
	for i := range b.fresh {
		copy(b.fresh[i].Head, b.heads[i])
	}
	copy(b.frames, b.fresh)
	return b.frames
}

// TestCoalescePlaces has a body of a piece for each segment, in place.
func TestCoalescePlaces(t *testing.T) {
	list := segments(t, packets.Shape{TCPOptions: 12, Tag: true}, 3500, 1000)
	frames := asFrames(list)
	frames = new(offload.Coalescer).Coalesce(frames, list, takesSegments)
	if len(frames) != 1 || len(frames[0].Body) != 4 {
		t.Fatalf("%d frames, the first with a body of %d pieces", len(frames), len(frames[0].Body))
	}
	for i, b := range frames[0].Body[1:] {
		if end := list[i+1]; len(b) != len(end)-70 || &b[0] != &end[70] {
			t.Errorf("piece %d has %d bytes, of another place", i, len(b))
		}
	}
	if !slices.EqualFunc(onWire(frames), list, bytes.Equal) {
		t.Error("it is not the same on the wire")
	}
}

func TestCoalesceAllocations(t *testing.T) {
	for _, s := range packets.Shapes {
		b, c := newBatch(asFrames(segments(t, s, 40*100, 100))), new(offload.Coalescer)
		c.Coalesce(b.again(), nil, takesSegments)
		if n := testing.AllocsPerRun(100, func() { c.Coalesce(b.again(), nil, takesSegments) }); n != 0 {
			t.Errorf("%s: %v allocations", s.Name, n)
		}
	}
}

// BenchmarkCoalesce puts 44 segments together, checksums known, in one flow and in
// several that take turns, and has as many frames that stay alone; "unknown" has to
// look at the checksums.
func BenchmarkCoalesce(b *testing.B) {
	tcp := segments(b, packets.Shape{TCPOptions: 12}, 44*1448, 1448)
	mixed := slices.Clone(tcp)
	for i := range mixed {
		mixed[i] = bytes.Clone(tcp[i/4])
		mixed[i][14+20] = byte(i % 4)
		packets.Correct(mixed[i])
	}
	alone := slices.Clone(tcp)
	slices.Reverse(alone)
	for _, bb := range []struct {
		name  string
		list  [][]byte
		known bool
		want  int
	}{{"one flow", tcp, true, 1}, {"four flows", mixed, true, 4}, {"alone", alone, true, 44}, {"unknown", tcp, false, 1}} {
		b.Run(bb.name, func(b *testing.B) {
			frames := asFrames(bb.list)
			if bb.known {
				for i := range frames {
					frames[i].Offload.Checksum = nic.ChecksumOK
				}
			}
			batch, c := newBatch(frames), new(offload.Coalescer)
			b.ReportAllocs()
			for b.Loop() {
				if out := c.Coalesce(batch.again(), nil, takesSegments); len(out) != bb.want {
					b.Fatalf("%d frames, want %d", len(out), bb.want)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(frames)), "ns/segment")
		})
	}
}
