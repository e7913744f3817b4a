package nic

import "slices"

// A Feature is something that a NIC, or the stack above it, does for frames, as
// `ethtool -k` shows it. The numbers are those of Linux 6.1 (NETIF_F_…_BIT), in whose
// order ethtool prints them.
type Feature uint8

// The features that hv_netvsc has on some host, or Linux for it, and those of a TAP that
// stand for them. Feature.String knows the others too.
const (
	FeatureSG         Feature = 0  // frames in several pieces
	FeatureTxIPv4     Feature = 1  // TCP and UDP checksums over IPv4
	FeatureTxAny      Feature = 3  // checksums of anything, which is how a TAP says it
	FeatureTxIPv6     Feature = 4  // TCP and UDP checksums over IPv6
	FeatureHighDMA    Feature = 5  // memory at any address
	FeatureTxVLAN     Feature = 7  // tags beside the frame, sent
	FeatureRxVLAN     Feature = 8  // and received
	FeatureGSO        Feature = 11 // the stack cuts what the NIC does not
	FeatureGRO        Feature = 14 // received segments are put together in software
	FeatureLRO        Feature = 15 // and by the host (RSC)
	FeatureTSO        Feature = 16 // TCP segmentation over IPv4 (LSO)
	FeatureTSOECN     Feature = 18 // also with CWR set
	FeatureTSOMangle  Feature = 19 // also with IP ids that do not count up
	FeatureTSO6       Feature = 20 // TCP segmentation over IPv6
	FeatureRxHash     Feature = 39 // the flow hash that the host has computed
	FeatureRxChecksum Feature = 40 // checksums that the host has verified
	FeatureNoCache    Feature = 41 // sent data is copied past the cache
	FeatureGROList    Feature = 57 // GRO by lists, of UDP too
	FeatureUDPGRO     Feature = 59 // GRO of UDP that is forwarded
)

// NumFeatures is how many numbers there are.
const NumFeatures = 64

// featureNames are the kernel's. Two numbers have no name.
var featureNames = [NumFeatures]string{
	"tx-scatter-gather", "tx-checksum-ipv4", "", "tx-checksum-ip-generic",
	"tx-checksum-ipv6", "highdma", "tx-scatter-gather-fraglist", "tx-vlan-hw-insert",
	"rx-vlan-hw-parse", "rx-vlan-filter", "vlan-challenged", "tx-generic-segmentation",
	"tx-lockless", "netns-local", "rx-gro", "rx-lro",
	"tx-tcp-segmentation", "tx-gso-robust", "tx-tcp-ecn-segmentation", "tx-tcp-mangleid-segmentation",
	"tx-tcp6-segmentation", "tx-fcoe-segmentation", "tx-gre-segmentation", "tx-gre-csum-segmentation",
	"tx-ipxip4-segmentation", "tx-ipxip6-segmentation", "tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation",
	"tx-gso-partial", "tx-tunnel-remcsum-segmentation", "tx-sctp-segmentation", "tx-esp-segmentation",
	"", "tx-udp-segmentation", "tx-gso-list", "tx-checksum-fcoe-crc",
	"tx-checksum-sctp", "fcoe-mtu", "rx-ntuple-filter", "rx-hashing",
	"rx-checksum", "tx-nocache-copy", "loopback", "rx-fcs",
	"rx-all", "tx-vlan-stag-hw-insert", "rx-vlan-stag-hw-parse", "rx-vlan-stag-filter",
	"l2-fwd-offload", "hw-tc-offload", "esp-hw-offload", "esp-tx-csum-hw-offload",
	"rx-udp_tunnel-port-offload", "tls-hw-tx-offload", "tls-hw-rx-offload", "rx-gro-hw",
	"tls-hw-record", "rx-gro-list", "macsec-hw-offload", "rx-udp-gro-forwarding",
	"hsr-tag-ins-offload", "hsr-tag-rm-offload", "hsr-fwd-offload", "hsr-dup-offload",
}

// String returns the kernel's name, "tx-tcp-segmentation"; two features have none.
func (f Feature) String() string {
	if f < NumFeatures {
		return featureNames[f]
	}
	return ""
}

// ParseFeature returns the feature of a name of the kernel's.
func ParseFeature(name string) (Feature, bool) {
	i := slices.Index(featureNames[:], name)
	return Feature(max(i, 0)), i >= 0
}

// A FeatureSet is a set of features.
type FeatureSet uint64

// FeaturesOf returns a set.
func FeaturesOf(list ...Feature) (s FeatureSet) {
	for _, f := range list {
		s |= 1 << f
	}
	return s
}

// Has reports whether a feature is in the set.
func (s FeatureSet) Has(f Feature) bool { return s>>f&1 != 0 }

// FeaturesNeverChanged are the features that Linux lets nobody change on any device:
// vlan-challenged, tx-lockless and netns-local.
const FeaturesNeverChanged FeatureSet = 1<<10 | 1<<12 | 1<<13

// Features is what `ethtool -k` shows of all features.
type Features struct {
	Available FeatureSet // can be changed
	Wanted    FeatureSet // asked for, of those that can be changed
	Active    FeatureSet // on
}

// A FeatureChange is what `ethtool -K` asks for: the features in Change are to be on
// if they are in On, else off.
type FeatureChange struct{ Change, On FeatureSet }
