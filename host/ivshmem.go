package host

import (
	"context"
	"fmt"

	"hvnet/hv/ivshmem"
)

// AcceptVM serves the kernels in QEMU that come to a listener, one after the other,
// until ctx ends or the listener fails. Each gets the port that want asks for. A guest
// that is attached then stays until Close.
func (h *Host) AcceptVM(ctx context.Context, l *ivshmem.Listener, want PortConfig) error {
	for {
		g, err := l.Accept(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept a guest in QEMU: %w", err)
		}
		go func() {
			if err := h.Serve(g, want); err != nil {
				h.cfg.Log.Info("guest in QEMU served", "port", want.Name, "end", err)
			}
		}()
	}
}
