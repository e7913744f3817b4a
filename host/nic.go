package host

import (
	"context"
	"strings"
	"sync"

	"hvnet/link/iface"
	"hvnet/link/packet"
	"hvnet/nic"
	"hvnet/vswitch"
)

// AddNIC connects an interface that the caller's network namespace has already, such as
// the machine's NIC or one end of a veth pair, to the switch, as a trunk if nothing
// else was said. It stays the machine's, and as it is: down, if nobody sets it up. Should it
// be removed, the next one of its name takes its place. It is joined the way that is asked for.
// The error is that of [iface.Open], which ctx bounds.
func (h *Host) AddNIC(ctx context.Context, name string, way iface.Way) error {
	l, err := iface.Open(ctx, name, way)
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
			now := s.String()
			switch {
			case now == last:
			case s.Refused != nil:
				log.Warn("uplink", "state", now, "error", s.Refused)
			default:
				log.Info("uplink", "state", now, "mtu", s.MTU)
			}
			last = now
		})
		if err != nil && ctx.Err() == nil {
			log.Error("uplink is not watched any more", "error", err)
		}
	})
	h.mu.Lock()
	h.nics[name] = uplinkNIC{l, way}
	h.mu.Unlock()
	h.OnClose(func() {
		stop()
		p.Close()
		l.Close()
		both.Wait()
	})
	return nil
}

// An uplinkNIC is an interface of the machine that is an uplink.
type uplinkNIC struct {
	iface.Link
	way iface.Way
}

// A NICInfo is what became of an uplink that is an interface of the machine.
type NICInfo struct {
	State string     // "up", "no carrier", "down", "removed", or "refused": there is another one, which can't be joined
	Way   iface.Way  // by which it is joined: packet or xdp
	Lost  []nic.Stat // on the way from it and to it
}

// nicInfo returns that of a port, nil if it is no such uplink's.
func (h *Host) nicInfo(port string) *NICInfo {
	h.mu.Lock()
	l, ok := h.nics[port]
	h.mu.Unlock()
	if !ok {
		return nil
	}
	way := l.way
	if way == iface.Auto {
		way = iface.Packet
	}
	return &NICInfo{State: l.State().String(), Way: way, Lost: l.Stats()}
}

// reasons puts the name of a counter in words.
var reasons = strings.NewReplacer("packet_read_", "from NIC: ", "packet_write_", "for NIC: ", "xdp_read_", "from NIC: ", "xdp_write_", "for NIC: ", "_", " ")

// drops adds what was lost, by reason.
func (i *NICInfo) drops(to map[string]uint64) {
	for _, s := range i.Lost {
		to[reasons.Replace(s.Name)] += s.Value
	}
}
