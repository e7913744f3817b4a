package guest

import (
	"bytes"
	"slices"
	"testing"
	"testing/synctest"

	"hvnet/hv"
	"hvnet/vmbus"
	"hvnet/vmbus/channel"
)

// A counted partition keeps how many messages were posted together, and first says
// that it has no room.
type counted struct {
	*deaf
	together []int
}

func (c *counted) PostMessage(conn uint32, payloads ...[]byte) error {
	c.together = append(c.together, len(payloads))
	if len(payloads) > 1 && len(c.together)%2 == 0 {
		return hv.StatusInsufficientBuffers
	}
	return c.deaf.PostMessage(conn, payloads...)
}

// The messages of a GPADL are posted in order and as many together as can be; those
// that the host has no room for are posted again, together.
func TestGPADLIsPostedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDeaf()
		posted := 0
		d.status = helpful(d, func(typ vmbus.MessageType, _ []byte) error {
			if posted++; posted == 147 {
				d.answer(vmbus.GPADLCreated{Relid: 1, ID: firstGPADL}.Append(nil))
			}
			return nil
		})
		p := &counted{deaf: d}
		bus := must[*Bus](t)(Connect(t.Context(), p, Config{}))
		defer bus.Close()
		dev := must[channel.Device](t)(bus.Device(t.Context(), vmbus.ClassNIC))
		region := must[hv.Region](t)(dev.Alloc(4096 * hv.PageSize))
		d.mu.Lock()
		d.posts, p.together = nil, nil
		d.mu.Unlock()
		must[uint32](t)(dev.Share(t.Context(), region))

		want, err := vmbus.AppendGPADL(nil, 1, firstGPADL, region.Pages(), region.PFN)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.EqualFunc(d.posts, want, bytes.Equal) {
			t.Errorf("%d messages, not the %d of the GPADL in order", len(d.posts), len(want))
		}
		if want := []int{64, 64, 64, 19, 19}; !slices.Equal(p.together, want) {
			t.Errorf("posted together: %v, want %v", p.together, want)
		}
	})
}
