package host

import (
	"maps"
	"slices"

	"hvnet/hv"
	"hvnet/rule"
	"hvnet/vmbus"
)

// What one guest may have in GPADLs. Windows hosts allow about as many pages.
const (
	maxPages   = 1280 << 20 / hv.PageSize
	maxGPADLs  = 4096
	maxPartial = 64
)

// A gpadl is a list of pages that the guest has made known, or is about to.
type gpadl struct {
	id      uint32
	ch      *chanState
	words   int              // length of its list, counted against maxPages
	list    *vmbus.Assembler // nil when complete
	tearing bool             // TORNDOWN is owed
	pfns    []uint64         // of a complete one that is one range of whole pages, else nil
}

// gpadlHeader is GPADL_HEADER. Its answer comes after the last page.
func (m *machine) gpadlHeader(h vmbus.GPADLHeader) {
	g := &gpadl{id: h.ID, ch: m.channels[h.Relid], words: int(h.RangeLen) / 8}
	why := m.noRoom(h, g)
	if why == nil {
		g.list, why = vmbus.NewAssembler(h)
		why = rule.GPADLList.Err(why)
	}
	if why != nil {
		m.drop(vmbus.TypeGPADLHeader, why)
		m.created(h.Relid, h.ID, vmbus.StatusUnsuccessful)
		return
	}
	m.gpadls[g.id] = g
	m.pages += g.words
	m.partial++
	if g.list.Done() {
		m.complete(g)
	}
}

func (m *machine) noRoom(h vmbus.GPADLHeader, g *gpadl) error {
	switch {
	case g.ch == nil:
		return rule.RelidOffered.Broken("unknown relid")
	case m.gpadls[h.ID] != nil:
		return rule.GPADLID.Broken("the GPADL exists")
	case len(m.gpadls) >= maxGPADLs || m.partial >= maxPartial || m.pages+g.words > maxPages:
		return rule.GPADLLimit.Broken("the guest has too many GPADLs")
	}
	return nil
}

// gpadlBody is GPADL_BODY. It carries no relid, so one that belongs to nothing
// can't be answered. The number in it isn't looked at: Linux leaves it zero.
func (m *machine) gpadlBody(b vmbus.GPADLBody) {
	g := m.gpadls[b.ID]
	if g == nil || g.list == nil {
		m.drop(vmbus.TypeGPADLBody, rule.GPADLBody.Broken("no GPADL waits for it"))
		return
	}
	if g.list.Add(b.Data) {
		m.complete(g)
	}
}

// complete checks a GPADL whose list has arrived, and answers it.
func (m *machine) complete(g *gpadl) {
	ranges, err := g.list.Ranges()
	if err = rule.GPADLList.Err(err); err == nil && !m.hasPages(ranges) {
		err = rule.GPADLMemory.Broken("pages outside guest memory")
	}
	if err != nil {
		m.drop(vmbus.TypeGPADLHeader, err)
		m.refuse(g)
		return
	}
	if r := ranges[0]; len(ranges) == 1 && r.Offset == 0 && r.Count%hv.PageSize == 0 {
		g.pfns = r.PFNs
	}
	g.list = nil
	m.partial--
	if g.ch.state != revoked {
		g.ch.dev.used = true
		m.do(share{g.ch.dev.id, g.id, g.pfns})
	}
	m.created(g.ch.relid, g.id, vmbus.StatusSuccess)
}

func (m *machine) hasPages(ranges []vmbus.PageRange) bool {
	for _, r := range ranges {
		for _, pfn := range r.PFNs {
			if !m.hasPage(pfn) {
				return false
			}
		}
	}
	return true
}

func (m *machine) created(relid, id, status uint32) {
	m.send(vmbus.GPADLCreated{Relid: relid, ID: id, Status: status}.Append(nil))
}

// refuse answers an incomplete GPADL.
func (m *machine) refuse(g *gpadl) {
	m.forget(g)
	m.created(g.ch.relid, g.id, vmbus.StatusUnsuccessful)
}

// forget takes a GPADL out of the books.
func (m *machine) forget(g *gpadl) {
	delete(m.gpadls, g.id)
	m.pages -= g.words
	if g.list != nil {
		m.partial--
	}
}

// gpadlsOf returns the GPADLs of a channel in the order of their ids.
func (m *machine) gpadlsOf(ch *chanState) []*gpadl {
	var of []*gpadl
	for _, id := range slices.Sorted(maps.Keys(m.gpadls)) {
		if g := m.gpadls[id]; g.ch == ch {
			of = append(of, g)
		}
	}
	return of
}

// gpadlTeardown is GPADL_TEARDOWN. The guest hears TORNDOWN when nothing of the
// host uses the pages any more. Rings are in use until the channel is closed: for
// those of an open channel there is no answer, and the guest keeps its memory, unless
// the channel was taken away, which is a way to let go of it.
func (m *machine) gpadlTeardown(t vmbus.GPADLTeardown) {
	g := m.gpadls[t.ID]
	switch {
	case g == nil || g.ch.relid != t.Relid:
		m.drop(vmbus.TypeGPADLTeardown, rule.GPADLTeardown.Broken("no such GPADL of the channel"))
		return
	case g.list != nil || g.tearing:
		m.drop(vmbus.TypeGPADLTeardown, rule.GPADLTeardown.Broken("the GPADL is not complete, or is being torn down"))
		return
	}
	inUse := g.ch.ring == g.id
	if inUse && (g.ch.state == opening || g.ch.state == open && !g.ch.told) {
		m.drop(vmbus.TypeGPADLTeardown, rule.GPADLInUse.Broken("the GPADL holds the rings of an open channel"))
		return
	}
	g.tearing = true
	switch {
	case inUse && g.ch.state == open:
		m.letGo(g.ch)
	case inUse && g.ch.state == closing: // closed goes on
	case g.ch.dev.used:
		m.do(revoke{g.ch.dev.id, g.id})
	default: // the backend has left already
		m.revoked(g.id)
	}
}
