package guest

import (
	"fmt"
	"sync/atomic"
	"testing"

	"hvnet/hv"
	"hvnet/vmbus"
	"hvnet/vmbus/host"
)

// A host that names a monitor id outside the page is refused that channel.
func TestMonitorIDOutOfRange(t *testing.T) {
	b := connected(t, vmbus.Version5_3)
	b.m.monitor = [2]uint64{0x1000, 0x2000}
	o := vmbus.Offer{Class: vmbus.ClassNIC, Relid: 3, Monitored: true, MonitorID: 128}
	b.m.message(o.Append(nil, b.m.version))
	b.want("post 1 RELID_RELEASED 03000000", "drop OFFERCHANNEL: a monitor id that can't be")
	o.MonitorID = 127
	b.m.message(o.Append(nil, b.m.version))
	b.want("arrived")
}

func TestMonitorWithoutPages(t *testing.T) {
	b := connected(t, vmbus.Version5_3)
	b.m.message(vmbus.Offer{Class: vmbus.ClassNIC, Relid: 3, Monitored: true}.Append(nil, b.m.version))
	b.want("post 1 RELID_RELEASED 03000000", "drop OFFERCHANNEL: to be signalled by a monitor page that it hasn't got")
}

// A signalCounter counts the hypercalls by which a guest signals.
type signalCounter struct {
	hv.Partition
	n atomic.Int64
}

func (p *signalCounter) SignalEvent(conn uint32) error {
	p.n.Add(1)
	return p.Partition.SignalEvent(conn)
}

// Over monitored channels packets travel without one hypercall of the guest, in
// every version, sub-channels too; and over others without a bit in the page.
func TestMonitorSignals(t *testing.T) {
	for _, v := range []vmbus.Version{vmbus.Version2_4, vmbus.Version3_0, vmbus.Version4_0, vmbus.Version4_1,
		vmbus.Version5_0, vmbus.Version5_1, vmbus.Version5_2, vmbus.Version5_3, vmbus.Version6_0} {
		for _, monitor := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v %v", v, monitor), func(t *testing.T) { testMonitorSignals(t, v, monitor) })
		}
	}
}

func testMonitorSignals(t *testing.T, v vmbus.Version, monitor bool) {
	ctx := t.Context()
	p, g, err := hv.Pipe(2)
	if err != nil {
		t.Fatal(err)
	}
	counter := &signalCounter{Partition: p}
	w := &world{t: t, p: counter, g: g, served: make(chan error, 1)}
	w.server = host.New(g, host.Config{Versions: []vmbus.Version{v}, Monitor: monitor})
	w.serve()
	defer func() {
		w.server.Close()
		<-w.served
	}()
	e, _ := w.offer(1)
	bus := must[*Bus](t)(Connect(ctx, counter, Config{Versions: []vmbus.Version{v}}))
	defer bus.Close()
	dev, err := bus.Device(ctx, vmbus.ClassNIC)
	if err != nil {
		t.Fatal(err)
	}
	var signals uint64
	for index := range 3 {
		if index == 1 {
			if err := e.bus.OfferSubChannels(2); err != nil {
				t.Fatal(err)
			}
		}
		c, err := dev.Open(ctx, index, 2*hv.PageSize)
		if err != nil {
			t.Fatal(err)
		}
		exchange(t, c, 20)
		signals += c.Stats().Signals
	}
	if signals == 0 {
		t.Error("no signals")
	}
	want := int64(signals)
	if monitor {
		want = 0
	}
	if n := counter.n.Load(); n != want {
		t.Errorf("%d hypercalls for %d signals", n, signals)
	}
	if pending := bus.monitor.Bytes[hv.PageSize:][:0x40]; !monitor && !allZero(pending) {
		t.Errorf("the monitor page was used: % x", pending)
	}
	if err := bus.Unload(ctx); err != nil {
		t.Error(err)
	}
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
