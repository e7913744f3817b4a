package ivshmem

import (
	"encoding/json"
	"errors"
	"os"
	"sync/atomic"
	"testing"

	"hvnet/hv"
	"hvnet/hv/internal/boundary"
)

// A host goes, and the next one on its socket has the guest, with all that the guest
// asked meanwhile.
func TestTakeOver(t *testing.T) {
	l, socket, ram := listen(t, 2)
	m := plug(t, socket, ram, 2)
	m.stays.Store(true)
	g := accept(t, l)
	served := make(chan error, 1)
	go func() { served <- g.Serve(boundary.Funcs{}) }()
	m.boot(t)
	life := atomic.LoadUint32(u32(m.window, offHostLife))
	g.Close()
	boundary.Await(t, served, "Serve to return")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}

	m.post(1, kindReadMSR, msrSVersion, 0, 0) // to nobody
	next, err := Listen(socket, Config{RAM: ram, VPs: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { next.Close() })
	boundary.Serve(t, accept(t, next), boundary.Funcs{})
	for vp := range 2 {
		if err := m.Wait(vp); err != nil {
			t.Fatal(err)
		}
	}
	if now := atomic.LoadUint32(u32(m.window, offHostLife)); now != life+1 {
		t.Errorf("life %d after %d", now, life)
	}
	slot := m.window[offExits+exitSize:]
	for atomic.LoadUint32(u32(slot, exitState)) != stateDone {
		if m.left() {
			t.Fatal("the guest is gone")
		}
	}
	if got := atomic.LoadUint64(u64(slot, exitResult)); got != synicVersion {
		t.Errorf("the exit in between was answered with %d", got)
	}
	if got := m.readMSR(0, msrSControl); got != 0 {
		t.Errorf("SCONTROL %#x: the new host knows nothing", got)
	}
	m.boot(t)
	if err := m.PostMessage(1, nil); !errors.Is(err, hv.StatusInvalidConnectionID) {
		t.Errorf("post: %v", err)
	}
}

// A note that fits nothing is no more than a nuisance.
func TestStaleNote(t *testing.T) {
	l, socket, ram := listen(t, 1)
	plug(t, socket, ram, 1)
	accept(t, l).Close()
	text, err := os.ReadFile(notePath(socket))
	if err != nil {
		t.Fatal(err)
	}
	var good note
	if err := json.Unmarshal(text, &good); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*note){
		"no process":      func(n *note) { n.PID = 1 << 30 },
		"process 0":       func(n *note) { n.PID = 0 },
		"another process": func(n *note) { n.Start++ },
		"another window":  func(n *note) { n.Window++ },
		"another bell":    func(n *note) { n.Bells[0] = "none" },
		"more processors": func(n *note) { n.Bells = append(n.Bells, "1") },
	} {
		bad := good
		bad.Bells = append([]string(nil), good.Bells...)
		spoil(&bad)
		text, _ := json.Marshal(bad)
		if err := os.WriteFile(notePath(socket), text, 0o600); err != nil {
			t.Fatal(err)
		}
		if g, err := l.adopt(); !errors.Is(err, errStale) {
			t.Errorf("%s: %v, %v", name, g, err)
		}
	}
	if err := os.WriteFile(notePath(socket), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := l.adopt(); !errors.Is(err, errStale) {
		t.Errorf("half a note: %v", err)
	}
	os.Remove(notePath(socket))
	if _, err := l.adopt(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no note: %v", err)
	}
}

// FuzzExits has the guest write anything into the exit slots and the bitmap.
func FuzzExits(f *testing.F) {
	f.Add(uint32(kindHypercall), uint64(callPostMessage), uint64(0x5000), []byte{1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 8})
	f.Add(uint32(kindHypercall), uint64(callSignalEvent|callFast), uint64(0x2001), []byte{})
	f.Add(uint32(kindWriteMSR), uint64(msrSIMP), uint64(0x5001), []byte{1})
	f.Add(uint32(kindWriteMSR), uint64(msrEOM), uint64(0), []byte{})
	f.Add(uint32(kindReadMSR), ^uint64(0), uint64(0), []byte{})
	memory := hv.NewMemory(hv.Limits{})
	ram, err := newWindow(1, 0) // any pages will do
	if err != nil {
		f.Fatal(err)
	}
	if err := memory.Add(hv.PageSize, ram.fd, 0, windowSize); err != nil {
		f.Fatal(err)
	}
	g := bareGuest(memory, 2, processEnd{})
	if err := g.make(2, windowSize); err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { ram.close() })
	f.Fuzz(func(t *testing.T, kind uint32, a0, a1 uint64, page []byte) {
		copy(ram.Bytes[0x4000:0x5000], page)
		g.writeMSR(1, msrSControl, msrEnable)
		g.PostMessage(1, page[:min(len(page), hv.MaxPayload)])
		for vp := range 2 {
			slot := g.window.Bytes[offExits+vp*exitSize:]
			atomic.StoreUint32(u32(slot, exitKind), kind)
			atomic.StoreUint64(u64(slot, exitA0), a0)
			atomic.StoreUint64(u64(slot, exitA1), a1)
			atomic.StoreUint32(u32(slot, exitState), statePosted)
		}
		g.serveExits(boundary.Funcs{OnMessage: func(_ uint32, m *hv.Message) hv.Status {
			if m.Size > hv.MaxPayload {
				t.Errorf("a message of %d bytes", m.Size)
			}
			return hv.StatusSuccess
		}})
		for vp := range 2 {
			if state := atomic.LoadUint32(u32(g.window.Bytes, offExits+vp*exitSize)); state != stateDone {
				t.Errorf("the exit of VP %d is in state %d", vp, state)
			}
		}
	})
}
