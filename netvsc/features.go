package netvsc

import (
	"context"
	"fmt"

	"hvnet/nic"
	"hvnet/nvsp"
	"hvnet/rndis"
)

// features is what a session does of what it can do. It does not change: another one
// takes its place.
type features struct {
	nic.Features
	send     offloads // what the host is asked to do for what is sent
	checksum bool     // what the host has verified is passed on
	hash     bool     // and what it has hashed
	gro      bool     // segments are put together
}

// Features that are there with every host: those of the driver, those of the stack
// above it, and those that nobody can switch.
var (
	featuresAlways = nic.FeaturesOf(nic.FeatureSG, nic.FeatureRxChecksum, nic.FeatureRxHash)
	featuresStack  = nic.FeaturesOf(nic.FeatureGSO, nic.FeatureGRO, nic.FeatureNoCache, nic.FeatureGROList, nic.FeatureUDPGRO)
	featuresFixed  = nic.FeaturesOf(nic.FeatureHighDMA, nic.FeatureTxVLAN, nic.FeatureRxVLAN)
	// featuresOff are off until somebody wants them.
	featuresOff = nic.FeaturesOf(nic.FeatureTSOMangle, nic.FeatureNoCache, nic.FeatureGROList, nic.FeatureUDPGRO)
)

// defaultFeatures are wanted of a NIC as long as nobody has said anything.
var defaultFeatures = ^featuresOff

// availableFeatures returns what can be switched with a host that offers that much.
func availableFeatures(o *offloads, coalesces bool) nic.FeatureSet {
	s := featuresAlways | featuresStack
	for _, x := range [...]struct {
		f  nic.Feature
		on bool
	}{
		{nic.FeatureTxIPv4, o.tcp4},
		{nic.FeatureTxIPv6, o.tcp6},
		{nic.FeatureTSO, o.lso4.max > 0},
		{nic.FeatureTSOMangle, o.lso4.max > 0},
		{nic.FeatureTSO6, o.lso6.max > 0},
		{nic.FeatureLRO, coalesces},
	} {
		if x.on {
			s |= nic.FeaturesOf(x.f)
		}
	}
	return s
}

// featureNeeds says what a feature is no use without, as Linux has it
// (netdev_fix_features), in an order in which one look at each is enough.
var featureNeeds = [...]struct{ feature, needs nic.Feature }{
	{nic.FeatureTSO, nic.FeatureTxIPv4},
	{nic.FeatureTSO6, nic.FeatureTxIPv6},
	{nic.FeatureTSO, nic.FeatureSG},
	{nic.FeatureTSO6, nic.FeatureSG},
	{nic.FeatureTSOMangle, nic.FeatureTSO},
	{nic.FeatureGSO, nic.FeatureSG},
}

// switched returns what the session does when so much is wanted.
func (s *session) switched(wanted nic.FeatureSet) *features {
	f := &features{Features: nic.Features{Available: s.available, Wanted: wanted & s.available}}
	f.Active = f.Wanted | featuresFixed
	for _, x := range featureNeeds {
		if !f.Active.Has(x.needs) {
			f.Active &^= nic.FeaturesOf(x.feature)
		}
	}
	f.send = s.granted.only(f.Active)
	f.checksum, f.hash, f.gro = f.Active.Has(nic.FeatureRxChecksum), f.Active.Has(nic.FeatureRxHash), f.Active.Has(nic.FeatureGRO)
	return f
}

// only returns what is left of what the host offers. UDP checksums have no switch of
// their own, and large sends need the checksum.
func (o offloads) only(on nic.FeatureSet) offloads {
	if !on.Has(nic.FeatureTxIPv4) {
		o.tcp4, o.udp4 = false, false
	}
	if !on.Has(nic.FeatureTxIPv6) {
		o.tcp6, o.udp6 = false, false
	}
	if !on.Has(nic.FeatureTSO) {
		o.lso4 = largeSend{}
	}
	if !on.Has(nic.FeatureTSO6) {
		o.lso6 = largeSend{}
	}
	return o
}

// FeaturesOn returns the features of a NIC that nobody has switched yet, on a host of a
// version that offers so much.
func FeaturesOn(v nvsp.Version, offer *rndis.HardwareOffload) nic.Features {
	s := &session{version: v, want: settings{features: defaultFeatures}}
	s.offer(offer)
	return s.features.Load().Features
}

// Features returns what the NIC and the stack above it do for frames, as far as
// switches for it go: what can be switched follows from what the host offers.
func (n *NIC) Features() nic.Features { return n.session.Load().features.Load().Features }

// SetFeatures switches features on and off. It is what was asked for that stays,
// whatever the device goes through; what is on follows from that, from what the host
// offers, and from what features need of each other: segmentation a checksum, both
// pieces. [NIC.Features] says what has become of it. What cannot be switched is left
// as it is, and a host that does not want to coalesce is no error, as with Linux.
// nic.ErrInvalid is for features that no device can switch.
//
// Frames go on meanwhile. What the host no longer does for them the driver does. The
// host itself is told of nothing but coalescing (large-receive-offload).
func (n *NIC) SetFeatures(ctx context.Context, c nic.FeatureChange) error {
	release, err := n.own(ctx)
	if err != nil {
		return err
	}
	defer release()
	switch {
	case n.suspended.Load():
		return fmt.Errorf("netvsc: set features: %w", errSuspended)
	case c.Change&nic.FeaturesNeverChanged != 0:
		return fmt.Errorf("netvsc: set features: %w: nobody can change some of them", nic.ErrInvalid)
	}
	s := n.session.Load()
	old, change := s.features.Load(), c.Change&s.available
	wanted := n.want.features&^change | c.On&change
	next := s.switched(wanted)
	if lro := next.Active.Has(nic.FeatureLRO); lro != old.Active.Has(nic.FeatureLRO) {
		err := s.coalesce(ctx, lro)
		if err != nil && !refused(err) {
			return fmt.Errorf("netvsc: set features: %w", err)
		}
		if err != nil {
			n.log.Warn("netvsc: the host does not change coalescing", "on", lro, "err", err)
			next.Active ^= nic.FeaturesOf(nic.FeatureLRO)
		}
	}
	n.want.features = wanted
	s.features.Store(next)
	n.tellFeatures()
	return nil
}

// coalesce has the host put received segments together, or not.
func (s *session) coalesce(ctx context.Context, on bool) error {
	p := rndis.OffloadParameters{RSCv4: rndis.OffloadOff, RSCv6: rndis.OffloadOff}
	if on {
		p.RSCv4, p.RSCv6 = rndis.OffloadOn, rndis.OffloadOn
	}
	return s.set(ctx, rndis.OIDOffloadParameters, p.Append(nil, rndis.OffloadParametersSize))
}

// offer takes what the host offers as what there is to switch.
func (s *session) offer(caps *rndis.HardwareOffload) {
	s.granted = newOffloads(caps)
	if s.version < nvsp.V5 { // as hv_netvsc has it: no UDP then
		s.granted.udp4, s.granted.udp6 = false, false
	}
	s.available = availableFeatures(&s.granted, s.version >= nvsp.V61 && caps.RSCv4 != 0 && caps.RSCv6 != 0)
	s.features.Store(s.switched(s.want.features))
}

// OnFeatures has f called with the features now, and whenever they may have changed:
// when they were set, and when the NIC has attached to its device anew. f is for
// whoever has the stack above the NIC, which has to do its part. It must not change
// settings of the NIC. There is one f; nil for none.
func (n *NIC) OnFeatures(ctx context.Context, f func(nic.Features)) error {
	release, err := n.take(ctx)
	if err != nil {
		return err
	}
	defer release()
	n.onFeatures = f
	n.tellFeatures()
	return nil
}

// tellFeatures calls the callback. The caller owns the NIC.
func (n *NIC) tellFeatures() {
	if n.onFeatures != nil {
		n.onFeatures(n.Features())
	}
}
