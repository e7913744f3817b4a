package abi

import (
	"hvnet/nic"
)

// The features come in two words: the first 32, the others.
const featureWords = nic.NumFeatures / 32

// features is GFEATURES: for each word what can be changed, what is wanted, what is on and
// what can never be changed, for as many words as there is room for.
func features(r *request) (int, error) {
	room := r.u32(4)
	r.set32(4, featureWords)
	f := r.d.Features()
	for i := range min(room, featureWords) {
		for _, s := range []nic.FeatureSet{f.Available, f.Wanted, f.Active, nic.FeaturesNeverChanged} {
			r.append32(uint32(s >> (32 * i)))
		}
	}
	return 0, nil
}

// Bits of what SFEATURES returns.
const (
	someFixed  = 1 // can't be changed, and were left alone
	someDiffer = 2 // from what was asked for
)

// setFeatures is SFEATURES.
func setFeatures(r *request) (int, error) {
	if r.u32(4) != featureWords {
		return 0, nic.ErrInvalid
	}
	if err := r.more(8 * featureWords); err != nil {
		return 0, err
	}
	var c nic.FeatureChange
	for i := range featureWords {
		c.Change |= nic.FeatureSet(r.u32(8+8*i)) << (32 * i)
		c.On |= nic.FeatureSet(r.u32(12+8*i)) << (32 * i)
	}
	if c.Change&nic.FeaturesNeverChanged != 0 {
		return 0, nic.ErrInvalid
	}
	result := 0
	if fixed := c.Change &^ r.d.Features().Available; fixed != 0 {
		result |= someFixed
		c.Change &^= fixed
	}
	if err := r.d.SetFeatures(r.ctx, c); err != nil {
		return 0, err
	}
	if f := r.d.Features(); (f.Wanted^f.Active)&c.Change != 0 {
		result |= someDiffer
	}
	return result, nil
}

// Groups of features that have commands of their own.
var (
	groupRx  = nic.FeaturesOf(nic.FeatureRxChecksum)
	groupTx  = nic.FeaturesOf(nic.FeatureTxIPv4, nic.FeatureTxAny, nic.FeatureTxIPv6, 35, 36) // FCoE and SCTP, too
	groupSG  = nic.FeaturesOf(nic.FeatureSG, 6)                                               // and lists of frames
	groupTSO = nic.FeaturesOf(nic.FeatureTSO, nic.FeatureTSOECN, nic.FeatureTSOMangle, nic.FeatureTSO6)
	groupGSO = nic.FeaturesOf(nic.FeatureGSO)
	groupGRO = nic.FeaturesOf(nic.FeatureGRO)
)

// group returns the command that tells whether any of a group is on.
func group(s nic.FeatureSet) func(*request) (int, error) {
	return func(r *request) (int, error) {
		r.set32(4, 0)
		if r.d.Features().Active&s != 0 {
			r.set32(4, 1)
		}
		return 0, nil
	}
}

// setGroup returns the command that switches those of a group that can be.
func setGroup(s nic.FeatureSet) func(*request) (int, error) {
	return func(r *request) (int, error) {
		c := nic.FeatureChange{Change: s & r.d.Features().Available}
		if c.Change == 0 {
			return 0, nic.ErrNotSupported
		}
		if r.u32(4) != 0 {
			c.On = c.Change
		}
		return 0, r.d.SetFeatures(r.ctx, c)
	}
}

// flags are the features that have a bit in GFLAGS.
var flags = []struct {
	bit     uint32
	feature nic.Feature
}{
	{1 << 7, nic.FeatureTxVLAN}, {1 << 8, nic.FeatureRxVLAN}, {1 << 15, nic.FeatureLRO}, {1 << 27, 38 /* ntuple */}, {1 << 28, nic.FeatureRxHash},
}

func getFlags(r *request) (int, error) {
	active := r.d.Features().Active
	var bits uint32
	for _, f := range flags {
		if active.Has(f.feature) {
			bits |= f.bit
		}
	}
	r.set32(4, bits)
	return 0, nil
}

// setFlags is SFLAGS. Of what can't be changed all has to be as it is.
func setFlags(r *request) (int, error) {
	left := r.u32(4)
	now := r.d.Features()
	var c nic.FeatureChange
	for _, f := range flags {
		on := left&f.bit != 0
		left &^= f.bit
		if on != now.Active.Has(f.feature) {
			c.Change |= nic.FeaturesOf(f.feature)
			if on {
				c.On |= nic.FeaturesOf(f.feature)
			}
		}
	}
	switch {
	case left != 0:
		return 0, nic.ErrInvalid
	case c.Change&^now.Available == 0:
		return 0, r.d.SetFeatures(r.ctx, c)
	case c.Change&now.Available == 0:
		return 0, nic.ErrNotSupported
	}
	return 0, nic.ErrInvalid
}
