package ethtool

// A linkMode is one of the ways in which a link can run.
type linkMode struct {
	bit  int // of the masks
	name string
}

// linkModes are those that ethtool 6.1 knows, in its order.
var linkModes = []linkMode{
	{0, "10baseT/Half"}, {1, "10baseT/Full"}, {2, "100baseT/Half"}, {3, "100baseT/Full"}, {4, "1000baseT/Half"},
	{5, "1000baseT/Full"}, {12, "10000baseT/Full"}, {15, "2500baseX/Full"}, {17, "1000baseKX/Full"},
	{18, "10000baseKX4/Full"}, {19, "10000baseKR/Full"}, {20, "10000baseR_FEC"}, {21, "20000baseMLD2/Full"},
	{22, "20000baseKR2/Full"}, {23, "40000baseKR4/Full"}, {24, "40000baseCR4/Full"}, {25, "40000baseSR4/Full"},
	{26, "40000baseLR4/Full"}, {27, "56000baseKR4/Full"}, {28, "56000baseCR4/Full"}, {29, "56000baseSR4/Full"},
	{30, "56000baseLR4/Full"}, {31, "25000baseCR/Full"}, {32, "25000baseKR/Full"}, {33, "25000baseSR/Full"},
	{34, "50000baseCR2/Full"}, {35, "50000baseKR2/Full"}, {36, "100000baseKR4/Full"}, {37, "100000baseSR4/Full"},
	{38, "100000baseCR4/Full"}, {39, "100000baseLR4_ER4/Full"}, {40, "50000baseSR2/Full"}, {41, "1000baseX/Full"},
	{42, "10000baseCR/Full"}, {43, "10000baseSR/Full"}, {44, "10000baseLR/Full"}, {45, "10000baseLRM/Full"},
	{46, "10000baseER/Full"}, {47, "2500baseT/Full"}, {48, "5000baseT/Full"}, {52, "50000baseKR/Full"},
	{53, "50000baseSR/Full"}, {54, "50000baseCR/Full"}, {55, "50000baseLR_ER_FR/Full"}, {56, "50000baseDR/Full"},
	{57, "100000baseKR2/Full"}, {58, "100000baseSR2/Full"}, {59, "100000baseCR2/Full"},
	{60, "100000baseLR2_ER2_FR2/Full"}, {61, "100000baseDR2/Full"}, {62, "200000baseKR4/Full"},
	{63, "200000baseSR4/Full"}, {64, "200000baseLR4_ER4_FR4/Full"}, {65, "200000baseDR4/Full"},
	{66, "200000baseCR4/Full"}, {67, "100baseT1/Full"}, {68, "1000baseT1/Full"}, {69, "400000baseKR8/Full"},
	{70, "400000baseSR8/Full"}, {71, "400000baseLR8_ER8_FR8/Full"}, {72, "400000baseDR8/Full"},
	{73, "400000baseCR8/Full"}, {75, "100000baseKR/Full"}, {76, "100000baseSR/Full"}, {77, "100000baseLR_ER_FR/Full"},
	{79, "100000baseDR/Full"}, {78, "100000baseCR/Full"}, {80, "200000baseKR2/Full"}, {81, "200000baseSR2/Full"},
	{82, "200000baseLR2_ER2_FR2/Full"}, {83, "200000baseDR2/Full"}, {84, "200000baseCR2/Full"},
	{85, "400000baseKR4/Full"}, {86, "400000baseSR4/Full"}, {87, "400000baseLR4_ER4_FR4/Full"},
	{88, "400000baseDR4/Full"}, {89, "400000baseCR4/Full"}, {90, "100baseFX/Half"}, {91, "100baseFX/Full"},
	{92, "10baseT1L/Full"},
}

// Bits of the same masks that say something else.
const (
	modeAutoneg  = 6
	modePause    = 13
	modeAsym     = 14
	modesByIoctl = 93 // as many as ethtool 6.1 knows
)

// modePorts and modeFECs are further such bits, in the order in which they are shown.
var (
	modePorts = []linkMode{{7, "TP"}, {8, "AUI"}, {11, "BNC"}, {9, "MII"}, {10, "FIBRE"}, {16, "Backplane"}}
	modeFECs  = []linkMode{{49, "None"}, {51, "BaseR"}, {50, "RS"}, {74, "LLRS"}}
)

// besides reports whether a mode is shown on the line of the one that was shown last: full
// duplex on that of half duplex.
func (m linkMode) besides(last int) bool {
	switch m.bit {
	case 1, 3, 5, 91:
		return last == m.bit-1
	}
	return false
}

// modeOf returns the bit of the mode to advertise for a speed and a duplex that somebody
// wants, false if ethtool knows none.
func modeOf(mbps int64, full bool) (bit int, ok bool) {
	modes := map[int64][2]int{10: {0, 1}, 100: {2, 3}, 1000: {4, 5}, 2500: {-1, 15}, 10000: {-1, 12}}
	m, ok := modes[mbps]
	if full {
		return m[1], ok
	}
	return m[0], ok && m[0] >= 0
}

// A modeMask is one of the masks.
type modeMask []byte

func (m modeMask) has(bit int) bool { return word(m, bit/32*4)>>(bit%32)&1 != 0 }

func (m modeMask) set(bit int, on bool) {
	at := bit / 32 * 4
	v := word(m, at) &^ (1 << (bit % 32))
	if on {
		v |= 1 << (bit % 32)
	}
	order.PutUint32(m[at:], v)
}
