package netvsc

import (
	"hvnet/counter"
	"hvnet/nic"
	"hvnet/offload"
)

// An outlet is where received frames go.
type outlet struct {
	sink  nic.Sink     // takes frames with any metadata
	takes nic.Offloads // of these, what nobody has to change on the way
}

func newOutlet(sink nic.Sink) *outlet {
	o := &outlet{sink: offload.NewSink(sink)}
	if t, ok := sink.(nic.Taker); ok {
		o.takes = t.Takes()
	}
	return o
}

// deliver hands the frames of a batch to the sink, if the NIC is up. They are counted as
// they came.
//
// With generic receive offload, which Linux's stack does for every driver, what is received
// of a flow in one batch, as segments that follow each other, goes up as one frame that is
// to be cut again, if the sink takes such frames ([nic.Taker]). Linux puts datagrams
// together only for sockets that ask for it (UDP_GRO); a driver knows of none, and the
// stack takes them apart again for the others.
func (q *queue) deliver() {
	if len(q.frames) == 0 {
		return
	}
	q.delivering.Lock()
	if out := q.s.n.outlet.Load(); out != nil {
		q.count.Add(counter.RxPackets, uint64(len(q.frames)))
		q.count.Add(counter.RxBytes, q.bytes)
		q.count.Add(counter.RxBatches, 1)
		if spell := q.s.n.look.spell.Load(); spell != 0 {
			for i := range q.frames {
				q.rxFlows.note(q.frames[i].Head, spell)
			}
		}
		frames := q.frames
		if q.s.features.Load().gro {
			frames = q.coalescer.Coalesce(frames, q.places, out.takes)
			if joined := len(q.frames) - len(frames); joined > 0 {
				q.count.Add(counter.RxGRO, uint64(joined))
			}
		}
		out.sink.WriteFrames(frames)
	}
	q.delivering.Unlock()
}
