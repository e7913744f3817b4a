package abi

import (
	"slices"

	"hvnet/ethtool/layout"
	"hvnet/nic"
)

// flows are the kinds that a NIC tells apart.
var flows = map[uint32]nic.Flow{
	layout.FlowTCPv4: nic.FlowTCPv4, layout.FlowUDPv4: nic.FlowUDPv4, layout.FlowTCPv6: nic.FlowTCPv6, layout.FlowUDPv6: nic.FlowUDPv6,
}

// What a hash is over.
const (
	hashAddresses = layout.HashIPSrc | layout.HashIPDst
	hashPorts     = layout.HashL4First | layout.HashL4Next
)

// flowHash is GRXFH. A kind that is marked as of another RSS context is one that hv_netvsc
// does not know.
func flowHash(r *request) (int, error) {
	kind := r.u32(4)
	r.set64(8, 0)
	if flow, ok := flows[kind]; ok {
		r.set64(8, hashAddresses)
		if r.d.HashLevels()[flow] == nic.HashL4 {
			r.set64(8, hashAddresses|hashPorts)
		}
	} else if kind == layout.FlowIPv4 || kind == layout.FlowIPv6 { // by their addresses, without a level
		r.set64(8, hashAddresses)
	}
	return 0, nil
}

func setFlowHash(r *request) (int, error) {
	flow, ok := flows[r.u32(4)]
	if !ok {
		return 0, nic.ErrNotSupported
	}
	switch r.u64(8) {
	case hashAddresses:
		return 0, r.d.SetHashLevel(r.ctx, flow, nic.HashL3)
	case hashAddresses | hashPorts:
		return 0, r.d.SetHashLevel(r.ctx, flow, nic.HashL4)
	}
	return 0, nic.ErrNotSupported
}

func rxRings(r *request) (int, error) {
	r.set64(8, uint64(r.d.Channels().Combined))
	return 0, nil
}

// table is GRXFHINDIR: the size is told in any case, the table if there is room for it.
func table(r *request) (int, error) {
	t := r.d.RSS().Table
	if len(t) == 0 {
		return 0, nic.ErrNotSupported
	}
	room := r.u32(4)
	r.set32(4, clamp32(len(t)))
	if room < clamp32(len(t)) {
		if err := r.write(4, r.b[4:8]); err != nil || room == 0 {
			return 0, err
		}
		return 0, nic.ErrInvalid
	}
	for _, c := range t {
		r.append32(c)
	}
	return 0, r.write(4, r.b[4:])
}

func setTable(r *request) (int, error) {
	have := len(r.d.RSS().Table)
	size := r.u32(4)
	switch {
	case have == 0:
		return 0, nic.ErrNotSupported
	case size == 0:
		return 0, r.d.SetRSS(r.ctx, nic.RSSChange{Default: true})
	case size != clamp32(have):
		return 0, nic.ErrInvalid
	}
	t, err := r.entries(have)
	if err != nil {
		return 0, err
	}
	return 0, r.d.SetRSS(r.ctx, nic.RSSChange{Table: t})
}

// entries reads a table of n entries from behind what has been read. One that names a
// channel that there is not is refused here, as the kernel does above its drivers.
func (r *request) entries(n int) ([]uint32, error) {
	b, err := r.read(uint64(len(r.b)), 4*n)
	if err != nil {
		return nil, err
	}
	t := make([]uint32, n)
	for i := range t {
		t[i] = order.Uint32(b[4*i:])
	}
	if slices.Max(t) >= uint32(r.d.Channels().Combined) {
		return nil, nic.ErrInvalid
	}
	return t, nil
}

// toeplitz is that of the mask of hash functions.
const toeplitz = 1

// rssTop checks what both directions check.
func (r *request) rssTop() (entries, keyLen uint32, err error) {
	switch {
	case !r.zero(layout.RSSFunction+1, layout.RSSEnd):
		err = nic.ErrInvalid
	case r.u32(layout.RSSContext) != 0:
		err = nic.ErrNotSupported
	}
	return r.u32(layout.RSSEntries), r.u32(layout.RSSKeyLen), err
}

// rss is GRSSH. The sizes are told in any case.
func rss(r *request) (int, error) {
	entries, keyLen, err := r.rssTop()
	if err != nil {
		return 0, err
	}
	v := r.d.RSS()
	r.set32(layout.RSSEntries, clamp32(len(v.Table)))
	r.set32(layout.RSSKeyLen, clamp32(len(v.Key)))
	if entries != 0 && entries != clamp32(len(v.Table)) || keyLen != 0 && keyLen != clamp32(len(v.Key)) {
		if err := r.write(0, r.b); err != nil {
			return 0, err
		}
		return 0, nic.ErrInvalid
	}
	r.b[layout.RSSFunction] = toeplitz
	if entries != 0 {
		for _, c := range v.Table {
			r.append32(c)
		}
	}
	if keyLen != 0 {
		r.b = append(r.b, v.Key...)
	}
	return 0, r.write(0, r.b)
}

// setRSS is SRSSH. No entries mean the default table; the key follows the room for a
// table, which is not there if the table stays.
func setRSS(r *request) (int, error) {
	entries, keyLen, err := r.rssTop()
	if err != nil {
		return 0, err
	}
	function := r.b[layout.RSSFunction]
	now := r.d.RSS()
	have := clamp32(len(now.Table))
	switch {
	case entries == layout.RSSTableStays && keyLen == 0 && function == 0:
		return 0, nic.ErrInvalid
	case entries != 0 && entries != layout.RSSTableStays && entries != have,
		keyLen != 0 && keyLen != clamp32(len(now.Key)):
		return 0, nic.ErrInvalid
	}
	var change nic.RSSChange
	keyAt := uint64(layout.RSSEnd + 4*have)
	switch entries {
	case layout.RSSTableStays:
		keyAt = layout.RSSEnd
	case 0:
		change.Default = true
	default:
		if change.Table, err = r.entries(int(entries)); err != nil {
			return 0, err
		}
	}
	if keyLen != 0 {
		if change.Key, err = r.read(keyAt, int(keyLen)); err != nil {
			return 0, err
		}
	}
	if function != 0 && function != toeplitz {
		return 0, nic.ErrNotSupported
	}
	return 0, r.d.SetRSS(r.ctx, change)
}
