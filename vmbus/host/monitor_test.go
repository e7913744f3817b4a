package host

import (
	"fmt"
	"slices"
	"testing"

	"hvnet/hv"
	"hvnet/vmbus"
)

const monitorGPA = firstPage * hv.PageSize

func (b *bench) contactWithPages() {
	b.post(vmbus.InitiateContact{Version: vmbus.Version5_3, SINT: hv.SINT, TargetVP: 1,
		ParentToChild: monitorGPA, ChildToParent: monitorGPA + hv.PageSize}.Append(nil))
}

// offers returns what was offered since the last look: the monitor id of each relid.
func (b *bench) offers() map[uint32]int {
	ids := map[uint32]int{}
	for _, a := range b.m.out {
		s, ok := a.(send)
		if !ok {
			continue
		}
		if o, err := vmbus.ParseOffer(s.message, vmbus.Version5_3); err == nil {
			ids[o.Relid] = -1
			if o.Monitored {
				ids[o.Relid] = int(o.MonitorID)
			} else if o.MonitorID != noMonitor {
				b.t.Errorf("relid %d: not monitored, with id %d", o.Relid, o.MonitorID)
			}
		}
	}
	b.skip()
	return ids
}

// Only a host that wants to watch, and a guest that gives it something to watch, use
// a monitor page.
func TestMonitorIsAgreedOn(t *testing.T) {
	for _, wanted := range []bool{false, true} {
		for _, given := range []bool{false, true} {
			b := newBench(t)
			b.m.monitors.wanted = wanted
			b.m.add(1, vmbus.Offer{Class: vmbus.ClassNIC})
			if given {
				b.contactWithPages()
			} else {
				b.connect(vmbus.Version5_3)
			}
			b.post(vmbus.RequestOffers{}.Append(nil))
			watched := slices.Contains(b.m.out, action(watch{firstPage + 1}))
			id := b.offers()[1]
			if want := wanted && given; watched != want || (id == 0) != want {
				t.Errorf("wanted %v, pages given %v: watched %v, id %d", wanted, given, watched, id)
			}
		}
	}
}

// Ids are unique; who comes too late for one is signalled by hypercall; who leaves
// gives its id back.
func TestMonitorIDs(t *testing.T) {
	b := newBench(t)
	b.m.monitors.wanted = true
	const n = hv.MonitorIDs + 2
	for i := range n {
		b.m.add(deviceID(i+1), vmbus.Offer{Class: vmbus.ClassNIC, Instance: vmbus.GUID{byte(i)}})
	}
	b.contactWithPages()
	b.post(vmbus.RequestOffers{}.Append(nil))
	ids := b.offers()
	for relid, id := range ids {
		if want := int(relid - 1); id != want && (want < hv.MonitorIDs || id != -1) {
			t.Errorf("relid %d has id %d", relid, id)
		}
	}
	if len(ids) != n {
		t.Fatalf("%d offers", len(ids))
	}
	b.m.withdraw(8) // relid 8, id 7
	b.skip()
	b.post(vmbus.RelidReleased{Relid: 8}.Append(nil))
	if !slices.Contains(b.m.out, action(unmonitor{7})) {
		t.Errorf("id 7 was not given back: %v", b.m.out)
	}
	b.skip()
	b.m.add(n+1, vmbus.Offer{Class: vmbus.ClassNIC, Instance: vmbus.GUID{0xff}})
	if !slices.Contains(b.m.out, action(monitor{7, 8})) {
		t.Errorf("id 7 was not given to relid 8 again: %v", b.m.out)
	}
	if got := fmt.Sprint(b.offers()); got != "map[8:7]" {
		t.Errorf("offered %s", got)
	}
}

// The page belongs to a connection: nobody looks at it any more when it ends.
func TestMonitorEndsWithConnection(t *testing.T) {
	for name, end := range map[string]func(*bench){
		"unload":  func(b *bench) { b.post(vmbus.Unload{}.Append(nil)) },
		"contact": func(b *bench) { b.connect(vmbus.Version5_3) },
		"gone":    func(b *bench) { b.m.gone() },
	} {
		b := newBench(t)
		b.m.monitors.wanted = true
		b.contactWithPages()
		b.skip()
		end(b)
		if len(b.m.out) == 0 || b.m.out[0] != action(unwatch{}) {
			t.Errorf("%s: %v", name, b.m.out)
		}
		if b.m.monitors.watched {
			t.Errorf("%s: still watched", name)
		}
	}
}
