// Package function is a virtual function made of a veth pair, as a host gives one to a
// guest whose network is in a namespace of the same kernel: one end, with the address of
// the guest's NIC and a serial number, is in the guest's namespace, joined by packet sockets
// or by AF_XDP; the other, in a nameless namespace of its own, is the host's, joined by packet
// sockets.
//
// [Make] makes the pair. [Host] is the host's end of it, a host.VF. [Guest] is a guest's
// watch for such functions, and for those of hardware: it takes one over when it appears in
// the guest's namespace, keeps the guest's own IP stack away from it, and tells of it until
// it is gone; a [Device] is one that is there, a netvsc.VF.
//
// What needs rights in a namespace is opened there: by whoever has them, a helper process
// for instance, which passes the files on. Nothing else is kept there: a function goes when
// its host's files are closed, also because their process has died.
package function

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"hvnet/nic"
)

// What making a function fails with, and taking it over. Test with errors.Is.
var (
	// ErrPermission says that the caller lacks CAP_SYS_ADMIN or CAP_NET_ADMIN, in its own
	// user namespace or that of the guest's network namespace.
	ErrPermission = errors.New("permission denied")
	// ErrExists says that the guest has an interface of the name.
	ErrExists = errors.New("the interface exists already")
	// ErrNotWire says that a guest who joins functions by AF_XDP has got one without
	// Config.Wire: what its host leaves to be completed could not be seen.
	ErrNotWire = errors.New("its host leaves checksums and segments to be completed, which AF_XDP can't")
)

// A Config says how a function looks in the guest.
type Config struct {
	Name   string  // of the guest's interface; empty: "vf" and the serial number
	MAC    nic.MAC // the permanent address of the guest's NIC
	MTU    int     // in bytes without Ethernet header; 0: 1500
	Serial uint32  // by which the host associates it
	// Wire says that frames come to the guest as on a wire, checksums complete and nothing to
	// be cut: a guest that joins its end by AF_XDP takes no others.
	Wire bool
}

// marked is the alias of a function's interface before the serial number: a device of PCI
// tells it by the name of its slot, a veth by this. onWire is behind it for Config.Wire.
const (
	marked = "hvnet vf serial "
	onWire = ", as on a wire"
)

// Alias returns what `ip link` shows as the alias of a function's interface in the guest,
// by which the guest knows the serial number, and whether frames come as on a wire.
func Alias(serial uint32, wire bool) string {
	s := marked + strconv.FormatUint(uint64(serial), 10)
	if wire {
		s += onWire
	}
	return s
}

// ParseAlias returns what an alias tells, ok false if it is none of a function's.
func ParseAlias(alias string) (serial uint32, wire, ok bool) {
	s, found := strings.CutPrefix(alias, marked)
	s, wire = strings.CutSuffix(s, onWire)
	n, err := strconv.ParseUint(s, 10, 32)
	if !found || err != nil || Alias(uint32(n), wire) != alias {
		return 0, false, false
	}
	return uint32(n), wire, true
}

func (c *Config) name() string {
	if c.Name != "" {
		return c.Name
	}
	return fmt.Sprintf("vf%d", c.Serial)
}
