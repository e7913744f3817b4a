package abi

import (
	"context"
	"math"

	"hvnet/ethtool"
	"hvnet/ethtool/layout"
	"hvnet/nic"
)

// A Client is a device that is asked by requests: the other side of Serve. Each of its
// getters asks anew; what is refused is zero.
type Client struct {
	// Request makes the system call: see [ethtool.Asker].
	Request func(b []byte) (n int, err error)
}

var _ ethtool.Asker = (*Client)(nil)

// Ask implements ethtool.Asker.
func (c *Client) Ask(b []byte) (int, error) { return c.Request(b) }

// words asks with a structure of so many bytes, whose first words behind the command are
// these, and returns it as it is then, or zeros.
func (c *Client) words(size int, command uint32, words ...uint32) []byte {
	b := structure(size, command, words...)
	if _, err := c.Request(b); err != nil {
		clear(b)
	}
	return b
}

func structure(size int, command uint32, words ...uint32) []byte {
	b := make([]byte, size)
	order.PutUint32(b, command)
	for i, w := range words {
		order.PutUint32(b[4+4*i:], w)
	}
	return b
}

func word(b []byte, at int) int { return int(order.Uint32(b[at:])) }

// DriverInfo implements ethtool.Device.
func (c *Client) DriverInfo() nic.DriverInfo {
	b := c.words(196, layout.GDRVINFO)
	text := func(at int) string { return layout.Text(b[at:][:layout.NameLen]) }
	return nic.DriverInfo{
		Driver: text(4), Version: text(36), Firmware: text(68), Bus: text(100),
		Stats: word(b, 180) > 0, RegisterDump: word(b, 192) > 0,
		ExpansionROM: text(132), Test: word(b, 184) > 0, EEPROM: word(b, 188) > 0, PrivateFlags: word(b, 176) > 0,
	}
}

// Channels implements ethtool.Device: those that are combined.
func (c *Client) Channels() nic.Channels {
	b := c.words(36, layout.GCHANNELS)
	return nic.Channels{Max: word(b, 16), Combined: word(b, 32)}
}

// SetChannels implements ethtool.Device.
func (c *Client) SetChannels(_ context.Context, n int) error {
	return c.change(36, layout.GCHANNELS, layout.SCHANNELS, func(b []byte) { order.PutUint32(b[32:], clamp32(n)) })
}

// change asks, has the structure changed, and sets.
func (c *Client) change(size int, get, set uint32, change func(b []byte)) error {
	b := structure(size, get)
	if _, err := c.Request(b); err != nil {
		return err
	}
	change(b)
	order.PutUint32(b, set)
	_, err := c.Request(b)
	return err
}

// Rings implements ethtool.Device: those for frames of usual size.
func (c *Client) Rings() nic.Rings {
	b := c.words(36, layout.GRINGPARAM)
	return nic.Rings{RxMax: word(b, 4), TxMax: word(b, 16), Rx: word(b, 20), Tx: word(b, 32)}
}

// SetRings implements ethtool.Device.
func (c *Client) SetRings(_ context.Context, rx, tx int) error {
	return c.change(36, layout.GRINGPARAM, layout.SRINGPARAM, func(b []byte) {
		order.PutUint32(b[20:], clamp32(rx))
		order.PutUint32(b[32:], clamp32(tx))
	})
}

// Stats implements ethtool.Device.
func (c *Client) Stats() []nic.Stat {
	names, _ := ethtool.StringSet(c, layout.SetStats)
	stats, _ := ethtool.ReadStats(c, layout.GSTATS, names)
	return stats
}

// FeatureNames implements ethtool.Asker.
func (c *Client) FeatureNames() ([]string, error) {
	names, err := ethtool.StringSet(c, layout.SetFeatures)
	return names[:min(len(names), nic.NumFeatures)], err
}

// blocks returns how many words of 32 features each the kernel has.
func (c *Client) blocks() int {
	names, _ := ethtool.StringSet(c, layout.SetFeatures)
	return (len(names) + 31) / 32
}

// Features implements ethtool.Device. The bits are those of [Client.FeatureNames]; what can
// never be changed is not among what can.
func (c *Client) Features() (f nic.Features) {
	n := c.blocks()
	b := c.words(8+16*n, layout.GFEATURES, uint32(n))
	for i := range min(n, featureWords, word(b, 4)) {
		get := func(k int) nic.FeatureSet { return nic.FeatureSet(order.Uint32(b[8+16*i+4*k:])) << (32 * i) }
		f.Available |= get(0) &^ get(3)
		f.Wanted |= get(1)
		f.Active |= get(2)
	}
	return f
}

// SetFeatures implements ethtool.Device.
func (c *Client) SetFeatures(_ context.Context, change nic.FeatureChange) error {
	n := c.blocks()
	b := structure(8+8*n, layout.SFEATURES, uint32(n))
	for i := range min(n, featureWords) {
		order.PutUint32(b[8+8*i:], uint32(change.Change>>(32*i)))
		order.PutUint32(b[12+8*i:], uint32(change.On>>(32*i)))
	}
	_, err := c.Request(b)
	return err
}

// LinkSettings implements ethtool.Device.
func (c *Client) LinkSettings() nic.LinkSettings {
	l := nic.LinkSettings{Mbps: nic.SpeedUnknown, Duplex: nic.DuplexUnknown, Detected: word(c.words(8, layout.GLINK), 4) != 0}
	if b, err := ethtool.ReadLinkSettings(c); err == nil {
		l.Mbps, l.Duplex = order.Uint32(b[layout.LinkSpeed:]), nic.Duplex(b[layout.LinkDuplex])
	}
	return l
}

// SetLinkSettings implements ethtool.Device.
func (c *Client) SetLinkSettings(_ context.Context, mbps uint32, d nic.Duplex) error {
	b, err := ethtool.ReadLinkSettings(c)
	if err != nil {
		return err
	}
	order.PutUint32(b, layout.SLINKSETTINGS)
	order.PutUint32(b[layout.LinkSpeed:], mbps)
	b[layout.LinkDuplex] = byte(d)
	_, err = c.Request(b)
	return err
}

// MessageLevel implements ethtool.Device.
func (c *Client) MessageLevel() uint32 { return uint32(word(c.words(8, layout.GMSGLVL), 4)) }

// SetMessageLevel implements ethtool.Device.
func (c *Client) SetMessageLevel(_ context.Context, bits uint32) error {
	_, err := c.Request(structure(8, layout.SMSGLVL, bits))
	return err
}

// PermanentMAC implements ethtool.Device.
func (c *Client) PermanentMAC() (m nic.MAC) {
	const room = 32 // MAX_ADDR_LEN
	if b := c.words(8+room, layout.GPERMADDR, room); word(b, 4) == len(m) {
		m = nic.MAC(b[8:])
	}
	return m
}

// Registers implements ethtool.Device, if they are those of a NIC of Hyper-V.
func (c *Client) Registers() (r nic.Registers) {
	if b := c.words(12+registerBytes, layout.GREGS, 0, registerBytes); word(b, 8) == registerBytes {
		for i := range r {
			r[i] = order.Uint32(b[12+4*i:])
		}
	}
	return r
}

// HashLevels implements ethtool.Device.
func (c *Client) HashLevels() (l nic.HashLevels) {
	for kind, flow := range flows {
		b := c.words(192, layout.GRXFH, kind)
		switch order.Uint64(b[8:]) {
		case hashAddresses:
			l[flow] = nic.HashL3
		case hashAddresses | hashPorts:
			l[flow] = nic.HashL4
		}
	}
	return l
}

// SetHashLevel implements ethtool.Device.
func (c *Client) SetHashLevel(_ context.Context, f nic.Flow, level nic.HashKind) error {
	over := map[nic.HashKind]uint64{nic.HashL3: hashAddresses, nic.HashL4: hashAddresses | hashPorts}[level]
	for kind, flow := range flows {
		if flow == f && over != 0 {
			b := structure(192, layout.SRXFH, kind)
			order.PutUint64(b[8:], over)
			_, err := c.Request(b)
			return err
		}
	}
	return nic.ErrNotSupported
}

// RSS implements ethtool.Device.
func (c *Client) RSS() nic.RSS {
	s, _ := ethtool.ReadSpread(c, 0)
	return s.RSS
}

// SetRSS implements ethtool.Device.
func (c *Client) SetRSS(_ context.Context, change nic.RSSChange) error {
	entries := uint32(math.MaxUint32)
	if change.Default {
		entries = 0
	}
	if change.Table != nil {
		entries = uint32(len(change.Table))
	}
	b := structure(layout.RSSEnd, layout.SRSSH, 0, entries, uint32(len(change.Key)))
	switch {
	case change.Table != nil:
		for _, channel := range change.Table {
			b = order.AppendUint32(b, channel)
		}
	case change.Default: // the key's place is behind the room for a table
		b = append(b, make([]byte, 4*len(c.RSS().Table))...)
	}
	_, err := c.Request(append(b, change.Key...))
	return err
}
