package host

import (
	"context"
	"sync"

	"hvnet/link/packet"
	"hvnet/vswitch"
)

// AddNIC connects an interface that the caller's network namespace has already, such as
// the machine's NIC or one end of a veth pair, to the switch. It stays the machine's, and
// as it is: down, if nobody sets it up. Whatever of its name comes after it takes its place.
func (h *Host) AddNIC(name string) error {
	l, err := packet.Open(name)
	if err != nil {
		return err
	}
	p, err := h.sw.Connect(name, l, vswitch.PortOptions{})
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
	h.nics[p] = l
	h.mu.Unlock()
	h.OnClose(func() {
		stop()
		p.Close()
		l.Close()
		both.Wait()
	})
	return nil
}
