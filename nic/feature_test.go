package nic

import "testing"

// TestFeatureNames: each name is that of one feature, and of its number in Linux 6.1.
func TestFeatureNames(t *testing.T) {
	named := 0
	for f := range Feature(NumFeatures) {
		if f.String() == "" {
			continue
		}
		named++
		if got, ok := ParseFeature(f.String()); !ok || got != f {
			t.Errorf("%v is %d, want %d", f, got, f)
		}
	}
	if named != 62 {
		t.Errorf("%d features have names", named)
	}
	for f, want := range map[Feature]string{
		FeatureSG: "tx-scatter-gather", FeatureTxAny: "tx-checksum-ip-generic", FeatureGSO: "tx-generic-segmentation",
		FeatureLRO: "rx-lro", FeatureTSO6: "tx-tcp6-segmentation", FeatureRxHash: "rx-hashing", FeatureRxChecksum: "rx-checksum",
		FeatureUDPGRO: "rx-udp-gro-forwarding", 63: "hsr-dup-offload", 64: "",
	} {
		if f.String() != want {
			t.Errorf("%d is %v, want %s", f, f, want)
		}
	}
	if _, ok := ParseFeature("lro"); ok {
		t.Error("lro is a name of the kernel's")
	}
	if s := FeaturesOf(FeatureSG, 63); s != 1<<63|1 || !s.Has(63) || s.Has(1) {
		t.Errorf("set %#x", s)
	}
}
