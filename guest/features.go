package guest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"hvnet/nic"
)

// A mirror has a kernel interface show what a NIC does for its frames, and the NIC do
// what users switch at the interface with `ethtool -K`.
type mirror struct {
	nic interface { // a netvsc.NIC
		Features() nic.Features
		SetFeatures(context.Context, nic.FeatureChange) error
	}
	iface interface { // a tap.TAP
		Features() (wanted nic.FeatureSet, err error)
		SetFeatures(change, on nic.FeatureSet) error
	}

	mu    sync.Mutex
	asked nic.FeatureSet // of the interface, at the last look at it
}

// What the interface has of the NIC's features. For it a checksum is one of anything,
// and CWR is nothing special, as the driver looks at each frame anew. What the NIC does
// with received frames the interface does not know.
var (
	sameFeatures = nic.FeaturesOf(nic.FeatureSG, nic.FeatureTSO, nic.FeatureTSO6, nic.FeatureTSOMangle, nic.FeatureGSO,
		nic.FeatureGRO, nic.FeatureNoCache, nic.FeatureGROList, nic.FeatureUDPGRO)
	checksums   = nic.FeaturesOf(nic.FeatureTxIPv4, nic.FeatureTxIPv6)
	tapChecksum = nic.FeaturesOf(nic.FeatureTxAny)
	tapECN      = nic.FeaturesOf(nic.FeatureTSOECN)
)

// atInterface returns what an interface is to have for a NIC that does so much.
func atInterface(active nic.FeatureSet) nic.FeatureSet {
	on := active & sameFeatures
	if active&checksums != 0 {
		on |= tapChecksum
	}
	if active&nic.FeaturesOf(nic.FeatureTSO, nic.FeatureTSO6) != 0 {
		on |= tapECN
	}
	return on
}

// atNIC returns what to ask of the NIC when users have made a change at the interface.
func atNIC(change, on nic.FeatureSet) nic.FeatureChange {
	c := nic.FeatureChange{Change: change & sameFeatures, On: on & change & sameFeatures}
	if change&tapChecksum != 0 {
		c.Change |= checksums
		if on&tapChecksum != 0 {
			c.On |= checksums
		}
	}
	return c
}

// show has the interface show what the NIC does now.
func (m *mirror) show(f nic.Features) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	err := m.iface.SetFeatures(sameFeatures|tapChecksum|tapECN, atInterface(f.Active))
	if err == nil {
		m.asked, err = m.iface.Features()
	}
	return err
}

// take has the NIC do what users have switched at the interface since the last look
// at it, and returns what it does not do.
func (m *mirror) take(ctx context.Context) error {
	m.mu.Lock()
	on, err := m.iface.Features()
	change := on ^ m.asked
	if err == nil {
		m.asked = on
	}
	m.mu.Unlock()
	c := atNIC(change, on)
	if err != nil || c.Change == 0 {
		return err
	}
	if err := m.nic.SetFeatures(ctx, c); err != nil {
		return fmt.Errorf("features refused, they are as before: %w", errors.Join(err, m.show(m.nic.Features())))
	}
	// What there is no switch for, the NIC has had the interface show as it was.
	var refused []string
	for f := range nic.Feature(nic.NumFeatures) {
		if (c.Change & sameFeatures &^ m.nic.Features().Available).Has(f) {
			refused = append(refused, f.String())
		}
	}
	if len(refused) > 0 {
		return fmt.Errorf("%s refused, as before: %w", strings.Join(refused, " "), nic.ErrNotSupported)
	}
	return nil
}
