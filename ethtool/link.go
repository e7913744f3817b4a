package ethtool

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"hvnet/ethtool/layout"
	"hvnet/nic"
)

// A linkState is a struct ethtool_link_settings with its masks.
type linkState struct {
	b                           []byte
	supported, advertised, peer modeMask
}

func newLinkState(b []byte) linkState {
	n := 4 * int(b[layout.LinkWords])
	at := func(i int) modeMask {
		m := make(modeMask, max(n, 4*((modesByIoctl+31)/32))) // older kernels have fewer modes
		copy(m, b[layout.LinkEnd+i*n:][:n])
		return m
	}
	return linkState{b, at(0), at(1), at(2)}
}

// link returns the settings of the link. Those of a NIC of Hyper-V are speed and duplex.
func (c *call) link(d Device) (linkState, error) {
	a, ok := d.(Asker)
	if !ok {
		const words, other = 3, 0xff
		l := d.LinkSettings()
		b := make([]byte, layout.LinkEnd+3*4*words)
		order.PutUint32(b[layout.LinkSpeed:], l.Mbps)
		b[layout.LinkDuplex], b[layout.LinkPort], b[layout.LinkWords] = byte(l.Duplex), other, words
		return newLinkState(b), nil
	}
	b, err := ReadLinkSettings(a)
	if err != nil {
		return linkState{}, err
	}
	return newLinkState(b), nil
}

// Values of the port of a link, and of its crossing.
var linkPorts = map[byte]string{
	0: "Twisted Pair", 1: "AUI", 2: "MII", 3: "FIBRE", 4: "BNC", 5: "Direct Attach Copper", 0xef: "None", 0xff: "Other",
}

const (
	portTP       = 0
	mdixStraight = 1
	mdixCrossed  = 2
	mdixAuto     = 3
)

// printLink prints the settings of a link.
func (c *call) printLink(l linkState) {
	c.printf("\tSupported ports: [ ")
	for _, p := range modePorts {
		if l.supported.has(p.bit) {
			c.printf("%s ", p.name)
		}
	}
	c.printf("]\n")
	c.printModes("Supported link modes:   ", l.supported)
	c.printf("\tSupported pause frame use: %s\n", pauseUse(l.supported))
	c.printf("\tSupports auto-negotiation: %s\n", titleYesNo(l.supported.has(modeAutoneg)))
	c.printFEC("Supported", l.supported)
	c.printAdvertised("Advertised", l.advertised)
	if slices.ContainsFunc(l.peer, func(b byte) bool { return b != 0 }) {
		c.printAdvertised("Link partner advertised", l.peer)
	}

	c.printf("\tSpeed: %s\n\tDuplex: %s\n", speedText(word(l.b, layout.LinkSpeed)), duplexText(nic.Duplex(l.b[layout.LinkDuplex])))
	c.printf("\tPort: %s\n\tPHYAD: %d\n", portText(l.b[layout.LinkPort]), l.b[layout.LinkPHY])
	c.printf("\tTransceiver: %s\n", transceiverText(l.b[layout.LinkTransceiver]))
	c.printf("\tAuto-negotiation: %s\n", onOff(l.b[layout.LinkAutoneg] != 0))
	if l.b[layout.LinkPort] == portTP {
		c.printf("\tMDI-X: %s\n", mdixText(l.b[layout.LinkMDIX], l.b[layout.LinkMDIXControl]))
	}
}

func portText(port byte) string {
	if text, ok := linkPorts[port]; ok {
		return text
	}
	return fmt.Sprintf("Unknown! (%d)", port)
}

func transceiverText(t byte) string {
	if known := [...]string{"internal", "external"}; int(t) < len(known) {
		return known[t]
	}
	return "Unknown!"
}

func titleYesNo(yes bool) string {
	if yes {
		return "Yes"
	}
	return "No"
}

// mdixText says whether the wires cross, and who wants it so.
func mdixText(now, control byte) (text string) {
	switch control {
	case mdixStraight:
		return "off (forced)"
	case mdixCrossed:
		return "on (forced)"
	}
	switch now {
	case mdixStraight:
		text = "off"
	case mdixCrossed:
		text = "on"
	default:
		text = "Unknown"
	}
	if control == mdixAuto {
		text += " (auto)"
	}
	return text
}

func (c *call) printAdvertised(who string, m modeMask) {
	c.printModes(who+" link modes:  ", m)
	c.printf("\t%s pause frame use: %s\n", who, pauseUse(m))
	c.printf("\t%s auto-negotiation: %s\n", who, titleYesNo(m.has(modeAutoneg)))
	c.printFEC(who, m)
}

// printModes prints modes, those of one speed in one line, one under the other.
func (c *call) printModes(title string, m modeMask) {
	c.printf("\t%s", title)
	last := -1
	for _, mode := range linkModes {
		if !m.has(mode.bit) {
			continue
		}
		if last >= 0 && !mode.besides(last) {
			c.printf("\n\t%s", strings.Repeat(" ", len(title)))
		}
		c.printf("%s ", mode.name)
		last = mode.bit
	}
	if last < 0 {
		c.printf("Not reported")
	}
	c.printf("\n")
}

func pauseUse(m modeMask) string {
	switch pause, asym := m.has(modePause), m.has(modeAsym); {
	case pause && asym:
		return "Symmetric Receive-only"
	case pause:
		return "Symmetric"
	case asym:
		return "Transmit-only"
	}
	return "No"
}

func (c *call) printFEC(who string, m modeMask) {
	c.printf("\t%s FEC modes:", who)
	some := false
	for _, f := range modeFECs {
		if m.has(f.bit) {
			c.printf(" %s", f.name)
			some = true
		}
	}
	if !some {
		c.printf(" Not reported")
	}
	c.printf("\n")
}

// errNoNetlink is what ethtool got when it tried netlink first.
var errNoNetlink = errors.New("Protocol not supported") //lint:ignore ST1005 it is the C library's text

// changeLink changes what -s asks for of the link. A virtual device takes, of all but speed
// and duplex, only what it has already.
func (c *call) changeLink(d Device, err error, w *settingsWish) {
	var l linkState
	if err == nil {
		l, err = c.link(d)
	}
	what := "get current device"
	if err == nil {
		what = "set new"
		if w.mdix >= 0 && l.b[layout.LinkMDIXControl] == 0 {
			c.fail(0, "setting MDI not supported")
		}
		a, isKernel := d.(Asker)
		switch {
		case w.transceiver == 1: // ethtool itself refuses it, with the error of its last system call
			err = errNoNetlink
		case isKernel:
			c.wishLink(l, w)
			_, err = a.Ask(l.request())
		case w.port >= 0 || w.autoneg > 0 || w.phy > 0 || w.transceiver > 0:
			err = nic.ErrInvalid
		default:
			now := d.LinkSettings()
			if w.speed >= 0 {
				now.Mbps = uint32(w.speed)
			}
			if w.duplex >= 0 {
				now.Duplex = nic.Duplex(w.duplex)
			}
			err = d.SetLinkSettings(c.ctx, now.Mbps, now.Duplex)
		}
	}
	if err == nil {
		return
	}
	c.fail(0, "Cannot %s settings: %s", what, errText(err))
	for _, f := range []struct {
		value int64
		name  string
	}{
		{w.speed, "speed"}, {w.duplex, "duplex"}, {w.port, "port"}, {w.autoneg, "autoneg"},
		{w.phy, "phy_address"}, {w.transceiver, "transceiver"}, {w.mdix, "mdix"},
	} {
		if f.value != -1 {
			c.fail(0, "  not setting %s", f.name)
		}
	}
}

// wishLink changes the structure as it is wished.
func (c *call) wishLink(l linkState, w *settingsWish) {
	for _, f := range []struct {
		value int64
		at    int
	}{
		{w.duplex, layout.LinkDuplex}, {w.port, layout.LinkPort}, {w.autoneg, layout.LinkAutoneg},
		{w.phy, layout.LinkPHY}, {w.transceiver, layout.LinkTransceiver},
	} {
		if f.value >= 0 {
			l.b[f.at] = byte(f.value)
		}
	}
	if w.speed >= 0 {
		order.PutUint32(l.b[layout.LinkSpeed:], uint32(w.speed))
	}
	if w.mdix >= 0 && l.b[layout.LinkMDIXControl] != 0 {
		l.b[layout.LinkMDIXControl] = byte(w.mdix)
	}
	switch {
	case w.advertise != nil:
		clear(l.advertised)
		copy(l.advertised, w.advertise)
	case l.b[layout.LinkAutoneg] == 1 && (w.speed >= 0 || w.duplex >= 0):
		if bit, ok := modeOf(w.speed, w.duplex == 1); ok && w.duplex >= 0 {
			l.advertise(func(mode int) bool { return mode == bit })
			return
		}
		c.fail(0, "Cannot advertise%s", w.speedAndDuplex())
		fallthrough
	case w.autoneg == 1:
		l.advertise(l.supported.has)
	}
}

// speedAndDuplex are those wished, each behind a blank.
func (w *settingsWish) speedAndDuplex() (text string) {
	if w.speed >= 0 {
		text = fmt.Sprintf(" speed %d", w.speed)
	}
	if w.duplex >= 0 {
		text += " duplex " + [...]string{"half", "full"}[w.duplex]
	}
	return text
}

// advertise makes those modes advertised that are told.
func (l *linkState) advertise(told func(bit int) bool) {
	for _, m := range linkModes {
		l.advertised.set(m.bit, told(m.bit))
	}
}

// request is that for the kernel to set it all.
func (l *linkState) request() []byte {
	n := 4 * int(l.b[layout.LinkWords])
	order.PutUint32(l.b, layout.SLINKSETTINGS)
	copy(l.b[layout.LinkEnd+n:][:n], l.advertised)
	return l.b
}
