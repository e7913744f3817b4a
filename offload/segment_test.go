package offload_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"hvnet/internal/packets"
	"hvnet/nic"
	"hvnet/offload"
)

// cut returns the pieces of a frame.
func cut(t testing.TB, f *nic.Frame, unit int, partial bool) (pieces []nic.Frame) {
	t.Helper()
	var s offload.Segmenter
	if !s.Begin(f, unit, partial) {
		t.Fatalf("not cut: %+v", f.Offload)
	}
	for s.More() {
		var out nic.Frame
		s.Next(&out, make([]byte, nic.HeadLen), nil)
		pieces = append(pieces, out)
	}
	return pieces
}

// TestSegmentsGolden has what comes out of frames of 120 bytes of payload and
// segments of 50, header by header. The payload counts up from 0.
func TestSegmentsGolden(t *testing.T) {
	const ether = "00155d000002 00155d000001 "
	payload := make([]byte, 120)
	for i := range payload {
		payload[i] = byte(i)
	}
	for _, tt := range []struct {
		shape packets.Shape
		want  [3]string // headers
	}{
		{packets.Shape{Name: "IPv4, PSH, FIN and CWR", Flags: 0x89}, [3]string{
			// The identification counts up, and over; CWR first, FIN and PSH last.
			ether + "0800 4502 005a fffe 4000 4006 b949 c0a80001 c0a80002 1000 2000 fffffff0 00000005 5090 0200 a165 0000",
			ether + "0800 4502 005a ffff 4000 4006 b948 c0a80001 c0a80002 1000 2000 00000022 00000005 5010 0200 bacd 0000",
			ether + "0800 4502 003c 0000 4000 4006 b966 c0a80001 c0a80002 1000 2000 00000054 00000005 5019 0200 b5ba 0000",
		}},
		{packets.Shape{Name: "IPv6, options and tag", V6: true, Tag: true, TCPOptions: 4, Flags: 0x08}, [3]string{
			ether + "8100 a005 86dd 60010203 004a 0640 20010db8000000000000000000000001 20010db8000000000000000000000002 1000 2000 fffffff0 00000005 6010 0200 b5be 0000 01010101",
			ether + "8100 a005 86dd 60010203 004a 0640 20010db8000000000000000000000001 20010db8000000000000000000000002 1000 2000 00000022 00000005 6010 0200 cea6 0000 01010101",
			ether + "8100 a005 86dd 60010203 002c 0640 20010db8000000000000000000000001 20010db8000000000000000000000002 1000 2000 00000054 00000005 6018 0200 c994 0000 01010101",
		}},
		{packets.Shape{Name: "UDP", UDP: true}, [3]string{
			ether + "0800 4502 004e fffe 4000 4011 b94a c0a80001 c0a80002 1000 2000 003a f3b2",
			ether + "0800 4502 004e ffff 4000 4011 b949 c0a80001 c0a80002 1000 2000 003a 0ccc",
			ether + "0800 4502 0030 0000 4000 4011 b967 c0a80001 c0a80002 1000 2000 001c 0812",
		}},
	} {
		f := packets.Partial(tt.shape.Frame(payload), tt.shape.Segment(), 50)
		pieces := cut(t, &f, 50, false)
		if len(pieces) != len(tt.want) {
			t.Fatalf("%s: %d pieces, want %d", tt.shape.Name, len(pieces), len(tt.want))
		}
		for i, p := range pieces {
			part := payload[i*50 : min(i*50+50, 120)]
			if got, want := packets.Bytes(&p), append(packets.Hex(tt.want[i]), part...); !bytes.Equal(got, want) {
				t.Errorf("%s, piece %d:\n%s, want\n%s", tt.shape.Name, i, hex.EncodeToString(got), hex.EncodeToString(want))
			}
			if p.Offload != (nic.Offload{Checksum: nic.ChecksumOK}) {
				t.Errorf("%s, piece %d: %+v", tt.shape.Name, i, p.Offload)
			}
		}
	}
}

// join is the opposite of segmentation, done the simple way: it puts the payloads
// one behind the other and the headers back to what they were.
func join(t testing.TB, s packets.Shape, pieces [][]byte) []byte {
	var payload []byte
	_, l4, _, _ := packets.Parts(pieces[0])
	headers := l4 + 8
	if !s.UDP {
		headers = l4 + 20 + s.TCPOptions
	}
	flags := byte(0)
	for i, p := range pieces {
		if !s.UDP {
			if got, want := be.Uint32(p[l4+4:]), be.Uint32(pieces[0][l4+4:])+uint32(len(payload)); got != want {
				t.Fatalf("piece %d has sequence number %d, want %d", i, got, want)
			}
			flags |= p[l4+13]
		}
		if ip := headers - (headers - l4); !s.V6 && be.Uint16(p[ip-16-s.IPOptions:]) != be.Uint16(pieces[0][ip-16-s.IPOptions:])+uint16(i) {
			t.Fatalf("piece %d: identification", i)
		}
		payload = append(payload, p[headers:]...)
	}
	b := s.Frame(payload)
	if !s.UDP && b[l4+13] != flags {
		t.Fatalf("flags %#x, want %#x", flags, b[l4+13])
	}
	return b
}

// TestSegments cuts packets of all packets.Shapes and puts them together again.
func TestSegments(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		s := rapid.SampledFrom(packets.Shapes).Draw(r, "shape")
		size := rapid.IntRange(offload.MinSegment, 1460).Draw(r, "size")
		n := rapid.IntRange(1, min(60*size, 60000)).Draw(r, "payload")
		cuts := rapid.SliceOfN(rapid.IntRange(1, 60000), 0, 4).Draw(r, "cuts")
		whole := s.Frame(packets.Random(n))
		f := packets.Partial(bytes.Clone(whole), s.Segment(), size, cuts...)
		var pieces [][]byte
		for i, p := range cut(t, &f, size, false) {
			b := packets.Bytes(&p)
			if len(p.Head) < min(nic.HeadLen, len(b)) {
				r.Fatalf("piece %d has a head of %d bytes of %d", i, len(p.Head), len(b))
			}
			valid(t, fmt.Sprintf("%s, piece %d", s.Name, i), b)
			pieces = append(pieces, b)
		}
		if want := (n + size - 1) / size; len(pieces) != want {
			r.Fatalf("%d pieces, want %d", len(pieces), want)
		}
		if got := join(t, s, pieces); !bytes.Equal(got, whole) {
			r.Fatalf("joined again: %x, want %x", got, whole)
		}

		// Cut in two steps it is the same.
		var again [][]byte
		for _, big := range cut(t, &f, 3*size, true) {
			if big.Offload.Segment == nic.SegmentNone {
				if !offload.Complete(&big) {
					r.Fatal("the last piece is not completed")
				}
				again = append(again, packets.Bytes(&big))
				continue
			}
			for _, p := range cut(t, &big, size, false) {
				again = append(again, packets.Bytes(&p))
			}
		}
		// Nor does it matter when the rest is cut later than the beginning.
		var c offload.Segmenter
		stop := rapid.IntRange(0, len(pieces)-1).Draw(r, "stop")
		c.Begin(&f, size, false)
		for range stop {
			var p nic.Frame
			c.Next(&p, make([]byte, nic.HeadLen), nil)
		}
		if want := n - stop*size; c.Left() != want {
			r.Fatalf("%d bytes are left after %d pieces, want %d", c.Left(), stop, want)
		}
		c.SetUnit(nic.MaxFrame)
		var rest nic.Frame
		c.Next(&rest, make([]byte, nic.HeadLen), nil)
		if rest.Offload.Segment != nic.SegmentNone {
			for i, p := range cut(t, &rest, size, false) {
				if b := packets.Bytes(&p); !bytes.Equal(b, pieces[stop+i]) {
					r.Fatalf("piece %d of the rest after %d: %x, want %x", i, stop, b, pieces[stop+i])
				}
			}
		} else if b := packets.Bytes(&rest); stop != len(pieces)-1 || !bytes.Equal(b, pieces[stop]) {
			r.Fatalf("the rest after %d of %d pieces is %x", stop, len(pieces), b)
		}
		if len(again) != len(pieces) {
			r.Fatalf("in two steps %d pieces, in one %d", len(again), len(pieces))
		}
		for i := range again {
			if !bytes.Equal(again[i], pieces[i]) {
				r.Fatalf("piece %d in two steps: %x, in one %x", i, again[i], pieces[i])
			}
		}
	})
}

// TestNotCut has frames that are not what their metadata say.
func TestNotCut(t *testing.T) {
	tcp := func() nic.Frame {
		return packets.Partial(packets.Shape{}.Frame(packets.Random(400)), nic.SegmentTCPv4, 100)
	}
	for name, change := range map[string]func(f *nic.Frame){
		"IPv6":            func(f *nic.Frame) { f.Offload.Segment = nic.SegmentTCPv6 },
		"UDP":             func(f *nic.Frame) { f.Offload.Segment = nic.SegmentUDP },
		"nothing":         func(f *nic.Frame) { f.Offload.Segment = nic.SegmentNone },
		"short segments":  func(f *nic.Frame) { f.Offload.Size = offload.MinSegment - 1 },
		"no payload":      func(f *nic.Frame) { *f = packets.Partial(packets.Shape{}.Frame(nil), nic.SegmentTCPv4, 100) },
		"longer than all": func(f *nic.Frame) { f.Body = nil },
		"a fragment":      func(f *nic.Frame) { f.Head[20] |= 0x20 },
		"headers too long": func(f *nic.Frame) {
			*f = packets.Partial(packets.Shape{Tag: true, IPOptions: 40, TCPOptions: 40}.Frame(packets.Random(400)), nic.SegmentTCPv4, 100)
		},
	} {
		f := tcp()
		change(&f)
		if new(offload.Segmenter).Begin(&f, 100, false) {
			t.Errorf("%s: is cut", name)
		}
	}
	f := tcp()
	if new(offload.Segmenter).Begin(&f, 99, false) {
		t.Error("is cut in less than a segment")
	}
}

// FuzzSegments cuts whatever comes.
func FuzzSegments(f *testing.F) {
	for _, s := range packets.Shapes {
		f.Add(s.Frame(packets.Random(500)), byte(s.Segment()), uint16(100), 200, false)
	}
	f.Fuzz(func(t *testing.T, b []byte, kind byte, size uint16, unit int, part bool) {
		fr := packets.Split(b, 7, 100)
		fr.Offload = nic.Offload{Checksum: nic.ChecksumPartial, Segment: nic.Segment(kind), Size: size}
		var s offload.Segmenter
		if !s.Begin(&fr, unit, part) {
			return
		}
		total, room := 0, make([]byte, nic.HeadLen)
		for n := 0; s.More(); n++ {
			var out nic.Frame
			s.Next(&out, room, nil)
			if total += out.Len(); n > len(b)/offload.MinSegment {
				t.Fatal("it does not end")
			}
			if l, ok := offload.Parse(out.Head, out.Len()); !ok || l.End != out.Len() {
				t.Fatalf("piece %x parsed as %+v, %v", packets.Bytes(&out), l, ok)
			} else if out.Offload.Checksum == nic.ChecksumOK && l.Verify(&out) == nic.ChecksumBad {
				t.Fatalf("piece %x does not verify", packets.Bytes(&out))
			}
		}
	})
}
