package offload_test

import (
	"bytes"
	"testing"

	"hvnet/internal/packets"
	"hvnet/nic"
	"hvnet/offload"
)

func TestTag(t *testing.T) {
	for _, c := range []struct {
		frame           string
		tci             uint16
		tagged, damaged bool
	}{
		{"00155d000002 00155d000001 0800 45000000", 0, false, false},
		{"00155d000002 00155d000001 8100 b00a 0800", 0xb00a, true, false},
		{"00155d000002 00155d000001 8100 0000 8100 0001 0800", 0, true, false}, // of two the first
		{"00155d000002 00155d000001 88a8 000a 0800", 0, false, false},          // a provider's
		{"00155d000002 00155d000001 8100 000a 08", 0, false, true},
		{"00155d000002 00155d000001 8100", 0, false, true},
		{"00155d000002 00155d000001 81", 0, false, false},
	} {
		tci, tagged, damaged := offload.Tag(packets.Hex(c.frame))
		if tci != c.tci || tagged != c.tagged || damaged != c.damaged {
			t.Errorf("%s: %#x, %v, %v", c.frame, tci, tagged, damaged)
		}
	}
}

// bare and tag are the two forms of a frame.
func bare(b []byte) []byte {
	return append(bytes.Clone(b[:12]), b[16:]...)
}

func tag(b []byte, tci uint16) []byte {
	return append(append(bytes.Clone(b[:12]), 0x81, 0, byte(tci>>8), byte(tci)), b[12:]...)
}

// TestRetag gives a tag, takes it and changes it, in frames of all lengths and in pieces.
func TestRetag(t *testing.T) {
	var body [][]byte
	room := make([]byte, nic.HeadLen+nic.TagLen)
	for _, size := range []int{0, 20, 70, 74, 78, 82, 100, 1400} {
		for _, cuts := range [][]int{nil, {1}, {2, 3, 5}} {
			plain := packets.Shape{}.Frame(packets.Random(size))
			tagged := tag(plain, 0xb00a)
			for _, c := range []struct {
				name       string
				from, want []byte
				tci        uint16
				tagged     bool
				moved      int
			}{
				{"give", plain, tagged, 0xb00a, true, 4},
				{"take", tagged, plain, 0, false, -4},
				{"change", tagged, tag(plain, 7), 7, true, 0},
				{"leave", plain, plain, 0, false, 0},
				{"take one of two", tag(tagged, 1), tagged, 0, false, -4},
			} {
				f := packets.Split(bytes.Clone(c.from), cuts...)
				f.Offload = nic.Offload{Checksum: nic.ChecksumPartial, Start: 34, Field: 16}
				var out nic.Frame
				body = offload.Retag(&out, &f, c.tci, c.tagged, room, body[:0])
				if got := packets.Bytes(&out); !bytes.Equal(got, c.want) {
					t.Errorf("%s, %d bytes, cut at %v:\n%x, want\n%x", c.name, size, cuts, got, c.want)
				}
				if got := packets.Bytes(&f); !bytes.Equal(got, c.from) {
					t.Errorf("%s: the frame itself was changed", c.name)
				}
				if want := min(nic.HeadLen, len(c.want)); len(out.Head) < want {
					t.Errorf("%s, %d bytes: a head of %d", c.name, size, len(out.Head))
				}
				if int(out.Offload.Start) != 34+c.moved {
					t.Errorf("%s: checksum from %d", c.name, out.Offload.Start)
				}
			}
		}
	}
	// An uplink's frames have all of their bytes in the head.
	plain := packets.Shape{}.Frame(packets.Random(3000))
	f := nic.Frame{Head: plain}
	var out nic.Frame
	offload.Retag(&out, &f, 5, true, room, nil)
	if got := packets.Bytes(&out); !bytes.Equal(got, tag(plain, 5)) {
		t.Error("a frame that is all head is not what it was")
	}
	f = packets.Split(tag(plain, 5), 2, 50)
	if n := testing.AllocsPerRun(100, func() { body = offload.Retag(&out, &f, 0, false, room, body[:0]) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzRetag gives a tag to any frame that has none, and takes it again.
func FuzzRetag(f *testing.F) {
	f.Add(packets.Shape{}.Frame(packets.Random(300)), uint16(10), 3, 9)
	f.Add(packets.Shape{Tag: true}.Frame(nil), uint16(0xffff), 0, 0)
	f.Fuzz(func(t *testing.T, b []byte, tci uint16, cut, more int) {
		if _, _, damaged := offload.Tag(b); len(b) < nic.MinFrame || damaged {
			return
		}
		f := packets.Split(b, cut, more)
		want := b
		if _, has, _ := offload.Tag(b); has {
			want = bare(b)
		}
		var with, without nic.Frame
		offload.Retag(&with, &f, tci, true, make([]byte, nic.HeadLen+nic.TagLen), nil)
		offload.Retag(&without, &with, 0, false, make([]byte, nic.HeadLen+nic.TagLen), nil)
		if got, has, _ := offload.Tag(with.Head); !has || got != tci {
			t.Fatalf("tag %#x, %v", got, has)
		}
		if !bytes.Equal(packets.Bytes(&with), tag(want, tci)) || !bytes.Equal(packets.Bytes(&without), want) {
			t.Fatalf("%x became %x and %x", b, packets.Bytes(&with), packets.Bytes(&without))
		}
	})
}
