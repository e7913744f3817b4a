package sandbox

import (
	"context"
	"fmt"
	"os"

	"hvnet/link/function"
	"hvnet/link/iface"
)

// OpenFunctions returns what finds the virtual functions that appear in the sandbox, and joins
// them the way that is asked for; see function.OpenGuestFiles for its errors. The caller closes
// it.
func (s *Sandbox) OpenFunctions(ctx context.Context, way iface.Way) (*function.Guest, error) {
	r, err := s.call(ctx, message{Functions: true})
	if err != nil {
		closeFiles(r.files)
		return nil, err
	}
	files, err := function.ListedGuestFiles(r.files)
	if err != nil {
		return nil, fmt.Errorf("find virtual functions: %w", err)
	}
	return function.NewGuest(files, way)
}

// MakeFunction makes a virtual function whose guest's end is in the sandbox; see
// function.Make for its errors. The caller closes it.
func (s *Sandbox) MakeFunction(ctx context.Context, cfg function.Config) (*function.Host, error) {
	r, err := s.call(ctx, message{Function: &cfg})
	if err != nil {
		closeFiles(r.files)
		return nil, err
	}
	files, err := function.ListedHostFiles(r.files)
	if err != nil {
		return nil, fmt.Errorf("make a virtual function: %w", err)
	}
	return function.NewHost(files, cfg)
}

// functions opens what finds virtual functions here.
func (h *helper) functions(answer message) error {
	files, err := function.OpenGuestFiles()
	if answer.Error = toWire(err); err != nil {
		return h.conn.send(answer)
	}
	defer files.Close()
	return h.conn.send(answer, files.List()...)
}

// function makes a virtual function with an end here.
func (h *helper) function(answer message, cfg function.Config) error {
	files, err := makeFunction(cfg)
	if answer.Error = toWire(err); err != nil {
		return h.conn.send(answer)
	}
	// It must go when the owner closes it, so nothing is kept.
	defer files.Close()
	return h.conn.send(answer, files.List()...)
}

func makeFunction(cfg function.Config) (function.HostFiles, error) {
	here, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return function.HostFiles{}, fmt.Errorf("find network namespace: %w", err)
	}
	defer here.Close()
	return function.Make(here, cfg)
}
