package ethtool

import "strings"

// struct ethtool_eee: masks of the first 32 modes, then words.
const (
	eeeSupported  = 4
	eeeAdvertised = 8
	eeePeer       = 12
	eeeActive     = 16
	eeeEnabled    = 20
	eeeLPI        = 24
	eeeTimer      = 28
	eeeLen        = 40
)

// printEEE prints the settings of Energy-Efficient Ethernet.
func (c *call) printEEE(b []byte) int {
	c.printf("EEE Settings for %s:\n\tEEE status: ", c.name)
	switch {
	case word(b, eeeSupported) == 0:
		c.printf("not supported\n")
		return 0
	case word(b, eeeEnabled) == 0:
		c.printf("disabled\n")
	case word(b, eeeActive) != 0:
		c.printf("enabled - active\n")
	default:
		c.printf("enabled - inactive\n")
	}
	if word(b, eeeLPI) != 0 {
		c.printf("\tTx LPI: %d (us)\n", word(b, eeeTimer))
	} else {
		c.printf("\tTx LPI: disabled\n")
	}
	for _, m := range []struct {
		who string
		at  int
	}{{"Supported", eeeSupported}, {"Advertised", eeeAdvertised}, {"Link partner advertised", eeePeer}} {
		mask := make(modeMask, 4*((modesByIoctl+31)/32))
		copy(mask, b[m.at:m.at+4])
		c.printModes(m.who+" EEE link modes:  ", mask)
	}
	return 0
}

// struct ethtool_fecparam: which forward error correction is used, and which may be.
const (
	fecActive     = 4
	fecConfigured = 8
	fecLen        = 16
)

// fecModes are the names of the bits, in the order in which they are shown.
var fecModes = []struct {
	bit  uint32
	name string
}{{1, "None"}, {2, "Auto"}, {4, "Off"}, {16, "BaseR"}, {8, "RS"}, {32, "LLRS"}}

// fecBit returns the bit of a name that --set-fec takes, 0 if it is none.
func fecBit(name string) uint32 {
	for _, m := range fecModes[1:] { // none is no encoding to set
		if strings.ToLower(m.name) == name {
			return m.bit
		}
	}
	return 0
}

// printFECModes is --show-fec.
func (c *call) printFECModes(b []byte) int {
	c.printf("FEC parameters for %s:\n", c.name)
	for _, l := range []struct {
		title string
		bits  uint32
	}{{"Supported/Configured FEC encodings:", word(b, fecConfigured)}, {"Active FEC encoding:", word(b, fecActive)}} {
		c.printf("%s", l.title)
		for _, m := range fecModes {
			if l.bits&m.bit != 0 {
				c.printf(" %s", m.name)
			}
		}
		c.printf("\n")
	}
	return 0
}
