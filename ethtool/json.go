package ethtool

import (
	"bytes"
	"encoding/json"
	"fmt"

	"hvnet/ethtool/layout"
	"hvnet/nic"
)

// An object is one of JSON, whose members keep their order.
type object []member

type member struct {
	name  string
	value any // an object, or what package json can write
}

// MarshalJSON implements json.Marshaler.
func (o object) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, m := range o {
		v, err := json.Marshal(m.value)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, "%q:%s", m.name, v)
	}
	return append(b, '}'), nil
}

// showJSON is a command that shows something, with --json. Where ethtool 6.1 has such a
// form, which is for -k, it is that; for other commands the members have the names of
// later releases, or of the text.
func (c *call) showJSON(cmd *command) int {
	d, err := c.lookup(c.name)
	var o object
	if err == nil {
		if o = cmd.json(c, d); o == nil {
			return c.badArgs()
		}
	}
	// What cannot be shown as text is nothing for JSON either, and fails in the same way.
	status := cmd.run(c)
	c.stdout.Reset()
	if status != 0 || err != nil {
		return status
	}
	b, err := json.Marshal(append(object{{"ifname", c.name}}, o...))
	if err != nil {
		return c.fail(exitFailure, "Cannot write JSON: %v", err)
	}
	// As ethtool indents.
	var text bytes.Buffer
	if err := json.Indent(&text, b, "    ", "    "); err != nil {
		return c.fail(exitFailure, "Cannot write JSON: %v", err)
	}
	c.printf("[ %s ]\n", text.Bytes())
	return 0
}

func (c *call) jsonSettings(d Device) object {
	o := object{{"speed", nil}}
	if l, err := c.link(d); err == nil {
		if mbps := word(l.b, layout.LinkSpeed); speedText(mbps) != "Unknown!" {
			o[0].value = mbps
		}
		o = append(o, object{
			{"duplex", duplexText(nic.Duplex(l.b[layout.LinkDuplex]))}, {"auto-negotiation", l.b[layout.LinkAutoneg] != 0},
			{"port", portText(l.b[layout.LinkPort])}, {"phyad", l.b[layout.LinkPHY]}, {"transceiver", transceiverText(l.b[layout.LinkTransceiver])},
		}...)
	}
	return append(o, member{"message-level", d.MessageLevel()}, member{"link-detected", d.LinkSettings().Detected})
}

func (c *call) jsonDriver(d Device) object {
	i := d.DriverInfo()
	return object{
		{"driver", i.Driver}, {"version", i.Version}, {"firmware-version", i.Firmware}, {"expansion-rom-version", i.ExpansionROM}, {"bus-info", i.Bus},
		{"supports-statistics", i.Stats}, {"supports-test", i.Test}, {"supports-eeprom-access", i.EEPROM},
		{"supports-register-dump", i.RegisterDump}, {"supports-priv-flags", i.PrivateFlags},
	}
}

func (c *call) jsonStats(d Device) (o object) {
	for _, s := range d.Stats() {
		o = append(o, member{s.Name, s.Value})
	}
	return o
}

func (c *call) jsonRings(d Device) object {
	r := d.Rings()
	return object{{"rx-max", r.RxMax}, {"tx-max", r.TxMax}, {"rx", r.Rx}, {"tx", r.Tx}}
}

func (c *call) jsonChannels(Device) (o object) {
	_, n, err := c.channels()
	if err != nil {
		return object{} // the text says it
	}
	// As by netlink: of the kinds that there can be any of.
	for i, kind := range channelKinds {
		if n.most[i] > 0 || kind == "combined" {
			o = append(o, member{kind + "-max", n.most[i]}, member{kind, n.now[i]})
		}
	}
	return o
}

func (c *call) jsonFlowHash(d Device) object {
	if len(c.args) < 2 {
		return nil // there are no rules
	}
	fields := []string{}
	t := flowType(c.args[1])
	if levels := d.HashLevels(); t < len(levels) && len(c.args) == 2 {
		fields = append(fields, "ip-src", "ip-dst")
		if levels[t] == nic.HashL4 {
			fields = append(fields, "l4-bytes-0-1", "l4-bytes-2-3")
		}
	}
	return object{{"flow-type", c.args[1]}, {"hash-fields", fields}}
}

func (c *call) jsonRSS(d Device) object {
	r := d.RSS()
	key := make([]int, len(r.Key))
	for i, b := range r.Key {
		key[i] = int(b)
	}
	return object{{"rss-indirection-table", r.Table}, {"rss-hash-key", key}, {"rss-hash-function", hashFunctions[0]}}
}

func (c *call) jsonTime(Device) object {
	b, err := c.timeInfo()
	if err != nil {
		return object{} // the text says it
	}
	can := []string{}
	for i, n := range timeCans {
		if word(b, timeCan)>>i&1 != 0 {
			can = append(can, n[0])
		}
	}
	o := object{{"capabilities", can}, {"hardware-clock", nil}}
	if clock := int32(word(b, timeClock)); clock >= 0 {
		o[1].value = clock
	}
	return o
}

func (c *call) jsonAddress(d Device) object {
	return object{{"permanent-address", d.PermanentMAC().String()}}
}

func (c *call) jsonFeatures(Device) (o object) {
	d, t, err := c.features()
	if err != nil {
		return object{} // the text says it
	}
	now := d.Features()
	one := func(name string, f nic.Feature) {
		o = append(o, member{name, object{
			{"active", now.Active.Has(f)},
			{"fixed", t.fixed(now, f)},
			{"requested", now.Wanted.Has(f)},
		}})
	}
	for i, features := range t.aliased {
		if len(features) == 1 {
			one(aliases[i].long, features[0])
			continue
		}
		if len(features) > 0 {
			o = append(o, member{aliases[i].long, object{{"active", now.Active&t.set(i) != 0}, {"fixed", nil}, {"requested", nil}}})
		}
		for _, f := range features {
			one(t.names[f], f)
		}
	}
	for _, f := range t.rest() {
		one(t.names[f], f)
	}
	return o
}
