package channel

import (
	"context"

	"hvnet/hv"
	"hvnet/vmbus"
)

// A Device is one offered device as its driver in the guest sees it. It is
// implemented by vmbus/guest, and by vmbus/uio where the Linux kernel owns the bus.
//
// Every method that takes a context waits for the host; when the context ends the
// error names what it waited for. After the device was rescinded they return an
// error that is ErrRescinded.
type Device interface {
	// Offer returns the offer of the primary channel.
	Offer() vmbus.Offer
	// Version returns the negotiated VMBus version.
	Version() vmbus.Version
	// VPs returns the number of virtual processors of the guest.
	VPs() int
	// Node returns the NUMA node of a virtual processor, counted from 0.
	Node(vp int) int

	// Alloc and Free are those of the partition.
	Alloc(bytes int) (hv.Region, error)
	Free(hv.Region) error

	// Share makes a region known to the host and returns its GPADL id.
	Share(ctx context.Context, r hv.Region) (gpadl uint32, err error)
	// Unshare takes it back: when it returns nil the host holds no reference.
	Unshare(ctx context.Context, gpadl uint32) error

	// Open opens the channel with the given sub-channel index, 0 for the
	// primary. It waits for the offer of a sub-channel, which may come before
	// or after it was asked for. ringBytes is the memory of each of the two
	// rings, header included: whole pages, at least two. Events are delivered
	// to the channel from before Open returns. Which processor they interrupt is
	// the bus's choice, see Channel.VP.
	Open(ctx context.Context, index, ringBytes int) (*Channel, error)
	// Retarget has the host interrupt another processor for an open channel. The
	// bus may have no way to, before VMBus 4.1.
	Retarget(ctx context.Context, c *Channel, vp int) error
	// Close closes a channel and frees its rings. The caller has stopped using
	// it. Closing the primary closes all sub-channels first.
	Close(ctx context.Context, c *Channel) error

	// Rescinded is closed when the host has taken the device away or is gone.
	Rescinded() <-chan struct{}
}

// A Backend is a device as the host's bus drives it. It is implemented by netvsp.
// Calls for one device come one at a time.
type Backend interface {
	// Open hands over an open channel: c.Index tells which. It is called before
	// the guest is told, so the ring may still be empty; the backend starts its
	// own goroutine. An error refuses the channel.
	Open(c *Channel) error
	// Close takes a channel away. When it returns nothing of the backend
	// touches its rings any more. Where the guest's connection ends, the
	// primary channel is the first.
	Close(c *Channel)
	// Revoke is called when the guest tears down a GPADL that the backend has
	// mapped. When it returns the mapping is no longer used.
	Revoke(gpadl uint32)
	// Removed is called last, when the guest is gone, has unloaded or has
	// started its connection anew: all channels are closed by then. A backend
	// that the guest connects to again starts from the beginning.
	Removed()
}

// A Bus is what the host's bus gives a Backend for its device.
type Bus interface {
	// Version returns the negotiated VMBus version.
	Version() vmbus.Version
	// VPs returns the number of virtual processors of the guest.
	VPs() int
	// Memory returns the guest's memory, for packets that name pages.
	Memory() *hv.Memory
	// Map maps a GPADL that the guest has created on this device. The backend
	// closes the mapping, at the latest in Revoke or Removed.
	Map(gpadl uint32) (*hv.Mapping, error)
	// OfferSubChannels offers sub-channels 1..n to the guest. It may be called
	// from any goroutine, and returns at once.
	OfferSubChannels(n int) error
}
