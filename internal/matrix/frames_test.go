package matrix

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"hvnet/internal/packets"
	"hvnet/netvsp/profile"
	"hvnet/nic"
)

// frameAxes are those of the cases on raw frames. The ones in front need another host.
var frameAxes = []Axis{profiles, sizes, lro, gro, leave, versions, protocols, ways, sums, lso, uso}

// TestFrames sends a flow in each case: what arrives is what was sent, every checksum
// is right, and nothing is lost on either half. The drivers of one world live through
// all its cases, and are switched between them.
func TestFrames(t *testing.T) {
	cases := Pairs(frameAxes)
	if os.Getenv("HVNET_LONG") == "1" {
		// What is to be cut has a partial checksum, so these are as with neither.
		cases = slices.DeleteFunc(All(frameAxes), func(c Case) bool { return !c.On("checksum") && (c.On("lso") || c.On("uso")) })
	}
	const front = 2
	worlds := map[string][]Case{}
	var order []string
	for _, c := range cases {
		key := Case{c.axes[:front], c.at[:front]}.String()
		if worlds[key] == nil {
			order = append(order, key)
		}
		worlds[key] = append(worlds[key], c)
	}
	joined := 0
	for _, key := range order {
		t.Run(key, func(t *testing.T) {
			c := worlds[key][0]
			prof, err := profile.Lookup(c.Of("profile"))
			if err != nil {
				t.Fatal(err)
			}
			w := newFrameWorld(t, prof, c.mtu(), newCatcher())
			for i, c := range worlds[key] {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				if err := w.set(ctx, nic.FeatureChange{Change: joining | leaving, On: c.joining() | c.leaving()}); err != nil {
					t.Fatalf("%v: %v", c, err)
				}
				if err := w.run(ctx, c, uint16(i)); err != nil {
					t.Fatalf("%v: %v", c, err)
				}
				w.balanced(ctx, t, c)
			}
			for _, g := range w.guests {
				for _, s := range g.NIC.Stats() {
					if strings.HasSuffix(s.Name, "_gro") {
						joined += int(s.Value)
					}
				}
			}
		})
	}
	if joined == 0 {
		t.Error("no guest has joined segments")
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
		large := w.atB.large
		w.atB.large = 0
		if err == nil && c.coalesced() && large == 0 {
			return fmt.Errorf("the host has coalesced nothing")
		}
		if err == nil && large > 0 && !c.On("gro") && !c.coalesces() {
			return fmt.Errorf("%d frames came joined", large)
		}
		return err
	case "TAP":
		h.dst = macTAP
		return w.flow(ctx, h, s, size, c.takes(), w.atTAP)
	}
	e := &echo{w: w, h: h, s: s, size: size, takes: c.takes()}
	e.h.dst, e.h.to = macGateway, 7
	return e.run(ctx)
}

// coalesces reports whether the host is to put segments together.
func (c Case) coalesces() bool {
	newest := slices.Contains([]string{"ws2019", "ws2022", "azure"}, c.Of("profile"))
	return newest && c.On("lro") && !c.shape().UDP
}

// coalesced reports whether there are segments that certainly come together: those of a
// frame that goes through the host whole.
func (c Case) coalesced() bool {
	return c.coalesces() && c.Of("leave") == "all" && c.takes()&nic.TakesTCPv4 != 0
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
