package abi

import (
	"hvnet/ethtool/layout"
	"hvnet/nic"
)

// What is behind the fixed part of struct ethtool_link_settings, and in its port.
const (
	linkModeWords   = 3 // for the 93 modes of Linux 6.1
	portOther       = 0xff
	minusModeWords  = 0x100 - linkModeWords
	advertisedModes = layout.LinkEnd + 4*linkModeWords
	peerModes       = advertisedModes + 4*linkModeWords
)

// linkSettings is GLINKSETTINGS. Who names another number of words is told the right one,
// as a negative one, and asks again.
func linkSettings(r *request) (int, error) {
	words := r.b[layout.LinkWords]
	clear(r.b[4:])
	if words != linkModeWords {
		r.b[layout.LinkWords] = minusModeWords
		return 0, nil
	}
	l := r.d.LinkSettings()
	r.set32(layout.LinkSpeed, l.Mbps)
	r.b[layout.LinkDuplex], r.b[layout.LinkPort], r.b[layout.LinkWords] = byte(l.Duplex), portOther, linkModeWords
	r.b = append(r.b, make([]byte, 3*4*linkModeWords)...)
	return 0, nil
}

// setLinkSettings is SLINKSETTINGS. All but speed and duplex has to be as a virtual device
// has it; what is advertised does not matter.
func setLinkSettings(r *request) (int, error) {
	if r.b[layout.LinkWords] != linkModeWords {
		return 0, nic.ErrInvalid
	}
	if err := r.more(3 * 4 * linkModeWords); err != nil {
		return 0, err
	}
	if r.b[layout.LinkPort] != portOther || !r.zero(layout.LinkPort+1, layout.LinkWords) || !r.zero(layout.LinkWords+1, advertisedModes) || !r.zero(peerModes, len(r.b)) {
		return 0, nic.ErrInvalid
	}
	return 0, r.d.SetLinkSettings(r.ctx, r.u32(layout.LinkSpeed), nic.Duplex(r.b[layout.LinkDuplex]))
}

// Offsets in struct ethtool_cmd, the older form of the same. The upper half of the speed
// is apart.
const (
	oldSupported  = 4
	oldAdvertised = 8
	oldSpeed      = 12
	oldDuplex     = 14
	oldPort       = 15
	oldAutoneg    = 18
	oldMaxTx      = 20
	oldSpeedHigh  = 28
	oldEnd        = 44
)

func oldLinkSettings(r *request) (int, error) {
	l := r.d.LinkSettings()
	clear(r.b[4:])
	order.PutUint16(r.b[oldSpeed:], uint16(l.Mbps))
	order.PutUint16(r.b[oldSpeedHigh:], uint16(l.Mbps>>16))
	r.b[oldDuplex], r.b[oldPort] = byte(l.Duplex), portOther
	return 0, nil
}

// setOldLinkSettings is SSET: transceiver and what is advertised do not matter.
func setOldLinkSettings(r *request) (int, error) {
	if !r.zero(oldSupported, oldAdvertised) || r.b[oldPort] != portOther || r.b[oldPort+1] != 0 ||
		!r.zero(oldAutoneg, oldSpeedHigh) || !r.zero(oldSpeedHigh+2, oldEnd) {
		return 0, nic.ErrInvalid
	}
	mbps := uint32(order.Uint16(r.b[oldSpeedHigh:]))<<16 | uint32(order.Uint16(r.b[oldSpeed:]))
	return 0, r.d.SetLinkSettings(r.ctx, mbps, nic.Duplex(r.b[oldDuplex]))
}

func link(r *request) (int, error) {
	r.set32(4, 0)
	if r.d.LinkSettings().Detected {
		r.set32(4, 1)
	}
	return 0, nil
}

func messageLevel(r *request) (int, error) {
	r.set32(4, r.d.MessageLevel())
	return 0, nil
}

func setMessageLevel(r *request) (int, error) { return 0, r.d.SetMessageLevel(r.ctx, r.u32(4)) }

// address is GPERMADDR.
func address(r *request) (int, error) {
	mac := r.d.PermanentMAC()
	if r.u32(4) < uint32(len(mac)) {
		return 0, errTooSmall
	}
	r.set32(4, uint32(len(mac)))
	r.b = append(r.b, mac[:]...)
	return 0, nil
}

// registers is GREGS: as many of them as there is room for.
func registers(r *request) (int, error) {
	n := min(int(r.u32(8)), registerBytes)
	r.set32(4, 1) // the version
	r.set32(8, uint32(n))
	for _, v := range r.d.Registers() {
		r.append32(v)
	}
	r.b = r.b[:12+n]
	return 0, nil
}

// timeStamping is GET_TS_INFO: the stack stamps in software, and there is no clock.
func timeStamping(r *request) (int, error) {
	const inSoftware = 1<<1 | 1<<3 | 1<<4
	clear(r.b[4:])
	r.set32(4, inSoftware)
	r.set32(8, 1<<32-1)
	return 0, nil
}
