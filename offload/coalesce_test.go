package offload_test

import (
	"bytes"
	"slices"
	"testing"

	"hvnet/internal/packets"
	"hvnet/nic"
	"hvnet/offload"
)

const takesSegments = nic.TakesTCPv4 | nic.TakesTCPv6 | nic.TakesUDP

// segments returns a packet of n bytes of payload, cut into segments.
func segments(t testing.TB, s packets.Shape, n, size int) (list [][]byte) {
	t.Helper()
	f := packets.Partial(s.Frame(packets.Random(n)), s.Segment(), size)
	for _, p := range cut(t, &f, size, false) {
		list = append(list, packets.Bytes(&p))
	}
	return list
}

// asFrames returns frames of which nothing is known.
func asFrames(list [][]byte) (frames []nic.Frame) {
	for _, b := range list {
		frames = append(frames, packets.Split(bytes.Clone(b)))
	}
	return frames
}

// counts returns how many segments each frame has.
func counts(frames []nic.Frame) (n []int) {
	for i := range frames {
		k := 1
		if f := &frames[i]; f.Offload.Segment != nic.SegmentNone {
			l, _ := offload.Parse(f.Head, f.Len())
			k = (l.End - l.Payload + int(f.Offload.Size) - 1) / int(f.Offload.Size)
		}
		n = append(n, k)
	}
	return n
}

// onWire returns what frames are on a wire.
func onWire(frames []nic.Frame) [][]byte {
	var k keeper
	offload.NewSink(&k).WriteFrames(frames)
	return k.frames
}

// TestCoalesceRules has four segments of 100 bytes of payload, but for what is changed
// about some of them, and how many of them go together.
func TestCoalesceRules(t *testing.T) {
	tcp4, tcp6 := packets.Shape{TCPOptions: 12}, packets.Shape{V6: true, TCPOptions: 12}
	udp4, udp6 := packets.Shape{UDP: true}, packets.Shape{UDP: true, V6: true}
	type change = func(i int, b []byte)
	at := func(n int, f func(b []byte)) change {
		return func(i int, b []byte) {
			if i == n {
				f(b)
			}
		}
	}
	from := func(n int, f func(b []byte)) change {
		return func(i int, b []byte) {
			if i >= n {
				f(b)
			}
		}
	}
	set := func(at int, v byte) func(b []byte) { return func(b []byte) { b[at] = v } }
	or := func(at int, v byte) func(b []byte) { return func(b []byte) { b[at] |= v } }
	id := func(ids ...uint16) change {
		return func(i int, b []byte) { be.PutUint16(b[18:], ids[i]) }
	}
	const (
		ip = 14
		l4 = ip + 20
		l6 = ip + 40
	)
	all := []int{4}
	for _, tt := range []struct {
		name  string
		shape packets.Shape
		edit  change
		want  []int
	}{
		{"TCP over IPv4", tcp4, nil, all},
		{"TCP over IPv6", tcp6, nil, all},
		{"TCP with a tag", packets.Shape{Tag: true, V6: true}, nil, all},
		{"TCP over IPv6 with extensions", packets.Shape{V6: true, IPOptions: 8}, nil, all},
		{"UDP over IPv4", udp4, nil, all},
		{"UDP over IPv6", udp6, nil, all},
		{"IPv4 with options", packets.Shape{IPOptions: 8}, nil, []int{1, 1, 1, 1}},

		{"FIN", tcp4, at(2, or(l4+13, 0x01)), []int{3, 1}},
		{"FIN in the first", tcp4, at(0, or(l4+13, 0x01)), []int{1, 3}},
		{"PSH", tcp4, at(1, or(l4+13, 0x08)), []int{2, 2}},
		{"PSH in the first", tcp6, at(0, or(l6+13, 0x08)), []int{1, 3}},
		{"SYN", tcp4, at(1, or(l4+13, 0x02)), []int{1, 1, 2}},
		{"RST", tcp4, at(1, or(l4+13, 0x04)), []int{1, 1, 2}},
		{"URG", tcp4, at(1, or(l4+13, 0x20)), []int{1, 1, 2}},
		{"ECE", tcp4, from(2, or(l4+13, 0x40)), []int{2, 2}},
		{"CWR", tcp4, at(2, or(l4+13, 0x80)), []int{2, 2}},
		{"CWR in the first", tcp4, at(0, or(l4+13, 0x80)), all},
		{"CWR in all", tcp4, from(0, or(l4+13, 0x80)), []int{1, 1, 1, 1}},
		{"accurate ECN", tcp4, from(2, or(l4+12, 0x01)), []int{2, 2}},
		{"acknowledgement", tcp4, from(2, set(l4+11, 9)), []int{2, 2}},
		{"window", tcp4, from(2, set(l4+15, 9)), []int{2, 2}},
		{"urgent pointer", tcp4, from(2, set(l4+19, 9)), []int{2, 2}},
		{"options", tcp4, from(2, set(l4+31, 9)), []int{2, 2}},
		{"options of other lengths", tcp4, at(2, func(b []byte) { b[l4+12] = 6 << 4 }), []int{2, 1, 1}},
		{"sequence number too high", tcp4, from(2, func(b []byte) { b[l4+7]++ }), []int{2, 2}},
		{"sequence number again", tcp4, from(2, func(b []byte) { be.PutUint32(b[l4+4:], be.Uint32(b[l4+4:])-100) }), []int{2, 2}},

		{"TOS", tcp4, from(2, set(ip+1, 9)), []int{2, 2}},
		{"TTL", tcp4, from(2, set(ip+8, 9)), []int{2, 2}},
		{"traffic class", tcp6, from(2, or(ip+1, 0x10)), []int{2, 2}},
		{"flow label", tcp6, from(2, set(ip+3, 9)), []int{2, 2}},
		{"hop limit", tcp6, from(2, set(ip+7, 9)), []int{2, 2}},
		{"extension", packets.Shape{V6: true, IPOptions: 8}, from(2, set(l6+5, 9)), []int{2, 2}},
		{"fragments forbidden", tcp4, from(2, set(ip+6, 0)), []int{2, 2}},
		{"fragments allowed", tcp4, from(0, set(ip+6, 0)), all},
		{"the reserved bit", tcp4, from(0, or(ip+6, 0x80)), []int{1, 1, 1, 1}},
		{"a fragment", tcp4, at(2, or(ip+6, 0x20)), []int{2, 1, 1}},
		{"identification counts up and over", tcp4, id(0xfffe, 0xffff, 0, 1), all},
		{"identification stays", tcp4, id(7, 7, 7, 7), all},
		{"identification stays, is zero", udp4, id(0, 0, 0, 0), all},
		{"identification stays, fragments allowed", tcp4, func(i int, b []byte) { b[ip+6] = 0; id(7, 7, 7, 7)(i, b) }, []int{1, 1, 1, 1}},
		{"identification stays, then counts", tcp4, id(7, 7, 8, 9), []int{2, 2}},
		{"identification counts, then stays", tcp4, id(7, 8, 8, 8), []int{2, 2}},
		{"identification of the first again", tcp4, id(7, 8, 7, 8), []int{2, 2}},
		{"identification leaves one out", tcp4, id(7, 8, 10, 11), []int{2, 2}},
		{"identification counts down", tcp4, id(9, 8, 7, 6), []int{1, 1, 1, 1}},

		{"longer than its frame", udp6, from(2, set(ip+4, 9)), []int{2, 1, 1}},
		{"source address", tcp4, from(2, set(6+5, 9)), []int{2, 2}},
		{"destination address", tcp6, from(2, set(5, 9)), []int{2, 2}},
		{"tag", packets.Shape{Tag: true}, from(2, set(15, 9)), []int{2, 2}},
		{"priority", packets.Shape{Tag: true}, from(2, set(14, 0)), []int{2, 2}},
		{"IP address", tcp4, from(2, set(ip+15, 9)), []int{2, 2}},
		{"port", udp6, from(2, set(l6+1, 9)), []int{2, 2}},
		{"two flows", tcp4, func(i int, b []byte) { b[l4] = byte(i & 1); b[l4+7] -= byte(i&1) * 100; id(1, 1, 2, 2)(i, b) },
			[]int{1, 1, 1, 1}}, // a hole of a segment in each
	} {
		list := segments(t, tt.shape, 400, 100)
		for i, b := range list {
			if tt.edit != nil {
				tt.edit(i, b)
				if b[ip]>>4 == 4 && tt.name != "options of other lengths" || b[ip]>>4 == 6 || b[12] == 0x81 {
					packets.Correct(b)
				}
			}
		}
		frames := new(offload.Coalescer).Coalesce(asFrames(list), nil, takesSegments)
		if got := counts(frames); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
		if got := onWire(frames); !slices.EqualFunc(got, list, bytes.Equal) {
			t.Errorf("%s: on the wire\n%x, want\n%x", tt.name, got, list)
		}
	}
}

// TestCoalesceSizes has segments of some sizes of payload, one behind the other.
func TestCoalesceSizes(t *testing.T) {
	tcp, udp := packets.Shape{}, packets.Shape{UDP: true}
	many := func(n, size int) []int { return slices.Repeat([]int{size}, n) }
	for _, tt := range []struct {
		name  string
		shape packets.Shape
		sizes []int
		want  []int
	}{
		{"the last is shorter", tcp, []int{1000, 1000, 1}, []int{3}},
		{"nothing goes behind it", tcp, []int{1000, 999, 999}, []int{2, 1}},
		{"a longer one", tcp, []int{1000, 1001, 1001}, []int{1, 2}},
		{"no payload", tcp, []int{1000, 0, 1000}, []int{1, 1, 1}},
		{"nothing but headers", tcp, []int{0, 0}, []int{1, 1}},
		{"too short to begin", tcp, []int{nic.HeadLen - 55, nic.HeadLen - 55}, []int{1, 1}},
		{"long enough", tcp, []int{nic.HeadLen - 54, nic.HeadLen - 54}, []int{2}},
		{"the longest packet", tcp, many(46, 1460), []int{44, 2}},
		{"as long as can be", tcp, append(many(44, 1460), 65535-40-44*1460, 1460), []int{45, 1}},
		{"a byte longer", tcp, append(many(44, 1460), 65535-40-44*1460+1), []int{44, 1}},
		{"many pieces", tcp, many(600, 100), []int{500, 100}},
		{"datagrams", udp, []int{1000, 1000, 20}, []int{3}},
		{"longer ones", udp, []int{1000, 1001, 1001, 1000}, []int{1, 3}},
		{"empty ones", udp, []int{1000, 0, 1000}, []int{1, 1, 1}},
		{"many datagrams", udp, many(100, 200), []int{64, 36}},
	} {
		var list [][]byte
		payload := 0
		for i, n := range tt.sizes {
			b := tt.shape.Frame(packets.Random(n))
			be.PutUint16(b[18:], uint16(i))
			if !tt.shape.UDP {
				be.PutUint32(b[38:], uint32(payload))
			}
			payload += n
			packets.Correct(b)
			list = append(list, b)
		}
		frames := new(offload.Coalescer).Coalesce(asFrames(list), nil, takesSegments)
		if got := counts(frames); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
		if got := onWire(frames); !slices.EqualFunc(got, list, bytes.Equal) {
			t.Errorf("%s: it is not the same on the wire", tt.name)
		}
	}
}

// TestCoalesceChecksums has a second of three segments with a checksum in each state.
func TestCoalesceChecksums(t *testing.T) {
	for _, shape := range []packets.Shape{{}, {UDP: true}, {V6: true}} {
		for _, tt := range []struct {
			name  string
			edit  func(f *nic.Frame)
			want  []int
			state nic.Checksum // of the second frame; of the first one if they are together
		}{
			{"right, and known", func(f *nic.Frame) { f.Offload.Checksum = nic.ChecksumOK }, []int{3}, nic.ChecksumPartial},
			{"right", func(f *nic.Frame) {}, []int{3}, nic.ChecksumPartial},
			{"wrong", func(f *nic.Frame) { f.Body[0][5]++ }, []int{1, 1, 1}, nic.ChecksumBad},
			{"wrong, and known", func(f *nic.Frame) { f.Offload.Checksum = nic.ChecksumBad }, []int{1, 1, 1}, nic.ChecksumBad},
			{"to be completed", func(f *nic.Frame) {
				*f = packets.Partial(packets.Bytes(f), nic.SegmentNone, 0)
			}, []int{1, 1, 1}, nic.ChecksumPartial},
			{"to be cut", func(f *nic.Frame) {
				*f = packets.Partial(packets.Bytes(f), shape.Segment(), 100)
			}, []int{1, 10, 1}, nic.ChecksumPartial},
		} {
			list := segments(t, shape, 3000, 1000)
			frames := asFrames(list)
			tt.edit(&frames[1])
			want := onWire(frames)
			frames = new(offload.Coalescer).Coalesce(frames, nil, takesSegments)
			got := frames[min(1, len(frames)-1)].Offload.Checksum
			if n := counts(frames); !slices.Equal(n, tt.want) || got != tt.state {
				t.Errorf("%+v, %s: %v and state %d, want %v and %d", shape, tt.name, n, got, tt.want, tt.state)
			}
			if !slices.EqualFunc(onWire(frames), want, bytes.Equal) {
				t.Errorf("%+v, %s: it is not the same on the wire", shape, tt.name)
			}
		}
	}
	// Datagrams without checksum would get one, and a wrong header a right one.
	for name, edit := range map[string]func(b []byte){
		"no checksum": func(b []byte) { b[40], b[41] = 0, 0 },
		"header":      func(b []byte) { b[24]++ },
	} {
		frames := asFrames(segments(t, packets.Shape{UDP: true}, 3000, 1000))
		for i := range frames {
			edit(frames[i].Head)
			frames[i].Offload.Checksum = nic.ChecksumOK
		}
		if frames = new(offload.Coalescer).Coalesce(frames, nil, takesSegments); len(frames) != 3 {
			t.Errorf("%s: %d frames, want 3", name, len(frames))
		}
	}
}

// TestCoalesceTakes puts together only what is taken.
func TestCoalesceTakes(t *testing.T) {
	for shape, takes := range map[packets.Shape]nic.Offloads{
		{}: nic.TakesTCPv4, {V6: true}: nic.TakesTCPv6, {UDP: true}: nic.TakesUDP, {UDP: true, V6: true}: nic.TakesUDP,
	} {
		for _, tt := range []struct {
			takes nic.Offloads
			want  int
		}{{takes, 1}, {takesSegments &^ takes, 3}, {nic.TakesChecksum, 3}, {0, 3}} {
			frames := asFrames(segments(t, shape, 3000, 1000))
			if frames = new(offload.Coalescer).Coalesce(frames, nil, tt.takes); len(frames) != tt.want {
				t.Errorf("%+v, takes %#x: %d frames, want %d", shape, tt.takes, len(frames), tt.want)
			}
		}
	}
}
