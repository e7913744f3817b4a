package sandbox

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ErrNoInterface says that the namespace has no interface of the name.
var ErrNoInterface = errors.New("no such interface")

// An Interface is how an interface is to be. What is zero stays as it is.
type Interface struct {
	Name string
	MTU  int  // bytes without Ethernet header
	Up   bool // bring it up
	Gone bool // remove it; nothing else is done
	// Addrs, if not nil, are the permanent addresses of global scope: others of
	// that kind are removed. An address is in use at once, without duplicate
	// address detection: who configures it knows that it is free.
	Addrs     []netip.Prefix
	Routes    []Route    // added, or put in the place of one to the same destination with the same metric
	Neighbors []Neighbor // added or replaced, permanent
}

// A Route is a way to a destination through the interface.
type Route struct {
	Dst    netip.Prefix
	Via    netip.Addr // gateway; the zero Addr: the destination is on the link
	Metric int        // the lowest wins among routes to one destination; 0: the kernel's default
}

// defaultMetric ranks a default route behind those that the namespace has already:
// the kernel gives 0 to those of IPv4 and 1024 to those of IPv6, and network
// managers stay below it. An interface that comes along never takes the way out
// from the machine that it comes to.
const defaultMetric = 4096

// DefaultRoute returns the route to everywhere else in the gateway's family. It is
// for a namespace without one: where there is another, that stays in use.
func DefaultRoute(gateway netip.Addr) Route {
	return Route{Dst: netip.PrefixFrom(zeroAddr(gateway), 0), Via: gateway, Metric: defaultMetric}
}

func zeroAddr(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// A Neighbor is the Ethernet address of an IP address on the link.
type Neighbor struct {
	IP  netip.Addr
	MAC [6]byte
}

// Configure makes an interface of the calling thread's network namespace be as ifc
// says. Doing it again changes nothing.
func Configure(ifc Interface) error {
	if err := configure(ifc); err != nil {
		return fmt.Errorf("configure %s: %w", ifc.Name, err)
	}
	return nil
}

func configure(ifc Interface) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	l, err := h.LinkByName(ifc.Name)
	if err != nil {
		if errors.As(err, new(netlink.LinkNotFoundError)) {
			return ErrNoInterface
		}
		return err
	}
	if ifc.Gone {
		if err := h.LinkDel(l); err != nil {
			return fmt.Errorf("remove: %w", err)
		}
		return nil
	}
	if ifc.MTU != 0 {
		if err := h.LinkSetMTU(l, ifc.MTU); err != nil {
			return fmt.Errorf("set MTU %d: %w", ifc.MTU, err)
		}
	}
	if ifc.Addrs != nil {
		if err := setAddrs(h, l, ifc.Addrs); err != nil {
			return err
		}
	}
	// Routes need an interface that is up.
	if ifc.Up {
		if err := h.LinkSetUp(l); err != nil {
			return fmt.Errorf("bring up: %w", err)
		}
	}
	for _, r := range ifc.Routes {
		route := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipNet(r.Dst.Masked()), Priority: r.Metric}
		if r.Via.IsValid() {
			route.Gw = r.Via.AsSlice()
		} else {
			route.Scope = netlink.SCOPE_LINK
		}
		if err := h.RouteReplace(route); err != nil {
			return fmt.Errorf("add route to %s: %w", r.Dst, err)
		}
	}
	for _, n := range ifc.Neighbors {
		err := h.NeighSet(&netlink.Neigh{
			LinkIndex: l.Attrs().Index, State: netlink.NUD_PERMANENT,
			IP: n.IP.AsSlice(), HardwareAddr: n.MAC[:],
		})
		if err != nil {
			return fmt.Errorf("add neighbor %s: %w", n.IP, err)
		}
	}
	return nil
}

// setAddrs adds what is missing and removes what is too many.
func setAddrs(h *netlink.Handle, l netlink.Link, want []netip.Prefix) error {
	have, err := h.AddrList(l, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	present := make([]netip.Prefix, len(have))
	for i := range have {
		present[i] = prefix(have[i].IPNet)
	}
	for _, p := range want {
		if slices.Contains(present, p) {
			continue
		}
		a := &netlink.Addr{IPNet: ipNet(p)}
		if p.Addr().Is6() {
			a.Flags = unix.IFA_F_NODAD
		}
		if err := h.AddrAdd(l, a); err != nil {
			return fmt.Errorf("add address %s: %w", p, err)
		}
	}
	for i, p := range present {
		a := &have[i]
		if slices.Contains(want, p) || a.Scope != unix.RT_SCOPE_UNIVERSE || a.Flags&unix.IFA_F_PERMANENT == 0 {
			continue
		}
		if err := h.AddrDel(l, a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("remove address %s: %w", p, err)
		}
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func prefix(n *net.IPNet) netip.Prefix {
	a, _ := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), bits)
}
