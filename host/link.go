package host

import (
	"fmt"

	"hvnet/netvsp"
)

// A portLink is what was done to the link of a port. The host keeps it when the
// guest goes, for the guest that comes next.
type portLink struct {
	down bool
	mbps uint32 // 0: that of the host release
}

// apply makes it the link of a device.
func (l portLink) apply(dev *netvsp.Device) {
	s := dev.Link()
	s.Up = !l.down
	if l.mbps != 0 {
		s.Mbps = l.mbps
	}
	dev.SetLink(s)
}

// SetLink takes the link of a guest's port up or down, as plugging or pulling the
// cable does. It is the link of the NIC, whichever path its frames take: a guest has one
// carrier for synthetic device and virtual function together, as with hv_netvsc, and sends by
// neither while it is down. The function's own carrier, by which a guest chooses the path, stays
// as it is, and so does the path. The error is ErrNoGuest if no guest has the port, nor had it when its
// link was changed before.
func (h *Host) SetLink(port string, up bool) error {
	return h.relink(port, func(l *portLink) { l.down = !up })
}

// SetSpeed changes the speed of the link of a guest's port, in Mbit/s; see SetLink.
func (h *Host) SetSpeed(port string, mbps uint32) error {
	return h.relink(port, func(l *portLink) { l.mbps = mbps })
}

// NetworkChange tells the guest of a port that it is in another network now, which
// makes it ask for addresses again.
func (h *Host) NetworkChange(port string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.ports[port]
	if p == nil {
		return fmt.Errorf("port %s: %w", port, ErrNoGuest)
	}
	p.dev.NetworkChange()
	return nil
}

func (h *Host) relink(port string, change func(*portLink)) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	l, known := h.links[port]
	p := h.ports[port]
	if p == nil && !known {
		return fmt.Errorf("port %s: %w", port, ErrNoGuest)
	}
	change(&l)
	h.links[port] = l
	if p != nil {
		l.apply(p.dev)
	}
	return nil
}
