package guest

import (
	"context"
	"errors"

	"hvnet/link/function"
	"hvnet/netvsc"
)

// JoinVFs joins the virtual functions that appear in the guest's namespace to its NIC, one
// after the other, until ctx ends or the NIC is closed: then the last one is let go of. It
// owns f, and needs [Config.VF].
func (g *Guest) JoinVFs(ctx context.Context, f *function.Guest) error {
	f.MTU = g.NIC.MTU
	err := f.Run(ctx, g.NIC.MAC(), func(d *function.Device) (function.Port, error) {
		p, err := g.NIC.AddVF(ctx, d)
		if err != nil {
			return nil, err
		}
		return vfPort{p, g.NIC}, nil
	})
	if errors.Is(err, netvsc.ErrClosed) {
		err = nil
	}
	return errors.Join(err, f.Close())
}

// vfPort is a port of the NIC as a function's.
type vfPort struct {
	*netvsc.VFPort
	nic *netvsc.NIC
}

func (p vfPort) Changed(up, carrier bool) {
	p.VFPort.Changed(netvsc.VFState{Up: up, Carrier: carrier})
}

// Leave does not wait for the host on behalf of a device that is gone. Of one that is there
// the host hears before it is let go of; if it does not answer, the device is let go of all
// the same.
func (p vfPort) Leave(there bool) {
	ctx, cancel := context.WithTimeout(context.Background(), leaveTime)
	defer cancel()
	if !there {
		p.Gone()
		cancel()
	}
	p.nic.RemoveVF(ctx, p.VFPort)
}
