package host

import (
	"bytes"
	"errors"
	"testing"

	"hvnet/link/pcap"
	"hvnet/nic"
	"hvnet/vswitch"
)

// A port that nobody captures at and that is gone leaves nothing behind, whatever name it
// had.
func TestViewsGo(t *testing.T) {
	h := New(Config{})
	defer h.Close(t.Context())
	opt := vswitch.PortOptions{MAC: nic.MAC{0, 0x15, 0x5d, 0, 0, 2}}
	c, done, err := h.Capture("a", pcap.Config{Count: 2})
	if err != nil {
		t.Fatal(err)
	}
	sink := &frameSink{}
	for range 2 { // it comes back
		p, err := h.connect("a", "", sink, opt)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.connect("a", "", sink, opt); !errors.Is(err, vswitch.ErrMACInUse) {
			t.Error(err)
		}
		frame := make([]byte, 60)
		copy(frame, "\xff\xff\xff\xff\xff\xff\x00\x15\x5d\x00\x00\x02")
		p.WriteFrames([]nic.Frame{{Head: frame}})
		p.Close()
		p.Close()
	}
	var file bytes.Buffer
	if err := c.Write(t.Context(), &file); err != nil {
		t.Fatal(err)
	}
	if n := c.Counts(); n.Captured != 2 {
		t.Errorf("%+v", n)
	}
	done()
	if _, _, err := h.Capture("b", pcap.Config{Snaplen: -1}); !errors.Is(err, nic.ErrInvalid) {
		t.Error(err)
	}
	if n := len(h.see.list); n != 0 {
		t.Errorf("%d views are left", n)
	}
}

type frameSink struct{}

func (*frameSink) WriteFrames([]nic.Frame) {}
