package netvsc

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"hvnet/counter"
	"hvnet/nic"
	"hvnet/nvsp"
	"hvnet/rndis"
)

// rebuilt returns how often the device was attached.
func (h *fakeHost) rebuilt() (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.events {
		if e == "SEND_RECEIVE_BUFFER" {
			n++
		}
	}
	return n
}

// refuse has the host answer a setting with a status.
func (h *fakeHost) refuse(oid rndis.OID, status rndis.Status) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.onControl = func(q *fakeQueue, got rndis.MessageType, m []byte, tid uint64) bool {
		s, err := rndis.ParseSet(m)
		if err != nil || s.OID != oid {
			return false
		}
		q.indicate(rndis.SetComplete{RequestID: s.RequestID, Status: status}.Append(nil))
		q.complete(tid, nvsp.RNDISPacketComplete{Status: nvsp.StatusSuccess}.Append(nil))
		return true
	}
}

// TestSetMTU changes the MTU while frames flow; each frame is as long as it may be
// at that time.
func TestSetMTU(t *testing.T) {
	h := newFakeHost()
	n := open(t, h, Config{Queues: 2})
	src := newSource()
	pumping(t, n, src)
	up(t, n)
	ctx := context.Background()
	frames := 0
	for _, mtu := range []int{1400, 9000, 68, 1500, 1500} {
		if err := n.SetMTU(ctx, mtu); err != nil {
			t.Fatalf("SetMTU(%d): %v", mtu, err)
		}
		if n.MTU() != mtu || n.Info().MTU != mtu {
			t.Errorf("MTU is %d, want %d", n.MTU(), mtu)
		}
		for range 20 {
			src.add(frame(frames, mtu+nic.HeaderLen))
			frames++
		}
		h.until(t, "the frames arrive", func() bool { return len(h.frames) == frames })
	}
	if got := h.rebuilt(); got != 5 {
		t.Errorf("%d attachments, want 5: the last MTU was so already", got)
	}
	if h.filter != 0x0d {
		t.Errorf("filter is %#x", h.filter)
	}
	for _, bad := range []int{-1, 0, 67, 65522} {
		if err := n.SetMTU(ctx, bad); !errors.Is(err, nic.ErrInvalid) {
			t.Errorf("SetMTU(%d): %v", bad, err)
		}
	}
	if n.MTU() != 1500 || h.rebuilt() != 5 {
		t.Errorf("a refused MTU has done something: %d", n.MTU())
	}
}

// TestSetMTULowered: the host has the last word, once and for all.
func TestSetMTULowered(t *testing.T) {
	h := newFakeHost()
	n := open(t, h, Config{})
	up(t, n)
	ctx := context.Background()
	if err := n.SetMTU(ctx, 20000); err != nil {
		t.Fatal(err)
	}
	if n.MTU() != 9000 {
		t.Errorf("MTU is %d, want the host's 9000", n.MTU())
	}
	h.mu.Lock()
	h.mtu = 30000
	h.mu.Unlock()
	if err := n.SetChannels(ctx, 2); err != nil {
		t.Fatal(err)
	}
	if n.MTU() != 9000 {
		t.Errorf("MTU has grown to %d by itself", n.MTU())
	}
}

// TestSetMTUOldHost: NVSP 1 cannot be told an MTU, version 2 can.
func TestSetMTUOldHost(t *testing.T) {
	for v, most := range map[nvsp.Version]int{nvsp.V1: 1500, nvsp.V2: 9000} {
		h := newFakeHost()
		h.versions = []nvsp.Version{v}
		n := open(t, h, Config{})
		for _, mtu := range []int{1000, most} {
			if err := n.SetMTU(context.Background(), mtu); err != nil || n.MTU() != mtu {
				t.Errorf("NVSP %v: SetMTU(%d): %v, it is %d", v, mtu, err, n.MTU())
			}
		}
		err := n.SetMTU(context.Background(), 1501)
		if refused := errors.Is(err, nic.ErrInvalid); refused != (v == nvsp.V1) {
			t.Errorf("NVSP %v: SetMTU(1501): %v", v, err)
		}
	}
}

// TestSetRings: the host decides how many sections there are, and what does not
// change is not touched.
func TestSetRings(t *testing.T) {
	h := newFakeHost()
	h.rxSection = 1728
	n := open(t, h, Config{Queues: 2})
	src := newSource()
	pumping(t, n, src)
	up(t, n)
	ctx := context.Background()
	if r := n.Rings(); r != (nic.Rings{RxMax: 18811, TxMax: 2560, Rx: 9709, Tx: 170}) {
		t.Fatalf("rings at first: %+v", r)
	}
	frames := 0
	for _, c := range []struct{ rx, tx, wantRx, wantTx, attached int }{
		{9709, 170, 9709, 170, 1},
		{100, 170, 101, 170, 2}, // whole pages
		{101, 170, 101, 170, 2},
		{5, 171, 11, 171, 3},
		{0, 0, 11, 10, 4}, // 10 sections are 5 pages, and so 11 of them
		{18811, 2560, 18811, 2560, 5},
	} {
		if err := n.SetRings(ctx, c.rx, c.tx); err != nil {
			t.Fatalf("SetRings(%d, %d): %v", c.rx, c.tx, err)
		}
		if r := n.Rings(); r.Rx != c.wantRx || r.Tx != c.wantTx || h.rebuilt() != c.attached {
			t.Errorf("SetRings(%d, %d): %+v after %d attachments, want %+v", c.rx, c.tx, r, h.rebuilt(), c)
		}
		src.add(frame(frames, 1500))
		frames++
		h.until(t, "the frames arrive", func() bool { return len(h.frames) == frames })
	}
	for _, bad := range [][2]int{{18812, 170}, {100, 2561}, {-1, 100}, {100, -1}} {
		if err := n.SetRings(ctx, bad[0], bad[1]); !errors.Is(err, nic.ErrInvalid) {
			t.Errorf("SetRings(%v): %v", bad, err)
		}
	}
	if h.rebuilt() != 5 {
		t.Error("refused rings have done something")
	}
}

// TestChangeRollback has the host refuse the buffer, and the MTU be too much for it:
// all is as before.
func TestChangeRollback(t *testing.T) {
	h := newFakeHost()
	n := open(t, h, Config{Queues: 2})
	src := newSource()
	pumping(t, n, src)
	up(t, n)
	before := n.Info()
	refuseOnce := func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		first := true
		h.onNVSP = func(q *fakeQueue, got nvsp.MessageType, m []byte, tid uint64) bool {
			if got != nvsp.TypeSendReceiveBuffer || !first {
				return false
			}
			first = false
			q.complete(tid, nvsp.SendReceiveBufferComplete{Status: nvsp.StatusFail}.Append(nil))
			return true
		}
	}
	for what, change := range map[string]func() error{
		"MTU":   func() error { return n.SetMTU(context.Background(), 9000) },
		"rings": func() error { return n.SetRings(context.Background(), 50, 50) },
	} {
		refuseOnce()
		if err := change(); err == nil || !strings.Contains(err.Error(), "refused by the host") {
			t.Errorf("%s: %v", what, err)
		}
		if got := n.Info(); got != before {
			t.Errorf("%s: %+v, want %+v", what, got, before)
		}
	}
	src.add(frame(1, 1514))
	h.until(t, "the frame arrives", func() bool { return len(h.frames) == 1 })
	if got := n.count.Load(counter.TxLost); got != 0 {
		t.Errorf("tx_lost is %d", got)
	}
}

// TestSetMAC: the parameter's bytes, its life over attachments, and no interruption.
func TestSetMAC(t *testing.T) {
	h := newFakeHost()
	var told []string
	h.onRNDIS = func(m []byte) {
		if s, err := rndis.ParseSet(m); err == nil && s.OID == rndis.OIDConfigParameter {
			p, _ := rndis.ParseConfigParameter(s.Info)
			mac, err := p.MAC()
			told = append(told, p.Name+" "+nic.MAC(mac).String())
			if err != nil || len(s.Info) != 72 {
				t.Errorf("parameter of %d bytes: %v", len(s.Info), err)
			}
		}
	}
	n := open(t, h, Config{Queues: 2})
	up(t, n)
	ctx := context.Background()
	other := nic.MAC{0x02, 0, 0, 0xab, 0xcd, 0xef}
	for range 2 {
		if err := n.SetMAC(ctx, other); err != nil {
			t.Fatal(err)
		}
	}
	if n.MAC() != other || n.Info().MAC != other || h.rebuilt() != 1 {
		t.Errorf("address %v after %d attachments", n.MAC(), h.rebuilt())
	}
	if err := n.SetChannels(ctx, 1); err != nil {
		t.Fatal(err)
	}
	if n.MAC() != other {
		t.Errorf("address %v after another attachment, want %v", n.MAC(), other)
	}
	if err := n.SetMAC(ctx, h.mac); err != nil {
		t.Fatal(err)
	}
	if err := n.SetChannels(ctx, 2); err != nil {
		t.Fatal(err)
	}
	if n.MAC() != h.mac {
		t.Errorf("address %v, want the permanent one", n.MAC())
	}
	name := "NetworkAddress "
	if want := []string{name + other.String(), name + other.String(), name + h.mac.String()}; !slices.Equal(told, want) {
		t.Errorf("the host was told %q, want %q", told, want)
	}
	for _, bad := range []nic.MAC{{}, nic.Broadcast, {1}} {
		if err := n.SetMAC(ctx, bad); !errors.Is(err, nic.ErrInvalid) {
			t.Errorf("SetMAC(%v): %v", bad, err)
		}
	}
}

func TestSetMACRefused(t *testing.T) {
	h := newFakeHost()
	n := open(t, h, Config{Queues: 2})
	up(t, n)
	ctx := context.Background()
	other := nic.MAC{2, 0, 0, 0, 0, 1}
	if err := n.SetMAC(ctx, other); err != nil {
		t.Fatal(err)
	}
	h.refuse(rndis.OIDConfigParameter, rndis.StatusNotSupported)
	err := n.SetMAC(ctx, nic.MAC{2, 0, 0, 0, 0, 2})
	if !errors.Is(err, nic.ErrIO) || !errors.Is(err, rndis.StatusNotSupported) || n.MAC() != other {
		t.Errorf("SetMAC: %v, address %v", err, n.MAC())
	}
	// A host that has changed its mind still has the NIC.
	if err := n.SetChannels(ctx, 1); err != nil {
		t.Fatal(err)
	}
	if n.MAC() != h.mac {
		t.Errorf("address %v, want the permanent one", n.MAC())
	}
}

// TestSetPromiscuous: the filter is hv_netvsc's, over down and up and attachments.
func TestSetPromiscuous(t *testing.T) {
	h := newFakeHost()
	n := open(t, h, Config{Queues: 2})
	ctx := context.Background()
	filter := func(what string, want uint32) {
		t.Helper()
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.filter != want {
			t.Errorf("%s: filter is %#x, want %#x", what, h.filter, want)
		}
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(n.SetPromiscuous(ctx, true))
	filter("down", 0)
	up(t, n)
	filter("up", 0x20)
	check(n.SetPromiscuous(ctx, false))
	filter("not promiscuous", 0x0d)
	check(n.SetPromiscuous(ctx, true))
	check(n.SetMTU(ctx, 4000))
	filter("another MTU", 0x20)
	check(n.Down(ctx))
	filter("down again", 0)
	up(t, n)
	filter("up again", 0x20)

	h.refuse(rndis.OIDCurrentPacketFilter, rndis.StatusNotSupported)
	if err := n.SetPromiscuous(ctx, false); !errors.Is(err, rndis.StatusNotSupported) {
		t.Errorf("refused: %v", err)
	}
	h.mu.Lock()
	h.onControl = nil
	h.mu.Unlock()
	check(n.SetChannels(ctx, 1))
	filter("after a refusal", 0x20)
}
