package host

import (
	"fmt"
	"sync"

	"hvnet/nic"
	"hvnet/vswitch"
)

// vlans are the VLANs of a host's ports that were said, by name of the port. The host keeps
// them when a guest goes, for the guest that comes next.
type vlans struct {
	mu    sync.Mutex // held while a port is connected, so that none misses a change
	rules map[string]vswitch.VLAN
}

// plug connects a port to the switch with the VLANs that were said for it, else with those of opt.
func (h *Host) plug(name string, out nic.Sink, opt vswitch.PortOptions) (*vswitch.Port, error) {
	h.vlans.mu.Lock()
	defer h.vlans.mu.Unlock()
	if v, ok := h.vlans.rules[name]; ok {
		opt.VLAN = v
	}
	return h.sw.Connect(name, out, opt)
}

// SetVLAN changes the VLANs of a port, of a guest or another one, at once and for good. The error
// is ErrNoPort if there is none of the name, and nothing was said for it before.
func (h *Host) SetVLAN(name string, v vswitch.VLAN) error {
	h.mu.Lock()
	_, attached := h.ports[name] // it may not be on the switch yet
	h.mu.Unlock()
	h.vlans.mu.Lock()
	defer h.vlans.mu.Unlock()
	_, known := h.vlans.rules[name]
	if !h.sw.SetVLAN(name, v) && !attached && !known {
		return fmt.Errorf("port %s: %w", name, ErrNoPort)
	}
	h.vlans.rules[name] = v
	return nil
}
