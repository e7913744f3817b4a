package host

import "hvnet/vmbus"

// A deviceID names one offered device for the machine.
type deviceID int

// An action is what the machine wants done. The runner carries actions out in
// the order in which they were asked for. Those that say so are acknowledged by
// an event of the machine.
type action interface{}

type (
	// send puts a message into the slot of a virtual processor.
	send struct {
		vp      int
		message []byte
	}
	// contact announces the version of a new connection.
	contact struct{ version vmbus.Version }
	// watch begins to look at the guest's monitor page, until unwatch.
	watch   struct{ pfn uint64 }
	unwatch struct{}
	// monitor looks for an id in the page, which signals a channel, until unmonitor.
	monitor struct {
		id    uint8
		relid uint32
	}
	unmonitor struct{ id uint8 }
	// share makes a GPADL known to the device's backend. pfns is nil if it isn't
	// a plain list of whole pages.
	share struct {
		dev   deviceID
		gpadl uint32
		pfns  []uint64
	}
	// revoke makes the backend forget a GPADL. Acknowledged by revoked.
	revoke struct {
		dev   deviceID
		gpadl uint32
	}
	// openChannel maps the rings and hands the channel to the backend.
	// Acknowledged by opened. vp is -1 for a guest that wants no interrupts.
	openChannel struct {
		dev      deviceID
		relid    uint32
		index    int
		vp       int
		up, down []uint64 // page frame numbers of the rings, as the guest sees them
	}
	// closeChannel takes the channel from the backend. Acknowledged by closed.
	closeChannel struct {
		dev   deviceID
		relid uint32
	}
	// retarget makes a channel interrupt another virtual processor.
	retarget struct {
		dev   deviceID
		relid uint32
		vp    int
	}
	// remove tells the backend that its guest has no more to do with it. All its
	// channels are closed.
	remove struct{ dev deviceID }
	// forget ends a withdrawn device: no event will name it any more.
	forget struct{ dev deviceID }
	// drop reports a message of the guest that makes no sense.
	drop struct {
		message vmbus.MessageType
		why     error // carries the rule that was broken, if one was
	}
)
