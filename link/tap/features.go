package tap

import (
	"bytes"
	"errors"
	"fmt"
	"unsafe"

	"hvnet/nic"
)

// The commands of SIOCETHTOOL for features, and the sizes of what they exchange. A
// kernel has as many features as it says, in blocks of 32.
const (
	cmdGetStrings  = 0x1b // ETHTOOL_GSTRINGS
	cmdGetSetInfo  = 0x37 // ETHTOOL_GSSET_INFO
	cmdGetFeatures = 0x3a // ETHTOOL_GFEATURES
	cmdSetFeatures = 0x3b // ETHTOOL_SFEATURES

	setFeatures       = 4 // ETH_SS_FEATURES
	featureNameLen    = 32
	maxFeatureBlocks  = 8
	featuresOfBlock   = 32
	maxKernelFeatures = maxFeatureBlocks * featuresOfBlock
)

// setInfo, featureStrings, getFeatureBlocks and setFeatureBlocks are struct
// ethtool_sset_info, ethtool_gstrings, ethtool_gfeatures and ethtool_sfeatures.
type (
	setInfo struct {
		cmd, _ uint32
		mask   uint64
		data   [1]uint32
	}
	featureStrings struct {
		cmd, set, n uint32
		names       [maxKernelFeatures][featureNameLen]byte
	}
	getFeatureBlocks struct {
		cmd, blocks uint32
		block       [maxFeatureBlocks]struct{ available, requested, active, neverChanged uint32 }
	}
	setFeatureBlocks struct {
		cmd, blocks uint32
		block       [maxFeatureBlocks]struct{ valid, requested uint32 }
	}
)

// Features returns which features users, or SetFeatures, have asked of the
// interface. Of those some may be of no use for now: the kernel cuts no TCP for an
// interface that computes no checksums.
func (t *TAP) Features() (wanted nic.FeatureSet, err error) {
	k, err := t.kernelFeatures()
	if err == nil {
		get := &getFeatureBlocks{cmd: cmdGetFeatures, blocks: maxFeatureBlocks}
		if err = t.ethtool(unsafe.Pointer(get)); err == nil {
			for f, i := range k.number {
				if i >= 0 && get.block[i/featuresOfBlock].requested>>(i%featuresOfBlock)&1 != 0 {
					wanted |= nic.FeaturesOf(nic.Feature(f))
				}
			}
			return wanted, nil
		}
	}
	return 0, fmt.Errorf("ask for features of %s: %w", t.name, err)
}

// SetFeatures has those of the features that are in change on if they are in on, else
// off, as `ethtool -K` does. Features that the kernel does not have, or does not let
// change, stay as they are.
func (t *TAP) SetFeatures(change, on nic.FeatureSet) error {
	k, err := t.kernelFeatures()
	if err == nil {
		set := &setFeatureBlocks{cmd: cmdSetFeatures, blocks: k.blocks}
		for f, i := range k.number {
			if i < 0 || !change.Has(nic.Feature(f)) {
				continue
			}
			b, bit := &set.block[i/featuresOfBlock], uint32(1)<<(i%featuresOfBlock)
			b.valid |= bit
			if on.Has(nic.Feature(f)) {
				b.requested |= bit
			}
		}
		if err = t.ethtool(unsafe.Pointer(set)); err == nil {
			return nil
		}
	}
	return fmt.Errorf("set features of %s: %w", t.name, err)
}

// kernelNumbers says which numbers the kernel has for features: another release has
// others. A feature that it does not have is -1.
type kernelNumbers struct {
	number [nic.NumFeatures]int
	blocks uint32
}

// kernelFeatures asks the kernel for its numbers, once.
func (t *TAP) kernelFeatures() (*kernelNumbers, error) {
	if t.ctl == nil {
		return nil, nic.ErrNotSupported
	}
	t.featuresMu.Lock()
	defer t.featuresMu.Unlock()
	if t.features != nil {
		return t.features, nil
	}
	info := &setInfo{cmd: cmdGetSetInfo, mask: 1 << setFeatures}
	if err := t.ethtool(unsafe.Pointer(info)); err != nil {
		return nil, err
	}
	n := info.data[0]
	if info.mask == 0 || n == 0 || n > maxKernelFeatures {
		return nil, fmt.Errorf("the kernel has %d features: %w", n, errors.ErrUnsupported)
	}
	names := &featureStrings{cmd: cmdGetStrings, set: setFeatures, n: n}
	if err := t.ethtool(unsafe.Pointer(names)); err != nil {
		return nil, err
	}
	t.features = numberFeatures(names.names[:min(names.n, n)])
	return t.features, nil
}

// numberFeatures finds features in the kernel's list of names.
func numberFeatures(names [][featureNameLen]byte) *kernelNumbers {
	k := &kernelNumbers{blocks: uint32(len(names)+featuresOfBlock-1) / featuresOfBlock}
	for f := range k.number {
		k.number[f] = -1
	}
	for i := range names {
		name, _, _ := bytes.Cut(names[i][:], []byte{0})
		if f, ok := nic.ParseFeature(string(name)); ok && len(name) > 0 {
			k.number[f] = i
		}
	}
	return k
}
