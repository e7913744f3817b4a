package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"hvnet/host"
	linkiface "hvnet/link/iface"
	"hvnet/link/packet"
	"hvnet/link/tap"
	"hvnet/link/xdp"
)

// An uplink is a kernel interface to connect to the switch.
type uplink struct {
	given string
	kind  string // "tap": to be made; "nic": there is one
	name  string
	way   linkiface.Way // by which one that is there is joined
}

// uplinks returns the kernel interfaces to connect.
func (f *hostFlags) uplinks() (list []uplink, err error) {
	for _, s := range f.Uplink {
		u, err := parseUplink(s)
		if err != nil {
			return nil, usagef("--uplink %s: %w", s, err)
		}
		if slices.ContainsFunc(list, func(other uplink) bool { return other.name == u.name }) {
			return nil, usagef("--uplink %s: interface %s is given twice", s, u.name)
		}
		list = append(list, u)
	}
	return list, nil
}

// parseUplink takes apart what is given as --uplink.
func parseUplink(s string) (u uplink, err error) {
	kind, rest, _ := strings.Cut(s, ":")
	name, how, more := strings.Cut(rest, ",")
	u = uplink{given: s, kind: kind, name: name, way: linkiface.Auto}
	switch {
	case kind != "tap" && kind != "nic":
		return u, errors.New("want tap:IF for an interface to be made, such as tap:hv0, or nic:IF for one that is there")
	case !validIface(name):
		return u, errors.New(wantIface)
	case !more:
		return u, nil
	case kind == "tap":
		return u, errors.New("want nothing behind the name of an interface that is to be made")
	}
	way, is := strings.CutPrefix(how, "io=")
	if !is {
		return u, fmt.Errorf("want io=xdp or io=packet behind the name, not %s", how)
	}
	u.way, err = linkiface.ParseWay(way)
	return u, err
}

// connect connects it.
func (u uplink) connect(ctx context.Context, h *host.Host) error {
	var err error
	if u.kind == "tap" {
		err = h.AddTAP(tap.Config{Name: u.name, Offloads: tap.Offloads})
	} else {
		err = h.AddNIC(ctx, u.name, u.way)
	}
	switch {
	case errors.Is(err, tap.ErrExists):
		return fmt.Errorf("an interface %s exists in this network namespace: choose another name, or nic:%s to connect that one", u.name, u.name)
	case errors.Is(err, packet.ErrPermission) && u.way == linkiface.XDP, errors.Is(err, xdp.ErrMTU), errors.Is(err, xdp.ErrBusy):
		return fmt.Errorf("%w; nic:%s joins it by packet sockets", err, u.name)
	case errors.Is(err, packet.ErrPermission):
		return fmt.Errorf("%w; it takes root, or CAP_NET_RAW", err)
	case errors.Is(err, packet.ErrNoInterface):
		return fmt.Errorf("%w; tap:%s makes one", err, u.name)
	}
	return asRoot(err)
}
