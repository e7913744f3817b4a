package guest

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	"hvnet/hv"
	"hvnet/vmbus"
	"hvnet/vmbus/channel"
)

// contact asks the host for a version, and forgets whatever there was before. The
// answer is VERSION_RESPONSE.
func (m *machine) contact(v vmbus.Version) wait {
	m.disconnected()
	m.asked = v
	m.conn = vmbus.ConnMessage
	if v.HasContactPort() {
		m.conn = vmbus.ConnContact
	}
	// No interrupt page: from 2.4 on there is none.
	m.post(vmbus.InitiateContact{
		Version: v, SINT: hv.SINT, ParentToChild: m.monitor[0], ChildToParent: m.monitor[1],
	}.Append(nil))
	return m.wait(wait{message: vmbus.TypeVersionResponse})
}

// versionResponse takes the host's answer to contact.
func (m *machine) versionResponse(b []byte) error {
	r, err := vmbus.ParseVersionResponse(b, m.asked)
	if err != nil {
		return err
	}
	w := wait{message: vmbus.TypeVersionResponse}
	if !m.expected(w) {
		return errUnasked
	}
	a := answer{wait: w, version: r}
	switch {
	case !r.Supported:
	case r.State != vmbus.ConnectionOK:
		a.err = fmt.Errorf("%w: connection state %d", errRefused, r.State)
	case m.asked.HasContactPort() && (r.ConnID == 0 || r.ConnID >= 1<<24):
		a.err = fmt.Errorf("the host names connection %#x to go on with", r.ConnID)
	case r.Features != 0:
		a.err = fmt.Errorf("the host grants features %#x that nobody asked for", uint32(r.Features))
	default:
		m.version = m.asked
		if m.asked.HasContactPort() {
			m.conn = r.ConnID
		}
	}
	m.do(a)
	return nil
}

// requestOffers asks for all offers. The answer is ALLOFFERS_DELIVERED.
func (m *machine) requestOffers() wait {
	m.post(vmbus.RequestOffers{}.Append(nil))
	return m.wait(wait{message: vmbus.TypeAllOffersDelivered})
}

// unload ends the connection. The answer is UNLOAD_RESPONSE.
func (m *machine) unload() (wait, error) {
	w := wait{message: vmbus.TypeUnloadResponse}
	switch {
	case m.version == 0:
		return w, fmt.Errorf("there is no connection: %w", channel.ErrRescinded)
	case m.waiting[w]:
		return w, errors.New("the connection is ending")
	}
	m.post(vmbus.Unload{}.Append(nil))
	return m.wait(w), nil
}

// waits returns what is waited for, in an order.
func (m *machine) waits() []wait {
	return slices.SortedFunc(maps.Keys(m.waiting), func(a, b wait) int {
		return cmp.Or(cmp.Compare(a.message, b.message), cmp.Compare(a.relid, b.relid), cmp.Compare(a.id, b.id))
	})
}

func sortedKeys[V any](of map[uint32]V) []uint32 { return slices.Sorted(maps.Keys(of)) }
