package offload_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"

	"hvnet/internal/packets"
	"hvnet/nic"
	"hvnet/offload"
)

var be = binary.BigEndian

func TestSum(t *testing.T) {
	b := packets.Random(400)
	for n := range len(b) {
		for _, initial := range []uint16{0, 1, 0x1234, 0xffff} {
			for _, at := range []int{0, 1, 3} {
				c := b[min(at, n):n]
				if got, want := offload.Sum(c, initial), checksum.Checksum(c, initial); got != want {
					t.Fatalf("sum of %d bytes onto %#x = %#04x, want %#04x", len(c), initial, got, want)
				}
			}
		}
	}
	ones := bytes.Repeat([]byte{0xff}, 200)
	for n := range len(ones) {
		if got, want := offload.Sum(ones[:n], 0xffff), checksum.Checksum(ones[:n], 0xffff); got != want {
			t.Errorf("sum of %d ones = %#04x, want %#04x", n, got, want)
		}
	}
	// RFC 1071 section 3.
	if got := offload.Sum(packets.Hex("0001 f203 f4f5 f6f7"), 0); got != 0xddf2 {
		t.Errorf("the RFC's example = %#04x, want 0xddf2", got)
	}
}

func FuzzSum(f *testing.F) {
	f.Add([]byte{1, 2, 3}, uint16(0xffff))
	f.Fuzz(func(t *testing.T, b []byte, initial uint16) {
		if got, want := offload.Sum(b, initial), checksum.Checksum(b, initial); got != want {
			t.Fatalf("%#04x, want %#04x", got, want)
		}
	})
}

func TestCompleteAndVerify(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, s := range packets.Shapes {
		for _, n := range []int{0, 1, 2, 17, 60, 200, 1400, 8001} {
			want := s.Frame(packets.Random(n))
			cuts := []int{1 + r.IntN(9), 20 + r.IntN(99), 500, 501}
			f := packets.Partial(bytes.Clone(want), nic.SegmentNone, 0, cuts...)
			if !offload.Complete(&f) || f.Offload != (nic.Offload{Checksum: nic.ChecksumOK}) {
				t.Fatalf("%s with %d bytes: not completed: %+v", s.Name, n, f.Offload)
			}
			if got := packets.Bytes(&f); !bytes.Equal(got, want) {
				t.Errorf("%s with %d bytes: completed to\n%x, want\n%x", s.Name, n, got, want)
			}
			padded := append(bytes.Clone(want), 0xaa, 0xbb, 0xcc) // as switches pad short frames
			f = packets.Split(padded, cuts...)
			l, ok := offload.Parse(f.Head, len(padded))
			if !ok || l.End != len(want) {
				t.Fatalf("%s with %d bytes: parsed as %+v, %v", s.Name, n, l, ok)
			}
			if got := l.Verify(&f); got != nic.ChecksumOK {
				t.Errorf("%s with %d bytes: verified as %d", s.Name, n, got)
			}
			l.Partial(&f)
			if p := packets.Partial(bytes.Clone(want), nic.SegmentNone, 0); !bytes.Equal(f.Head[:l.Payload], p.Head[:l.Payload]) || f.Offload != p.Offload {
				t.Errorf("%s with %d bytes: made partial: %x %+v, want %x %+v", s.Name, n, f.Head, f.Offload, p.Head, p.Offload)
			}
			bad := bytes.Clone(want)
			bad[len(bad)-1] ^= 0x10
			f = packets.Split(bad, cuts...)
			if got := l.Verify(&f); got != nic.ChecksumBad {
				t.Errorf("%s with %d bytes, one wrong: verified as %d", s.Name, n, got)
			}
		}
	}
}

// TestUDPZero has a datagram whose sum is zero: the field must not be, for that
// says that there is no checksum.
func TestUDPZero(t *testing.T) {
	for _, s := range []packets.Shape{{Name: "IPv4", UDP: true}, {Name: "IPv6", UDP: true, V6: true}} {
		b := s.Frame([]byte{0, 0})
		at := packets.Field(b)
		copy(b[at+2:], b[at:at+2]) // the payload becomes the complement of the rest
		f := packets.Partial(b, nic.SegmentNone, 0)
		offload.Complete(&f)
		if got := be.Uint16(f.Head[at:]); got != 0xffff {
			t.Errorf("%s: checksum %#04x, want 0xffff", s.Name, got)
		}
		b[at], b[at+1] = 0, 0
		f = packets.Split(b)
		l, _ := offload.Parse(b, len(b))
		want := nic.ChecksumUnknown
		if s.V6 {
			want = nic.ChecksumBad
		}
		if got := l.Verify(&f); got != want {
			t.Errorf("%s without checksum: verified as %d, want %d", s.Name, got, want)
		}
	}
}

func TestIPv4Header(t *testing.T) {
	for _, s := range []packets.Shape{{}, {IPOptions: 40}} {
		want := s.Frame(nil)
		b := bytes.Clone(want)
		if !offload.VerifyIPv4(b[14:]) {
			t.Error("the right checksum does not verify")
		}
		b[24]++
		if offload.VerifyIPv4(b[14:]) {
			t.Error("a wrong checksum verifies")
		}
		if offload.SumIPv4(b[14:]); !bytes.Equal(b, want) {
			t.Errorf("computed %x, want %x", b[24:26], want[24:26])
		}
	}
}

// TestNotCompleted has frames that nothing can be done for: they stay as they are.
func TestNotCompleted(t *testing.T) {
	whole := packets.Shape{}.Frame(packets.Random(100))
	for name, o := range map[string]nic.Offload{
		"nothing to do":       {},
		"to be cut":           {Checksum: nic.ChecksumPartial, Segment: nic.SegmentTCPv4, Start: 34, Field: 16, Size: 100},
		"field in the body":   {Checksum: nic.ChecksumPartial, Start: 120, Field: 16},
		"field beyond":        {Checksum: nic.ChecksumPartial, Start: 65535, Field: 255},
		"field half in there": {Checksum: nic.ChecksumPartial, Start: 111, Field: 16},
	} {
		f := packets.Split(bytes.Clone(whole))
		f.Offload = o
		if offload.Complete(&f) || f.Offload != o || !bytes.Equal(packets.Bytes(&f), whole) {
			t.Errorf("%s: completed", name)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	tcp4, tcp6, udp4 := packets.Shape{}.Frame(packets.Random(8)), packets.Shape{V6: true, IPOptions: 8}.Frame(packets.Random(8)), packets.Shape{UDP: true}.Frame(packets.Random(8))
	for _, tt := range []struct {
		name string
		b    []byte
		at   int
		v    string
	}{
		{"another type", tcp4, 12, "0806"},
		{"another version", tcp4, 14, "65"},
		{"header length 16", tcp4, 14, "44"},
		{"longer than the frame", tcp4, 16, "0031"},
		{"shorter than the header", tcp4, 16, "0027"},
		{"first fragment", tcp4, 20, "2000"},
		{"last fragment", tcp4, 20, "0003"},
		{"ICMP", tcp4, 23, "01"},
		{"TCP header of 16 bytes", tcp4, 46, "40"},
		{"TCP header beyond the packet", tcp4, 46, "f0"},
		{"IPv6 in IPv4's type", tcp6, 14, "45"},
		{"IPv6 longer than the frame", tcp6, 18, "0025"},
		{"IPv6 fragment", tcp6, 20, "2c"},
		{"IPv6 no next header", tcp6, 54, "3b"},
		{"extension beyond the head", tcp6, 55, "ff"},
		{"hops left", tcp6, 20, "2b"},
		{"UDP length 7", udp4, 38, "0007"},
		{"UDP longer than its packet", udp4, 38, "0011"},
	} {
		b := bytes.Clone(tt.b)
		copy(b[tt.at:], packets.Hex(tt.v))
		if l, ok := offload.Parse(b, len(b)); ok {
			t.Errorf("%s: parsed as %+v", tt.name, l)
		}
	}
	for _, b := range [][]byte{tcp4, tcp6, udp4} {
		l, ok := offload.Parse(b, len(b))
		if !ok {
			t.Fatalf("%x does not parse", b)
		}
		for n := range l.Payload {
			if _, ok := offload.Parse(b[:n:n], len(b)); ok {
				t.Errorf("parsed the first %d bytes of a header of %d", n, l.Payload)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range packets.Shapes {
		f.Add(s.Frame(packets.Random(20)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		fr := packets.Split(b)
		l, ok := offload.Parse(fr.Head, len(b))
		if !ok {
			return
		}
		if l.IP >= l.Transport || l.Transport >= l.Payload || l.Payload > l.End || l.End > len(b) || l.Payload > len(fr.Head) {
			t.Fatalf("%+v of %d bytes", l, len(b))
		}
		l.Verify(&fr)
		l.Partial(&fr)
		if l.End == len(b) && (!offload.Complete(&fr) || l.Verify(&fr) != nic.ChecksumOK) {
			t.Fatalf("completed %+v, but it does not verify", l)
		}
	})
}

func BenchmarkSum(b *testing.B) {
	buf := packets.Random(1448)
	b.SetBytes(int64(len(buf)))
	var s uint16
	for b.Loop() {
		s = offload.Sum(buf, s)
	}
}

func BenchmarkVerify(b *testing.B) {
	frame := packets.Shape{TCPOptions: 12}.Frame(packets.Random(1448))
	f := packets.Split(frame)
	b.SetBytes(int64(len(frame)))
	b.ReportAllocs()
	for b.Loop() {
		l, ok := offload.Parse(f.Head, len(frame))
		if !ok || l.Verify(&f) != nic.ChecksumOK {
			b.Fatal("wrong")
		}
	}
}

// valid fails the test unless the checksums of a frame are right, by gVisor.
func valid(t *testing.T, what string, b []byte) {
	t.Helper()
	c := bytes.Clone(b)
	packets.Correct(c)
	if !bytes.Equal(b, c) {
		t.Errorf("%s: checksums of %x: want %x", what, b, c)
	}
	l, ok := offload.Parse(b, len(b))
	f := packets.Split(b)
	if !ok || l.Verify(&f) != nic.ChecksumOK {
		t.Errorf("%s: %x does not verify", what, b)
	}
}
