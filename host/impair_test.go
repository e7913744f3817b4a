package host

import (
	"errors"
	"strings"
	"testing"
	"time"

	"hvnet/internal/packets"
	"hvnet/link/impair"
	"hvnet/link/pcap"
	"hvnet/netvsp"
	"hvnet/netvsp/profile"
	"hvnet/nic"
)

func TestParseImpairment(t *testing.T) {
	line := impair.Config{Loss: .01, Delay: 5 * time.Millisecond}
	for text, want := range map[string]Impairment{
		"g1:loss=1%,delay=5ms":                {true, true, line},
		"g1:loss=1%,delay=5ms,dir=both":       {true, true, line},
		"g1:dir=to-guest,loss=1%,delay=5ms":   {true, false, line},
		"g1:loss=1%,dir=from-guest,delay=5ms": {false, true, line},
	} {
		if port, got, err := ParseImpairment(text); port != "g1" || got != want || err != nil {
			t.Errorf("%s: %s, %+v, %v", text, port, got, err)
		}
	}
	for text, want := range map[string]string{
		"":                  "want PORT:RULES",
		"g1":                "want PORT:RULES",
		":loss=1%":          "want PORT:RULES",
		"g1:":               "want NAME=VALUE",
		"g1:dir=to-guest":   "want NAME=VALUE",
		"g1:loss=1%,dir=up": "dir=up: want to-guest, from-guest or both",

		"g1:loss=1%,dir=to-guest,dir=from-guest": "dir is there twice",
	} {
		if _, _, err := ParseImpairment(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

// An end counts frames; it is a port and a guest.
type end struct {
	frames int
	closed bool
}

func (e *end) WriteFrames(frames []nic.Frame) { e.frames += len(frames) }
func (e *end) Close()                         { e.closed = true }

// TestDirections: each direction is disturbed when it should be, and a good line
// has nothing in between.
func TestDirections(t *testing.T) {
	one := []nic.Frame{{Head: make([]byte, 60)}}
	for _, c := range []struct{ to, from bool }{{}, {to: true}, {from: true}, {true, true}} {
		h := New(Config{})
		h.Impair("g1", Impairment{c.to, c.from, impair.Config{Loss: 1}})
		var guest, outside end
		var inward nic.Sink
		got, err := h.bad.connect("g1", pcap.Synthetic, &guest, func(to nic.Sink) (netvsp.Port, error) {
			inward = to
			return &outside, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		got.WriteFrames(one)
		inward.WriteFrames(one)
		if lost := outside.frames == 0; lost != c.from {
			t.Errorf("%+v: from the guest: lost %v", c, lost)
		}
		if lost := guest.frames == 0; lost != c.to {
			t.Errorf("%+v: to the guest: lost %v", c, lost)
		}
		if good := got == netvsp.Port(&outside); good != (!c.to && !c.from) {
			t.Errorf("%+v: the line is good: %v", c, good)
		}
		lost := uint64(0)
		for _, l := range h.bad.info("g1") {
			lost += l.Lost
		}
		if want := uint64(2 - outside.frames - guest.frames); lost != want {
			t.Errorf("%+v: %d lost, want %d", c, lost, want)
		}
		got.Close()
		if !outside.closed {
			t.Errorf("%+v: the port is open", c)
		}
		if h.bad.info("g1") != nil {
			t.Errorf("%+v: a line that is closed is told of", c)
		}
	}
}

// TestBadLineSeesTheWire: a frame that is to be cut is cut before it comes to a bad
// line, which is bad to each segment.
func TestBadLineSeesTheWire(t *testing.T) {
	h := New(Config{})
	h.Impair("g1", Impairment{FromGuest: true, Line: impair.Config{}})
	var guest, outside end
	port, err := h.bad.connect("g1", pcap.Synthetic, &guest, func(nic.Sink) (netvsp.Port, error) { return &outside, nil })
	if err != nil {
		t.Fatal(err)
	}
	port.WriteFrames([]nic.Frame{packets.Partial(packets.Shape{}.Frame(packets.Random(2500)), nic.SegmentTCPv4, 1000)})
	if l := h.bad.info("g1"); outside.frames != 3 || l[0].Frames != 3 {
		t.Errorf("%d frames passed, %d came, want 3", outside.frames, l[0].Frames)
	}
}

// TestFragmentFault: a release that is known for it has the lines of guests lose
// fragments, of those that have no rules of their own; others refuse.
func TestFragmentFault(t *testing.T) {
	if _, err := New(Config{}).FragmentFault(0); !errors.Is(err, ErrNoFault) {
		t.Errorf("ws2022: %v", err)
	}
	azure, err := profile.Lookup("azure")
	if err != nil {
		t.Fatal(err)
	}
	h := New(Config{Profile: azure})
	good, own := Impairment{}, Impairment{ToGuest: true, Line: impair.Config{Delay: time.Second}}
	h.Impair("good", good)
	h.Impair("own", own)
	connect := func(port string) (from *impair.Sink) {
		t.Helper()
		l, err := h.bad.connect(port, pcap.Synthetic, &end{}, func(nic.Sink) (netvsp.Port, error) { return &end{}, nil })
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(l.Close)
		if b, ok := l.(*badLine); ok {
			return b.from
		}
		return nil
	}
	if connect("early") != nil {
		t.Error("fragments are lost before anybody asks for it")
	}
	im, err := h.FragmentFault(7)
	if want := "unordered=100%,skew=1ms,seed=7,dir=from-guest"; err != nil || im.String() != want {
		t.Errorf("%v, %v, want %s", im, err, want)
	}
	for port, want := range map[string]bool{"any": true, "good": false, "own": false} {
		if got := connect(port) != nil; got != want {
			t.Errorf("port %s: fragments are lost: %v", port, got)
		}
	}
	for _, text := range []string{"loss=1%,seed=0", "loss=1%,seed=0,dir=to-guest", "skew=1ms,seed=3,dir=from-guest"} {
		if _, im, err := ParseImpairment("g1:" + text); err != nil || im.String() != text {
			t.Errorf("%s is written as %v, %v", text, im, err)
		}
	}
}
