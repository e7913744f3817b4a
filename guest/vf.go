package guest

import (
	"context"

	"hvnet/link/function"
	"hvnet/netvsc"
)

// JoinVFs joins the virtual functions that appear in the guest's namespace to its NIC, one
// after the other, until ctx ends or the NIC is closed: then the last one is let go of. It
// owns f, and needs [Config.VF].
func (g *Guest) JoinVFs(ctx context.Context, f *function.Guest) error {
	defer f.Close()
	return f.Run(ctx, g.NIC.MAC(), func(d *function.Device) (function.Port, error) {
		p, err := g.NIC.AddVF(ctx, d)
		if err != nil {
			return nil, err
		}
		return vfPort{p}, nil
	})
}

// vfPort is a port of the NIC as a function's.
type vfPort struct{ *netvsc.VFPort }

func (p vfPort) Changed(up, carrier bool) {
	p.VFPort.Changed(netvsc.VFState{Up: up, Carrier: carrier})
}
