package ethtool

import (
	"slices"

	"hvnet/nic"
)

// A FeatureDef says what a line of -k is about.
type FeatureDef struct {
	Name     string        // as -k prints it
	Others   []string      // the other names that -K takes for it
	Features []nic.Feature // what it stands for: several if it is a group
	Meaning  string
}

// FeatureDefs returns all of them, in the order of -k.
func FeatureDefs() (defs []FeatureDef) {
	for i, a := range aliases {
		features := ownFeatures.aliased[i]
		switch d := (FeatureDef{Name: a.long, Others: []string{a.short}, Features: features}); len(features) {
		case 0:
		case 1:
			d.Others = append(d.Others, features[0].String())
			d.Meaning = featureMeanings[features[0]]
			defs = append(defs, d)
		default:
			d.Meaning = groupMeanings[a.short]
			defs = append(defs, d)
			for _, f := range features {
				defs = append(defs, featureDef(f))
			}
		}
	}
	for _, f := range ownFeatures.rest() {
		defs = append(defs, featureDef(f))
	}
	return defs
}

func featureDef(f nic.Feature) FeatureDef {
	return FeatureDef{Name: f.String(), Features: []nic.Feature{f}, Meaning: featureMeanings[f]}
}

// Called reports whether it is what a name is for.
func (d *FeatureDef) Called(name string) bool {
	return d.Name == name || slices.Contains(d.Others, name)
}

var groupMeanings = map[string]string{
	"tx":  "Checksums of what is sent are left to the host.",
	"sg":  "Frames are sent from several pieces of memory.",
	"tso": "TCP is sent in long frames, which the host cuts into segments, or leaves whole for who takes them so.",
}

// featureMeanings says what each does here, or what it would do.
var featureMeanings = [nic.NumFeatures]string{
	0:  "Frames are sent from several pieces of memory. Without it there is no segmentation, by the host or by the stack.",
	1:  "TCP and UDP checksums over IPv4 are left to the host; UDP where it has it (ws2012r2 and later). What it does not do the driver does.",
	3:  "Any checksum at all is left to the device. Hosts know TCP and UDP; the kernel shows its side of an interface of hvnet so.",
	4:  "TCP and UDP checksums over IPv6 are left to the host; UDP where it has it (ws2012r2 and later). What it does not do the driver does.",
	5:  "Memory at any address can be sent from.",
	6:  "Frames are sent from chains of buffers.",
	7:  "VLAN tags travel beside the frame when it is sent.",
	8:  "VLAN tags travel beside the frame when it is received.",
	9:  "The device passes on only VLANs that were asked for.",
	10: "The device cannot take VLANs at all. Nobody can change it on any device.",
	11: "The stack puts off cutting what the device does not cut until the last moment. Needs tx-scatter-gather.",
	12: "The driver has a lock of its own for sending. Nobody can change it on any device.",
	13: "The interface cannot be moved to another network namespace. Nobody can change it on any device.",
	14: "Received segments of a flow that follow each other become one frame, in software, before they go to the stack.",
	15: "The host puts received TCP segments of a flow together (RSC) and sends them as one packet. The one feature that the host is told of when it is switched.",
	16: "The host cuts TCP over IPv4 into segments (LSO). Needs tx-checksum-ipv4 and tx-scatter-gather.",
	17: "The device takes frames to be cut that it has to look at first.",
	18: "The device cuts TCP segments with CWR set. Frames that have it are cut by the driver or the stack.",
	19: "Segments of TCP over IPv4 may have IP ids that do not count up. Needs tx-tcp-segmentation.",
	20: "The host cuts TCP over IPv6 into segments (LSO). Needs tx-checksum-ipv6 and tx-scatter-gather.",
	21: "The device cuts Fibre Channel over Ethernet.",
	22: "The device cuts TCP inside GRE.",
	23: "The device cuts TCP inside GRE with checksum.",
	24: "The device cuts TCP inside IPv4.",
	25: "The device cuts TCP inside IPv6.",
	26: "The device cuts TCP inside UDP tunnels such as VXLAN.",
	27: "The device cuts TCP inside UDP tunnels with checksum.",
	28: "The device cuts what is the same in all segments, and the stack does the rest.",
	29: "The device cuts tunnels with remote checksum.",
	30: "The device cuts SCTP.",
	31: "The device cuts what is in IPsec ESP.",
	33: "The device cuts UDP into datagrams (USO).",
	34: "The device cuts lists of frames.",
	35: "The device computes the checksum of Fibre Channel over Ethernet.",
	36: "The device computes the checksum of SCTP.",
	37: "The interface takes the longer frames of Fibre Channel over Ethernet.",
	38: "The device sorts what is received by rules (ethtool -N flow-type).",
	39: "The flow hash that the host has computed of a received frame is used.",
	40: "What the host has found out about checksums of received frames is passed on. Without it the stack looks itself.",
	41: "What programs send is copied past the processor's cache.",
	42: "The device gives back what is sent.",
	43: "Frames are received with their checksum of Ethernet.",
	44: "Damaged frames are received too.",
	45: "Tags of 802.1ad travel beside the frame when it is sent.",
	46: "Tags of 802.1ad travel beside the frame when it is received.",
	47: "The device passes on only 802.1ad VLANs that were asked for.",
	48: "The device forwards for interfaces stacked on it (macvlan).",
	49: "The device runs rules of tc.",
	50: "The device does IPsec ESP.",
	51: "The device computes checksums inside IPsec ESP.",
	52: "The device is told which UDP ports are tunnels.",
	53: "The device encrypts TLS.",
	54: "The device decrypts TLS.",
	55: "The device does what generic-receive-offload does.",
	56: "The device speaks TLS, handshake included.",
	57: "generic-receive-offload keeps frames in lists instead of joining them, UDP too.",
	58: "The device does MACsec.",
	59: "generic-receive-offload joins UDP that is forwarded.",
	60: "The device puts in tags of HSR and PRP.",
	61: "The device takes out tags of HSR and PRP.",
	62: "The device forwards in an HSR ring.",
	63: "The device sends twice, as HSR and PRP have it.",
}
