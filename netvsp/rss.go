package netvsp

import (
	"slices"

	"hvnet/rndis"
)

// rssState is how the guest wants received frames spread, as it has set it.
type rssState struct {
	enabled bool
	table   []uint32 // channel by hash, of the host's size; replaced when it changes
	key     [rndis.KeySize]byte
	hash    rndis.HashInfo
}

// rssCapabilities tells flags, channels and the size of the table.
func rssCapabilities(a *adapter, in []byte) ([]byte, rndis.Status) {
	if h, err := rndis.ParseObjectHeader(in); len(in) > 0 && (err != nil || h.Type != rndis.ObjectRSSCapabilities) {
		return nil, rndis.StatusInvalidData
	}
	c := rndis.RSSCapabilities{
		Flags: rndis.RSSFlagsStandard, Interrupts: 1,
		Queues: uint32(a.ctl.maxChannels()), Entries: uint16(tableEntries(a)),
	}
	return c.Append(nil), rndis.StatusSuccess
}

// tableEntries is the size of the receive table.
func tableEntries(a *adapter) int {
	if n := a.ctl.profile.RSSEntries; n > 0 {
		return n
	}
	return rndis.DefaultTableEntries
}

// setRSS checks the parameters and keeps them. A table or key that the guest calls
// unchanged stays; without a key there is nothing to hash with.
func setRSS(a *adapter, in []byte) (change, rndis.Status) {
	p, err := rndis.ParseRSSParameters(in)
	if err != nil {
		return 0, rndis.StatusInvalidData
	}
	if p.Disabled() {
		a.rss.enabled = false
		return changedRSS, rndis.StatusSuccess
	}
	next := a.rss
	next.table = slices.Clone(next.table)
	if next.table == nil {
		if p.Table == nil || p.Key == nil {
			return 0, rndis.StatusInvalidData
		}
		next.table = make([]uint32, tableEntries(a))
	}
	if err := p.FillTable(next.table, a.ctl.maxChannels()); err != nil {
		return 0, rndis.StatusInvalidData
	}
	if p.Key != nil {
		next.key = [rndis.KeySize]byte(p.Key)
	}
	if p.Flags&rndis.RSSHashInfoUnchanged == 0 {
		next.hash = p.HashInfo
	}
	next.enabled = true
	a.rss = next
	return changedRSS, rndis.StatusSuccess
}
