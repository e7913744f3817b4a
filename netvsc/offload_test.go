package netvsc

import (
	"testing"

	"hvnet/internal/packets"
	"hvnet/nic"
	"hvnet/rndis"
)

// TestTrapSpoiledUDP has which checksums of UDP are asked of a host that offers them
// all: none that Azure gets wrong.
func TestTrapSpoiledUDP(t *testing.T) {
	const headers, loose = 20 + 8, 0
	o := offloads{tcp4: true, tcp6: true, udp4: true, udp6: true}
	for _, tt := range []struct {
		name    string
		shape   packets.Shape
		payload int
		flags   byte // of IPv4
		asked   bool
	}{
		{"as long as it may be", packets.Shape{UDP: true}, maxUDPSum - headers, loose, true},
		{"longer", packets.Shape{UDP: true}, maxUDPSum - headers + 1, loose, false},
		{"longer by options", packets.Shape{UDP: true, IPOptions: 4}, maxUDPSum - headers - 3, loose, false},
		{"longer, not to be fragmented", packets.Shape{UDP: true}, 1472, 0x40, true},
		{"IPv6", packets.Shape{UDP: true, V6: true}, 1452, 0, true},
		{"TCP", packets.Shape{}, 1460, loose, true},
	} {
		b := tt.shape.Frame(packets.Random(tt.payload))
		if !tt.shape.V6 {
			b[20] = tt.flags
		}
		f := packets.Partial(b, nic.SegmentNone, 0)
		var info rndis.Info
		if got := o.ask(&info, f.Head, len(b), f.Offload); got != tt.asked {
			t.Errorf("%s: asked for is %v, want %v", tt.name, got, tt.asked)
		}
	}
}
