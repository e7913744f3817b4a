package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"hvnet/control"
	"hvnet/guest"
	"hvnet/link/function"
	linkiface "hvnet/link/iface"
	"hvnet/link/netstack"
	"hvnet/link/tap"
	"hvnet/sandbox"
)

// A place is a network namespace in which interfaces are made.
type place interface {
	OpenTAP(ctx context.Context, cfg tap.Config) (*tap.TAP, error)
	OpenFunctions(ctx context.Context, way linkiface.Way) (*function.Guest, error)
	Configure(ctx context.Context, ifc sandbox.Interface) error
	NetNSInode() uint64
}

// here is the namespace of this process.
type here struct{ inode uint64 }

func (here) OpenTAP(_ context.Context, cfg tap.Config) (*tap.TAP, error) { return tap.Open(cfg) }
func (here) OpenFunctions(_ context.Context, way linkiface.Way) (*function.Guest, error) {
	files, err := function.OpenGuestFiles()
	if err != nil {
		return nil, err
	}
	return function.NewGuest(files, way)
}
func (here) Configure(_ context.Context, ifc sandbox.Interface) error { return sandbox.Configure(ifc) }
func (h here) NetNSInode() uint64                                     { return h.inode }

// An iface is a guest's NIC as a kernel interface, with its control socket.
type iface struct {
	name  string
	guest *guest.Guest
	place place
	tap   *tap.TAP
	leave func(context.Context) error
	ctl   *control.Server
	addrs atomic.Pointer[[]netip.Prefix] // those that the interface has

	stopLease func() // nil without DHCP
	stopVFs   func() // nil if virtual functions are left alone
}

// newInterface makes the kernel interface of a guest's NIC and serves its settings.
// No traffic flows yet.
func newInterface(ctx context.Context, g *guest.Guest, name string, at place) (_ *iface, err error) {
	e := &iface{name: name, guest: g, place: at}
	defer func() {
		if err != nil {
			closeIn(&err, e.close)
		}
	}()
	e.tap, err = at.OpenTAP(ctx, tap.Config{
		Name: name, Queues: g.NIC.Channels().Max, MAC: g.NIC.MAC(), MTU: g.NIC.MTU(), Offloads: tap.Offloads, Largest: g.NIC.LargeSend(),
	})
	switch {
	case errors.Is(err, tap.ErrExists):
		return nil, fmt.Errorf("interface %s exists in this network namespace: remove it, or choose another name with --iface", name)
	case errors.Is(err, tap.ErrPermission), errors.Is(err, tap.ErrNoTun):
		return nil, fmt.Errorf("%w; 'hvnet demo' does without kernel interfaces", asRoot(err))
	case err != nil:
		return nil, err
	}
	if e.ctl, err = control.ServeDevice(at.NetNSInode(), name, g.NIC); err != nil {
		return e, err
	}
	e.ctl.Stream(methodCapture, captureGuest(g, name))
	return e, nil
}

// leaseTime bounds how long an address by DHCP may take.
const leaseTime = 15 * time.Second

// asRoot adds to the error of an interface that the user may not make who may.
func asRoot(err error) error {
	if errors.Is(err, tap.ErrPermission) {
		return fmt.Errorf("%w; it takes root, or access to %s", err, tap.Device)
	}
	return err
}

// configure lets traffic flow and gives the interface its addresses and routes. If
// that takes long it says to progress what it waits for.
func (e *iface) configure(ctx context.Context, addrs []netip.Prefix, gateways []netip.Addr, dhcp bool, progress io.Writer) (err error) {
	if !dhcp {
		if e.leave, err = e.guest.Join(ctx, e.tap, nil); err != nil {
			return err
		}
		return e.address(ctx, addrs, gateways)
	}
	client := netstack.NewLeaseClient(e.guest.NIC.MAC, guest.Sender{Guest: e.guest})
	if e.leave, err = e.guest.Join(ctx, e.tap, client); err != nil {
		return err
	}
	obtain, cancel := context.WithTimeoutCause(ctx, leaseTime, errNoLease)
	defer cancel()
	patience := time.AfterFunc(time.Second, func() {
		fmt.Fprintf(progress, "waiting for an address by DHCP\n")
	})
	lease, err := client.Obtain(obtain)
	patience.Stop()
	switch {
	case context.Cause(obtain) == errNoLease:
		return fmt.Errorf("%s: %w", e.name, errNoLease)
	case err != nil:
		return fmt.Errorf("%s: get an address by DHCP: %w", e.name, err)
	}
	use := func(ctx context.Context, l netstack.Lease) error {
		gws := gateways
		if l.Router.IsValid() {
			gws = append(slices.Clone(gws), l.Router)
		}
		return e.address(ctx, append(slices.Clone(addrs), l.Addr), gws)
	}
	if err := use(ctx, lease); err != nil {
		return err
	}
	renewing, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	e.stopLease = func() {
		stop()
		<-done
	}
	go func() {
		defer close(done)
		renew(renewing, client, lease, use)
	}()
	return nil
}

// errNoLease says that no DHCP server gave an address in leaseTime.
var errNoLease = fmt.Errorf("no DHCP server answered within %v: does the host have a gateway? an address is given as --addr 198.18.0.2/24", leaseTime)

// renew asks for the lease again at half of its time, as RFC 2131 section 4.4.5
// has it, until ctx ends.
func renew(ctx context.Context, c *netstack.LeaseClient, l netstack.Lease, use func(context.Context, netstack.Lease) error) {
	for {
		wait := time.NewTimer(max(l.Time/2, time.Minute))
		select {
		case <-ctx.Done():
			wait.Stop()
			return
		case <-wait.C:
		}
		if next, err := c.Obtain(ctx); err == nil && use(ctx, next) == nil {
			l = next
		}
	}
}

// joinVFs has the NIC use the virtual functions that appear beside the interface, until the
// interface is closed.
func (e *iface) joinVFs(f *function.Guest, refused func(error)) {
	f.Refused = refused
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	e.stopVFs = func() {
		stop()
		<-done
	}
	go func() {
		defer close(done)
		if err := e.guest.JoinVFs(ctx, f); err != nil && ctx.Err() == nil {
			refused(err)
		}
	}()
}

// address brings the interface up with addresses, and default routes by those
// gateways that they reach.
func (e *iface) address(ctx context.Context, addrs []netip.Prefix, gateways []netip.Addr) error {
	ifc := sandbox.Interface{Name: e.name, Up: true, Addrs: addrs}
	for _, gw := range gateways {
		if slices.ContainsFunc(addrs, func(a netip.Prefix) bool { return a.Contains(gw) }) {
			ifc.Routes = append(ifc.Routes, sandbox.DefaultRoute(gw))
		}
	}
	e.addrs.Store(&addrs)
	return e.place.Configure(ctx, ifc)
}

// addresses returns the addresses that the interface was given.
func (e *iface) addresses() []netip.Prefix {
	if a := e.addrs.Load(); a != nil {
		return *a
	}
	return nil
}

// state says how the NIC is: lost is why it has no device, or nil.
func (e *iface) state(lost error) string {
	switch {
	case errors.Is(lost, guest.ErrTakenAway):
		return fmt.Sprintf("down: %v, waiting for it", lost)
	case lost != nil:
		return fmt.Sprintf("down: %v, retrying", lost)
	}
	info := e.guest.NIC.Info()
	var with strings.Builder
	for _, a := range e.addresses() {
		fmt.Fprintf(&with, ", %s", a)
	}
	return fmt.Sprintf("up: %s, NVSP %s over VMBus %s, %d channels%s", info.MAC, info.NVSP, info.VMBus, info.Channels, with.String())
}

// environment tells a command about the interface.
func (e *iface) environment() []string {
	env := []string{"HVNET_IFACE=" + e.name}
	for _, a := range e.addresses() {
		if a.Addr().Is4() {
			env = append(env, "HVNET_ADDR="+a.Addr().String())
			break
		}
	}
	return append(env, control.Environment()...)
}

// close removes the interface.
func (e *iface) close(ctx context.Context) error {
	var errs []error
	if e.stopLease != nil {
		e.stopLease()
	}
	if e.stopVFs != nil {
		e.stopVFs()
	}
	if e.ctl != nil {
		errs = append(errs, e.ctl.Close())
	}
	if e.leave != nil {
		errs = append(errs, e.leave(ctx))
	}
	if e.tap != nil {
		errs = append(errs, e.tap.Close())
	}
	return errors.Join(errs...)
}
