package guest_test

import (
	"bytes"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket/pcapgo"

	"hvnet/guest"
	"hvnet/internal/packets"
	"hvnet/link/pcap"
	"hvnet/nic"
)

// written waits until a capture of so many packets is over, and returns their last bytes
// with the channels that they went over.
func written(t *testing.T, c *pcap.Capture) map[string]uint32 {
	t.Helper()
	var file bytes.Buffer
	if err := c.Write(soon(t), &file); err != nil {
		t.Fatal(err)
	}
	r, err := pcapgo.NewNgReader(&file, pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]uint32{}
	for {
		data, _, o, err := r.ReadPacketDataWithOptions()
		if err == io.EOF {
			return got
		}
		if err != nil {
			t.Fatal(err)
		}
		if o.Flags == nil || o.Flags.Direction != pcapgo.NgEpbFlagDirectionOutbound || o.Queue == nil {
			t.Fatalf("a packet with %+v", o)
		}
		got[string(data[len(data)-4:])] = *o.Queue
	}
}

// What a guest sends is captured on both halves, with the channel that it goes over: the
// guest's idea of it is what the host then sees.
func TestCapture(t *testing.T) {
	h := serve(t, socketPath(t))
	g := start(t, h, guest.Config{})
	const flows = 32
	near, err := g.Capture(pcap.Config{Count: flows})
	if err != nil {
		t.Fatal(err)
	}
	far, done, err := h.Capture("guest1", pcap.Config{Count: flows})
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	if err := g.NIC.Up(soon(t), drain{}); err != nil {
		t.Fatal(err)
	}
	out := guest.Sender{Guest: g}
	for i := range flows {
		b := packets.Shape{UDP: true}.Frame([]byte{1, 2, 3, byte(i)})
		mac := g.NIC.MAC()
		copy(b[6:], mac[:])
		b[14+20] = byte(i) // the source port
		out.WriteFrames([]nic.Frame{packets.Split(b)})
	}
	sent, got := written(t, near), written(t, far)
	if diff := cmp.Diff(got, sent); diff != "" || len(sent) != flows {
		t.Errorf("%d flows; -host +guest:\n%s", len(sent), diff)
	}
	channels := map[uint32]bool{}
	for _, c := range sent {
		channels[c] = true
	}
	if len(channels) != 2 {
		t.Errorf("on %d channels, want 2", len(channels))
	}
}
