package abi

import (
	"math/bits"

	"hvnet/ethtool"
	"hvnet/ethtool/layout"
	"hvnet/nic"
)

// fixedSets are the sets that are the same for every device.
var fixedSets = map[uint32][]string{
	layout.SetHashFuncs:  {"toeplitz", "xor", "crc32"},
	layout.SetTunables:   {"Unspec", "rx-copybreak", "tx-copybreak", "pfc-prevention-tout", "tx-copybreak-buf-size"},
	layout.SetPHYTunable: {"Unspec", "phy-downshift", "phy-fast-link-down", "phy-energy-detect-power-down"},
}

// namesOf returns the strings of a set, or false if the device has no such set.
func namesOf(d ethtool.Device, set uint32) ([]string, bool) {
	if set == layout.SetStats {
		var names []string
		for _, s := range d.Stats() {
			names = append(names, s.Name)
		}
		return names, names != nil
	}
	if set == layout.SetFeatures {
		var names []string
		for f := range nic.Feature(nic.NumFeatures) {
			names = append(names, f.String())
		}
		return names, true
	}
	names, ok := fixedSets[set]
	return names, ok
}

// stringSet is GSTRINGS. A program that has room for another number of strings gets
// none, and asks again.
func stringSet(r *request) (int, error) {
	names, ok := namesOf(r.d, r.u32(4))
	if !ok {
		return 0, nic.ErrInvalid
	}
	if asked := r.u32(8); asked != 0 && asked != clamp32(len(names)) {
		r.set32(8, 0)
		return 0, nil
	}
	r.set32(8, clamp32(len(names)))
	for _, n := range names {
		r.appendName(n)
	}
	return 0, nil
}

// stringsInfo is GSSET_INFO: how many strings each set of a mask has. Sets that there
// are not leave the mask.
func stringsInfo(r *request) (int, error) {
	mask := r.u64(8)
	if mask == 0 {
		return 0, nil
	}
	r.set32(4, 0)
	var known uint64
	for rest := mask; rest != 0; rest &= rest - 1 {
		set := bits.TrailingZeros64(rest)
		if names, ok := namesOf(r.d, uint32(set)); ok {
			known |= 1 << set
			r.append32(clamp32(len(names)))
		}
	}
	r.set64(8, known)
	return 0, nil
}
