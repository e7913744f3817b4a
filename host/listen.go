package host

import (
	"context"
	"fmt"

	"hvnet/hv/attach"
	"hvnet/nic"
)

// portOf reads what a guest asks for.
func portOf(hello attach.Hello) (PortConfig, error) {
	want := PortConfig{Name: hello.Name}
	if s, ok := hello.Options[nic.OptionMAC]; ok {
		mac, err := nic.ParseMAC(s)
		if err != nil {
			return want, fmt.Errorf("option %s: %w", nic.OptionMAC, err)
		}
		want.MAC = mac
	}
	return want, nil
}

// Listen makes the socket on which guests attach; Accept serves it.
func (h *Host) Listen(path string, cfg attach.ListenConfig) (*attach.Listener, error) {
	cfg.Admit = func(hello attach.Hello) error {
		want, err := portOf(hello)
		if err != nil {
			return err
		}
		return h.Admit(want)
	}
	if cfg.Limits.Quota == nil {
		cfg.Limits.Quota = h.quota
	}
	return attach.Listen(path, cfg)
}

// Accept serves the guests that attach to a listener until ctx ends or the
// listener fails. Guests that are attached then stay until Close.
func (h *Host) Accept(ctx context.Context, l *attach.Listener) error {
	for {
		g, hello, err := l.Accept(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept guests: %w", err)
		}
		want, err := portOf(hello)
		if err != nil {
			g.Close()
			continue
		}
		go func() {
			if err := h.Serve(g, want); err != nil {
				h.cfg.Log.Debug("guest served", "port", want.Name, "end", err)
			}
		}()
	}
}
