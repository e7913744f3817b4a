package host_test

import (
	"bytes"
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"hvnet/host"
	"hvnet/link/pcap"
	"hvnet/netvsc/vf"
	"hvnet/netvsp"
	"hvnet/nic"
	"hvnet/vswitch"
)

// What a port's function does is to be seen: at the port, and in captures with the path.
// When it is lost, traffic goes on; when its guest goes, it goes.
func TestVF(t *testing.T) {
	r := newVFRig(t, host.Config{})
	h, mac := r.h, host.PortMAC("a")
	c, done, err := h.Capture("a", pcap.Config{Count: 10})
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	exchange := func(path string) {
		t.Helper()
		r.send(r.down.frame())
		r.down.check(t, "a frame to the guest by "+path)
		r.src.add(r.up.frame())
		r.up.check(t, "a frame from the guest by "+path)
	}
	plug := func(serial uint32) *pairVF {
		t.Helper()
		v := newPair(t, mac, serial)
		if err := errors.Join(h.AddVF("a", serial, v), v.guest.joinTo(soon(t), r.g.NIC)); err != nil {
			t.Fatal(err)
		}
		until(t, "the guest on its function", func() bool { return r.g.NIC.Path() == vf.VF })
		return v
	}
	exchange("synthetic")
	v := plug(5)
	exchange("vf")
	stranger := newFlow(outside, nic.MAC{2, 0, 0, 0, 0, 9})
	v.guest.WriteFrames([]nic.Frame{{Head: stranger.frame()}}) // not its address
	exchange("vf")
	info := h.Ports()[0]
	if s, p := info.Guest.VF.String(), info.Switch.Path; s != "VF 5 in use" || p == nil || !p.Used || p.OutFrames != 2 || p.InFrames != 2 {
		t.Errorf("%s, %+v", s, p)
	}
	if n := info.Switch.Dropped[vswitch.DropForged]; n != 1 {
		t.Errorf("%d forged frames", n)
	}
	if err := h.AddVF("a", 6, newPair(t, mac, 6)); !errors.Is(err, netvsp.ErrVF) {
		t.Errorf("a second one: %v", err)
	}
	if err := h.LoseVF("a"); err != nil {
		t.Error(err)
	}
	await(t, v.guest.done(), "the guest off its function")
	exchange("synthetic")
	for _, f := range []func() error{
		func() error { return h.LoseVF("a") },
		func() error { return h.RemoveVF(t.Context(), "a") },
		func() error { return h.FlapVF(t.Context(), "a") },
	} {
		if err := f(); !errors.Is(err, netvsp.ErrNoVF) || !strings.Contains(err.Error(), "the VF of port a: ") {
			t.Error(err)
		}
	}
	v = plug(7)
	exchange("vf")
	var file bytes.Buffer
	if err := c.Write(t.Context(), &file); err != nil {
		t.Fatal(err)
	}
	if v, s := bytes.Count(file.Bytes(), []byte("path vf")), bytes.Count(file.Bytes(), []byte("path synthetic")); v < 5 || s < 4 {
		t.Errorf("%d frames captured on the function, %d beside it", v, s)
	}
	r.leave()
	await(t, r.served, "the end of Serve")
	if !v.closed.Load() {
		t.Error("the function outlives its guest")
	}
	if err := h.AddVF("a", 8, newPair(t, mac, 8)); !errors.Is(err, host.ErrNoGuest) {
		t.Errorf("without a guest: %v", err)
	}
}

// until waits for something.
func until(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("waiting for %s", what)
		}
	}
}

// Without SR-IOV at the host there is none, and one that is refused is closed.
func TestNoVF(t *testing.T) {
	h := newHost(t, host.Config{})
	visit(t, h, host.PortConfig{Name: "a"})
	vf := newPair(t, host.PortMAC("a"), 1)
	if err := h.AddVF("a", 1, vf); !errors.Is(err, netvsp.ErrNoSRIOV) || !vf.closed.Load() {
		t.Errorf("%v, closed %v", err, vf.closed.Load())
	}
}
