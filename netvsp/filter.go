package netvsp

import (
	"hvnet/nic"
	"hvnet/rndis"
)

// A filter says which frames a guest wants: its packet filter, and the address that
// "directed" means.
type filter struct {
	bits uint32
	mac  nic.MAC
}

// frame reports whether the filter passes the frame. A promiscuous guest gets what
// reaches its port, and no more: that is the switch's to decide. Groups are not
// filtered by address, so there are two kinds of group frames only.
func (p *filter) frame(f *nic.Frame) bool {
	if p.bits&rndis.FilterPromiscuous != 0 {
		return true
	}
	if len(f.Head) < nic.MinFrame {
		return false
	}
	switch dst := f.Dst(); {
	case dst == nic.Broadcast:
		return p.bits&rndis.FilterBroadcast != 0
	case dst.Multicast():
		return p.bits&(rndis.FilterMulticast|rndis.FilterAllMulticast) != 0
	default:
		return p.bits&rndis.FilterDirected != 0 && dst == p.mac
	}
}
