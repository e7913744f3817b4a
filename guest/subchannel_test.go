package guest_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"

	"hvnet/guest"
	"hvnet/host"
	"hvnet/hv"
	"hvnet/nic"
	"hvnet/vmbus"
)

// forging is a partition whose host has taken a channel away, and gives its rings
// back, when the test wants it to.
type forging struct {
	hv.Partition
	message atomic.Pointer[[]byte] // the next one, before those of the host
}

// forge has the guest hear something. The host is made to say something too, which
// wakes the guest: that there is no channel 99 to move.
func (f *forging) forge(b []byte) error {
	f.message.Store(&b)
	return f.Partition.PostMessage(vmbus.ConnContact, vmbus.ModifyChannel{Relid: 99}.Append(nil))
}

func (f *forging) PostMessage(conn uint32, payloads ...[]byte) error {
	if d, err := vmbus.ParseGPADLTeardown(payloads[0]); err == nil && d.Relid == sub {
		return f.forge(vmbus.GPADLTorndown{ID: d.ID}.Append(nil))
	}
	return f.Partition.PostMessage(conn, payloads...)
}

// sub is the relid after that of the primary channel.
const sub = 2

func (f *forging) TakeMessage(vp int, m *hv.Message) bool {
	if b := f.message.Swap(nil); b != nil {
		m.Type, m.Size = hv.MessageVMBus, copy(m.Data[:], *b)
		return true
	}
	return f.Partition.TakeMessage(vp, m)
}

// received counts frames.
type received struct{ atomic.Int32 }

func (r *received) WriteFrames(frames []nic.Frame) { r.Add(int32(len(frames))) }

// A host that takes a sub-channel alone leaves the NIC with all its channels: it is
// attached anew to the device that is there still.
func TestSubChannelIsTakenAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := host.New(host.Config{})
		part, far, err := hv.Pipe(2)
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- h.Serve(far, host.PortConfig{}) }()
		f := &forging{Partition: part}
		g, err := guest.Start(t.Context(), f, guest.Config{})
		if err == nil {
			err = g.NIC.Up(t.Context(), new(received))
		}
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		changes := make(chan error, 10)
		g.OnChange(func(lost error) { changes <- lost })
		<-changes // as it is now

		if err := f.forge(vmbus.RescindOffer{Relid: sub}.Append(nil)); err != nil {
			t.Fatal(err)
		}
		if err := <-changes; err != guest.ErrTakenAway {
			t.Errorf("lost: %v", err)
		}
		if err := <-changes; err != nil {
			t.Errorf("not back: %v", err)
		}
		if c := g.NIC.Channels().Combined; c != 2 {
			t.Errorf("%d channels", c)
		}
		if g.NIC.Send(0, []nic.Frame{{Head: make([]byte, 60)}}) != 1 {
			t.Error("Send took nothing")
		}
		if err := g.Close(t.Context()); err != nil {
			t.Errorf("Close: %v", err)
		}
		h.Close(t.Context())
		<-served
	})
}
