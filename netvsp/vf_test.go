package netvsp

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"hvnet/nvsp"
	"hvnet/rndis"
	"hvnet/vmbus"
)

// A testVF is a virtual function that remembers where frames go.
type testVF struct {
	used atomic.Bool
	uses atomic.Int32
}

func (v *testVF) vf(serial uint32) VF {
	return VF{Serial: serial, Use: func(on bool) {
		if v.used.Swap(on) == on {
			panic("used twice")
		}
		v.uses.Add(1)
	}}
}

func withSRIOV(c *Config) { c.SRIOV = true }

// vfGuest returns a guest that is up and has been told of a virtual function, number 7.
func vfGuest(t *testing.T) (*fakeGuest, *testVF) {
	t.Helper()
	g := newGuest(t, "ws2022", withSRIOV)
	g.caps = nvsp.CapSRIOV
	g.up(nvsp.V61)
	v := new(testVF)
	if err := g.dev.AddVF(v.vf(7)); err != nil {
		t.Fatal(err)
	}
	g.association(true, 7)
	return g, v
}

// notice returns the next message of the host's own.
func (g *fakeGuest) notice() vmbus.Packet {
	g.t.Helper()
	if len(g.heard) > 0 {
		p := g.heard[0]
		g.heard = g.heard[1:]
		return p
	}
	for {
		switch p := g.next(g.ch); p.Type {
		case vmbus.PacketInBand:
			return p
		case vmbus.PacketTransferPages:
			g.keep(p)
		}
	}
}

// association waits to be told of a function, or of its end, and completes that.
func (g *fakeGuest) association(allocated bool, serial uint32) {
	g.t.Helper()
	p := g.notice()
	m, err := nvsp.ParseVFAssociation(p.Payload)
	if err != nil || m.Allocated != allocated || m.Serial != serial || p.TID != 1<<63 || !p.CompletionRequested() {
		g.t.Fatalf("%+v, %v in %+v, want allocated %v, serial %d", m, err, p, allocated, serial)
	}
	g.put(g.ch, vmbus.AppendCompletion(nil, p.TID), nil)
}

// takenBack waits to be told that the path is synthetic.
func (g *fakeGuest) takenBack() {
	g.t.Helper()
	if p := g.notice(); p.TID != 1<<63|1 || hex.EncodeToString(p.Payload) != "8100000000000000" {
		g.t.Fatalf("%+v is not the notice that the path is synthetic", p)
	}
}

// path moves the guest's data path.
func (g *fakeGuest) path(to uint32) {
	g.t.Helper()
	if b := g.ask(nvsp.SwitchDataPath{Path: to}.Append(nil)); len(b) > 0 {
		g.t.Fatalf("SWITCH_DATA_PATH completed with % x", b)
	}
}

// gone returns a context that has ended.
func gone() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// Both have to have SR-IOV, and a version that has the message; and it can be seen what is
// missing.
func TestVFAnnounced(t *testing.T) {
	for _, c := range []struct {
		profile     string
		host, guest bool
		v           nvsp.Version
		told        bool
		state       string
	}{
		{"ws2022", true, true, nvsp.V61, true, "VF 3 announced"},
		{"ws2012", true, true, nvsp.V4, true, "VF 3 announced"},
		{"ws2022", true, false, nvsp.V61, false, "VF 3, but the guest has not asked for SR-IOV"},
		{"ws2022", false, true, nvsp.V61, false, "the guest asks for SR-IOV, which the host does not have"},
		{"ws2022", false, false, nvsp.V61, false, "no SR-IOV"},
		{"ws2008r2", true, true, nvsp.V2, false, "VF 3, but the guest has not asked for SR-IOV"},
	} {
		g := newGuest(t, c.profile, func(cfg *Config) { cfg.SRIOV = c.host })
		if c.guest {
			g.caps = nvsp.CapSRIOV
		}
		err := g.dev.AddVF(new(testVF).vf(3))
		if errors.Is(err, ErrNoSRIOV) == c.host || (err == nil) != c.host {
			t.Errorf("%+v: %v", c, err)
		}
		if err := g.dev.AddVF(new(testVF).vf(4)); c.host && !errors.Is(err, ErrVF) {
			t.Errorf("%+v: a second function: %v", c, err)
		}
		g.up(c.v)
		if c.told && !g.toldBy(c.v, true) || !c.told && g.toldBy(c.v, false) {
			t.Errorf("%+v: told %v", c, !c.told)
		}
		info := g.dev.Info().VF
		if info.String() != c.state || info.Announced != c.told || info.Host != c.host || info.Present != c.host {
			t.Errorf("%+v: %q, %+v", c, info, info)
		}
		if f := g.dev.Info().Faults; f != 0 {
			t.Errorf("%+v: %d faults", c, f)
		}
	}
}

// toldBy looks in what the device has sent for the association of function 3, whose bytes
// are as long as all messages of the version; wait says that it must come.
func (g *fakeGuest) toldBy(v nvsp.Version, wait bool) bool {
	g.t.Helper()
	want := append([]byte{0x80, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0}, make([]byte, v.Size()-12)...)
	if wait {
		p := g.notice()
		return bytes.HasPrefix(p.Payload, want) && len(p.Payload) < len(want)+8 && p.TID == 1<<63
	}
	g.filter(0x0d) // is answered after it
	return slices.ContainsFunc(g.heard, func(p vmbus.Packet) bool { return p.TID == 1<<63 })
}

func TestVFSwitch(t *testing.T) {
	g, v := vfGuest(t)
	for i, to := range []uint32{1, 1, 0, 0, 1} {
		g.path(to)
		if v.used.Load() != (to == 1) {
			t.Errorf("switch %d to %d: used %v when it is completed", i, to, v.used.Load())
		}
	}
	if info := g.dev.Info(); info.VF.Switches != 3 || !info.VF.Active || info.VF.String() != "VF 7 in use" || info.Faults != 0 {
		t.Errorf("%+v, %d faults", info.VF, info.Faults)
	}
}

// What makes no sense is completed, counted and changes nothing.
func TestVFRefused(t *testing.T) {
	g := newGuest(t, "ws2022", withSRIOV)
	g.caps = nvsp.CapSRIOV
	g.up(nvsp.V61)
	faults := func(want uint64, what string) {
		t.Helper()
		if n := g.dev.Info().Faults; n != want {
			t.Errorf("%s: %d faults, want %d", what, n, want)
		}
	}
	g.path(0)
	faults(0, "to where it is")
	g.path(1)
	faults(1, "to a function that there is not")
	v := new(testVF)
	g.dev.AddVF(v.vf(1))
	g.path(2)
	faults(2, "to a path that there is not")
	g.put(g.ch, vmbus.AppendCompletion(nil, 1<<63), nil)
	g.settle()
	faults(2, "the completion that was asked for")
	g.put(g.ch, vmbus.AppendCompletion(nil, 1<<63), nil)
	g.settle()
	faults(3, "and another one")
	if err := g.dev.LoseVF(); err != nil {
		t.Error(err)
	}
	g.path(1) // it may not have heard of that yet
	faults(3, "to a function that was lost")
	if info := g.dev.Info().VF; info.Refused != 2 || info.Switches != 0 || v.uses.Load() != 0 {
		t.Errorf("%+v", info)
	}
	if err := g.dev.LoseVF(); !errors.Is(err, ErrNoVF) {
		t.Errorf("lost twice: %v", err)
	}
	if _, err := g.dev.RemoveVF(gone()); !errors.Is(err, ErrNoVF) {
		t.Errorf("removed after it was lost: %v", err)
	}
}

// An announced removal waits for the guest.
func TestVFRemove(t *testing.T) {
	g, v := vfGuest(t)
	g.path(1)
	type result struct {
		moved bool
		err   error
	}
	done := make(chan result, 1)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	go func() {
		moved, err := g.dev.RemoveVF(ctx)
		done <- result{moved, err}
	}()
	g.association(false, 7)
	if !v.used.Load() {
		t.Error("the path was taken back before the guest has confirmed that")
	}
	g.path(1) // it comes too late, and changes nothing
	if err := g.dev.AddVF(new(testVF).vf(8)); !errors.Is(err, ErrVF) {
		t.Errorf("added while one is being removed: %v", err)
	}
	if err := g.dev.LoseVF(); !errors.Is(err, ErrNoVF) {
		t.Errorf("lost while it is being removed: %v", err)
	}
	g.path(0)
	if r := <-done; !r.moved || r.err != nil || v.used.Load() {
		t.Errorf("%+v, used %v", r, v.used.Load())
	}
	if info := g.dev.Info(); info.VF.Present || info.VF.Refused != 1 || info.Faults != 0 {
		t.Errorf("%+v, %d faults", info.VF, info.Faults)
	}
	// And again with another one.
	g.dev.AddVF(v.vf(8))
	g.association(true, 8)
	g.path(1)
	if !v.used.Load() {
		t.Error("the next function is not used")
	}
}

// A guest that does not move is moved; so is one whose function is lost, after the fact.
func TestVFTakenBack(t *testing.T) {
	g, v := vfGuest(t)
	g.path(1)
	if moved, err := g.dev.RemoveVF(gone()); moved || err != nil || v.used.Load() {
		t.Errorf("moved %v, %v, used %v", moved, err, v.used.Load())
	}
	g.association(false, 7)
	g.takenBack()
	g.dev.AddVF(v.vf(7))
	g.association(true, 7)
	g.path(1)
	if err := g.dev.LoseVF(); err != nil || v.used.Load() {
		t.Errorf("%v, used %v", err, v.used.Load())
	}
	g.takenBack()
	g.association(false, 7)
	g.path(0)
	// A guest that does not use it needs not be moved.
	g.dev.AddVF(v.vf(9))
	g.association(true, 9)
	if moved, err := g.dev.RemoveVF(gone()); !moved || err != nil {
		t.Errorf("moved %v, %v", moved, err)
	}
	g.association(false, 9)
	if n := g.dev.Info().Faults; n != 0 {
		t.Errorf("%d faults", n)
	}
}

// What the guest knows dies with HALT, and with its channel.
func TestVFSession(t *testing.T) {
	g, v := vfGuest(t)
	g.path(1)
	g.control(rndis.Halt{}.Append(nil))
	g.settle()
	if v.used.Load() || g.dev.Info().VF.Announced {
		t.Error("after HALT the function is still in use")
	}
	g.request++
	g.control(rndis.Initialize{RequestID: g.request, Major: 1, MaxTransfer: 0x4000}.Append(nil))
	g.association(true, 7)
	g.path(1)
	g.backend.Close(g.host)
	if info := g.dev.Info().VF; v.used.Load() || info.Announced || info.Active || !info.Present {
		t.Errorf("after the channel was closed: %+v", info)
	}
	g.open()
	g.backlog = nil
	g.up(nvsp.V61)
	g.association(true, 7)
	g.path(1)

	// A guest that goes while its host waits for it has let go.
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	done := make(chan bool, 1)
	go func() {
		moved, _ := g.dev.RemoveVF(ctx)
		done <- moved
	}()
	g.association(false, 7)
	g.backend.Close(g.host)
	if !<-done || v.used.Load() {
		t.Error("the guest is gone and still uses its function")
	}
}

// TestVFEvents is a model of events in any order: the guest's path is the function only if
// it was announced, and the guest asked for it since.
func TestVFEvents(t *testing.T) {
	events := 1000
	if testing.Short() {
		events = 200
	}
	g, v := vfGuest(t)
	r := rand.New(rand.NewPCG(12, 8))
	present, used := true, false
	for i := range events {
		var what string
		switch r.IntN(8) {
		case 0:
			what = "add"
			if err := g.dev.AddVF(v.vf(7)); (err == nil) == present {
				t.Fatalf("event %d: add: %v", i, err)
			}
			present = true
		case 1:
			what = "remove"
			if moved, err := g.dev.RemoveVF(gone()); (err == nil) != present || err == nil && moved == used {
				t.Fatalf("event %d: remove: moved %v, %v", i, moved, err)
			}
			present, used = false, false
		case 2:
			what = "lose"
			if err := g.dev.LoseVF(); (err == nil) != present {
				t.Fatalf("event %d: lose: %v", i, err)
			}
			present, used = false, false
		case 3:
			what = "the channel closed and opened"
			g.backend.Close(g.host)
			g.open()
			g.backlog = nil
			g.up(nvsp.V61)
			used = false
		case 4:
			what = "to the synthetic path"
			g.path(0)
			used = false
		default:
			what = "to the function"
			g.path(1)
			used = present
		}
		g.settle()
		if info := g.dev.Info().VF; v.used.Load() != used || info.Active != used || info.Present != present || info.Announced != present {
			t.Fatalf("event %d: %s: used %v, %+v, want used %v, present %v", i, what, v.used.Load(), info, used, present)
		}
	}
}

// FuzzSwitchDataPath: any bytes after the type move the path to one of the two, or are a
// fault.
func FuzzSwitchDataPath(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0})
	f.Add([]byte{0, 0, 0, 0, 9})
	f.Add([]byte{0, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		c := &control{version: nvsp.V61}
		e := c.handle(append([]byte{0x81, 0, 0, 0}, b...))
		want := opNone
		switch {
		case len(b) < 4 || b[0] > 1 || strings.Trim(string(b[1:4]), "\x00") != "":
		case b[0] == 1:
			want = opSwitchToVF
		default:
			want = opSwitchToSynthetic
		}
		if e.op != want || (e.fault == nil) != (want != opNone) || e.reply != nil {
			t.Errorf("%x: %+v, want %d", b, e, want)
		}
	})
}

// Frames for the guest are not lost because the host has something to say meanwhile.
func TestVFBesideFrames(t *testing.T) {
	g, v := vfGuest(t)
	for i := range 50 {
		if err := g.dev.LoseVF(); err != nil {
			t.Fatal(err)
		}
		g.dev.WriteFrames(frames(ether(guestMAC, otherMAC, 100, 1)))
		g.dev.AddVF(v.vf(7))
		g.dev.WriteFrames(frames(ether(guestMAC, otherMAC, 100, 2)))
		for said, got := 0, 0; said < 2 || got < 2; {
			switch p := g.next(g.ch); p.Type {
			case vmbus.PacketInBand:
				said++
			case vmbus.PacketTransferPages:
				got += len(g.received(p))
				g.complete(g.ch, p.TID)
			}
			if n := g.dev.Info().RxDropped; len(n) > 0 {
				t.Fatalf("round %d: dropped %v", i, n)
			}
		}
	}
}

// TestVFBesideSubChannels: a function may come and go while the guest opens sub-channels. It
// is for the race detector.
func TestVFBesideSubChannels(t *testing.T) {
	const channels = 7
	g, v := vfGuest(t)
	g.ask(nvsp.SubChannelRequest{Op: nvsp.SubChannelAllocate, Count: channels}.Append(nil))
	done := make(chan error)
	go func() {
		var errs []error
		for range channels {
			errs = append(errs, g.dev.LoseVF(), g.dev.AddVF(v.vf(7)))
		}
		done <- errors.Join(errs...)
	}()
	for i := range channels {
		_, host := g.pair(i + 1)
		if err := g.backend.Open(host); err != nil {
			t.Error(err)
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
