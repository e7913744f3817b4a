package abi

import (
	"hvnet/ethtool/layout"
	"hvnet/nic"
)

// ops are the commands that hv_netvsc, or the kernel above it, answers.
var ops = map[uint32]op{
	layout.GSET:          {size: oldEnd, reply: true, free: true, run: oldLinkSettings},
	layout.SSET:          {size: oldEnd, run: setOldLinkSettings},
	layout.GDRVINFO:      {size: 196, reply: true, free: true, run: driverInfo},
	layout.GREGS:         {size: 12, reply: true, run: registers},
	layout.GMSGLVL:       {size: 8, reply: true, free: true, run: messageLevel},
	layout.SMSGLVL:       {size: 8, run: setMessageLevel},
	layout.GLINK:         {size: 8, reply: true, free: true, run: link},
	layout.GRINGPARAM:    {size: 36, reply: true, free: true, run: rings},
	layout.SRINGPARAM:    {size: 36, run: setRings},
	layout.GRXCSUM:       {size: 8, reply: true, free: true, run: group(groupRx)},
	layout.SRXCSUM:       {size: 8, run: setGroup(groupRx)},
	layout.GTXCSUM:       {size: 8, reply: true, free: true, run: group(groupTx)},
	layout.STXCSUM:       {size: 8, run: setGroup(groupTx)},
	layout.GSG:           {size: 8, reply: true, free: true, run: group(groupSG)},
	layout.SSG:           {size: 8, run: setGroup(groupSG)},
	layout.GSTRINGS:      {size: 12, reply: true, free: true, run: stringSet},
	layout.GSTATS:        {size: 8, reply: true, free: true, run: stats},
	layout.GTSO:          {size: 8, reply: true, free: true, run: group(groupTSO)},
	layout.STSO:          {size: 8, run: setGroup(groupTSO)},
	layout.GPERMADDR:     {size: 8, reply: true, free: true, run: address},
	layout.GGSO:          {size: 8, reply: true, free: true, run: group(groupGSO)},
	layout.SGSO:          {size: 8, run: setGroup(groupGSO)},
	layout.GFLAGS:        {size: 8, reply: true, free: true, run: getFlags},
	layout.SFLAGS:        {size: 8, run: setFlags},
	layout.GRXFH:         {size: 16, reply: true, free: true, run: flowHash},
	layout.SRXFH:         {size: 16, run: setFlowHash},
	layout.GGRO:          {size: 8, reply: true, free: true, run: group(groupGRO)},
	layout.SGRO:          {size: 8, run: setGroup(groupGRO)},
	layout.GRXRINGS:      {size: 16, reply: true, free: true, run: rxRings},
	layout.FLASHDEV:      {size: 136, run: flash},
	layout.GSSETINFO:     {size: 16, reply: true, free: true, run: stringsInfo},
	layout.GRXFHINDIR:    {size: 8, free: true, run: table},
	layout.SRXFHINDIR:    {size: 8, run: setTable},
	layout.GFEATURES:     {size: 8, reply: true, free: true, run: features},
	layout.SFEATURES:     {size: 8, run: setFeatures},
	layout.GCHANNELS:     {size: 36, reply: true, free: true, run: channels},
	layout.SCHANNELS:     {size: 36, run: setChannels},
	layout.GETTSINFO:     {size: 44, reply: true, free: true, run: timeStamping},
	layout.GRSSH:         {size: layout.RSSEnd, free: true, run: rss},
	layout.SRSSH:         {size: layout.RSSEnd, run: setRSS},
	layout.GLINKSETTINGS: {size: layout.LinkEnd, reply: true, free: true, run: linkSettings},
	layout.SLINKSETTINGS: {size: layout.LinkEnd, run: setLinkSettings},
}

// free are the commands that hv_netvsc has no answer to and that anyone may ask, so that
// the answer is EOPNOTSUPP and not EPERM.
var free = map[uint32]bool{
	layout.GCOALESCE:   true,
	layout.GPAUSEPARAM: true,
	layout.GUFO:        true,
	layout.GPFLAGS:     true,
	layout.GRXCLSRLCNT: true,
	layout.GRXCLSRULE:  true,
	layout.GRXCLSRLALL: true,
	layout.GEEE:        true,
	layout.GTUNABLE:    true,
	layout.PHYGTUNABLE: true,
	layout.GFECPARAM:   true,
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
