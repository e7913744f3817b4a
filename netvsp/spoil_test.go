package netvsp

import (
	"bytes"
	"testing"

	"hvnet/internal/packets"
	"hvnet/netvsp/profile"
	"hvnet/nic"
	"hvnet/offload"
	"hvnet/rndis"
)

// TestSpoiledUDP sends UDP whose checksum is left to the host, as a driver does that
// knows nothing of Azure's fault. There the wire gets it wrong.
func TestSpoiledUDP(t *testing.T) {
	for _, tt := range []struct {
		release string
		shape   packets.Shape
		length  int // of the IP packet
		flags   byte
		spoiled bool
	}{
		{"azure", packets.Shape{UDP: true}, 1420, 0, false},
		{"azure", packets.Shape{UDP: true}, 1421, 0, true},
		{"azure", packets.Shape{UDP: true, Tag: true}, 1421, 0, true},
		{"azure", packets.Shape{UDP: true}, 1500, 0x40, false},
		{"azure", packets.Shape{UDP: true, V6: true}, 1500, 0, false},
		{"azure", packets.Shape{}, 1500, 0, false},
		{"ws2022", packets.Shape{UDP: true}, 1500, 0, false},
	} {
		p, err := profile.Lookup(tt.release)
		if err != nil {
			t.Fatal(err)
		}
		want := tt.shape.Frame(packets.Random(tt.length + nic.HeaderLen - len(packets.Shape{V6: tt.shape.V6, UDP: tt.shape.UDP}.Frame(nil))))
		if ip, _, _, _ := packets.Parts(want); !tt.shape.V6 {
			want[ip+6] = tt.flags
			packets.Correct(want)
		}
		f := packets.Partial(bytes.Clone(want), nic.SegmentNone, 0)
		sum := map[bool]rndis.TxChecksum{false: rndis.TxIPv4, true: rndis.TxIPv6}[tt.shape.V6]
		sum |= map[bool]rndis.TxChecksum{false: rndis.TxTCP, true: rndis.TxUDP}[tt.shape.UDP]
		f.Offload = nic.Offload{}
		if err := asked(&f, &rndis.Info{Has: rndis.HasChecksum, Checksum: uint32(sum)}, &p.Offload, 0); err != nil {
			t.Fatal(err)
		}
		if p.SpoiledUDP > 0 {
			spoil(&f, p.SpoiledUDP)
		}
		if f.Offload.Checksum == nic.ChecksumPartial {
			offload.Complete(&f)
		}
		if got := packets.Bytes(&f); bytes.Equal(got, want) == tt.spoiled || packets.Right(got) == tt.spoiled {
			t.Errorf("%s, %+v, %d bytes, flags %#x: spoiled is not %v", tt.release, tt.shape, tt.length, tt.flags, tt.spoiled)
		}
	}
}
