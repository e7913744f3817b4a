package control

import (
	"context"
	"errors"
	"testing"

	"hvnet/ethtool"
	"hvnet/nic"
)

// TestWatch: who watches hears of settings that were changed, in order, until the driver
// leaves or it does itself; not of those that were refused, nor of questions.
func TestWatch(t *testing.T) {
	t.Setenv(runtimeEnv, t.TempDir())
	s, err := ServeDevice(1, "eth0", &fake{channels: nic.Channels{Max: 4, Combined: 1}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, err := Device(t.Context(), 1, "eth0")
	if err != nil {
		t.Fatal(err)
	}
	watch := func(ctx context.Context) (heard chan ethtool.Change, ended chan error) {
		heard, ended = make(chan ethtool.Change, 8), make(chan error, 1)
		begun := make(chan struct{})
		go func() {
			ended <- c.Watch(ctx, func() { close(begun) }, func(change ethtool.Change) { heard <- change })
		}()
		<-begun
		return heard, ended
	}
	ctx, cancel := context.WithCancel(t.Context())
	first, firstEnded := watch(ctx)
	second, secondEnded := watch(t.Context())
	if err := c.SetMessageLevel(t.Context(), 7); err != nil {
		t.Fatal(err)
	}
	if err := c.SetChannels(t.Context(), 99); err == nil {
		t.Fatal("99 channels are granted")
	}
	if err := c.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.SetChannels(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	for _, heard := range []chan ethtool.Change{first, second} {
		for _, want := range []ethtool.Change{ethtool.ChangedSettings, ethtool.ChangedChannels} {
			if got := <-heard; got != want {
				t.Errorf("heard of %q, want %q", got, want)
			}
		}
	}
	cancel()
	if err := <-firstEnded; !errors.Is(err, context.Canceled) {
		t.Errorf("who leaves: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-secondEnded; err != nil {
		t.Errorf("when the driver leaves: %v", err)
	}
	if err := c.Watch(t.Context(), func() {}, nil); !errors.Is(err, nic.ErrNoDevice) {
		t.Errorf("of one that has left: %v", err)
	}
}
