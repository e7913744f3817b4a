package host

import (
	"encoding/binary"
	"sync"
	"testing"

	"hvnet/hv"
	"hvnet/ring"
	"hvnet/vmbus"
	"hvnet/vmbus/channel"
)

// listener is a backend that tells which packets it has read.
type listener struct {
	got  chan uint64 // transaction ids
	wait sync.WaitGroup
}

func (l *listener) Open(c *channel.Channel) error {
	l.wait.Go(func() {
		buf := make([]byte, 1024)
		for {
			select {
			case <-c.Event():
			case <-c.Closed():
				return
			}
			for {
				b, err := c.In.Next(buf)
				if err != nil {
					break
				}
				l.got <- binary.LittleEndian.Uint64(b[8:])
			}
			c.Release()
		}
	})
	return nil
}

func (l *listener) Close(*channel.Channel) { l.wait.Wait() }
func (l *listener) Revoke(uint32)          {}
func (l *listener) Removed()               {}

// listen offers a listener as the device with relid 2.
func (r *raw) listen() *listener {
	r.t.Helper()
	l := &listener{got: make(chan uint64, 16)}
	o := vmbus.Offer{Class: vmbus.ClassNIC, Instance: vmbus.GUID{9}}
	if _, err := r.server.Offer(o, func(channel.Bus) channel.Backend { return l }); err != nil {
		r.t.Fatal(err)
	}
	return l
}

// put puts a packet into a ring, without a signal.
func (r *raw) put(up []byte, tid uint64) {
	r.t.Helper()
	p, err := ring.NewProducer(up)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := p.Put(vmbus.AppendInBand(nil, 0, tid), []byte("hello")); err != nil {
		r.t.Fatal(err)
	}
	p.Publish()
}

// A guest may fill the ring before it opens the channel, and has signalled nobody
// then: the host looks once by itself.
func TestTrapPacketsBeforeOpen(t *testing.T) {
	r := newRaw(t, Config{})
	l := r.listen()
	r.connect()
	region := r.ringsOf(2, 10, 4)
	r.put(region.Bytes[:2*hv.PageSize], 77)
	r.say(vmbus.ConnMessage, vmbus.OpenChannel{Relid: 2, OpenID: 1, GPADL: 10, DownOffset: 2}.Append(nil, 0))
	if tid := <-l.got; tid != 77 {
		t.Errorf("packet %d", tid)
	}
}

// A guest that fills its monitor page signals its own open channels by it, and that
// is all; the host goes on and finds the page's end.
func TestTrapMonitorPage(t *testing.T) {
	r := newRaw(t, Config{Monitor: true})
	l := r.listen()
	pages, err := r.p.Alloc(2 * hv.PageSize)
	if err != nil {
		t.Fatal(err)
	}
	gpa := uint64(pages.GPA)
	r.say(vmbus.ConnContact, vmbus.InitiateContact{Version: vmbus.Version5_3, SINT: hv.SINT,
		ParentToChild: gpa, ChildToParent: gpa + hv.PageSize}.Append(nil))
	r.say(vmbus.ConnMessage, vmbus.RequestOffers{}.Append(nil))
	var o vmbus.Offer
	for o.Relid != 2 {
		if o, err = vmbus.ParseOffer(r.expect(vmbus.TypeOffer), vmbus.Version5_3); err != nil {
			t.Fatal(err)
		}
	}
	if !o.Monitored || o.MonitorID != 1 {
		t.Fatalf("monitored %v, id %d", o.Monitored, o.MonitorID)
	}
	page := pages.Bytes[hv.PageSize:]
	for id := range hv.MonitorIDs { // of channels that aren't open, or aren't there
		hv.TriggerMonitor(page, uint8(id))
	}
	region := r.ringsOf(2, 10, 4)
	r.say(vmbus.ConnMessage, vmbus.OpenChannel{Relid: 2, OpenID: 1, GPADL: 10, DownOffset: 2}.Append(nil, 0))
	r.expect(vmbus.TypeOpenResult)
	p, err := ring.NewProducer(region.Bytes[:2*hv.PageSize])
	if err != nil {
		t.Fatal(err)
	}
	for tid := range uint64(20) {
		for i := range 0x40 { // everything in front of the table of times
			page[i] = 0xff
		}
		if err := p.Put(vmbus.AppendInBand(nil, 0, tid), nil); err != nil {
			t.Fatal(err)
		}
		p.Publish()
		hv.TriggerMonitor(page, 1)
		if got := <-l.got; got != tid {
			t.Fatalf("packet %d, want %d", got, tid)
		}
	}
	// The guest takes its page back without a word. The host has a mapping of its own.
	if err := r.p.Free(pages); err != nil {
		t.Fatal(err)
	}
	r.say(vmbus.ConnMessage, vmbus.Unload{}.Append(nil))
	r.expect(vmbus.TypeUnloadResponse)
}
