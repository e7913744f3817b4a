package matrix

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"testing"

	"hvnet/internal/need"
	"hvnet/internal/packets"
	"hvnet/netvsp/profile"
	"hvnet/nic"
)

// frameAxes are those of the cases on raw frames. The ones in front need another host.
var frameAxes = []Axis{profiles, sizes, rsc, versions, protocols, ways, sums, lso, uso}

// TestFrames sends a flow in each case: what arrives is what was sent, every checksum
// is right, and nothing is lost on either half.
func TestFrames(t *testing.T) {
	cases := Pairs(frameAxes)
	if need.All() {
		cases = All(frameAxes)
	}
	const front = 3
	worlds := map[string][]Case{}
	var order []string
	for _, c := range cases {
		key := Case{c.axes[:front], c.at[:front]}.String()
		if worlds[key] == nil {
			order = append(order, key)
		}
		worlds[key] = append(worlds[key], c)
	}
	for _, key := range order {
		t.Run(key, func(t *testing.T) {
			c := worlds[key][0]
			prof, err := profile.Lookup(c.Of("profile"))
			if err != nil {
				t.Fatal(err)
			}
			if !c.On("rsc") {
				prof.Offload.RSCv4, prof.Offload.RSCv6 = 0, 0
			}
			w := newFrameWorld(t, prof, c.mtu(), newCatcher())
			for i, c := range worlds[key] {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				if err := w.run(ctx, c, uint16(i)); err != nil {
					t.Fatalf("%v: %v", c, err)
				}
				w.balanced(ctx, t, c)
			}
		})
	}
}

// run sends the flow of a case, the number-th one in this world.
func (w *frameWorld) run(ctx context.Context, c Case, number uint16) error {
	h := header{from: 1024 + number, to: 9, seq: 0xffff8000}
	s, size := c.shape(), mss(c.shape(), c.mtu())
	switch c.Of("way") {
	case "guest":
		h.dst = macB
		err := w.flow(ctx, h, s, size, c.takes(), w.atB)
		if err == nil && c.coalesced() && w.atB.large == 0 {
			return fmt.Errorf("the host has coalesced nothing")
		}
		w.atB.large = 0
		return err
	case "TAP":
		h.dst = macTAP
		return w.flow(ctx, h, s, size, c.takes(), w.atTAP)
	}
	e := &echo{w: w, h: h, s: s, size: size, takes: c.takes()}
	e.h.dst, e.h.to = macGateway, 7
	return e.run(ctx)
}

// coalesced reports whether segments of the case come together.
func (c Case) coalesced() bool {
	newest := slices.Contains([]string{"ws2019", "ws2022", "azure"}, c.Of("profile"))
	return newest && c.On("rsc") && !c.shape().UDP && c.takes()&nic.TakesTCPv4 != 0
}

// flow sends payloads of all lengths and looks at what arrives.
func (w *frameWorld) flow(ctx context.Context, h header, s packets.Shape, size int, takes nic.Offloads, at *catcher) error {
	sent, got := sha256.New(), sha256.New()
	for i, n := range lengths(s, size) {
		payload := packets.Random(n)
		sent.Write(payload)
		h.flags = []byte{0, 0x08, 0x01, 0x80}[i%4] // PSH, FIN, CWR
		h.loose = i%2 == 0
		b := h.packet(s, payload)
		w.source.add(stack(s, b, size, takes))
		h.seq += uint32(n)
		want := packets.Cut(b, size)
		for len(want) > 0 {
			frames, err := at.take(ctx)
			if err != nil {
				return fmt.Errorf("%d bytes of payload: %d segments are missing: %w", n, len(want), err)
			}
			for _, f := range frames {
				if f.meta.Segment != nic.SegmentNone {
					at.large++
				}
				wire, err := f.wire()
				if err != nil {
					return fmt.Errorf("%d bytes of payload: %w", n, err)
				}
				for _, p := range wire {
					if len(want) == 0 || !bytes.Equal(p, want[0]) {
						return fmt.Errorf("%d bytes of payload: got %x, %d more are due, the first one %x", n, p, len(want), want[:min(len(want), 1)])
					}
					got.Write(p[packets.Payload(p):])
					want = want[1:]
				}
			}
		}
	}
	if !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
		return fmt.Errorf("the payload is not what was sent")
	}
	return nil
}
