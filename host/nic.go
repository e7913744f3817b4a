package host

import (
	"context"
	"strings"
	"sync"

	"hvnet/link/packet"
	"hvnet/nic"
	"hvnet/vswitch"
)

// AddNIC connects an interface that the caller's network namespace has already, such as
// the machine's NIC or one end of a veth pair, to the switch, as a trunk if nothing
// else was said. It stays the machine's, and as it is: down, if nobody sets it up. Should it
// be removed, the next one of its name takes its place. The error is that of [packet.Open].
func (h *Host) AddNIC(name string) error {
	l, err := packet.Open(name)
	if err != nil {
		return err
	}
	p, err := h.connect(name, "", l, vswitch.PortOptions{VLAN: vswitch.Trunk()})
	if err != nil {
		l.Close()
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	var both sync.WaitGroup
	log := h.cfg.Log.With("nic", name)
	both.Go(func() {
		if err := l.Receive(p); ctx.Err() == nil {
			log.Error("uplink is deaf", "error", err)
		}
	})
	both.Go(func() {
		last := ""
		err := l.Watch(ctx, func(s packet.State) {
			if now := s.String(); now != last {
				log.Info("uplink", "state", now, "mtu", s.MTU)
				last = now
			}
		})
		if err != nil && ctx.Err() == nil {
			log.Error("uplink is not watched any more", "error", err)
		}
	})
	h.mu.Lock()
	h.nics[name] = l
	h.mu.Unlock()
	h.OnClose(func() {
		stop()
		p.Close()
		l.Close()
		both.Wait()
	})
	return nil
}

// A NICInfo is what became of an uplink that is an interface of the machine.
type NICInfo struct {
	State string     // "up", "no carrier", "down" or "removed"
	Lost  []nic.Stat // on the way from it and to it
}

// nicInfo returns that of a port, nil if it is no such uplink's.
func (h *Host) nicInfo(port string) *NICInfo {
	h.mu.Lock()
	l := h.nics[port]
	h.mu.Unlock()
	if l == nil {
		return nil
	}
	return &NICInfo{State: l.State().String(), Lost: l.Stats()}
}

// drops adds what was lost, by reason.
func (i *NICInfo) drops(to map[string]uint64) {
	for _, s := range i.Lost {
		reason := strings.Replace(s.Name, "packet_read_", "from NIC: ", 1)
		reason = strings.Replace(reason, "packet_write_", "for NIC: ", 1)
		to[strings.ReplaceAll(reason, "_", " ")] += s.Value
	}
}
