package ivshmem

import "hvnet/hv"

// The registers of a virtual processor's SynIC, TLFS "SynIC MSRs".
const (
	msrSControl = 0x40000080
	msrSVersion = 0x40000081
	msrSIEFP    = 0x40000082 // event flags page
	msrSIMP     = 0x40000083 // message page
	msrEOM      = 0x40000084
	msrSINT0    = 0x40000090
	sints       = 16

	msrEnable    = 1               // of SCONTROL, SIMP and SIEFP
	sintMasked   = 1 << 16         // every SINT's value at reset
	synicVersion = 1               // SVERSION
	pageAddress  = hv.PageSize - 1 // what is not the address in SIMP and SIEFP
)

// msrs are the registers of one virtual processor.
type msrs struct {
	control, events, messages uint64
	sint                      [sints]uint64

	// The pages that the SynIC has, 0 for none.
	eventPage, messagePage uint64
}

func newMSRs(vps int) []msrs {
	m := make([]msrs, vps)
	for vp := range m {
		for i := range m[vp].sint {
			m[vp].sint[i] = sintMasked
		}
	}
	return m
}

// readMSR returns the value of a register, 0 for one that does not exist.
func (g *guest) readMSR(vp int, number uint64) uint64 {
	m := &g.msrs[vp]
	switch number {
	case msrSControl:
		return m.control
	case msrSVersion:
		return synicVersion
	case msrSIEFP:
		return m.events
	case msrSIMP:
		return m.messages
	}
	if i := number - msrSINT0; i < sints {
		return m.sint[i]
	}
	return 0
}

// writeMSR sets a register. What is written to one that does not exist is lost.
func (g *guest) writeMSR(vp int, number, value uint64) {
	m := &g.msrs[vp]
	switch number {
	case msrSControl:
		m.control = value
	case msrSIEFP:
		m.events = value
	case msrSIMP:
		m.messages = value
	case msrEOM:
		g.synic.EOM(vp)
		return
	default:
		if i := number - msrSINT0; i < sints {
			m.sint[i] = value
		}
		return
	}
	g.setPage(&m.eventPage, m.page(m.events), func(p *hv.Mapping) { g.synic.SetEventPage(vp, p) })
	g.setPage(&m.messagePage, m.page(m.messages), func(p *hv.Mapping) { g.synic.SetMessagePage(vp, p) })
}

// page returns the address that SIMP or SIEFP names, 0 while the page or the whole
// SynIC is disabled.
func (m *msrs) page(register uint64) uint64 {
	if m.control&msrEnable == 0 || register&msrEnable == 0 {
		return 0
	}
	return register &^ pageAddress
}

// setPage has the SynIC use another page, if it is one. An address outside the
// guest's memory counts as none.
func (g *guest) setPage(now *uint64, want uint64, set func(*hv.Mapping)) {
	if *now == want {
		return
	}
	*now = want
	var page *hv.Mapping
	if want != 0 {
		page, _ = g.memory.Map([]uint64{want / hv.PageSize})
	}
	set(page)
}
