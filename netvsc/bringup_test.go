package netvsc

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"hvnet/nic"
	"hvnet/nvsp"
	"hvnet/rndis"
	"hvnet/vmbus"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestOpenInterrupted ends the caller's time while a sub-channel is opened: the error
// names that, and nothing is left.
func TestOpenInterrupted(t *testing.T) {
	h := newFakeHost()
	ctx, cancel := context.WithCancel(context.Background())
	h.onOpen = func(index int) error {
		if index == 2 {
			cancel()
		}
		return ctx.Err()
	}
	_, err := Open(ctx, h, Config{})
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "open channel 2") {
		t.Errorf("Open: %v", err)
	}
	h.clean(t)
}

func TestBringUpOrder(t *testing.T) {
	h := newFakeHost()
	h.vps = 2
	n := open(t, h, Config{})
	bus, ring := h.seen()
	wantBus := []string{"open 0 vp 0", "share 16384 KiB", "share 1020 KiB", "open 1 vp 1"}
	wantRing := []string{
		"INIT", "SEND_NDIS_CONFIG", "SEND_NDIS_VERSION", "SEND_RECEIVE_BUFFER", "SEND_SEND_BUFFER",
		"INITIALIZE", "QUERY GEN_MAXIMUM_FRAME_SIZE", "QUERY 802_3_PERMANENT_ADDRESS", "QUERY GEN_FRIENDLY_NAME",
		"QUERY TCP_OFFLOAD_HARDWARE_CAPABILITIES", "SET TCP_OFFLOAD_PARAMETERS",
		"QUERY GEN_MEDIA_CONNECT_STATUS", "QUERY GEN_LINK_SPEED", "QUERY GEN_RECEIVE_SCALE_CAPABILITIES",
		"SUBCHANNEL", "SET GEN_RECEIVE_SCALE_PARAMETERS", "SET GEN_RECEIVE_SCALE_PARAMETERS",
	}
	if !slices.Equal(bus, wantBus) || !slices.Equal(ring, wantRing) {
		t.Errorf("host saw %q and\n%q, want %q and\n%q", bus, ring, wantBus, wantRing)
	}
	i := n.Info()
	if i.NVSP != "6.1" || i.NDIS != "6.30" || i.MAC != h.mac || i.MTU != 1500 || i.Name != "Fake Adapter" || i.Channels != 2 ||
		i.RxSections != 16777216/1806 || i.RxSize != 1806 || i.TxSections != 170 || i.TxSize != 6144 ||
		i.Link != (nic.LinkState{Up: true, Mbps: 40000}) || i.Up {
		t.Errorf("Info: %+v", i)
	}
	if v := n.Details(); v != (nic.Details{VMBus: i.VMBus, NVSP: "6.1", NDIS: "6.30", FragmentCure: true}) || v.VMBus == "" {
		t.Errorf("Details: %+v", v)
	}
	if n.MAC() != h.mac || n.MTU() != 1500 {
		t.Errorf("MAC %v, MTU %d", n.MAC(), n.MTU())
	}
	if r := n.Rings(); r != (nic.Rings{RxMax: 17998, TxMax: 2560, Rx: 9289, Tx: 170}) {
		t.Errorf("Rings: %+v", r)
	}
}

func TestTeardownOrder(t *testing.T) {
	for _, c := range []struct {
		vmbus vmbus.Version
		want  []string
	}{
		{vmbus.Version5_3, []string{"close 0", "unshare 16384 KiB", "unshare 1020 KiB"}},
		{vmbus.Version3_0, []string{"unshare 16384 KiB", "unshare 1020 KiB", "close 0"}},
	} {
		t.Run(c.vmbus.String(), func(t *testing.T) {
			h := newFakeHost()
			h.vmbus = c.vmbus
			n := open(t, h, Config{Queues: 1})
			h.mu.Lock()
			h.events = nil
			h.mu.Unlock()
			if err := n.Close(context.Background()); err != nil {
				t.Fatal(err)
			}
			bus, ring := h.seen()
			if want := []string{"HALT", "REVOKE_RECEIVE_BUFFER", "REVOKE_SEND_BUFFER"}; !slices.Equal(bus, c.want) || !slices.Equal(ring, want) {
				t.Errorf("host saw %q and %q, want %q and %q", bus, ring, c.want, want)
			}
		})
	}
}

func TestVersionFallback(t *testing.T) {
	for _, v := range nvsp.Versions() {
		t.Run(v.String(), func(t *testing.T) {
			h := newFakeHost()
			h.versions = []nvsp.Version{v}
			n := open(t, h, Config{})
			if i := n.Info(); i.NVSP != v.String() {
				t.Errorf("negotiated %v", i.NVSP)
			}
			want := nic.Channels{Max: 8, Combined: 8}
			if v < nvsp.V5 {
				want = nic.Channels{Max: 1, Combined: 1}
			}
			if c := n.Channels(); c != want {
				t.Errorf("channels: %+v, want %+v", c, want)
			}
			if got := len(h.rx.Bytes); v <= nvsp.V2 && got != 15<<20 || v > nvsp.V2 && got != 16<<20 {
				t.Errorf("receive buffer of %d bytes", got)
			}
			if v < nvsp.V5 {
				if err := n.SetChannels(context.Background(), 2); !errors.Is(err, nic.ErrInvalid) {
					t.Errorf("SetChannels(2): %v", err)
				}
				if err := n.SetChannels(context.Background(), 1); err != nil {
					t.Errorf("SetChannels(1): %v", err)
				}
			}
		})
	}
}

// TestRefusals has the host refuse, or answer nonsense to, each step that can't be
// done without, and never answer it.
func TestRefusals(t *testing.T) {
	nvspAnswer := func(t nvsp.MessageType, answer []byte) func(h *fakeHost) {
		return func(h *fakeHost) {
			h.onNVSP = func(q *fakeQueue, got nvsp.MessageType, m []byte, tid uint64) bool {
				if got != t {
					return false
				}
				if answer != nil {
					q.complete(tid, slices.Clone(answer))
				}
				return true
			}
		}
	}
	rndisSilence := func(what rndis.MessageType, oid rndis.OID) func(h *fakeHost) {
		return func(h *fakeHost) {
			h.onControl = func(q *fakeQueue, got rndis.MessageType, m []byte, tid uint64) bool {
				r, _ := rndis.ParseQuery(m)
				if got == rndis.TypeSet {
					s, _ := rndis.ParseSet(m)
					r.OID = s.OID
				}
				if got != what || r.OID != oid {
					return false
				}
				q.complete(tid, nvsp.RNDISPacketComplete{Status: nvsp.StatusSuccess}.Append(nil))
				return true
			}
		}
	}
	rx := func(s ...nvsp.ReceiveSection) []byte {
		return nvsp.SendReceiveBufferComplete{Status: nvsp.StatusSuccess, Sections: s}.Append(nil)
	}
	for _, c := range []struct {
		name   string
		script func(h *fakeHost)
		want   string
	}{
		{"no version", func(h *fakeHost) { h.versions = nil }, "negotiate NVSP"},
		{"INIT unanswered", nvspAnswer(nvsp.TypeInit, nil), "wait for answer to INIT of NVSP 6.1"},
		{"INIT answered by another", nvspAnswer(nvsp.TypeInit, nvsp.SendSendBufferComplete{Status: 1, SectionSize: 6144}.Append(nil)), "wait for answer to INIT"},
		{"INIT answered as a send", nvspAnswer(nvsp.TypeInit, nvsp.RNDISPacketComplete{Status: 1}.Append(nil)), "wait for answer to INIT"},
		{"INIT answered by nothing", nvspAnswer(nvsp.TypeInit, []byte{}), "wait for answer to INIT"},
		{"receive buffer refused", nvspAnswer(nvsp.TypeSendReceiveBuffer, nvsp.SendReceiveBufferComplete{Status: nvsp.StatusFail}.Append(nil)), "receive buffer"},
		{"receive buffer unanswered", nvspAnswer(nvsp.TypeSendReceiveBuffer, nil), "wait for answer to SEND_RECEIVE_BUFFER"},
		{"no receive section", nvspAnswer(nvsp.TypeSendReceiveBuffer, rx()), "0 sections"},
		{"receive section too large", nvspAnswer(nvsp.TypeSendReceiveBuffer, rx(nvsp.ReceiveSection{Size: 1 << 20, Count: 17})), "do not fit"},
		{"receive section overflows", nvspAnswer(nvsp.TypeSendReceiveBuffer, rx(nvsp.ReceiveSection{Size: 1 << 31, Count: 1 << 31})), "do not fit"},
		{"receive section tiny", nvspAnswer(nvsp.TypeSendReceiveBuffer, rx(nvsp.ReceiveSection{Size: 67, Count: 10})), "at least 68"},
		{"send buffer refused", nvspAnswer(nvsp.TypeSendSendBuffer, nvsp.SendSendBufferComplete{Status: nvsp.StatusFail}.Append(nil)), "send buffer"},
		{"send section tiny", nvspAnswer(nvsp.TypeSendSendBuffer, nvsp.SendSendBufferComplete{Status: 1, SectionSize: 67}.Append(nil)), "section size is 67"},
		{"send section huge", nvspAnswer(nvsp.TypeSendSendBuffer, nvsp.SendSendBufferComplete{Status: 1, SectionSize: 1 << 30}.Append(nil)), "section size is"},
		{"too many sub-channels", nvspAnswer(nvsp.TypeSubChannel, nvsp.SubChannelComplete{Status: 1, Count: 8}.Append(nil)), "grants 8"},
		{"INITIALIZE unanswered", rndisSilence(rndis.TypeInitialize, 0), "wait for answer to RNDIS INITIALIZE"},
		{"MAC unanswered", rndisSilence(rndis.TypeQuery, rndis.OIDPermanentAddress), "PERMANENT_ADDRESS"},
		{"offload unanswered", rndisSilence(rndis.TypeSet, rndis.OIDOffloadParameters), "TCP_OFFLOAD_PARAMETERS"},
		{"INITIALIZE refused as a send", func(h *fakeHost) {
			h.onControl = func(q *fakeQueue, got rndis.MessageType, m []byte, tid uint64) bool {
				q.complete(tid, nvsp.RNDISPacketComplete{Status: nvsp.StatusInvalidRNDISPacket}.Append(nil))
				return true
			}
		}, "invalid RNDIS packet"},
		{"INITIALIZE refused", func(h *fakeHost) {
			h.onControl = func(q *fakeQueue, got rndis.MessageType, m []byte, tid uint64) bool {
				id, _ := rndis.RequestID(m)
				q.indicate(rndis.InitializeComplete{RequestID: id, Status: rndis.StatusBadVersion}.Append(nil))
				q.complete(tid, nvsp.RNDISPacketComplete{Status: nvsp.StatusSuccess}.Append(nil))
				return true
			}
		}, "bad version"},
		{"offload refused", func(h *fakeHost) {
			h.onControl = func(q *fakeQueue, got rndis.MessageType, m []byte, tid uint64) bool {
				r, err := rndis.ParseSet(m)
				if err == nil {
					q.indicate(rndis.SetComplete{RequestID: r.RequestID, Status: rndis.StatusInvalidData}.Append(nil))
					q.complete(tid, nvsp.RNDISPacketComplete{Status: nvsp.StatusSuccess}.Append(nil))
				}
				return err == nil
			}
		}, "set TCP_OFFLOAD_PARAMETERS: NDIS status invalid data"},
		{"too long an answer", func(h *fakeHost) {
			h.rxSection = 8192
			h.oid[rndis.OIDPermanentAddress] = make([]byte, 5000)
		}, "buffer overflow"},
		{"answer of another type", func(h *fakeHost) {
			h.onControl = func(q *fakeQueue, got rndis.MessageType, m []byte, tid uint64) bool {
				id, _ := rndis.RequestID(m)
				q.indicate(rndis.SetComplete{RequestID: id}.Append(nil))
				q.complete(tid, nvsp.RNDISPacketComplete{Status: nvsp.StatusSuccess}.Append(nil))
				return true
			}
		}, "wait for answer to RNDIS INITIALIZE"},
		{"multicast MAC", func(h *fakeHost) { h.mac = nic.MAC{1, 2, 3, 4, 5, 6} }, "not the address of a NIC"},
		{"short MAC", func(h *fakeHost) { h.oid[rndis.OIDPermanentAddress] = []byte{1, 2} }, "PERMANENT_ADDRESS"},
		{"no buffer can be shared", func(h *fakeHost) { h.onShare = func(int) error { return errors.New("no GPADL today") } }, "no GPADL today"},
		{"no channel", func(h *fakeHost) { h.onOpen = func(int) error { return errors.New("no channel today") } }, "no channel today"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newFakeHost()
				c.script(h)
				n, err := Open(context.Background(), h, Config{})
				if err == nil {
					n.Close(context.Background())
					t.Fatal("opened")
				}
				if !strings.Contains(err.Error(), c.want) {
					t.Errorf("error %q does not say %q", err, c.want)
				}
				h.clean(t)
			})
		})
	}
}

// TestTolerance has the host withhold what the NIC can do without.
func TestTolerance(t *testing.T) {
	short := func(o rndis.OID, b ...byte) func(*fakeHost) {
		return func(h *fakeHost) { h.oid[o] = b }
	}
	for _, c := range []struct {
		name   string
		script func(h *fakeHost)
		check  func(i Info) bool
	}{
		{"tiny maximum frame", func(h *fakeHost) { h.mtu = 10 }, func(i Info) bool { return i.MTU == 1500 }},
		{"small maximum frame", func(h *fakeHost) { h.mtu = 1400 }, func(i Info) bool { return i.MTU == 1400 }},
		{"no maximum frame", short(rndis.OIDMaximumFrameSize), func(i Info) bool { return i.MTU == 1500 }},
		{"odd name", short(rndis.OIDFriendlyName, 65), func(i Info) bool { return i.Name == "" }},
		{"no link state", short(rndis.OIDMediaConnectStatus), func(i Info) bool { return i.Link.Up }},
		{"link down", short(rndis.OIDMediaConnectStatus, 1, 0, 0, 0), func(i Info) bool { return !i.Link.Up }},
		{"no RSS", short(rndis.OIDReceiveScaleCaps), func(i Info) bool { return i.Channels == 1 }},
		{"one queue", func(h *fakeHost) { h.queues = 1 }, func(i Info) bool { return i.Channels == 1 }},
		{"no sub-channels", func(h *fakeHost) { h.grant = 0 }, func(i Info) bool { return i.Channels == 1 }},
		{"fewer sub-channels", func(h *fakeHost) { h.grant = 2 }, func(i Info) bool { return i.Channels == 3 }},
		{"sub-channels refused", func(h *fakeHost) {
			h.onNVSP = func(q *fakeQueue, got nvsp.MessageType, m []byte, tid uint64) bool {
				if got == nvsp.TypeSubChannel {
					q.complete(tid, nvsp.SubChannelComplete{Status: nvsp.StatusFail}.Append(nil))
				}
				return got == nvsp.TypeSubChannel
			}
		}, func(i Info) bool { return i.Channels == 1 }},
		{"a sub-channel is missing", func(h *fakeHost) {
			h.onOpen = func(i int) error {
				if i == 2 {
					return errors.New("no channel today")
				}
				return nil
			}
		}, func(i Info) bool { return i.Channels == 2 }},
		{"absurd batch limits", func(h *fakeHost) { h.maxPackets, h.align = 1<<31, 31 }, func(i Info) bool { return i.MaxPackets == 64 }},
		{"answers twice", func(h *fakeHost) {
			h.onControl = func(q *fakeQueue, got rndis.MessageType, m []byte, tid uint64) bool {
				if a := q.answer(got, m); a != nil {
					q.indicate(a)
					q.indicate(a)
				}
				done := nvsp.RNDISPacketComplete{Status: nvsp.StatusSuccess}.Append(nil)
				q.complete(tid, done)
				q.complete(tid, slices.Clone(done))
				return true
			}
		}, func(i Info) bool { return i.Channels == 8 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newFakeHost()
			c.script(h)
			n := open(t, h, Config{})
			if i := n.Info(); !c.check(i) {
				t.Errorf("Info: %+v", i)
			}
		})
	}
}

func TestConfigRefused(t *testing.T) {
	for _, c := range []Config{{Queues: -1}, {Queues: 65}, {MTU: 67}, {MTU: 65522}, {RxSections: 9}, {TxSections: 3}} {
		if _, err := Open(context.Background(), newFakeHost(), c); !errors.Is(err, nic.ErrInvalid) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
