package function

import (
	"errors"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"hvnet/internal/packets"
	"hvnet/link/iface"
	"hvnet/link/xdp"
	"hvnet/nic"
	"hvnet/offload"
)

// plain returns frames that leave nothing to be done.
func plain() []nic.Frame {
	return []nic.Frame{
		packets.Split(packets.Shape{}.Frame(packets.Random(100)), 60),
		packets.Split(packets.Shape{UDP: true}.Frame(packets.Random(1472)), 60, 500),
		packets.Split(packets.Shape{Tag: true}.Frame(packets.Random(1460)), 60),
	}
}

// TestXDP joins the guest's end by AF_XDP: frames pass both ways, what is to be completed and
// cut is before it comes, and another function takes the place of one that was removed.
func TestXDP(t *testing.T) {
	ns := enter(t)
	w := watchBy(t, iface.XDP)
	for serial := range uint32(3) {
		h := madeFor(t, ns, Config{MAC: address, Serial: serial, Wire: true})
		fromGuest := newTally()
		h.Start(fromGuest)
		p := w.up(t)
		if p.dev.Takes() != 0 || h.Takes() != 0 {
			t.Errorf("the guest's end takes %v, the host's %v", p.dev.Takes(), h.Takes())
		}
		sent := plain()
		p.dev.WriteFrames(sent)
		same(t, "from the guest", fromGuest.await(t, len(sent)), sent)
		to := offload.NewSink(h) // as the switch has it
		to.WriteFrames(sent)
		whole := packets.Shape{UDP: true}.Frame(packets.Random(700))
		to.WriteFrames([]nic.Frame{packets.Partial(append([]byte(nil), whole...), nic.SegmentNone, 0)})
		to.WriteFrames([]nic.Frame{packets.Partial(packets.Shape{}.Frame(packets.Random(3*1460)), nic.SegmentTCPv4, 1460)})
		got := p.await(t, len(sent)+4)
		same(t, "to the guest", got[:len(sent)+1], append(sent, nic.Frame{Head: whole}))
		for _, f := range got[len(sent)+1:] {
			if len(f.Head) != 1514 {
				t.Errorf("a segment of %d bytes", len(f.Head))
			}
		}
		link, err := netlink.LinkByName(p.dev.Name())
		check(t, err)
		if a := link.Attrs(); a.Promisc != 0 || a.Xdp == nil || !a.Xdp.Attached || a.NumRxQueues != 1 {
			t.Errorf("the interface is %+v", a)
		}
		check(t, p.dev.SetPromiscuous(true))
		check(t, p.dev.SetMTU(xdp.MaxMTU))
		if err := p.dev.SetMTU(xdp.MaxMTU + 1); !errors.Is(err, xdp.ErrMTU) {
			t.Errorf("an MTU that is too large: %v", err)
		}
		check(t, p.dev.SetPromiscuous(false))
		check(t, h.Drain(t.Context()))
		if n := p.dev.Dropped(); n != 0 {
			t.Errorf("%d frames dropped", n)
		}
		if serial == 1 {
			close(p.done) // as a NIC does that has lost its own device, and is found again
			<-p.left
			p = w.up(t)
			h.WriteFrames(sent)
			same(t, "to the guest, again", p.await(t, len(sent)), sent)
		}
		check(t, h.Close())
		if <-p.left {
			t.Error("the host has removed it, and it is there")
		}
	}
}

// TestDrainXDP: Drain is as exact if the guest's end is joined by AF_XDP.
func TestDrainXDP(t *testing.T) { testDrain(t, iface.XDP) }

func TestNoAllocationXDP(t *testing.T) { testNoAllocation(t, iface.XDP, plain()) }

// TestRefused: a function whose host leaves checksums to be completed is not joined by AF_XDP,
// and neither is one for a NIC whose MTU is too large. It may go, and the next one is joined.
func TestRefused(t *testing.T) {
	ns := enter(t)
	refused, mtu := make(chan error, 10), make(chan int, 10)
	w := watchBy(t, iface.XDP, func(g *Guest) {
		g.Refused = func(err error) { refused <- err }
		g.MTU = func() int { return <-mtu }
	})
	expect := func(want string) {
		t.Helper()
		select {
		case err := <-refused:
			if err.Error() != want {
				t.Errorf("refused: %v", err)
			}
		case p := <-w.ports:
			t.Errorf("%s is joined", p.dev.Name())
		case <-time.After(10 * time.Second):
			t.Fatal("nothing is refused")
		}
	}
	h := made(t, ns, 7)
	expect("take over virtual function vf7: " + ErrNotWire.Error())
	check(t, h.Close())
	mtu <- 9000
	h = madeFor(t, ns, Config{MAC: address, Serial: 8, Wire: true})
	expect("take over virtual function vf8: MTU too large: it would be 9000, and AF_XDP takes 3822 at most")
	check(t, h.Close())
	mtu <- 1500
	madeFor(t, ns, Config{MAC: address, Serial: 9, Wire: true})
	w.up(t)
}
