// Package iface joins a network interface of the kernel that is there already, the way that
// is asked for: by packet sockets ([packet.Link]) or by AF_XDP ([xdp.Follower]).
package iface

import (
	"context"
	"fmt"

	"hvnet/link/packet"
	"hvnet/link/rtnl"
	"hvnet/link/xdp"
	"hvnet/nic"
)

// A Way is how an interface is joined.
type Way string

// The ways.
const (
	// Auto is Packet, everywhere: AF_XDP takes an interface away from the machine's own
	// stack, past queueing discipline and filters, and gives up offloads. Only who asks for
	// that gets it.
	Auto   Way = "auto"
	Packet Way = "packet" // packet sockets
	XDP    Way = "xdp"    // AF_XDP, which takes root
)

// ParseWay returns the way of a name, which is "auto", "packet" or "xdp".
func ParseWay(s string) (Way, error) {
	switch w := Way(s); w {
	case Auto, Packet, XDP:
		return w, nil
	}
	return "", fmt.Errorf("%q is no way to join an interface: want auto, packet or xdp", s)
}

// A Link is an interface as whoever is joined to it sees it, and the one that comes in its
// place, see [packet.Link] and [xdp.Follower].
type Link interface {
	nic.Taker
	Name() string
	Receive(to nic.Sink) error
	Flush(ctx context.Context) error
	Watch(ctx context.Context, changed func(packet.State)) error
	Follow(now rtnl.State) (packet.State, error)
	SetPromiscuous(on bool) error
	State() packet.State
	Down() uint64
	Dropped() uint64
	Stats() []nic.Stat
	Close() error
}

var (
	_ Link = (*packet.Link)(nil)
	_ Link = (*xdp.Follower)(nil)
)

// Open joins the interface of a name in the network namespace of the calling thread. The
// errors are those of [packet.Open] and [xdp.Open].
func Open(ctx context.Context, name string, way Way) (Link, error) {
	switch way {
	case Auto, Packet:
		l, err := packet.Open(name)
		if err != nil {
			return nil, err
		}
		return l, nil
	case XDP:
		f, err := xdp.Follow(ctx, name)
		if err != nil {
			return nil, err
		}
		return f, nil
	}
	return nil, fmt.Errorf("join interface %s: no way %q", name, way)
}
