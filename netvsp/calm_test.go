package netvsp

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"hvnet/nvsp"
	"hvnet/rndis"
	"hvnet/vmbus"
)

// TestRest: a host waits for a guest that has something to take, to return or to say, but
// not for ever, and hardly for one that has nothing.
func TestRest(t *testing.T) {
	const limit = 3 * time.Second
	rest := func(t *testing.T, g *fakeGuest) time.Duration {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		begin := time.Now()
		g.dev.Rest(ctx)
		return time.Since(begin)
	}
	for _, x := range []struct {
		name string
		meet func(g *fakeGuest)
		want time.Duration
	}{
		{"silent", func(*fakeGuest) {}, silent * glance},
		{"does not read", func(g *fakeGuest) { g.dev.NetworkChange() }, limit},
		{"leaves a completion lying", func(g *fakeGuest) {
			m := nvsp.RNDISPacket{Section: 1, SectionBytes: uint32(copy(g.send.Bytes[6144:], packet(ether(otherMAC, guestMAC, 100, 1), nil)))}
			g.put(g.ch, vmbus.AppendInBand(nil, vmbus.FlagCompletionRequested, 99), nvsp.Pad(m.Append(nil), 0, nvsp.MaxSize))
			synctest.Wait()
		}, limit},
		{"keeps a section", func(g *fakeGuest) {
			g.dev.NetworkChange()
			g.next(g.ch)
		}, limit},
		{"sends for a while", func(g *fakeGuest) {
			go func() {
				for range 10 {
					time.Sleep(glance / 2)
					g.bySection(1, packet(ether(otherMAC, guestMAC, 100, 1), nil))
				}
			}()
		}, 10*glance/2 + quietNow*glance},
	} {
		t.Run(x.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGuest(t, "ws2022")
				g.up(nvsp.V61)
				g.dev.Unplug()
				if m, err := rndis.ParseIndicateStatus(g.answer()); err != nil || m.Status != rndis.StatusMediaDisconnect {
					t.Errorf("unplugged, the guest hears %+v, %v", m, err)
				}
				synctest.Wait()
				x.meet(g)
				if took := rest(t, g); took < x.want || took > x.want+2*glance {
					t.Errorf("rest after %v, want %v", took, x.want)
				}
			})
		})
	}
}
