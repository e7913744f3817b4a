package matrix

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"hvnet/internal/packets"
	"hvnet/netvsp/profile"
	"hvnet/nic"
)

// tracePackets is how many packets a trace has.
const tracePackets = 120

// traceShapes are their shapes, some of them with a VLAN tag. Each is a flow of its own,
// which keeps its order.
var traceShapes = packets.Shapes

// A traced packet is one that a stack sends: as long as it likes, to be cut into
// segments of size bytes of payload.
type traced struct {
	shape packets.Shape
	flow  int // index of the shape
	size  int
	bytes []byte
}

// trace makes packets of all shapes, lengths and flags by a seed.
func trace(seed uint64, mtu int) (list []traced) {
	r := rand.New(rand.NewPCG(seed, 0))
	seq := make([]uint32, len(traceShapes))
	for range tracePackets {
		flow := r.IntN(len(traceShapes))
		s := traceShapes[flow]
		size := min(mss(s, mtu), 100+r.IntN(mtu))
		n := r.IntN(min(40*size, 64000))
		if r.IntN(2) == 0 {
			n = r.IntN(size)
		}
		h := header{dst: macTAP, from: uint16(flow), to: 9, seq: seq[flow], ack: 7, flags: byte(r.UintN(256)) &^ (flagSYN | flagRST), loose: r.IntN(2) == 0}
		b := h.packet(s, packets.Random(n))
		ip, _, _, _ := packets.Parts(b)
		if s.V6 { // the ECN bits
			b[ip+1] ^= byte(r.IntN(4)) << 4
		} else {
			b[ip+1] ^= byte(r.IntN(4))
			packets.Correct(b)
		}
		seq[flow] += uint32(n)
		list = append(list, traced{s, flow, size, b})
	}
	return list
}

// TestUplink sends the same packets by each release of the host, by all settings of the
// stack above the driver, and of the driver. The frames that leave at the uplink are the same, byte
// by byte, and those that a stack would have sent that leaves nothing to others.
func TestUplink(t *testing.T) {
	const seed = 20
	releases, mtus := profile.Names(), []int{1500, 9000}
	if testing.Short() {
		releases, mtus = releases[len(releases)-1:], mtus[:1]
	}
	for _, release := range releases {
		prof, err := profile.Lookup(release)
		if err != nil {
			t.Fatal(err)
		}
		for _, mtu := range mtus {
			list := trace(seed, mtu)
			want := make([][][]byte, len(traceShapes))
			due := 0
			for _, p := range list {
				cut := packets.Cut(p.bytes, p.size)
				want[p.flow], due = append(want[p.flow], cut...), due+len(cut)
			}
			for name, uplink := range map[string]*catcher{"takes segments": newCatcher(), "takes none": {more: make(chan struct{}, 1)}} {
				t.Run(fmt.Sprintf("%s/%d/%s", release, mtu, name), func(t *testing.T) {
					w := newFrameWorld(t, prof, mtu, uplink)
					ctx, cancel := context.WithTimeout(context.Background(), patience)
					defer cancel()
					for _, takes := range []nic.Offloads{
						0, nic.TakesChecksum, nic.TakesChecksum | nic.TakesTCPv4, nic.TakesChecksum | nic.TakesTCPv4 | nic.TakesTCPv6 | nic.TakesUDP,
					} {
						for _, c := range All([]Axis{leave}) {
							what := fmt.Sprintf("offloads %b, leave %v", takes, c)
							if err := w.set(ctx, nic.FeatureChange{Change: leaving, On: c.leaving()}); err != nil {
								t.Fatalf("%s: %v", what, err)
							}
							for _, p := range list {
								w.source.add(stack(p.shape, p.bytes, p.size, takes))
							}
							got, err := w.atUplink(ctx, due)
							if err != nil {
								t.Fatalf("%s: %v", what, err)
							}
							for flow := range want {
								same(t, what+", "+traceShapes[flow].Name, got[flow], want[flow])
							}
						}
					}
				})
			}
		}
	}
}

// atUplink waits for n frames on the wire behind the uplink and sorts them by flow.
func (w *frameWorld) atUplink(ctx context.Context, n int) (got [][][]byte, err error) {
	got = make([][][]byte, len(traceShapes))
	for n > 0 {
		frames, err := w.atTAP.take(ctx)
		if err != nil {
			return got, fmt.Errorf("%d frames are missing: %w", n, err)
		}
		for _, f := range frames {
			wire, err := f.wire()
			if err != nil {
				return got, err
			}
			_, l4, _, _ := packets.Parts(wire[0])
			flow := be.Uint16(wire[0][l4:])
			got[flow] = append(got[flow], wire...)
			n -= len(wire)
		}
	}
	return got, nil
}

func same(t *testing.T, what string, got, want [][]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d frames, want %d", what, len(got), len(want))
		return
	}
	for i := range got {
		if !bytes.Equal(got[i], want[i]) {
			t.Fatalf("%s: frame %d begins with\n%x, want\n%x", what, i, got[i][:54], want[i][:54])
		}
	}
}
