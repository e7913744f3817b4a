package host

import (
	"slices"

	"hvnet/hv"
	"hvnet/rule"
	"hvnet/vmbus"
)

// eventConn plus the relid is the connection that a guest signals for a channel.
// What it is means nothing to the guest; the sum must stay below hv.MaxConnectionID.
const eventConn = 0x2000

// takes says whether a host that accepts these versions has a connection. A guest
// that tries the one for 5.0 on an older host fails at once, and asks for an older
// version (Linux, vmbus_negotiate_version).
func takes(accepted []vmbus.Version, conn uint32) bool {
	switch conn {
	case vmbus.ConnMessage:
		return true
	case vmbus.ConnContact:
		return slices.ContainsFunc(accepted, vmbus.Version.HasContactPort)
	}
	return false
}

// initiateContact begins a connection, whatever there was before.
func (m *machine) initiateContact(conn uint32, c vmbus.InitiateContact) {
	// What the newer connection brought counts only there.
	if conn != vmbus.ConnContact {
		c.SINT, c.VTL = hv.SINT, 0
	}
	if c.VTL != 0 {
		m.drop(vmbus.TypeInitiateContact, rule.ContactVTL.Broken("for another trust level"))
		return
	}
	m.end(ending{contact: &c})
}

// connect answers INITIATE_CONTACT. Nothing of an older connection is left.
func (m *machine) connect(c vmbus.InitiateContact) {
	asksVP := c.Version.HasMessageVP()
	m.vp = 0
	if asksVP && c.TargetVP < uint32(m.vps) {
		m.vp = int(c.TargetVP)
	}
	r := vmbus.VersionResponse{Version: c.Version, ConnID: vmbus.ConnMessage}
	switch {
	case !slices.Contains(m.accepted, c.Version),
		c.Version.HasContactPort() && c.SINT != hv.SINT:
		// Not supported; never another version instead.
	case asksVP && c.TargetVP >= uint32(m.vps), !m.monitorPages(c):
		r.Supported = true
		r.State = vmbus.ConnectionUnknownFailure
	default:
		r.Supported = true
		m.version = c.Version
		m.watchMonitor(c)
		m.do(contact{c.Version})
	}
	m.send(r.Append(nil, c.Version))
}

// monitorPages says whether the guest's two monitor pages are acceptable: none or
// both.
func (m *machine) monitorPages(c vmbus.InitiateContact) bool {
	if c.ParentToChild == 0 && c.ChildToParent == 0 {
		return true
	}
	ok := func(gpa uint64) bool {
		return gpa != 0 && gpa%hv.PageSize == 0 && m.hasPage(gpa/hv.PageSize)
	}
	return ok(c.ParentToChild) && ok(c.ChildToParent)
}

// Channels outside the offers (they serve a guest's firmware) and sockets over
// VMBus don't exist here; their messages are answered as by a host that has none.

func (m *machine) openReserved(o vmbus.OpenReserved) {
	if o.TargetVP >= uint32(m.vps) || o.SINT != hv.SINT {
		m.drop(vmbus.TypeOpenReserved, rule.TargetVP.Broken("nowhere to send the result"))
		return
	}
	r := vmbus.OpenResult{Relid: o.ID, Status: vmbus.StatusUnsuccessful}
	m.do(send{int(o.TargetVP), r.Append(nil)})
}

func (m *machine) closeReserved(c vmbus.CloseReserved) {
	if c.TargetVP >= uint32(m.vps) || c.SINT != hv.SINT {
		m.drop(vmbus.TypeCloseReserved, rule.TargetVP.Broken("nowhere to send the response"))
		return
	}
	m.do(send{int(c.TargetVP), vmbus.CloseReservedResponse{ID: c.ID}.Append(nil)})
}

func (m *machine) tlConnect(c vmbus.TLConnectRequest) {
	if m.version < vmbus.Version4_1 {
		m.drop(vmbus.TypeTLConnectRequest, rule.MessageVersion.Broken("no sockets here, and no result before 4.1"))
		return
	}
	m.send(vmbus.TLConnectResult{Endpoint: c.Endpoint, Service: c.Service, Status: vmbus.StatusConnectionRefused}.Append(nil))
}
