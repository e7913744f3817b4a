package netvsc

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"testing"

	"hvnet/counter"
	"hvnet/internal/packets"
	"hvnet/nic"
	"hvnet/nvsp"
	"hvnet/rndis"
)

// everything is what the newest hosts offer.
var everything = rndis.HardwareOffload{
	IPv4: rndis.ChecksumOffload{Tx: needTCPv4 | rndis.ChecksumUDP}, IPv6: rndis.ChecksumOffload{Tx: needTCPv6 | rndis.ChecksumUDP},
	LSOv4: rndis.LSOOffload{Encap: rndis.EncapEthernet, MaxBytes: 62780, MinSegs: 2},
	LSOv6: rndis.LSOOffload{Encap: rndis.EncapEthernet, MaxBytes: 62780, MinSegs: 2}, LSOv6Opts: needLSOv6,
	RSCv4: 1, RSCv6: 1,
}

// switching returns a NIC on a host that offers so much, and what the host was told of
// offloads since: the values of OIDOffloadParameters in hexadecimal.
func switching(t *testing.T, offer rndis.HardwareOffload) (*fakeHost, *NIC, func() []string) {
	t.Helper()
	h := newFakeHost()
	h.offload = offer
	var told []string
	h.onRNDIS = func(m []byte) {
		if r, err := rndis.ParseSet(m); err == nil && r.OID == rndis.OIDOffloadParameters {
			h.mu.Lock()
			told = append(told, hex.EncodeToString(r.Info))
			h.mu.Unlock()
		}
	}
	take := func() []string {
		h.mu.Lock()
		defer h.mu.Unlock()
		all := told
		told = nil
		return all
	}
	n := open(t, h, Config{Queues: 2})
	take()
	return h, n, take
}

// names returns features by name, to be compared.
func names(list ...string) (s nic.FeatureSet) {
	for _, name := range list {
		f, ok := nic.ParseFeature(name)
		if !ok {
			panic(name)
		}
		s |= nic.FeaturesOf(f)
	}
	return s
}

func set(t *testing.T, n *NIC, on bool, list ...string) {
	t.Helper()
	c := nic.FeatureChange{Change: names(list...)}
	if on {
		c.On = c.Change
	}
	if err := n.SetFeatures(context.Background(), c); err != nil {
		t.Errorf("set %v %v: %v", list, on, err)
	}
}

// TestFeaturesOffered: what there is to switch is what the host offers.
func TestFeaturesOffered(t *testing.T) {
	v4 := everything
	v4.IPv6, v4.LSOv6Opts, v4.RSCv4 = rndis.ChecksumOffload{}, 0, 0
	always := names("rx-checksum", "tx-scatter-gather", "rx-hashing", "tx-generic-segmentation", "rx-gro",
		"tx-nocache-copy", "rx-gro-list", "rx-udp-gro-forwarding")
	off := names("tx-nocache-copy", "rx-gro-list", "rx-udp-gro-forwarding", "tx-tcp-mangleid-segmentation")
	fixed := names("highdma", "tx-vlan-hw-insert", "rx-vlan-hw-parse")
	of4 := names("tx-checksum-ipv4", "tx-tcp-segmentation", "tx-tcp-mangleid-segmentation")
	for what, x := range map[string]struct {
		offer rndis.HardwareOffload
		want  nic.FeatureSet
	}{
		"nothing":    {rndis.HardwareOffload{}, always},
		"IPv4":       {v4, always | of4},
		"everything": {everything, always | of4 | names("tx-checksum-ipv6", "tx-tcp6-segmentation", "rx-lro")},
	} {
		_, n, _ := switching(t, x.offer)
		want := nic.Features{Available: x.want, Wanted: x.want &^ off, Active: x.want&^off | fixed}
		if got, on := n.Features(), FeaturesOn(nvsp.V61, &x.offer); got != want || on != want {
			t.Errorf("%s: %+v and %+v, want %+v", what, got, on, want)
		}
	}
}

// TestSetFeatures: features that need others, that there are not, and that stay.
func TestSetFeatures(t *testing.T) {
	h, n, told := switching(t, everything)
	ctx := context.Background()
	up(t, n)
	var last nic.Features
	calls := 0
	if err := n.OnFeatures(ctx, func(f nic.Features) { last = f; calls++ }); err != nil {
		t.Fatal(err)
	}
	start := n.Features()
	check := func(when string, off, unwanted nic.FeatureSet) {
		t.Helper()
		want := nic.Features{Available: start.Available, Wanted: start.Wanted &^ unwanted, Active: start.Active &^ off}
		if got := n.Features(); got != want || last != want {
			t.Errorf("%s: %+v, told %+v, want %+v", when, got, last, want)
		}
	}
	check("at first", 0, 0)
	ipv4, tso, tso6, sg := names("tx-checksum-ipv4"), names("tx-tcp-segmentation"), names("tx-tcp6-segmentation"), names("tx-scatter-gather")
	set(t, n, false, "tx-checksum-ipv4")
	check("without checksum", ipv4|tso, ipv4)
	set(t, n, true, "tx-tcp-segmentation", "tx-fcoe-segmentation", "fcoe-mtu")
	check("with what cannot be", ipv4|tso, ipv4)
	set(t, n, false, "tx-scatter-gather", "highdma")
	check("without pieces", ipv4|tso|tso6|sg|names("tx-generic-segmentation"), ipv4|sg)
	if err := n.SetChannels(ctx, 1); err != nil {
		t.Fatal(err)
	}
	check("after a change of settings", ipv4|tso|tso6|sg|names("tx-generic-segmentation"), ipv4|sg)
	told() // as of every bring-up
	set(t, n, true, "tx-scatter-gather", "tx-checksum-ipv4")
	check("with all again", 0, 0)

	// A device that has lost a feature has it again on a host that has it.
	less := everything
	less.IPv6 = rndis.ChecksumOffload{}
	if err := n.Detach(ctx); err != nil {
		t.Fatal(err)
	}
	if err := n.SetFeatures(ctx, nic.FeatureChange{}); !errors.Is(err, nic.ErrNoDevice) {
		t.Errorf("without a device: %v", err)
	}
	h.offload = less
	calls = 0
	if err := n.Reattach(ctx, h); err != nil {
		t.Fatal(err)
	}
	if got := n.Features(); got.Active.Has(nic.FeatureTSO6) || got.Available.Has(nic.FeatureTxIPv6) || calls != 1 || last != got {
		t.Errorf("on a host with less: %+v, told %d times %+v", got, calls, last)
	}
	h.offload = everything
	if err := n.SetChannels(ctx, 2); err != nil {
		t.Fatal(err)
	}
	check("on a host with all", 0, 0)
	told()

	for _, never := range []string{"vlan-challenged", "tx-lockless", "netns-local"} {
		if err := n.SetFeatures(ctx, nic.FeatureChange{Change: names(never, "rx-checksum")}); !errors.Is(err, nic.ErrInvalid) {
			t.Errorf("%s: %v", never, err)
		}
	}
	check("after refusals", 0, 0)
	if all := told(); len(all) != 0 {
		t.Errorf("the host was told %v", all)
	}
	if err := n.Suspend(ctx); err != nil {
		t.Fatal(err)
	}
	if err := n.SetFeatures(ctx, nic.FeatureChange{Change: ipv4}); !errors.Is(err, nic.ErrNoDevice) {
		t.Errorf("suspended: %v", err)
	}
}

// TestCoalescingIsTold: of all features the host hears of one, and may refuse it.
func TestCoalescingIsTold(t *testing.T) {
	const off, on = "80031c0000000000000000000000000000000000000001010000" + "0000", "80031c0000000000000000000000000000000000000002020000" + "0000"
	h, n, told := switching(t, everything)
	expect := func(when string, lro bool, want ...string) {
		t.Helper()
		got := told()
		if len(got) != len(want) || len(want) == 1 && got[0] != want[0] {
			t.Errorf("%s: the host was told %v, want %v", when, got, want)
		}
		if n.Features().Active.Has(nic.FeatureLRO) != lro {
			t.Errorf("%s: coalescing is %v", when, !lro)
		}
	}
	set(t, n, true, "rx-lro")
	expect("as it is", true)
	set(t, n, false, "rx-lro", "rx-checksum")
	expect("off", false, off)
	if err := n.SetChannels(context.Background(), 1); err != nil {
		t.Fatal(err)
	}
	if got := told(); len(got) != 1 || got[0][44:48] != "0101" {
		t.Errorf("off at a change of settings: the host was told %v", got)
	}
	set(t, n, true, "rx-lro")
	expect("on", true, on)

	h.mu.Lock()
	h.onControl = func(q *fakeQueue, typ rndis.MessageType, m []byte, tid uint64) bool {
		r, err := rndis.ParseSet(m)
		if err != nil || r.OID != rndis.OIDOffloadParameters {
			return false
		}
		q.indicate(rndis.SetComplete{RequestID: r.RequestID, Status: rndis.StatusNotSupported}.Append(nil))
		q.complete(tid, nvsp.RNDISPacketComplete{Status: nvsp.StatusSuccess}.Append(nil))
		return true
	}
	h.mu.Unlock()
	set(t, n, false, "rx-lro")
	expect("refused", true, off)
	if n.Features().Wanted.Has(nic.FeatureLRO) {
		t.Error("the wish is forgotten")
	}
	h.mu.Lock()
	h.onControl = nil
	h.mu.Unlock()
}

// TestFeaturesSent: what the host is not to do for a frame, the driver does.
func TestFeaturesSent(t *testing.T) {
	h, n, _ := switching(t, everything)
	up(t, n)
	super := packets.Partial(packets.Shape{V6: true}.Frame(packets.Random(3000)), nic.SegmentTCPv6, 1000)
	one := packets.Partial(packets.Shape{}.Frame(packets.Random(700)), nic.SegmentNone, 0)
	right := packets.Shape{}.Frame(packets.Random(700))
	for _, x := range []struct {
		off   string
		send  *nic.Frame
		asked rndis.InfoSet
		count int
	}{
		{"rx-checksum", &one, rndis.HasChecksum, 1},
		{"tx-checksum-ipv6", &one, rndis.HasChecksum, 1},
		{"tx-checksum-ipv4", &one, 0, 1},
		{"tx-tcp-segmentation", &super, rndis.HasLargeSend, 1},
		{"tx-tcp6-segmentation", &super, rndis.HasChecksum, 3},
		{"tx-checksum-ipv6", &super, 0, 3},
		{"tx-scatter-gather", &super, rndis.HasChecksum, 3},
	} {
		set(t, n, false, x.off)
		h.mu.Lock()
		h.frames, h.asked = nil, nil
		h.mu.Unlock()
		if n.Send(0, []nic.Frame{*x.send}) != 1 {
			t.Fatal("not taken")
		}
		h.until(t, x.off+" off: the frames", func() bool { return len(h.frames) == x.count })
		h.mu.Lock()
		for i, f := range h.frames {
			if h.asked[i] != x.asked {
				t.Errorf("%s off: the host is asked for %#x, want %#x", x.off, h.asked[i], x.asked)
			}
			if x.send == &one && x.asked == 0 && !bytes.Equal(f, right) {
				t.Errorf("%s off: the checksum is not right", x.off)
			}
		}
		h.mu.Unlock()
		set(t, n, true, x.off)
	}
}

// TestFeaturesReceived: what the host says of a frame is passed on or not; what it
// leaves wrong in the bytes is put right all the same.
func TestFeaturesReceived(t *testing.T) {
	h, n, _ := switching(t, everything)
	set(t, n, false, "rx-gro") // which looks at checksums by itself
	r := up(t, n)
	b := packets.Shape{}.Frame(packets.Random(2000))
	short := packets.Shape{}.Frame(packets.Random(100))
	stale := bytes.Clone(short)
	stale[24], stale[25] = 1, 2
	good := rndis.Info{Has: rndis.HasChecksum | rndis.HasHash, Hash: 7, Checksum: uint32(rndis.RxTCPOK | rndis.RxIPOK)}
	bad := rndis.Info{Has: rndis.HasChecksum, Checksum: uint32(rndis.RxTCPFailed | rndis.RxIPOK)}
	invalid := good
	invalid.Checksum |= uint32(rndis.RxIPValueInvalid)
	for _, x := range []struct {
		off  string
		sum  [2]nic.Checksum // of a good and of a bad frame
		hash nic.HashKind
		bad  uint64
	}{
		{"tx-checksum-ipv4", [2]nic.Checksum{nic.ChecksumOK, nic.ChecksumBad}, nic.HashL4, 1},
		{"rx-checksum", [2]nic.Checksum{}, nic.HashL4, 0},
		{"rx-hashing", [2]nic.Checksum{nic.ChecksumOK, nic.ChecksumBad}, nic.HashNone, 1},
	} {
		set(t, n, false, x.off)
		r.mu.Lock()
		r.frames, r.meta = nil, nil
		r.mu.Unlock()
		before := n.count.Load(counter.RxChecksumBad)
		for _, m := range [][]byte{packetMessage(short, &good), packetMessage(short, &bad), packetMessage(stale, &invalid)} {
			if err := h.queue(0).indicate(m); err != nil {
				t.Fatal(err)
			}
		}
		got := r.wait(t, 3)
		sameFrames(t, got, [][]byte{short, short, short})
		if m := r.meta; m[0].Offload.Checksum != x.sum[0] || m[1].Offload.Checksum != x.sum[1] || m[0].HashKind != x.hash {
			t.Errorf("%s off: %+v", x.off, m)
		}
		if got := n.count.Load(counter.RxChecksumBad) - before; got != x.bad {
			t.Errorf("%s off: rx_checksum_bad counts %d, want %d", x.off, got, x.bad)
		}
		// A coalesced packet has no checksum of its own to look at.
		if err := h.queue(0).indicate(pieceMessages(good, []piece{{first, b[:1054]}, {last, b[1054:]}})...); err != nil {
			t.Fatal(err)
		}
		r.wait(t, 4)
		if o := r.meta[3].Offload; o.Segment != nic.SegmentTCPv4 || o.Checksum != nic.ChecksumPartial || o.Size != 1000 {
			t.Errorf("%s off: coalesced: %+v", x.off, o)
		}
		set(t, n, true, x.off)
	}
}

// TestFeaturesUnderTraffic switches while frames are sent: each has its checksum, or the
// host is asked for it.
func TestFeaturesUnderTraffic(t *testing.T) {
	h, n, _ := switching(t, everything)
	up(t, n)
	one := packets.Partial(packets.Shape{}.Frame(packets.Random(700)), nic.SegmentNone, 0)
	right := packets.Shape{}.Frame(packets.Random(700))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 200 {
			set(t, n, i%2 == 0, "tx-checksum-ipv4", "rx-lro", "rx-checksum")
		}
	}()
	sent := 0
	for going := true; going || sent < 10; {
		select {
		case <-done:
			going = false
		default:
		}
		sent += n.Send(0, []nic.Frame{one})
	}
	h.until(t, "all frames arrive", func() bool { return len(h.frames) == sent })
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, f := range h.frames {
		if h.asked[i] == 0 && !bytes.Equal(f, right) {
			t.Fatalf("frame %d of %d has no checksum", i, sent)
		}
	}
}
