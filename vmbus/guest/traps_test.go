package guest

import (
	"testing"

	"hvnet/hv"
	"hvnet/vmbus"
	"hvnet/vmbus/channel"
)

// Some hosts round the size of their messages up: what is behind the end of one is
// not looked at.
func TestTrapPaddedMessages(t *testing.T) {
	const v = vmbus.Version5_3
	pad := func(b []byte) []byte {
		for len(b) < hv.MaxPayload {
			b = append(b, 0xff)
		}
		return b
	}
	b := &bench{t, newMachine(newPlacement(4, 1))}
	b.m.contact(v)
	b.m.message(pad(vmbus.VersionResponse{Supported: true, ConnID: 1}.Append(nil, v)))
	b.m.requestOffers()
	b.m.message(pad(vmbus.Offer{Class: vmbus.ClassNIC, Relid: 1}.Append(nil, v)))
	b.m.message(pad(vmbus.AllOffersDelivered{}.Append(nil)))
	ch := b.m.claim(vmbus.ClassNIC)
	b.fine(b.m.beginOpen(ch))
	id, _, err := b.m.create(ch, region)
	b.fine(err)
	b.m.message(pad(vmbus.GPADLCreated{Relid: 1, ID: id}.Append(nil)))
	w, err := b.m.open(ch, id, 2)
	b.fine(err)
	b.m.message(pad(vmbus.OpenResult{Relid: 1, OpenID: w.id}.Append(nil)))
	_, err = b.m.modify(ch, 0)
	b.fine(err)
	b.m.message(pad(vmbus.ModifyChannelResponse{Relid: 1}.Append(nil)))
	b.skip()
	b.m.message(pad(vmbus.RescindOffer{Relid: 1}.Append(nil)))
	b.want("lost 1")
	_, err = b.m.unshare(id)
	b.fine(err)
	b.m.message(pad(vmbus.GPADLTorndown{ID: id}.Append(nil)))
	b.m.close(ch)
	b.m.closed(ch)
	_, err = b.m.unload()
	b.fine(err)
	b.skip()
	b.m.message(pad(vmbus.UnloadResponse{}.Append(nil)))
	b.want("answer UNLOAD_RESPONSE 0 0: <nil>", "arrived")
	if len(b.m.waiting) > 0 {
		t.Errorf("still waiting for %v", b.m.waits())
	}
}

// Flag 0 is reserved, other flags may be of channels that are not open, and events
// of a channel may come by another virtual processor than the one it asked for.
func TestTrapEventFlags(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t, 2)
	w.offer(1)
	bus := w.connect(ctx)
	dev, err := bus.Device(ctx, vmbus.ClassNIC)
	if err != nil {
		t.Fatal(err)
	}
	c, err := dev.Open(ctx, 0, 2*hv.PageSize)
	if err != nil {
		t.Fatal(err)
	}
	exchange(t, c, 3)
	for vp := range 2 {
		for _, flag := range []int{0, 5, hv.Flags - 1} {
			if err := w.g.SetFlag(vp, flag); err != nil {
				t.Fatal(err)
			}
		}
	}
	exchange(t, c, 3)
	select {
	case <-c.Event(): // left over
	default:
	}
	if err := w.g.SetFlag(1, int(c.Relid)); err != nil {
		t.Fatal(err)
	}
	<-c.Event()
}

// greeter is an echo that says something first.
type greeter struct{ *echo }

func (g greeter) Open(c *channel.Channel) error {
	c.Lock()
	c.Out.Put(vmbus.AppendInBand(nil, 0, 42), []byte("welcome"))
	c.Flush()
	c.Unlock()
	return g.echo.Open(c)
}

// A host may fill the ring and signal before its answer to OPENCHANNEL is here.
func TestTrapPacketBeforeOpenResult(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t, 1)
	_, err := w.server.Offer(vmbus.Offer{Class: vmbus.ClassNIC}, func(b channel.Bus) channel.Backend { return greeter{newEcho(b)} })
	if err != nil {
		t.Fatal(err)
	}
	bus := w.connect(ctx)
	dev, err := bus.Device(ctx, vmbus.ClassNIC)
	if err != nil {
		t.Fatal(err)
	}
	c, err := dev.Open(ctx, 0, 2*hv.PageSize)
	if err != nil {
		t.Fatal(err)
	}
	<-c.Event()
	b, err := c.In.Next(make([]byte, 256))
	if err != nil {
		t.Fatal(err)
	}
	if p, err := vmbus.ParsePacket(b); err != nil || p.TID != 42 {
		t.Errorf("%+v, %v", p, err)
	}
}
