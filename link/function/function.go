// Package function is a virtual function made of a veth pair, as a host gives one to a
// guest whose network is in a namespace of the same kernel: one end, with the address of
// the guest's NIC and a serial number, is in the guest's namespace; the other, in a
// nameless namespace of its own, is the host's, joined by packet sockets.
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

// What making a function fails with. Test with errors.Is.
var (
	// ErrPermission says that the caller lacks CAP_SYS_ADMIN or CAP_NET_ADMIN, in its own
	// user namespace or that of the guest's network namespace.
	ErrPermission = errors.New("permission denied")
	// ErrExists says that the guest has an interface of the name.
	ErrExists = errors.New("the interface exists already")
)

// A Config says how a function looks in the guest.
type Config struct {
	Name   string  // of the guest's interface; empty: "vf" and the serial number
	MAC    nic.MAC // the permanent address of the guest's NIC
	MTU    int     // in bytes without Ethernet header; 0: 1500
	Serial uint32  // by which the host associates it
}

// marked is the alias of a function's interface before the serial number: a device of PCI
// tells it by the name of its slot, a veth by this.
const marked = "hvnet vf serial "

// Alias returns what `ip link` shows as the alias of a function's interface in the guest,
// by which the guest knows the serial number.
func Alias(serial uint32) string { return marked + strconv.FormatUint(uint64(serial), 10) }

// ParseAlias returns the serial number that an alias tells, ok false if it tells none.
func ParseAlias(alias string) (serial uint32, ok bool) {
	s, found := strings.CutPrefix(alias, marked)
	n, err := strconv.ParseUint(s, 10, 32)
	if !found || err != nil || Alias(uint32(n)) != alias {
		return 0, false
	}
	return uint32(n), true
}

func (c *Config) name() string {
	if c.Name != "" {
		return c.Name
	}
	return fmt.Sprintf("vf%d", c.Serial)
}
