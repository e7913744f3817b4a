package netvsc

import (
	"context"
	"errors"
	"fmt"

	"hvnet/netvsc/vf"
	"hvnet/nic"
	"hvnet/nvsp"
	"hvnet/rndis"
)

// SetMTU changes the longest packet, in bytes without Ethernet header. It is refused
// as Linux refuses it: nic.ErrInvalid below MinMTU, above MaxMTU, and above 1500 if the
// host's protocol is older than NVSP 2, which cannot be told an MTU. The host may
// allow less than asked for; [NIC.MTU] says what it is then. If the change fails,
// the MTU is as before.
func (n *NIC) SetMTU(ctx context.Context, mtu int) error {
	release, err := n.own(ctx)
	if err != nil {
		return err
	}
	defer release()
	s, most := n.session.Load(), MaxMTU
	if s.version < nvsp.V2 {
		most = defaultMTU
	}
	switch {
	case mtu == s.mtu && n.attached:
		return nil
	case mtu < MinMTU || mtu > most:
		return fmt.Errorf("netvsc: set MTU %d: %w, want %d to %d", mtu, nic.ErrInvalid, MinMTU, most)
	}
	back, err := n.vf.change(func(v VF) error { return v.SetMTU(mtu) }, func(v VF) error { return v.SetMTU(s.mtu) })
	if err != nil {
		return fmt.Errorf("netvsc: set MTU %d: %w", mtu, err)
	}
	want := n.want
	want.mtu = mtu
	if err := n.reconfigure(ctx, want); err != nil {
		return fmt.Errorf("netvsc: set MTU %d: %w", mtu, errors.Join(err, back()))
	}
	// What the host has lowered stays so, whatever changes next.
	n.want.mtu = n.MTU()
	return nil
}

// SetRings changes the sizes of the receive and the send buffer, in sections. It is
// refused as Linux refuses it: nic.ErrInvalid above the maximum that [NIC.Rings]
// tells; less than MinSections counts as that. Buffers are whole pages, so there
// may be a few more sections than asked for. If the change fails, the buffers are
// as before.
func (n *NIC) SetRings(ctx context.Context, rx, tx int) error {
	release, err := n.own(ctx)
	if err != nil {
		return err
	}
	defer release()
	s, r := n.session.Load(), n.Rings()
	if rx < 0 || rx > r.RxMax || tx < 0 || tx > r.TxMax {
		return fmt.Errorf("netvsc: set rings of %d and %d sections: %w, want at most %d and %d", rx, tx, nic.ErrInvalid, r.RxMax, r.TxMax)
	}
	rx, tx = max(rx, MinSections), max(tx, MinSections)
	if rx == r.Rx && tx == r.Tx && n.attached {
		return nil
	}
	want := n.want
	if rx != r.Rx {
		want.rxBytes = rx * s.rxSectionSize
	}
	if tx != r.Tx {
		want.txBytes = tx * s.txSectionSize
	}
	if err := n.reconfigure(ctx, want); err != nil {
		return fmt.Errorf("netvsc: set rings of %d and %d sections: %w", rx, tx, err)
	}
	return nil
}

// SetMAC changes the address that the host knows the NIC by: it passes on frames to
// this one, and takes frames from it. Frames go on meanwhile. nic.ErrInvalid is for
// what is no address of one station; nic.ErrIO says that the host refused, as it does
// unless the port may send from any address, and then the address is as before.
func (n *NIC) SetMAC(ctx context.Context, mac nic.MAC) error {
	release, err := n.own(ctx)
	if err != nil {
		return err
	}
	defer release()
	if mac.IsZero() || mac.Multicast() {
		return fmt.Errorf("netvsc: set address %v: %w, want that of one station", mac, nic.ErrInvalid)
	}
	s := n.session.Load()
	if n.attached {
		old := *s.address.Load()
		if mac == old {
			return nil
		}
		back, err := n.vf.change(func(v VF) error { return v.SetMAC(mac) }, func(v VF) error { return v.SetMAC(old) })
		if err != nil {
			return fmt.Errorf("netvsc: set address %v: %w", mac, err)
		}
		if err := s.setAddress(ctx, mac); err != nil {
			return fmt.Errorf("netvsc: set address %v: %w", mac, errors.Join(err, back()))
		}
	}
	n.want.mac = mac
	// A VF that has come meanwhile may have got the old one.
	n.vf.post(vf.Event{Kind: vf.Settings}, nil)
	return nil
}

// setAddress has the host take another address for the NIC's.
func (s *session) setAddress(ctx context.Context, mac nic.MAC) error {
	err := s.set(ctx, rndis.OIDConfigParameter, rndis.NewNetworkAddress(mac).Append(nil))
	switch {
	case err == nil:
		s.address.Store(&mac)
		return nil
	case refused(err):
		return fmt.Errorf("%w: refused by the host: %w", nic.ErrIO, err)
	}
	return err
}

// restoreAddress has the host take the address that was set on an attachment before
// this one. A host that does not allow it any more is no reason to be without
// a NIC.
func (s *session) restoreAddress(ctx context.Context) error {
	mac := s.want.mac
	if mac.IsZero() || mac == s.mac {
		return nil
	}
	err := s.setAddress(ctx, mac)
	if err != nil && refused(err) {
		s.n.log.Warn("netvsc: the address is the permanent one again", "wanted", mac, "err", err)
		return nil
	}
	return err
}

// SetPromiscuous says whether the host passes on all frames that reach the NIC's
// port, or only those for its address and for groups. What reaches the port is
// the switch's to say: frames for other stations don't, unless the port may send
// from any address. On failure everything is as before.
func (n *NIC) SetPromiscuous(ctx context.Context, on bool) error {
	release, err := n.own(ctx)
	if err != nil {
		return err
	}
	defer release()
	if on == n.promisc {
		return nil
	}
	n.promisc = on
	if n.up && n.attached {
		if err := n.session.Load().filter(ctx, n.passes()); err != nil {
			n.promisc = !on
			return fmt.Errorf("netvsc: set promiscuous %v: %w", on, err)
		}
	}
	n.vf.promisc.Store(on)
	n.vf.post(vf.Event{Kind: vf.Settings}, nil)
	return nil
}
