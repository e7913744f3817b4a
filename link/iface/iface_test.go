package iface

import (
	"bytes"
	"context"
	"errors"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"hvnet/internal/need"
	"hvnet/internal/packets"
	"hvnet/link/packet"
	"hvnet/link/xdp"
	"hvnet/nic"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// first passes on the first frame of some length.
type first struct {
	length int
	frame  chan []byte
}

func (f first) WriteFrames(frames []nic.Frame) {
	for i := range frames {
		if frames[i].Len() == f.length {
			select {
			case f.frame <- packets.Bytes(&frames[i]):
			default:
			}
		}
	}
}

// carrier waits until frames pass an interface: some time after its peer is up.
func carrier(t *testing.T, l Link) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
	defer stop()
	check(t, l.Watch(ctx, func(s packet.State) {
		if s.Carrier {
			stop()
		}
	}))
	if !l.State().Carrier {
		t.Fatalf("%s has no carrier", l.Name())
	}
}

// TestOpen joins the two ends of a veth each way, and has a frame pass both ways.
func TestOpen(t *testing.T) {
	need.Root(t)
	runtime.LockOSThread() // for good: the namespace ends with the thread
	check(t, unix.Unshare(unix.CLONE_NEWNET))
	check(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "v0"}, PeerName: "v1"}))
	for _, name := range []string{"v0", "v1"} {
		l, err := netlink.LinkByName(name)
		check(t, err)
		check(t, netlink.LinkSetUp(l))
	}
	frame := packets.Split(packets.Shape{}.Frame(packets.Random(1000)), 60)
	for _, way := range []Way{Auto, Packet, XDP} {
		links := [2]Link{}
		var in [2]first
		ended := make(chan error, 2)
		for i, name := range []string{"v0", "v1"} {
			var err error
			links[i], err = Open(t.Context(), name, way)
			check(t, err)
			defer links[i].Close()
			carrier(t, links[i])
			in[i] = first{frame.Len(), make(chan []byte, 1)}
			go func() { ended <- links[i].Receive(in[i]) }()
		}
		if _, is := links[0].(*xdp.Follower); is != (way == XDP) {
			t.Errorf("%s is a %T", way, links[0])
		}
		for i := range links {
			links[i].WriteFrames([]nic.Frame{frame})
			select {
			case got := <-in[1-i].frame:
				if !bytes.Equal(got, packets.Bytes(&frame)) {
					t.Errorf("%s: another frame", way)
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("%s: no frame comes", way)
			}
		}
		for i := range links {
			check(t, links[i].Close())
			if err := <-ended; !errors.Is(err, net.ErrClosed) {
				t.Errorf("%s: Receive: %v", way, err)
			}
		}
	}
	for _, way := range []Way{Auto, XDP} {
		if l, err := Open(t.Context(), "none", way); !errors.Is(err, packet.ErrNoInterface) || l != nil {
			t.Errorf("%s of nothing: %v, %v", way, l, err)
		}
	}
	if _, err := Open(t.Context(), "v0", "magic"); err == nil || err.Error() != `join interface v0: no way "magic"` {
		t.Error(err)
	}
}

func TestParseWay(t *testing.T) {
	for _, w := range []Way{Auto, Packet, XDP} {
		if got, err := ParseWay(string(w)); got != w || err != nil {
			t.Errorf("%s: %v, %v", w, got, err)
		}
	}
	if _, err := ParseWay("XDP"); err == nil || err.Error() != `"XDP" is no way to join an interface: want auto, packet or xdp` {
		t.Error(err)
	}
}
