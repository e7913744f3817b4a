package abi

import (
	"hvnet/nic"
)

// The commands, by Linux's names (ETHTOOL_…).
const (
	cmdDriverInfo  = 0x03
	cmdRings       = 0x10
	cmdSetRings    = 0x11
	cmdStrings     = 0x1b
	cmdStats       = 0x1d
	cmdFlowHash    = 0x29
	cmdSetFlowHash = 0x2a
	cmdRxRings     = 0x2d
	cmdStringsInfo = 0x37
	cmdTable       = 0x38
	cmdSetTable    = 0x39
	cmdChannels    = 0x3c
	cmdSetChannels = 0x3d
	cmdRSS         = 0x46
	cmdSetRSS      = 0x47
)

// ops are the commands that hv_netvsc, or the kernel above it, answers.
var ops = map[uint32]op{
	cmdDriverInfo:  {size: 196, reply: true, free: true, run: driverInfo},
	cmdRings:       {size: 36, reply: true, free: true, run: rings},
	cmdSetRings:    {size: 36, run: setRings},
	cmdStrings:     {size: 12, reply: true, free: true, run: stringSet},
	cmdStats:       {size: 8, reply: true, free: true, run: stats},
	cmdFlowHash:    {size: 16, reply: true, free: true, run: flowHash},
	cmdSetFlowHash: {size: 16, run: setFlowHash},
	cmdRxRings:     {size: 16, reply: true, free: true, run: rxRings},
	cmdStringsInfo: {size: 16, reply: true, free: true, run: stringsInfo},
	cmdTable:       {size: 8, free: true, run: table},
	cmdSetTable:    {size: 8, run: setTable},
	cmdChannels:    {size: 36, reply: true, free: true, run: channels},
	cmdSetChannels: {size: 36, run: setChannels},
	cmdRSS:         {size: rssHeader, free: true, run: rss},
	cmdSetRSS:      {size: rssHeader, run: setRSS},
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
