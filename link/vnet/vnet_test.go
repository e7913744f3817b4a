package vnet

import (
	"bytes"
	"testing"

	"hvnet/internal/packets"
	"hvnet/nic"
)

// TestHeader holds the header against literal bytes, of a machine with the least
// significant byte first.
func TestHeader(t *testing.T) {
	if ne.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the bytes are those of a little-endian machine")
	}
	tcp := packets.Shape{TCPOptions: 12}.Frame(nil)
	cwr := packets.Shape{V6: true, Tag: true, Flags: 0x80}.Frame(nil)
	udp := packets.Shape{UDP: true}.Frame(nil)
	for _, tt := range []struct {
		frame []byte
		o     nic.Offload
		want  string
	}{
		{tcp, nic.Offload{}, "00 00 0000 0000 0000 0000 0000"},
		{tcp, nic.Offload{Checksum: nic.ChecksumOK}, "02 00 0000 0000 0000 0000 0000"},
		{udp, nic.Offload{Checksum: nic.ChecksumPartial, Start: 34, Field: 6}, "01 00 0000 0000 2200 0600 0000"},
		{tcp, nic.Offload{Checksum: nic.ChecksumPartial, Segment: nic.SegmentTCPv4, Start: 34, Field: 16, Size: 1448}, "01 01 4200 a805 2200 1000 0000"},
		{cwr, nic.Offload{Checksum: nic.ChecksumPartial, Segment: nic.SegmentTCPv6, Start: 58, Field: 16, Size: 1440}, "01 84 4e00 a005 3a00 1000 0000"},
		{udp, nic.Offload{Checksum: nic.ChecksumPartial, Segment: nic.SegmentUDP, Start: 34, Field: 6, Size: 1000}, "01 05 2a00 e803 2200 0600 0000"},
	} {
		h := Header{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
		h.Set(&nic.Frame{Head: tt.frame, Offload: tt.o})
		if want := packets.Hex(tt.want); !bytes.Equal(h[:], want) {
			t.Errorf("%+v: %x, want %x", tt.o, h, want)
		}
		if got := h.Offload(); got != tt.o {
			t.Errorf("%x: %+v, want %+v", h, got, tt.o)
		}
	}
	h := Header{1}
	h.Set(&nic.Frame{Head: tcp, Offload: nic.Offload{Checksum: nic.ChecksumBad}})
	if h != (Header{}) {
		t.Errorf("a wrong checksum: %x", h)
	}
}

func TestTakesUDP(t *testing.T) {
	for release, want := range map[string]bool{
		"6.2.0": true, "6.18.44-fc-v669": true, "7.0": true, "10.1-rc1": true,
		"6.1.192-amd64": false, "5.15.0": false, "4.19": false, "": false, "six": false,
	} {
		if got := takesUDP(release); got != want {
			t.Errorf("%q: %v, want %v", release, got, want)
		}
	}
}

// FuzzHeader has any bytes said about any frame: what is understood of them is written
// as it was.
func FuzzHeader(f *testing.F) {
	f.Add(packets.Hex("01 84 4e00 a005 3a00 1000 0000"), packets.Shape{V6: true, Tag: true, Flags: 0x80}.Frame(nil))
	f.Fuzz(func(t *testing.T, b, frame []byte) {
		var h, again Header
		copy(h[:], b)
		o := h.Offload()
		again.Set(&nic.Frame{Head: frame, Offload: o})
		if got := again.Offload(); got != o {
			t.Errorf("%x: %+v, then %+v", h, o, got)
		}
	})
}
