package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"hvnet/host"
	"hvnet/link/packet"
	"hvnet/link/tap"
)

// An uplink is a kernel interface to connect to the switch.
type uplink struct {
	kind string // "tap": to be made; "nic": there is one
	name string
}

// String returns what is given as --uplink.
func (u uplink) String() string { return u.kind + ":" + u.name }

// uplinks returns the kernel interfaces to connect.
func (f *hostFlags) uplinks() (list []uplink, err error) {
	for _, s := range f.Uplink {
		kind, name, _ := strings.Cut(s, ":")
		u := uplink{kind, name}
		switch {
		case kind != "tap" && kind != "nic":
			return nil, usagef("--uplink %s: want tap:IF for an interface to be made, such as tap:hv0, or nic:IF for one that is there", s)
		case !validIface(name):
			return nil, usagef("--uplink %s: %s", s, wantIface)
		case slices.ContainsFunc(list, func(other uplink) bool { return other.name == name }):
			return nil, usagef("--uplink %s: interface %s is given twice", s, name)
		}
		list = append(list, u)
	}
	return list, nil
}

// connect connects it.
func (u uplink) connect(h *host.Host) error {
	var err error
	if u.kind == "tap" {
		err = h.AddTAP(tap.Config{Name: u.name, Offloads: tap.Offloads})
	} else {
		err = h.AddNIC(u.name)
	}
	switch {
	case errors.Is(err, tap.ErrExists):
		return fmt.Errorf("an interface %s exists in this network namespace: choose another name, or nic:%s to connect that one", u.name, u.name)
	case errors.Is(err, packet.ErrPermission):
		return fmt.Errorf("%w; it takes root, or CAP_NET_RAW", err)
	case errors.Is(err, packet.ErrNoInterface):
		return fmt.Errorf("%w; tap:%s makes one", err, u.name)
	}
	return asRoot(err)
}
