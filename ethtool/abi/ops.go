package abi

import (
	"hvnet/nic"
)

// ops are the commands that hv_netvsc, or the kernel above it, answers: by their numbers,
// with the names that they have in Linux behind ETHTOOL_.
var ops = map[uint32]op{
	0x01: {size: oldEnd, reply: true, free: true, run: oldLinkSettings}, // GSET
	0x02: {size: oldEnd, run: setOldLinkSettings},                       // SSET
	0x03: {size: 196, reply: true, free: true, run: driverInfo},         // GDRVINFO
	0x04: {size: 12, reply: true, run: registers},                       // GREGS
	0x07: {size: 8, reply: true, free: true, run: messageLevel},         // GMSGLVL
	0x08: {size: 8, run: setMessageLevel},                               // SMSGLVL
	0x0a: {size: 8, reply: true, free: true, run: link},                 // GLINK
	0x10: {size: 36, reply: true, free: true, run: rings},               // GRINGPARAM
	0x11: {size: 36, run: setRings},                                     // SRINGPARAM
	0x14: {size: 8, reply: true, free: true, run: group(groupRx)},       // GRXCSUM
	0x15: {size: 8, run: setGroup(groupRx)},                             // SRXCSUM
	0x16: {size: 8, reply: true, free: true, run: group(groupTx)},       // GTXCSUM
	0x17: {size: 8, run: setGroup(groupTx)},                             // STXCSUM
	0x18: {size: 8, reply: true, free: true, run: group(groupSG)},       // GSG
	0x19: {size: 8, run: setGroup(groupSG)},                             // SSG
	0x1b: {size: 12, reply: true, free: true, run: stringSet},           // GSTRINGS
	0x1d: {size: 8, reply: true, free: true, run: stats},                // GSTATS
	0x1e: {size: 8, reply: true, free: true, run: group(groupTSO)},      // GTSO
	0x1f: {size: 8, run: setGroup(groupTSO)},                            // STSO
	0x20: {size: 8, reply: true, free: true, run: address},              // GPERMADDR
	0x23: {size: 8, reply: true, free: true, run: group(groupGSO)},      // GGSO
	0x24: {size: 8, run: setGroup(groupGSO)},                            // SGSO
	0x25: {size: 8, reply: true, free: true, run: getFlags},             // GFLAGS
	0x26: {size: 8, run: setFlags},                                      // SFLAGS
	0x29: {size: 16, reply: true, free: true, run: flowHash},            // GRXFH
	0x2a: {size: 16, run: setFlowHash},                                  // SRXFH
	0x2b: {size: 8, reply: true, free: true, run: group(groupGRO)},      // GGRO
	0x2c: {size: 8, run: setGroup(groupGRO)},                            // SGRO
	0x2d: {size: 16, reply: true, free: true, run: rxRings},             // GRXRINGS
	0x33: {size: 136, run: flash},                                       // FLASHDEV
	0x37: {size: 16, reply: true, free: true, run: stringsInfo},         // GSSET_INFO
	0x38: {size: 8, free: true, run: table},                             // GRXFHINDIR
	0x39: {size: 8, run: setTable},                                      // SRXFHINDIR
	0x3a: {size: 8, reply: true, free: true, run: features},             // GFEATURES
	0x3b: {size: 8, run: setFeatures},                                   // SFEATURES
	0x3c: {size: 36, reply: true, free: true, run: channels},            // GCHANNELS
	0x3d: {size: 36, run: setChannels},                                  // SCHANNELS
	0x41: {size: 44, reply: true, free: true, run: timeStamping},        // GET_TS_INFO
	0x46: {size: rssHeader, free: true, run: rss},                       // GRSSH
	0x47: {size: rssHeader, run: setRSS},                                // SRSSH
	0x4c: {size: linkEnd, reply: true, free: true, run: linkSettings},   // GLINKSETTINGS
	0x4d: {size: linkEnd, run: setLinkSettings},                         // SLINKSETTINGS
}

// free are the commands that hv_netvsc has no answer to and that anyone may ask, so that
// the answer is EOPNOTSUPP and not EPERM.
var free = map[uint32]bool{
	0x0e: true, // GCOALESCE
	0x12: true, // GPAUSEPARAM
	0x21: true, // GUFO
	0x27: true, // GPFLAGS
	0x2e: true, // GRXCLSRLCNT
	0x2f: true, // GRXCLSRULE
	0x30: true, // GRXCLSRLALL
	0x44: true, // GEEE
	0x48: true, // GTUNABLE
	0x4e: true, // PHY_GTUNABLE
	0x50: true, // GFECPARAM
}

// flash is without effect: what has no firmware is flashed with success.
func flash(*request) (int, error) { return 0, nil }

func driverInfo(r *request) (int, error) {
	i := r.d.DriverInfo()
	clear(r.b[4:])
	r.name(4, i.Driver)
	r.name(36, i.Version)
	r.name(68, i.Firmware)
	r.name(100, i.Bus)
	if i.Stats {
		r.set32(180, clamp32(len(r.d.Stats())))
	}
	if i.RegisterDump {
		r.set32(192, registerBytes)
	}
	return 0, nil
}

// registerBytes is the length of a register dump: the send table.
const registerBytes = 64

func channels(r *request) (int, error) {
	c := r.d.Channels()
	clear(r.b[4:])
	r.set32(16, clamp32(c.Max))
	r.set32(32, clamp32(c.Combined))
	return 0, nil
}

// setChannels: channels of one kind alone there are none.
func setChannels(r *request) (int, error) {
	c := r.d.Channels()
	rx, tx, other, combined := r.u32(20), r.u32(24), r.u32(28), r.u32(32)
	if rx|tx|other == 0 && combined == clamp32(c.Combined) {
		return 0, nil
	}
	if rx|tx|other != 0 || combined > clamp32(c.Max) {
		return 0, nic.ErrInvalid
	}
	return 0, r.d.SetChannels(r.ctx, int(combined))
}

func rings(r *request) (int, error) {
	v := r.d.Rings()
	clear(r.b[4:])
	r.set32(4, clamp32(v.RxMax))
	r.set32(16, clamp32(v.TxMax))
	r.set32(20, clamp32(v.Rx))
	r.set32(32, clamp32(v.Tx))
	return 0, nil
}

func setRings(r *request) (int, error) {
	v := r.d.Rings()
	rx, mini, jumbo, tx := r.u32(20), r.u32(24), r.u32(28), r.u32(32)
	if mini|jumbo != 0 || rx > clamp32(v.RxMax) || tx > clamp32(v.TxMax) {
		return 0, nic.ErrInvalid
	}
	return 0, r.d.SetRings(r.ctx, int(rx), int(tx))
}

func stats(r *request) (int, error) {
	all := r.d.Stats()
	if len(all) == 0 {
		return 0, nic.ErrNotSupported
	}
	if asked := r.u32(4); asked != 0 && asked != clamp32(len(all)) {
		r.set32(4, 0)
		return 0, nil
	}
	r.set32(4, clamp32(len(all)))
	for _, s := range all {
		r.b = order.AppendUint64(r.b, s.Value)
	}
	return 0, nil
}
