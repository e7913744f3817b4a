package host

import (
	"fmt"

	"hvnet/link/tap"
	"hvnet/nic"
	"hvnet/vswitch"
)

// AddTAP makes a kernel interface in the caller's network namespace and connects
// it to the switch; see [Host.ConnectTAP].
func (h *Host) AddTAP(cfg tap.Config) error {
	t, err := tap.Open(cfg)
	if err != nil {
		return err
	}
	return h.ConnectTAP(t)
}

// ConnectTAP connects a kernel interface to the switch, as a trunk if nothing else was said.
// It is down until somebody sets it up, and is the host's from now on: it goes with the host,
// or at once if it can't be connected.
func (h *Host) ConnectTAP(t *tap.TAP) error {
	p, err := h.connect(t.Name(), "", t, vswitch.PortOptions{VLAN: vswitch.Trunk()})
	if err != nil {
		t.Close()
		return err
	}
	if err := t.SetCarrier(true); err != nil {
		p.Close()
		t.Close()
		return fmt.Errorf("connect %s: %w", t.Name(), err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		forward(t.Queue(0), p)
	}()
	h.OnClose(func() {
		p.Close()
		t.Close()
		<-done
	})
	return nil
}

// batch is how many frames an uplink hands to the switch at once at most.
const batch = 64

// maxUplinkFrame is the longest frame that an uplink can have, one that is to be cut
// and has a tag; uplinkBuffer the memory for a batch, of which there are few of those.
const (
	maxUplinkFrame = nic.MaxFrame + 4
	uplinkBuffer   = 512 << 10
)

// forward passes what src gives to the switch until src is closed.
func forward(src nic.Source, to nic.Sink) {
	buf := make([]byte, uplinkBuffer)
	frames := make([]nic.Frame, 0, batch)
	for {
		var err error
		frames = frames[:0]
		for room := buf; len(frames) < batch && len(room) >= maxUplinkFrame; {
			var n int
			var o nic.Offload
			if n, o, err = src.ReadFrame(room[:maxUplinkFrame], nil); err != nil {
				break
			}
			// All of it is private memory, so all of it may be the head.
			frames = append(frames, nic.Frame{Head: room[:n:n], Offload: o})
			room = room[n:]
		}
		to.WriteFrames(frames)
		switch err {
		case nil:
		case nic.ErrNoFrame:
			if src.Wait() != nil {
				return
			}
		default:
			return
		}
	}
}
