package sandbox

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"hvnet/link/function"
	"hvnet/link/iface"
	"hvnet/nic"
)

// functionPort is where a function is joined: it passes on what that receives.
type functionPort struct {
	frames, up chan []byte
	left       chan struct{}
}

func (p *functionPort) WriteFrames(frames []nic.Frame) {
	for i := range frames {
		b := make([]byte, frames[i].Len())
		frames[i].CopyTo(b)
		p.frames <- b
	}
}

func (p *functionPort) Changed(up, carrier bool) {
	if up && carrier {
		select {
		case p.up <- nil:
		default:
		}
	}
}

func (p *functionPort) Leave(bool)            { close(p.left) }
func (p *functionPort) Done() <-chan struct{} { return p.left }

// TestFunction: a virtual function that is made in the sandbox is found there, carries
// frames both ways, and goes when its host closes it.
func TestFunction(t *testing.T) {
	s := newSandbox(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	guest, err := s.OpenFunctions(ctx, iface.Auto)
	if err != nil {
		t.Fatal(err)
	}
	mac := nic.MAC{0, 0x15, 0x5d, 1, 2, 3}
	cfg := function.Config{MAC: mac, Serial: 5}
	host, err := s.MakeFunction(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.MakeFunction(ctx, cfg); !errors.Is(err, function.ErrExists) {
		t.Errorf("another one of the name: %v", err)
	}
	port := &functionPort{frames: make(chan []byte, 64), up: make(chan []byte, 1), left: make(chan struct{})}
	devices, ended := make(chan *function.Device, 2), make(chan error, 1)
	run, stop := context.WithCancel(ctx)
	go func() {
		ended <- guest.Run(run, mac, func(d *function.Device) (function.Port, error) { devices <- d; return port, nil })
	}()
	fromGuest := &functionPort{frames: make(chan []byte, 64)}
	host.Start(fromGuest)
	d := awaitValue(t, ctx, devices)
	if d.Serial() != 5 || d.Name() != "vf5" {
		t.Errorf("serial %d, name %s", d.Serial(), d.Name())
	}
	if err := d.SetUp(true); err != nil {
		t.Fatal(err)
	}
	awaitValue(t, ctx, port.up)
	exchange := func(to nic.Sink, dst, src nic.MAC, got chan []byte) {
		t.Helper()
		b := bytes.Join([][]byte{dst[:], src[:], {0x88, 0xb5}, make([]byte, 46)}, nil)
		to.WriteFrames([]nic.Frame{{Head: b}})
		for !bytes.Equal(awaitValue(t, ctx, got), b) { // others are the kernel's
		}
	}
	other := nic.MAC{2, 0, 0, 0, 0, 1}
	exchange(host, mac, other, port.frames)
	exchange(d, other, mac, fromGuest.frames)
	if err := host.Close(); err != nil {
		t.Error(err)
	}
	awaitValue(t, ctx, port.left)
	stop()
	if err := errors.Join(awaitValue(t, ctx, ended), guest.Close()); err != nil {
		t.Error(err)
	}
}

// awaitValue returns what comes, or that the channel is closed.
func awaitValue[T any](t *testing.T, ctx context.Context, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-ctx.Done():
		t.Fatal("nothing comes")
	}
	return v
}
