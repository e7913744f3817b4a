package netvsp

import "sync/atomic"

// A Drop is a reason why a frame did not get to its guest, or from it.
type Drop int

// The reasons.
const (
	DropNoGuest   Drop = iota // no guest has the device open
	DropFilter                // the guest's packet filter does not pass it: 0 if its interface is down
	DropNoBuffer              // there is no receive buffer
	DropNoSection             // the guest has not returned enough sections
	DropRingFull              // the guest does not take packets out of the ring
	DropTooLong               // the frame is longer than the MTU
	DropSource                // sent from another address than the port's
	DropRunt                  // shorter than an Ethernet header
	DropFault                 // memory of the frame or for it is gone
	DropClosing               // the device is being taken from the guest, or closed by it
	DropOffload               // could not be cut as its metadata say
	drops
)

var dropText = [drops]string{"no guest", "filter", "no receive buffer", "no section", "ring full",
	"too long", "bad source", "runt", "memory gone", "closing", "not to be cut"}

// String returns the reason in a few words.
func (d Drop) String() string {
	if d < 0 || d >= drops {
		return "unknown"
	}
	return dropText[d]
}

// counters count what one queue did. Tx is what the guest sends, rx what it gets.
type counters struct {
	txFrames, txBytes atomic.Uint64
	rxFrames, rxBytes atomic.Uint64
	txFailed          atomic.Uint64 // ring packets answered with failure
	wakeups           atomic.Uint64 // of the goroutine
	faults            atomic.Uint64 // things that no guest should do
	txDropped         [drops]atomic.Uint64
	rxDropped         [drops]atomic.Uint64
}

// addTo adds the counters to those of another.
func (c *counters) addTo(sum *counters) {
	sum.txFrames.Add(c.txFrames.Load())
	sum.txBytes.Add(c.txBytes.Load())
	sum.rxFrames.Add(c.rxFrames.Load())
	sum.rxBytes.Add(c.rxBytes.Load())
	sum.txFailed.Add(c.txFailed.Load())
	sum.wakeups.Add(c.wakeups.Load())
	sum.faults.Add(c.faults.Load())
	for i := range c.txDropped {
		sum.txDropped[i].Add(c.txDropped[i].Load())
		sum.rxDropped[i].Add(c.rxDropped[i].Load())
	}
}
