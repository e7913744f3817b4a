package host

import (
	"errors"

	"hvnet/netvsp"
	"hvnet/nic"
)

// A Peer is the guest that has a port.
type Peer struct {
	MAC nic.MAC // the permanent address of its NIC
	// Process is the number of its process, as this one sees it; 0 for a guest that is none
	// or is not seen. Once Done is closed the number may be another's.
	Process int
	Done    <-chan struct{}
}

// MayHaveVF returns the guest of a port, for a virtual function to be made for it, or the
// error that [Host.AddVF] would return now.
func (h *Host) MayHaveVF(port string) (to Peer, err error) {
	err = h.vf("add", port, func(l *place) error {
		h.mu.Lock()
		defer h.mu.Unlock()
		p := h.ports[port]
		switch {
		case p == nil:
			return ErrNoGuest
		case !h.cfg.SRIOV:
			return netvsp.ErrNoSRIOV
		case l.fn != nil:
			return netvsp.ErrVF
		}
		to = Peer{MAC: p.mac, Done: p.guest.Done()}
		if g, ok := p.guest.(interface{ Process() int }); ok {
			to.Process = g.Process()
		}
		return nil
	})
	return to, err
}

// A VF that may go by itself has a method Gone, which returns a channel that is closed when
// it is no longer there: the guest is told of the loss then.
type vanisher interface{ Gone() <-chan struct{} }

// watchVF has the function of a port taken away when it says that it is gone. The caller
// holds busy.
func (h *Host) watchVF(port string, l *place) {
	fn := l.fn
	g, ok := fn.vf.(vanisher)
	if !ok {
		return
	}
	go func() {
		<-g.Gone()
		if err := l.vanished(fn); err != nil {
			h.cfg.Log.Warn("a VF was lost", "port", port, "err", err)
		}
	}()
}

// vanished takes a function away that is no longer there, if nobody has done so.
func (l *place) vanished(fn *function) error {
	l.busy.Lock()
	defer l.busy.Unlock()
	if l.fn != fn {
		return nil
	}
	err := l.close()
	return errors.Join(err, l.dev.LoseVF())
}
